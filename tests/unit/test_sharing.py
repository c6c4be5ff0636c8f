"""Who may use a disk at the same time, and what they hear of each other."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from xbbd_bsd.block.disk import Disk, open_disk
from xbbd_bsd.block.sharing import Owner, Sharing
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host import Medium
from xbbd_bsd.host.choice import platform


class Guest:
    """One that has a disk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[str] = []

    def left(self) -> None:
        self.heard.append("left")

    def distrust(self, errno: int) -> None:
        self.heard.append(f"distrust {errno}")


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[Disk]]:
    """One file by two paths, and another."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(512))
    os.link(tmp_path / "a", tmp_path / "same")
    found = [
        open_disk(os.fsencode(tmp_path / name), read_only=False, prepare=platform().prepare_disk)
        for name in ("a", "same", "b")
    ]
    yield found
    for disk in found:
        disk.close()


def by(disk: Disk, mode: str) -> Disk:
    return replace(disk, read_only=mode == "r")


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [("r", "r", True), ("r", "w", False), ("w", "r", False), ("w", "w", False)],
)
def test_a_writer_wants_it_alone(disks: list[Disk], first: str, second: str, allowed: bool) -> None:
    sharing, one, two = Sharing(), Guest("one"), Guest("two")
    sharing.claim(by(disks[0], first), one, shared=False)
    sharing.claim(disks[2], two, shared=False)
    if allowed:
        sharing.claim(by(disks[1], second), two, shared=False)
        return
    how = "writable" if first == "w" else "read-only"
    with pytest.raises(OperatorError, match=f"it is in use by one, {how}; if that is meant"):
        sharing.claim(by(disks[1], second), two, shared=False)
    sharing.claim(by(disks[1], second), two, shared=True)
    with pytest.raises(OperatorError, match="in use by"):
        sharing.claim(disks[1], Guest("three"), shared=False)


def test_what_was_released_is_free(disks: list[Disk]) -> None:
    sharing, one = Sharing(), Guest("one")
    for _ in range(2):
        sharing.claim(disks[0], one, shared=False)
        sharing.release(one)
        sharing.release(one)
    sharing.claim(disks[0], Guest("two"), shared=False)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (Owner(1, "/vm/a"), Owner(2, "/vm/a"), True),
        (Owner(1, "/vm/a"), Owner(1, "/vm/a"), False),  # one domain has it twice
        (Owner(1, "/vm/a"), Owner(2, "/vm/b"), False),
        (Owner(1, ""), Owner(2, ""), False),  # nobody knows
    ],
)
def test_a_machine_may_have_two_domains(
    disks: list[Disk], first: Owner, second: Owner, same: bool
) -> None:
    sharing = Sharing()
    assert not sharing.claim(disks[0], Guest("one"), shared=False, owner=first)
    if same:
        assert sharing.claim(disks[1], Guest("two"), shared=False, owner=second)
    else:
        with pytest.raises(OperatorError, match="in use by one"):
            sharing.claim(disks[1], Guest("two"), shared=False, owner=second)


def test_devices_are_told_by_their_number(disks: list[Disk]) -> None:
    number = os.makedev(8, 16)
    first, second = (
        replace(
            disk,
            geometry=replace(disk.geometry, medium=Medium.DEVICE),
            key=("device", number, 0),
            number=number,
        )
        for disk in (disks[0], disks[2])
    )
    sharing = Sharing()
    sharing.claim(first, Guest("one"), shared=False)
    with pytest.raises(OperatorError, match="in use by one"):
        sharing.claim(second, Guest("two"), shared=False)
    assert (first.device, disks[0].device) == ("8:10", "")


def test_those_who_share_a_disk_hear_of_each_other(disks: list[Disk]) -> None:
    """And nobody else does."""
    sharing = Sharing()
    one, two, other = guests = [Guest(name) for name in ("one", "two", "other")]
    for disk, guest in zip(disks, guests, strict=True):
        sharing.claim(disk, guest, shared=True)
    sharing.distrust(one, 5)
    sharing.release(one)
    sharing.release(other)
    assert [guest.heard for guest in guests] == [[], ["distrust 5", "left"], []]
    sharing.release(two)
