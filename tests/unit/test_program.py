"""How programs end: real processes, and readers of theirs that leave at several moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.unit.test_xbbctl import Running
from tests.waiting import GIVE_UP
from xbbd_bsd import daemon as xbbd
from xbbd_bsd import program, xbbctl, xbbstat
from xbbd_bsd.errors import HostError, Refused
from xbbd_bsd.sim import __main__ as sim

# With buffers, as programs have them unless somebody says otherwise.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

PROGRAM = """
import sys
from xbbd_bsd import daemon as xbbd
from xbbd_bsd import program, xbbctl, xbbstat
from xbbd_bsd.errors import HostError
def body():
{body}
sys.exit(program.run("prog", body))
"""


def source_with(body: str) -> str:
    """A program of ours with such a body."""
    return PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))


def run(
    body: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run it with these streams."""
    return subprocess.run(
        [sys.executable, "-c", source_with(body)],
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, timeout=GIVE_UP,
        env=BUFFERED,
    )  # fmt: skip


@pytest.fixture
def nobody() -> Iterator[int]:
    """A pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def daemon(short_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Running]:
    """A control socket with devices that are none."""
    running = Running(short_path, capsys)
    yield running
    running.close()


@pytest.mark.parametrize(
    "body",
    [
        "print('short')\nreturn 0",
        "print('long' * 99999)\nreturn 0",
        "print('flushed', flush=True)\nreturn 0",
        "print('leaving')\nraise SystemExit(0)",
    ],
)
def test_a_reader_that_is_gone(nobody: int, body: str) -> None:
    done = run(body, stdout=nobody)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_reader_that_is_gone_hides_no_error(nobody: int) -> None:
    done = run("print('some')\nraise HostError('the disk is gone')", stdout=nobody)
    assert (done.returncode, done.stderr) == (1, "prog: the disk is gone\n")
    assert run("print('some')\nreturn 3", stdout=nobody).returncode == 3


def test_nobody_reads_errors(nobody: int) -> None:
    done = run("print('out')\nraise HostError('x' * 99999)", stderr=nobody)
    assert (done.returncode, done.stdout) == (1, "out\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_an_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run("print('some')\nreturn 0", stdout=full)
    finally:
        os.close(full)
    assert (done.returncode, done.stderr) == (1, "prog: No space left on device\n")


def test_closed_streams_are_no_place_for_a_disk(tmp_path: Path) -> None:
    """The first file that a program opens would become its standard error."""
    body = f"import os\nfile = os.open({str(tmp_path / 'disk')!r}, os.O_RDWR | os.O_CREAT)\n"
    body += "print('some')\nreturn 40 + file"
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, source_with(body)],
        timeout=GIVE_UP,
    )
    assert done.returncode >= 43


def test_an_error_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise HostError("/tank/\x1b]0;x\x07\nä: gone")

    assert program.run("prog", body) == 1
    assert capsys.readouterr().err == "prog: /tank/\\x1b]0;x\\x07\\x0aä: gone\n"


def test_several_things_that_are_wrong_have_a_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def body() -> int:
        raise Refused(["one\n", "two"])

    assert program.run("prog", body) == 1
    assert capsys.readouterr().err == "prog: one\\x0a\nprog: two\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["xbbd_bsd.xbbctl", "--help"],
        ["xbbd_bsd.xbbctl", "--version"],
        ["xbbd_bsd.xbbctl", "--state-dir", "DIR", "-a"],
        ["xbbd_bsd.xbbctl", "--state-dir", "DIR", "-j", "dev.xbbd.0"],
        ["xbbd_bsd.xbbstat", "--help"],
        ["xbbd_bsd.daemon", "--help"],
        ["xbbd_bsd.sim", "--help"],
    ],
    ids=" ".join,
)
def test_all_programs_end_quietly(nobody: int, daemon: Running, arguments: list[str]) -> None:
    words = [str(daemon.directory) if word == "DIR" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        stdout=nobody, stderr=subprocess.PIPE, timeout=GIVE_UP, env=BUFFERED,
    )  # fmt: skip
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (xbbctl.main, ["--\x1b[2k"]),
        (xbbctl.main, ["health", "--\x1b[2k"]),
        (xbbd.main, ["--\x1b[2k"]),
        (xbbstat.main, ["\x1b[2k"]),
        (xbbstat.main, ["-t", "\x1b[2k"]),
        (sim.main, ["demo", "--\x1b[2k"]),
    ],
)
def test_options_that_are_none_are_shown_in_print(
    main: Callable[[Sequence[str]], int], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "\\x1b[2k" in printed
    assert printed.isprintable()
