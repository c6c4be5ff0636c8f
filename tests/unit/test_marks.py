"""Disks that have lost something: kept in files, found by any link to them, and cleared."""

import errno
import os
from pathlib import Path

import pytest

from xbbd_bsd.block.disk import key_of, open_disk
from xbbd_bsd.block.marks import MarkedError, Marks
from xbbd_bsd.host.choice import platform
from xbbd_bsd.native import SegmentMedium, State


class Disks:
    """A directory of marks, one of disks, and segments of devices that had them."""

    def __init__(self, directory: Path) -> None:
        self.run, self.directory = directory / "run", directory
        self.run.mkdir()
        self.marks = Marks(str(self.run))

    def disk(self, name: str) -> Path:
        path = self.directory / name
        path.write_bytes(bytes(4096))
        return path

    def segment(self, disk: Path, failure: int, unit: int = 0) -> Path:
        """What a device of that disk leaves."""
        path = self.run / f"xbbd.{unit}"
        state = State.create(str(path), table_entries=32)
        state.medium = SegmentMedium(key_of(disk.stat()), str(disk), "vm1")
        state._state.lost_errno = failure
        state.close()
        return path

    def check(self, path: Path, marks: Marks | None = None) -> None:
        opened = open_disk(os.fsencode(path), read_only=True, prepare=platform().prepare_disk)
        try:
            (marks or self.marks).check(opened)
        finally:
            opened.close()

    def clear(self, path: Path) -> bool:
        return self.marks.clear(str(path), key_of(path.stat()))


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


def test_a_failure_outlives_everything_but_an_operators_word(disks: Disks) -> None:
    disk, other = disks.disk("vm1.img"), disks.disk("vm2.img")
    mark = disks.marks.take_over(str(disks.segment(disk, errno.ENOSPC)))
    assert mark is not None
    assert (mark.path, mark.errno, mark.guest) == (str(disk), errno.ENOSPC, "vm1")
    assert disks.marks.take_over(str(disks.run / "xbbd.0")) is None  # known already
    disks.check(other)
    again = disk.with_name("another name")
    os.link(disk, again)
    for path in (disk, again):
        text = rf"a flush failed \(No space left on device\) at .* under guest vm1.* clear {disk}"
        with pytest.raises(MarkedError, match=text) as error:
            disks.check(path, Marks(str(disks.run)))  # the next daemon
        assert error.value.passes  # a guest that comes back waits
        assert error.value.errno == errno.EIO
    assert not disks.clear(other)
    assert not disks.marks.clear(str(again)), "not by a path that it did not have"
    assert disks.clear(again)
    disks.check(disk)
    assert not disks.clear(disk)
    assert os.listdir(disks.run) == ["xbbd.0"]


def test_a_disk_that_is_not_there_any_more_is_cleared_by_its_old_path(disks: Disks) -> None:
    disk = disks.disk("vm1.img")
    disks.marks.take_over(str(disks.segment(disk, errno.EIO)))
    disk.unlink()
    assert disks.marks.clear(str(disk))
    assert os.listdir(disks.run) == ["xbbd.0"]


@pytest.mark.parametrize("failure", [0, errno.ENXIO, errno.ENODEV])
def test_what_leaves_no_mark(disks: Disks, failure: int) -> None:
    disk = disks.disk("vm1.img")
    assert disks.marks.take_over(str(disks.segment(disk, failure))) is None
    disks.check(disk)


def test_segments_that_are_none(disks: Disks) -> None:
    disk = disks.disk("vm1.img")
    path = disks.segment(disk, errno.EIO)
    os.truncate(path, 100)
    assert disks.marks.take_over(str(path)) is None
    assert disks.marks.take_over(str(disks.run / "none")) is None
    State.create(str(path)).close()  # of a device that has never opened a disk
    assert disks.marks.take_over(str(path)) is None


def test_without_room_it_is_kept_as_long_as_we_live(disks: Disks, tmp_path: Path) -> None:
    disk = disks.disk("vm1.img")
    segment = disks.segment(disk, errno.EIO).rename(tmp_path / "segment")
    disks.run.rmdir()
    assert disks.marks.take_over(str(segment)) is not None
    with pytest.raises(MarkedError):
        disks.check(disk)
    assert disks.clear(disk)
    disks.check(disk)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"path": 1}', b"\xff" * 100])
def test_a_damaged_mark_counts(disks: Disks, content: bytes) -> None:
    disk = disks.disk("vm1.img")
    disks.marks.take_over(str(disks.segment(disk, errno.EIO)))
    (name,) = (name for name in os.listdir(disks.run) if name.startswith("lost."))
    (disks.run / name).write_bytes(content)
    with pytest.raises(MarkedError):
        disks.check(disk)
    assert disks.clear(disk)
    disks.check(disk)


def test_paths_that_are_no_text_and_too_long(disks: Disks) -> None:
    disk = disks.disk(os.fsdecode(b"vm\xff.img"))
    mark = disks.marks.take_over(str(disks.segment(disk, errno.EIO)))
    assert mark is not None
    assert mark.path == str(disk)
    assert disks.clear(disk)
    state = State.create(str(disks.run / "xbbd.1"))
    state.medium = SegmentMedium(("device", 2**40, 0), "/" + "x" * 2000, "g" * 200)
    assert state.medium == SegmentMedium(("device", 2**40, 0), "/" + "x" * 1022, "g" * 63)
    state.close()


def test_all_that_are_kept_the_oldest_first(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disks.marks.all() == []
    names = ["b", "a"]
    for unit, name in enumerate(names):
        monkeypatch.setattr("xbbd_bsd.block.marks.time.time", lambda unit=unit: 100.0 + unit)
        disks.marks.take_over(str(disks.segment(disks.disk(name), errno.EIO, unit)))
    assert [Path(mark.path).name for mark in disks.marks.all()] == names
    (disks.run / "lost.0123").write_text("x")
    assert disks.marks.all()[0].path == "PATH"
    disks.clear(disks.directory / "b")
    assert [Path(mark.path).name for mark in disks.marks.all()] == ["PATH", "a"]
