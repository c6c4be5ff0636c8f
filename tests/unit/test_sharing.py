"""Who may use a disk at the same time."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xbbd_bsd.block.sharing import Owner, Sharing
from xbbd_bsd.errors import OperatorError


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[int]]:
    """One file by two paths, and another."""
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "same")
    (tmp_path / "b").touch()
    found = [os.open(tmp_path / name, os.O_RDWR) for name in ("a", "same", "b")]
    yield found
    for fd in found:
        os.close(fd)


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [("r", "r", True), ("r", "w", False), ("w", "r", False), ("w", "w", False)],
)
def test_a_writer_wants_it_alone(disks: list[int], first: str, second: str, allowed: bool) -> None:
    sharing = Sharing()
    sharing.claim(disks[0], "one", writable=first == "w", shared=False)
    sharing.claim(disks[2], "two", writable=True, shared=False)
    if allowed:
        sharing.claim(disks[1], "two", writable=second == "w", shared=False)
        return
    how = "writable" if first == "w" else "read-only"
    with pytest.raises(OperatorError, match=f"it is in use by one, {how}; if that is meant"):
        sharing.claim(disks[1], "two", writable=second == "w", shared=False)
    sharing.claim(disks[1], "two", writable=second == "w", shared=True)
    with pytest.raises(OperatorError, match="in use by"):
        sharing.claim(disks[1], "three", writable=True, shared=False)


def test_what_was_released_is_free(disks: list[int]) -> None:
    sharing = Sharing()
    for _ in range(2):
        sharing.claim(disks[0], "one", writable=True, shared=False)
        sharing.release("one")
        sharing.release("one")
    sharing.claim(disks[0], "two", writable=True, shared=False)


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
    disks: list[int], first: Owner, second: Owner, same: bool
) -> None:
    sharing = Sharing()
    assert not sharing.claim(disks[0], "one", writable=True, shared=False, owner=first)
    if same:
        assert sharing.claim(disks[1], "two", writable=True, shared=False, owner=second)
    else:
        with pytest.raises(OperatorError, match="in use by one"):
            sharing.claim(disks[1], "two", writable=True, shared=False, owner=second)


def test_devices_are_told_by_their_number() -> None:
    sharing = Sharing()
    first, second = (os.open("/dev/null", os.O_RDWR) for _ in range(2))
    sharing.claim(first, "one", writable=True, shared=False)
    with pytest.raises(OperatorError, match="in use by one"):
        sharing.claim(second, "two", writable=True, shared=False)
    os.close(first)
    os.close(second)
