"""Which devices guests' processes are wanted for: disks and cards of a guest have one in common."""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN
from typing import Any

import pytest

from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.claims import Claims
from xbbd_bsd.native.addition import CARDS, DISKS

DISK, CARD = DISKS.number(0), CARDS.number(0)


class FakeWatch:
    """Whoever looks at processes, and does what it is told."""

    processes: Any = None

    def __init__(self) -> None:
        self.forgotten: list[int] = []
        self.dropped: dict[int, Callable[[bool], None]] = {}  # by device
        self.served: set[int] = set()  # devices that its processes have

    def forget(self, domid: int) -> None:
        self.forgotten.append(domid)

    def devices(self, domid: int) -> frozenset[int]:
        return frozenset(self.served)

    def drop(self, domid: int, device: int, done: Callable[[bool], None]) -> None:
        assert device not in self.dropped, "it has been told already"
        self.dropped[device] = done


@pytest.fixture
def watch() -> FakeWatch:
    return FakeWatch()


@pytest.fixture
def claims(watch: FakeWatch) -> Claims:
    return Claims(watch)  # type: ignore[arg-type]


def test_the_last_device_takes_the_process_along(claims: Claims, watch: FakeWatch) -> None:
    claims.claim(5, DISK)
    claims.claim(5, CARD)
    claims.claim(6, CARD)
    claims.forget(5, DISK)
    assert watch.forgotten == []
    claims.forget(5, CARD)
    assert watch.forgotten == [5]
    claims.forget(5, CARD)
    assert watch.forgotten == [5]


def test_what_was_never_claimed_is_nobodys(claims: Claims, watch: FakeWatch) -> None:
    claims.forget(5, DISK)
    assert watch.forgotten == []


def test_what_is_being_dropped_is_not_served_again_before(claims: Claims, watch: FakeWatch) -> None:
    said: list[str] = []
    claims.drop(5, CARD, lambda: said.append("one"))
    claims.drop(5, CARD, lambda: said.append("other"))
    with pytest.raises(HostError) as refused:
        claims.claim(5, CARD)
    assert refused.value.errno == EAGAIN
    claims.claim(5, DISK)  # which is another device, of the same unit
    watch.dropped[CARD](True)
    assert said == ["one", "other"]
    assert watch.forgotten == [], "the disk wants it"
    claims.claim(5, CARD)


@pytest.mark.parametrize("bare", [True, False])
def test_a_process_that_has_nothing_left_ends(
    claims: Claims, watch: FakeWatch, *, bare: bool
) -> None:
    claims.drop(5, DISK, lambda: None)
    watch.dropped[DISK](bare)
    assert watch.forgotten == ([5] if bare else [])


def test_a_process_stays_for_what_nobody_has_claimed_yet(claims: Claims, watch: FakeWatch) -> None:
    """As a card that an earlier daemon had, of a kind that is not served just now."""
    watch.served = {DISK, CARD}
    claims.claim(5, DISK)
    claims.forget(5, DISK)
    assert watch.forgotten == [], "it is to be found by whoever adopts the card"
    claims.claim(5, CARD)
    claims.forget(5, CARD)
    assert watch.forgotten == [], "the disk was not given back, after all"
    claims.drop(5, DISK, lambda: None)
    watch.dropped[DISK](True)
    assert watch.forgotten == [5]


def test_a_process_that_still_tells_of_its_last_device_ends(
    claims: Claims, watch: FakeWatch
) -> None:
    watch.served = {DISK}
    claims.claim(5, DISK)
    claims.forget(5, DISK)
    assert watch.forgotten == [5]
