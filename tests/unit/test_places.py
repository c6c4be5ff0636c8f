"""Directories and pid files: whether they would do, asked without making them, and made."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.places import check_directory, check_pidfile, locked, make_directory, owner_of


def what_is_made(path: Path) -> str | None:
    """Why a directory is not made; None if it is."""
    try:
        make_directory(str(path))
    except OperatorError as error:
        return str(error).removeprefix(f"state_dir {path}: ")
    return None


def what_is_checked(path: Path) -> str | None:
    try:
        check_directory(str(path))
    except OperatorError as error:
        return str(error)
    return None


def what_is_locked(path: Path) -> str | None:
    try:
        with locked(str(path)):
            return None
    except OperatorError as error:
        return str(error).removeprefix(f"pidfile {path}: ")


def what_is_checked_of_a_file(path: Path) -> str | None:
    try:
        check_pidfile(str(path))
    except OperatorError as error:
        return str(error)
    return None


def directories(root: Path) -> list[Path]:
    """All sorts of them, and what is none."""
    found = [root / name for name in ("none", "good", "open", "sticky", "link", "file", "a/b")]
    for path in found[1:4]:
        path.mkdir()
    (root / "open").chmod(0o777)
    (root / "sticky").chmod(0o1775)
    (root / "link").symlink_to(root / "good")
    (root / "file").touch()
    return [*found, root / "file" / "x"]


def test_a_check_of_a_directory_says_what_making_it_says(tmp_path: Path) -> None:
    refused = 0
    for path in directories(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        checked = what_is_checked(path)
        assert sorted(tmp_path.rglob("*")) == before, "it has made something"
        assert checked == what_is_made(path), path
        refused += checked is not None
    assert refused == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_check_sees_whose_directory_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    os.chown(path, 4711, -1)
    assert what_is_checked(path) == what_is_made(path) != None  # noqa: E711


def files(root: Path) -> list[Path]:
    names = ("none", "good", "link", "hard", "fifo", "directory", "no/x", "open/x", "socket")
    found = [root / name for name in names]
    (root / "good").touch(0o600)
    (root / "link").symlink_to(root / "good")
    (root / "target").touch()
    (root / "hard").hardlink_to(root / "target")
    os.mkfifo(root / "fifo")
    (root / "directory").mkdir()
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    return found


def test_a_check_of_a_pid_file_says_what_locking_it_says(short_path: Path) -> None:
    refused = 0
    for path in files(short_path):
        before = sorted(short_path.rglob("*"))
        checked = what_is_checked_of_a_file(path)
        assert sorted(short_path.rglob("*")) == before
        made = what_is_locked(path)
        assert (checked is None) == (made is None), (path, checked, made)
        if path.name != "socket":  # for which open(2) has a word of its own
            assert checked == made
        refused += checked is not None
    assert refused == 7


def test_who_has_a_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "xbbd.pid"
    assert owner_of(str(path)) is None
    path.write_text("77\n")
    assert owner_of(str(path)) is None
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert owner_of(str(path)) == "77"
        path.write_text("")
        assert owner_of(str(path)) == "unknown"
    assert owner_of(str(path)) is None
    with locked(str(path)):
        pass


def test_a_state_directory_is_made_without_parents(tmp_path: Path) -> None:
    make_directory(str(tmp_path / "run"))
    make_directory(str(tmp_path / "run"))
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o711
    with pytest.raises(OperatorError, match=r"^state_dir .*/a/b: No such file or directory$"):
        make_directory(str(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_a_directory_where_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    refusal = f"others may write there \\(mode {mode:04o}\\)"
    with pytest.raises(OperatorError, match=refusal):
        make_directory(str(path))
    with pytest.raises(OperatorError, match=refusal), locked(str(path / "xbbd.pid")):
        pass
    assert list(path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    os.chown(path, 4711, -1)
    with pytest.raises(OperatorError, match="belongs to user 4711"):
        make_directory(str(path))
    with pytest.raises(OperatorError, match="4711"), locked(str(path / "xbbd.pid")):
        pass


def test_links_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "run").symlink_to(other)
    with pytest.raises(OperatorError, match=r"^state_dir "):
        make_directory(str(tmp_path / "run"))
    symbolic, hard, fifo = (tmp_path / name for name in ("symbolic", "hard", "fifo"))
    symbolic.symlink_to(victim)
    hard.hardlink_to(victim)
    os.mkfifo(fifo)
    for path in (symbolic, hard, fifo):
        with pytest.raises(OperatorError, match=f"^pidfile {path}: "), locked(str(path)):
            pass
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 == 0o644
