"""The file of the configuration: there or not, and what is in it."""

import os
from pathlib import Path

import pytest

from xbbd_bsd import conffile
from xbbd_bsd.conffile import LARGEST, read_file
from xbbd_bsd.conftext import Reading
from xbbd_bsd.errors import OperatorError


def refusal(path: Path) -> str:
    with pytest.raises(OperatorError) as raised:
        read_file(str(path))
    assert "[Errno" not in str(raised.value)
    return str(raised.value)


def test_the_default_file_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conffile, "CONFIG_FILE", str(tmp_path / "none"))
    assert read_file(None) == Reading()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"{tmp_path}/none: no such file"


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    """A daemon that serves reads its file too."""
    path = tmp_path / "f"
    os.mkfifo(path)
    assert refusal(path) == f"{path}: a pipe, but it must be there to be read again"


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"[disk]\n# caf\xe9\n")
    assert refusal(path) == f"{path}:2: is no text in UTF-8 (octet 0xe9)"


def test_what_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"#\n" * (LARGEST // 2))
    assert read_file(str(path)).faults == ()
    path.write_bytes(b"#\n" * (LARGEST // 2) + b"#")
    assert refusal(path) == f"{path}: larger than {LARGEST} bytes, no configuration is"
