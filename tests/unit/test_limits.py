"""What all devices share: sums, shares of a guest, who is told and who tries again."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.accounts import Accounts, LimitError, Part, Share, Taker
from xbbd_bsd.config import DaemonConfig
from xbbd_bsd.events import Event, LimitReached
from xbbd_bsd.host.resources import Resources
from xbbd_bsd.limits import RESERVED_DESCRIPTORS, Limits, Need, Resource
from xbbd_bsd.xenbus.family import Identity

MIB = 1 << 20
PLENTY = Limits(1000, 1000, 1000, 1000, 1000, 1000 * MIB)
RING = Need(event_channels=1, threads=2, descriptors=6, buffers=3 * MIB)


@dataclass(frozen=True)
class Made:
    """As of native.IoUse."""

    threads: int = 0
    bytes: int = 0
    over_bound: int = 0
    failed: int = 0


def disk(unit: int) -> Taker:
    """One that takes something."""
    return ("xbbd", unit)


def disk_of(unit: int, domid: int) -> Identity:
    """One of a guest."""
    return Identity("vbd", domid, unit, *disk(unit))


class Bench:
    """Accounts, and a data path that makes as many threads as a test says."""

    def __init__(self, limits: Limits) -> None:
        self.made = Made()
        self.bounds: tuple[int, int] = (-1, -1)
        self.freed: list[tuple[Taker, ...]] = []
        self.events: list[Event] = []
        self.now = 0.0
        self.accounts = Accounts(
            limits,
            bound_beyond=self.bound,
            freed=self.freed.append,
            journal=self.events.append,
            clock=lambda: self.now,
        )

    def bound(self, threads: int, size: int) -> Made:
        self.bounds = threads, size
        return self.made

    def lines(self) -> list[str]:
        return [str(event) for event in self.events]


def refused(bench: Bench, unit: int, domid: int, need: Need) -> str:
    with pytest.raises(LimitError) as error:
        bench.accounts.take(disk(unit), Part.CONNECTION, domid, need)
    assert error.value.passes, "it is tried again when something was given back"
    return str(error.value)


needs = st.builds(
    Need,
    disks=st.integers(0, 2),
    cards=st.integers(0, 2),
    event_channels=st.integers(0, 6),
    threads=st.integers(0, 6),
    descriptors=st.integers(0, 6),
    buffers=st.integers(0, 6),
)
steps = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(Part), needs | st.none()), max_size=60
)


@given(
    steps,
    st.builds(Limits, *[st.integers(0, 20)] * 6, st.integers(1, 100)),
    st.builds(Made, st.integers(0, 6), st.integers(0, 6)),
)
def test_sums_stay_within_their_bounds_and_return_to_nothing(
    steps: list[tuple[int, Part, Need | None]], limits: Limits, made: Made
) -> None:
    """Against a model; two units a guest."""
    bench = Bench(limits)
    bench.made = made
    model: dict[tuple[int, Part], Need] = {}
    for unit, part, need in steps:
        if need is None:
            bench.accounts.give_back(disk(unit), part)
            model.pop((unit, part), None)
        else:
            after = {**model, (unit, part): need}
            fits = _fits(after, unit, need, limits, made) or model.get((unit, part)) == need
            try:
                bench.accounts.take(disk(unit), part, unit // 2, need)
            except LimitError:
                assert not fits
            else:
                assert fits
                model = after
        rings = sum((held for held in model.values()), Need())
        values = bench.accounts.values()
        assert values["event_channels"] == rings.event_channels
        assert values["threads"] == rings.threads + made.threads
        assert values["descriptors"] == rings.descriptors
        assert bench.bounds == (
            max(0, min(limits.threads // 2, limits.threads - rings.threads)),
            max(0, min(limits.buffers // 2, limits.buffers - rings.buffers)),
        )
    for unit in range(6):
        bench.accounts.forget(disk(unit))
    assert bench.accounts.idle


def _fits(
    held: dict[tuple[int, Part], Need], unit: int, need: Need, limits: Limits, made: Made
) -> bool:
    """What is not wanted cannot be what is missing."""
    mine = sum((n for (u, _), n in held.items() if u // 2 == unit // 2), Need())
    total = sum(held.values(), Need(threads=made.threads, buffers=made.bytes))
    return all(
        need.of(r) == 0 or (total.of(r) <= limits.total(r) and mine.of(r) <= limits.of_guest(r))
        for r in Resource
    )


@pytest.mark.parametrize("field", [field.name for field in fields(Need)])
def test_every_resource_is_said_in_words(field: str) -> None:
    """With its key, whose it is, how much there is and how much was wanted."""
    key = {
        "disks": "max_disks_per_guest",
        "cards": "max_cards_per_guest",
        "buffers": "max_buffer_mb",
    }.get(field, f"max_{field}")
    amount = 10 * (MIB if field == "buffers" else 1)
    need = Need(**{field: amount})
    of_guests = Resource(field).of_guests
    bench = Bench(Limits(10, 10, 10, 10, 10, 10 * MIB))
    bench.accounts.take(disk(0), Part.CONNECTION, 1, need)
    text = refused(bench, 1, 1 if of_guests else 2, need)
    assert text.endswith(f": see {key} in [daemon] of xbbd.conf")
    assert text.startswith("guest 1 has 10 " if of_guests else "all guests' devices have 10 ")
    share = Bench(Limits(10, 10, 20, 20, 20, 20 * MIB, guest_share=50))
    share.accounts.take(disk(0), Part.CONNECTION, 1, need)
    if not of_guests:
        text = refused(share, 1, 1, need)
        assert text.startswith("guest 1 has 10 ")
        assert text.endswith(f": see max_guest_share of {key} in [daemon] of xbbd.conf")
        assert share.events == [], "that is one guest's affair"
        share.accounts.take(disk(2), Part.CONNECTION, 2, need)


def test_a_bound_that_is_reached_is_logged_once_in_a_while() -> None:
    bench = Bench(Limits(9, 9, 4, 99, 99, 99 * MIB))
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(3))
    for _ in range(5):
        refused(bench, 1, 2, RING.times(2))
    assert bench.lines() == [
        "limit reached, 3 of 4 event channels: devices wait, are refused, or do with less;"
        " see max_event_channels in [daemon] of xbbd.conf"
    ]
    bench.now = 600
    refused(bench, 1, 2, RING.times(2))
    assert len(bench.events) == 2


def test_who_was_refused_tries_again_when_something_is_given_back() -> None:
    bench = Bench(Limits(9, 9, 4, 99, 99, 99 * MIB))
    first, second, third = (Share(bench.accounts, disk_of(unit, unit + 1)) for unit in range(3))
    first.take(Part.CONNECTION, RING.times(4))
    for share in (third, second, third):
        with pytest.raises(LimitError):
            share.take(Part.CONNECTION, RING)
    assert bench.freed == []
    first.give_back(Part.MEDIUM)
    assert bench.freed == [], "it had none"
    first.give_back(Part.CONNECTION)
    assert bench.freed == [(disk(2), disk(1))], "the first of them first"
    third.take(Part.CONNECTION, RING)
    third.give_back(Part.CONNECTION)
    assert len(bench.freed) == 1, "nobody waits any more"


def test_who_does_with_what_it_has_wants_no_more() -> None:
    bench = Bench(Limits(9, 9, 4, 99, 99, 99 * MIB))
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(3))
    refused(bench, 0, 1, RING.times(5))
    assert [reached.what for reached in bench.accounts.reached()] == ["3 of 4 event channels"]
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(3))
    assert bench.accounts.reached() == []


def test_who_is_gone_does_not_try_again() -> None:
    bench = Bench(Limits(9, 9, 1, 99, 99, 99 * MIB))
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING)
    refused(bench, 1, 2, RING)
    bench.accounts.forget(disk(1))
    bench.accounts.forget(disk(0))
    assert bench.freed == []
    assert bench.accounts.idle


def test_devices_of_all_families_have_one_account() -> None:
    """A card takes from what disks may have, though it has a unit of a number that one has, too."""
    bench = Bench(Limits(9, 9, 4, 99, 99, 99 * MIB, guest_share=75))
    card = Share(bench.accounts, Identity("vif", 1, 0, "xnb", 0))
    card.take(Part.DEVICE, Need(cards=1))
    card.take(Part.CONNECTION, Need(event_channels=2, threads=2))
    assert "guest 1 has 2 event channels, may have 3" in refused(bench, 0, 1, RING.times(2))
    assert "all guests' devices have 2 event channels of 4" in refused(bench, 1, 2, RING.times(3))
    bench.accounts.take(disk(1), Part.CONNECTION, 2, RING.times(2))
    with pytest.raises(LimitError):
        card.take(Part.CONNECTION, Need(event_channels=3))
    bench.accounts.forget(disk(1))
    assert bench.freed == [(disk(0), ("xnb", 0))]
    assert bench.accounts.values()["event_channels"] == 2
    card.forget()
    assert bench.accounts.idle


def test_another_configuration_counts_for_what_comes() -> None:
    bench = Bench(PLENTY)
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(4))
    bench.accounts.take(disk(0), Part.DEVICE, 1, Need(disks=1))
    bench.accounts.configure(Limits(0, 0, 2, 99, 99, 99 * MIB))
    bench.accounts.take(disk(0), Part.DEVICE, 1, Need(disks=1))  # as each time that it is offered
    assert bench.accounts.values()["event_channels"] == 4
    refused(bench, 1, 2, RING)
    bench.accounts.configure(PLENTY)
    assert bench.freed == [(disk(1),)]
    bench.accounts.take(disk(1), Part.CONNECTION, 2, RING)


def test_fewer_rings_are_better_than_none() -> None:
    bench = Bench(Limits(9, 9, 10, 99, 99, 99 * MIB, guest_share=50))
    assert bench.accounts.rings(1, RING, 8) == 5
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(3))
    assert bench.accounts.rings(1, RING, 8) == 2
    assert bench.accounts.rings(2, RING, 4) == 4
    bench.accounts.take(disk(1), Part.CONNECTION, 2, RING.times(5))
    assert bench.accounts.rings(3, RING, 8) == 2
    bench.accounts.take(disk(2), Part.CONNECTION, 3, RING.times(2))
    assert bench.accounts.rings(3, RING, 8) == 1, "which is asked for again then"


def test_threads_that_the_data_path_made_count_too() -> None:
    bench = Bench(Limits(9, 9, 99, 20, 99, 99 * MIB))
    assert bench.bounds[0] == 10, "rings are sure of half"
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(4))
    assert bench.bounds[0] == 10
    bench.made = Made(threads=10)
    assert "18 threads of 20, and 4 more" in refused(bench, 1, 2, RING.times(2))
    assert bench.bounds[0] == 10, "as before"
    bench.accounts.take(disk(1), Part.CONNECTION, 2, RING)
    assert bench.bounds[0] == 10
    bench.made = Made(threads=0)
    bench.accounts.take(disk(2), Part.CONNECTION, 2, RING.times(2))
    assert bench.bounds[0] == 6, "not what rings need"
    assert bench.accounts.values()["threads"] == 14


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (Made(threads=9, over_bound=1), "limit reached, 9 of 20 threads:"),
        (Made(bytes=48 * MIB, over_bound=1), "limit reached, 48 of 99 MiB of buffers:"),
        (Made(threads=3, failed=1), "limit reached, the host has no thread beyond 3:"),
    ],
)
def test_threads_that_were_not_to_be_had_are_told(made: Made, line: str) -> None:
    bench = Bench(Limits(9, 9, 99, 20, 99, 99 * MIB))
    bench.accounts.look()
    assert bench.events == []
    bench.made = made
    for _ in range(3):
        bench.accounts.look()
    assert [text.startswith(line) for text in bench.lines()] == [True]
    assert isinstance(bench.events[0], LimitReached)


def test_what_suits_a_host() -> None:
    host = Resources(event_channels=4096, threads=1500, descriptors=1000, memory=4096 * MIB)
    limits = Limits.of(DaemonConfig(), host)
    assert limits.event_channels == 3072
    assert limits.threads == 1125
    assert limits.descriptors == 1000 - RESERVED_DESCRIPTORS
    assert limits.buffers == 2048 * MIB
    assert limits.of_guest(Resource.EVENT_CHANNELS) == 768
    assert limits.of_guest(Resource.DISKS) == 64


def test_nobody_may_have_more_than_there_is() -> None:
    host = Resources(event_channels=4096, threads=1500, descriptors=100, memory=4096 * MIB)
    most = DaemonConfig(
        max_event_channels=5000, max_threads=5000, max_descriptors=5000, max_buffer_mb=5000
    )
    limits = Limits.of(most, host)
    assert (limits.event_channels, limits.threads) == (4096, 1500)
    assert limits.descriptors == 0, "all that there is, is reserved"
    assert limits.buffers == 4096 * MIB
    few = DaemonConfig(max_event_channels=5, max_threads=6, max_descriptors=7, max_buffer_mb=8)
    host = Resources(event_channels=4096, threads=1500, descriptors=1000, memory=4096 * MIB)
    assert Limits.of(few, host) == Limits(64, 32, 5, 6, 7, 8 * MIB, 25)


def test_what_was_taken_is_given_back_after_an_error() -> None:
    bench = Bench(PLENTY)
    share = Share(bench.accounts, disk_of(3, 7))

    def fail() -> None:
        with share.or_give_back(Part.MEDIUM, but=KeyError):
            share.take(Part.MEDIUM, Need(descriptors=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert bench.accounts.idle
    with share.or_give_back(Part.MEDIUM, but=KeyError):
        share.take(Part.MEDIUM, Need(descriptors=1))
    assert bench.accounts.values()["descriptors"] == 1
    share.forget()
    assert bench.accounts.idle


def in_the_way(bench: Bench) -> list[tuple[str, float]]:
    return [(reached.what, reached.since) for reached in bench.accounts.reached()]


def test_a_bound_is_in_the_way_of_who_was_refused() -> None:
    bench = Bench(Limits(9, 9, 4, 99, 99, 99 * MIB))
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(3))
    assert in_the_way(bench) == []
    for unit, bench.now in ((1, 10), (2, 20), (1, 30)):
        refused(bench, unit, 2, RING.times(2))
    assert in_the_way(bench) == [("3 of 4 event channels", 10)], "asking again changes nothing"
    assert bench.accounts.reached()[0].where == "max_event_channels in [daemon] of xbbd.conf"
    bench.accounts.forget(disk(1))
    assert in_the_way(bench) == [("3 of 4 event channels", 20)]
    bench.accounts.give_back(disk(0), Part.CONNECTION)
    assert in_the_way(bench) == [], "it could have it"
    bench.accounts.take(disk(3), Part.CONNECTION, 1, RING.times(3))
    assert in_the_way(bench) == [("3 of 4 event channels", 20)]
    bench.accounts.configure(PLENTY)
    assert in_the_way(bench) == []
    bench.accounts.configure(Limits(9, 9, 5, 99, 99, 99 * MIB))
    bench.accounts.take(disk(2), Part.CONNECTION, 2, RING.times(2))
    bench.accounts.configure(Limits(9, 9, 1, 99, 99, 99 * MIB))
    assert in_the_way(bench) == [], "it has what it wanted"


def test_a_bound_of_one_guest_is_in_nobody_elses_way() -> None:
    bench = Bench(Limits(9, 9, 4, 99, 99, 99 * MIB, guest_share=50))
    bench.accounts.take(disk(0), Part.CONNECTION, 1, RING.times(2))
    refused(bench, 1, 1, RING)
    assert in_the_way(bench) == []


def test_the_data_path_at_its_bound() -> None:
    bench = Bench(Limits(9, 9, 99, 20, 99, 99 * MIB))
    bench.now = 5
    bench.made = Made(threads=10, over_bound=1)
    assert in_the_way(bench) == [("10 of 20 threads", 5)]
    bench.now = 6
    bench.made = Made(threads=10, over_bound=2)
    assert in_the_way(bench) == [("10 of 20 threads", 5)]
    bench.made = Made(threads=9, over_bound=2)
    assert in_the_way(bench) == []
    bench.made = Made(bytes=48 * MIB, over_bound=3)
    assert in_the_way(bench) == [("48 of 99 MiB of buffers", 6)]


def test_a_host_without_threads_is_remembered_for_a_while() -> None:
    bench = Bench(PLENTY)
    assert in_the_way(bench) == []
    bench.made = Made(threads=3, failed=1)
    assert in_the_way(bench) == [("the host has no thread beyond 3", 0)]
    bench.now = 599
    assert len(bench.accounts.reached()) == 1
    bench.now = 600
    assert in_the_way(bench) == []
