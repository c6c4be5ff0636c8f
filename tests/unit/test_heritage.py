"""State segments that a daemon left: whose they are, what they say, and which are of no use."""

import os
from collections.abc import Callable
from dataclasses import replace
from errno import EBUSY, EFBIG, EINVAL, EIO, ENOENT, ENXIO

import pytest

from tests.unit import estate as estates
from tests.unit.estate import (
    CONFIG,
    DISK,
    MACHINE,
    Estate,
    FakeFormer,
    identity,
    inheritance_of,
)
from xbbd_bsd.block.heritage import Inheritance, Left
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.served import Served, read
from xbbd_bsd.errors import HostError
from xbbd_bsd.events import WritesLost
from xbbd_bsd.native import (
    Abi,
    DiskKind,
    HvKind,
    QueueState,
    RequestState,
    State,
)
from xbbd_bsd.native._xbb import lib
from xbbd_bsd.takeovers import SegmentLeft

estate = estates.estate


# What there is.


def test_each_device_gets_what_is_its(estate: Estate) -> None:
    estate.leave(0)
    estate.leave(3, domid=6)
    estate.leave(12, kind="vbd3")
    heritage = estate.heritage()
    assert heritage.units == {0, 3, 12}
    assert heritage.unit_of("vbd", 6, 51712, None) == 3
    assert heritage.unit_of("vbd", 6, 51728, None) is None
    left = heritage.claim(identity(domid=6, unit=3))
    assert left == Left(str(estate.path(3)), 3, ("vbd", 6, 51712), MACHINE, "")
    assert heritage.claim(identity(domid=6, unit=3)) is None, "once"
    assert heritage.claim(identity(domid=6, unit=12)) is None, "another's"
    assert heritage.units == {0, 12}
    assert (estate.files(), estate.events) == (["xbbd.0", "xbbd.12", "xbbd.3"], [])


def test_what_nobody_claims_goes_when_all_devices_of_its_kind_are_known(estate: Estate) -> None:
    estate.leave(0)
    estate.leave(1, kind="vbd3")
    claimed = estate.leave(2, domid=9)
    heritage = estate.heritage()
    heritage.claim(identity(domid=9, unit=2))
    heritage.settle("vbd")
    assert (set(heritage.units), claimed.exists()) == ({1}, True)
    assert estate.files() == ["xbbd.1", "xbbd.2"]
    heritage.settle("vbd3")
    assert (set(heritage.units), estate.files()) == (set(), ["xbbd.2"])


@pytest.mark.parametrize(
    "name", ["xbbd", "xbbd.", "xbbd.01", "xbbd.x", "xbbd.1.old", "axbbd.1", "xbbd.9999999999"]
)
def test_other_names_are_nobodys(estate: Estate, name: str) -> None:
    """Whatever is in them, they stay, and are not looked at."""
    estate.leave(1).rename(estate.directory / name)
    assert estate.heritage().units == frozenset()
    assert (estate.directory / name).exists()
    assert estate.events == []


def test_which_one_is_a_devices_says_its_node(estate: Estate) -> None:
    """A server may write whatever name into the segment that it serves."""
    first, second = estate.leave(1), estate.leave(2)
    heritage = estate.heritage()
    assert heritage.units == {1, 2}
    for said, unit in ((b"2 digest", 2), (b"1 digest", 1), (b"7 x", 1), (b"x", 1), (None, 1)):
        assert heritage.unit_of("vbd", 5, 51712, said) == unit
    claimed = heritage.claim(identity(unit=2))
    assert claimed is not None
    assert claimed.path == str(second)
    assert heritage.settle("vbd") == [identity(unit=1)]
    assert (first.exists(), second.exists()) == (False, True)


def test_a_file_of_another_number_is_nobodys(estate: Estate) -> None:
    """Two devices would come to have the same number."""
    estate.leave(4).rename(estate.path(5))
    assert estate.heritage().units == frozenset()
    assert estate.files() == []


def test_what_is_no_segment_is_said_and_goes(estate: Estate) -> None:
    estate.path(0).write_bytes(b"nonsense")
    estate.path(1).symlink_to(estate.leave(2))
    heritage = estate.heritage()
    assert estate.files() == ["xbbd.2"]
    assert heritage.units == {0, 1, 2}, "somebody may serve them"
    said = [str(event) for event in estate.events if isinstance(event, SegmentLeft)]
    assert len(said) == len(estate.events) == 2
    assert said[0].startswith(f"{estate.path(0)}: left by an earlier daemon, and of no use: map ")
    assert "links" in said[1]


def test_what_is_no_segment_is_whosever_node_names_it(estate: Estate) -> None:
    estate.path(0).write_bytes(b"nonsense")
    estate.leave(1)
    heritage = estate.heritage()
    assert heritage.claim(identity()) is None
    assert heritage.settle("vbd") == [identity(unit=1)]
    assert heritage.unit_of("vbd", 5, 51712, None) is None
    assert heritage.unit_of("vbd", 5, 51712, b"0 digest") == 0
    assert heritage.unit_of("vbd", 6, 51712, b"0 digest") is None, "another's by now"
    inheritance = inheritance_of(heritage.claim(identity()))
    assert not inheritance.adoptable
    assert inheritance.refusal.startswith("map ")
    assert heritage.units == frozenset()


# What nothing can come of.


def unserved(segment: State) -> None:
    for number in (0, 1):
        segment.handle.ring[number].common.connected = 0


def lost(errno: int) -> Callable[[State], None]:
    return lambda segment: segment.lose(errno)


def spoil(**fields: int) -> Callable[[State], None]:
    """Of the second ring's parameters."""

    def spoiled(segment: State) -> None:
        params = segment.handle.ring[1].params
        for name, value in fields.items():
            setattr(params.conn if hasattr(params.conn, name) else params, name, value)

    return spoiled


def of_no_disk(segment: State) -> None:
    segment.handle.medium.known = 0


def of_another_guest(segment: State) -> None:
    segment.handle.head.identity.domid = 6


CONTRADICTS = "xbbd.0 contradicts itself"
REFUSED: list[tuple[Callable[[State], None], str]] = [
    (unserved, "it was not served then"),
    (lost(EIO), "writes may be lost: a flush failed (Input/output error)"),
    (lost(EFBIG), "writes may be lost: it was cut off under a write"),
    (lost(ENXIO), "writes may be lost: a flush failed"),
    (of_no_disk, "xbbd.0 says nothing of what was served"),
    (spoil(abi=77), "xbbd.0: ring 1 is like none of ours: 77 is not"),
    (spoil(disk_kind=9), "like none of ours"),
    (spoil(hv=9), "like none of ours"),
    (spoil(transport=9), "like none of ours"),
    (spoil(abi=Abi.X86_32), CONTRADICTS),
    (spoil(hv=HvKind.XEN), CONTRADICTS),
    (spoil(domid=6), CONTRADICTS),
    (spoil(read_only=1), CONTRADICTS),
    (spoil(sector_size=4096), CONTRADICTS),
    (spoil(block_size=4096), CONTRADICTS),
    (spoil(discard=1), CONTRADICTS),
]


@pytest.mark.parametrize(("spoils", "refusal"), REFUSED)
def test_the_reason_is_kept_for_whoever_it_was(
    estate: Estate, spoils: Callable[[State], None], refusal: str
) -> None:
    """The file goes at once; its device is told why when it is found."""
    segment = estate.make(0)
    spoils(segment)
    segment.close()
    heritage = estate.heritage()
    assert "xbbd.0" not in estate.files()
    left = heritage.claim(identity())
    assert left is not None
    assert refusal in left.refusal
    inheritance = inheritance_of(left)
    assert (inheritance.adoptable, inheritance.refusal) == (False, left.refusal)


def test_one_that_is_about_another_guest_than_its_rings(estate: Estate) -> None:
    segment = estate.make(0)
    of_another_guest(segment)
    segment.close()
    left = estate.heritage().claim(identity(domid=6))
    assert left is not None
    assert CONTRADICTS in left.refusal


@pytest.mark.parametrize(("errno", "kept"), [(EIO, True), (ENXIO, False)])
def test_a_loss_is_kept_and_said(estate: Estate, errno: int, kept: bool) -> None:
    """Once, by the name that the device had; not that all of a disk went."""
    segment = estate.make(3)
    segment.lose(errno)
    segment.close()
    estate.heritage()
    said = [event for event in estate.events if isinstance(event, WritesLost)]
    assert [(event.device, event.disk) for event in said] == [("xbbd3", DISK.path)] * kept
    assert len(Marks(str(estate.directory)).all()) == kept
    estate.events.clear()
    estate.heritage()
    assert estate.events == []


# What one says.


def test_a_disk_and_its_rings(estate: Estate) -> None:
    segment = estate.make(0)
    served = read(segment)
    wanted = served.wanted
    assert (wanted.name, wanted.key) == (b"/disks/one", ("file", 3, 4))
    assert (wanted.read_only, wanted.shared, wanted.sector_size) == (False, False, 0)
    assert served.rings == {0: RingParams(7, (10, 20)), 1: RingParams(8, (11, 21))}
    assert served.any_ring is served.params[0]
    assert (served.ending, served.inflight, served.oldest_ns) == (False, 0, None)
    for number in (0, 1):
        ring = segment.handle.ring[number].params
        ring.read_only, ring.sector_size, ring.block_size, ring.bounce = 1, 512, 4096, 1
    segment.medium = replace(DISK, shared=True)
    wanted = read(segment).wanted
    assert (wanted.read_only, wanted.shared, wanted.sector_size) == (True, True, 512)
    segment.close()


def test_how_each_queue_is_made_again(estate: Estate) -> None:
    """By the ring's own numbers, with our descriptors, to adopt what it finds."""
    segment = estate.make(0)
    served = read(segment)
    made = served.maker(99)(1, served.rings[1], 4, 5, 6)
    assert (made.grant_fd, made.event_fd, made.wake_fd, made.disk_fd) == (4, 5, 6, 99)
    assert made.adopt
    assert (
        replace(made, grant_fd=-1, event_fd=-1, wake_fd=-1, disk_fd=-1, adopt=False)
        == served.params[1]
    )
    segment.close()


@pytest.mark.parametrize("state", [QueueState.DRAINING, QueueState.DRAINED, 77])
def test_one_that_was_about_to_end(estate: Estate, state: int) -> None:
    segment = estate.make(0)
    segment.handle.ring[1].common.status.state = state
    assert read(segment).ending
    segment.close()


def test_one_of_which_a_ring_has_ended(estate: Estate) -> None:
    segment = estate.make(0)
    segment.handle.ring[1].common.connected = 0
    served = read(segment)
    assert (served.ending, list(served.rings)) == (True, [0])
    segment.close()


def test_requests_in_flight_and_the_oldest(estate: Estate) -> None:
    """Not those whose answer was about to be published."""
    segment = estate.make(0)
    for ring, entry, state, came in (
        (0, 1, RequestState.DISPATCHED, 3_000),
        (0, 2, RequestState.ANSWERED, 1_000),
        (1, 0, RequestState.ACCEPTED, 2_000),
        (1, 9, RequestState.DONE, 5_000),
        (2, 0, RequestState.DISPATCHED, 1),  # of a ring that nobody serves
    ):
        request = lib.xbb_state_table(segment.handle, ring)[entry]
        request.state, request.received_ns = state, came
    served = read(segment)
    assert (served.inflight, served.oldest_ns) == (3, 2_000)
    assert [served.waited_ns(now) for now in (2_000, 9_000, 0)] == [0, 7_000, 0]
    segment.close()


@pytest.mark.parametrize(
    ("rings", "inflight", "text"),
    [
        (1, 0, "1 ring, 0 requests in flight"),
        (2, 1, "2 rings, 1 request in flight, the oldest for 1.2 s"),
        (3, 2, "3 rings, 2 requests in flight, the oldest for 1.2 s"),
    ],
)
def test_in_words(estate: Estate, rings: int, inflight: int, text: str) -> None:
    segment = estate.make(0)
    served = read(segment)
    segment.close()
    these = {number: RingParams(1, (1,)) for number in range(rings)}
    shown: Served = replace(served, rings=these, inflight=inflight)
    assert shown.describe(1_240_000_000) == text


def test_a_file_that_is_cut_off_says_nothing(estate: Estate) -> None:
    segment = estate.make(0)
    os.truncate(estate.path(0), 4096)
    with pytest.raises(HostError, match="says nothing of what was served") as error:
        read(segment)
    assert error.value.errno == EINVAL
    segment.close()


# What one device has of it.


def inherited(estate: Estate, **whose: object) -> Inheritance:
    estate.leave(0, **whose)  # type: ignore[arg-type]
    return inheritance_of(estate.heritage().claim(identity()))


def test_nothing_is_left() -> None:
    nothing = inheritance_of(None)
    assert (nothing.adoptable, nothing.refusal, nothing.leave()) == (False, "", False)
    nothing.is_for(MACHINE)
    nothing.give_up("whatever")
    assert (nothing.adoptable, nothing.refusal) == (False, "")


@pytest.mark.parametrize(
    ("left", "now", "same"),
    [
        (MACHINE, MACHINE, True),
        (MACHINE, "", True),
        ("", MACHINE, True),
        (MACHINE, MACHINE[:-1] + "5", False),
        (MACHINE, MACHINE[:-1], False),
        ("/vm/" + "x" * 80, "/vm/" + "x" * 80, True),  # as much of it as a segment has
        ("/vm/" + "x" * 80, "/vm/" + "x" * 58, False),
    ],
)
def test_it_is_the_same_virtual_machines(estate: Estate, left: str, now: str, same: bool) -> None:
    inheritance = inherited(estate, machine=left)
    inheritance.is_for(now)
    assert inheritance.adoptable is same
    assert inheritance.refusal == ("" if same else "its state segment is another virtual machine's")
    assert estate.path(0).exists() is same


def test_what_it_said_first_stays(estate: Estate) -> None:
    """Since whoever tries to go on changes what stands there."""
    inheritance = inherited(estate)
    segment = inheritance.take(CONFIG)
    before = inheritance.served(segment)
    segment.handle.ring[0].common.status.state = QueueState.DRAINING
    assert inheritance.served(segment) is before
    inheritance.taken()
    assert (inheritance.adoptable, inheritance.refusal) == (False, "")
    assert estate.path(0).exists()
    segment.close()


def test_what_it_said_is_forgotten_by_whoever_has_gone_on(estate: Estate) -> None:
    """Whose process may die, too, and leave it anew."""
    inheritance = inherited(estate)
    left, segment = inheritance._left, inheritance.take(CONFIG)
    assert left is not None
    assert not inheritance.served(segment).ending
    segment.handle.ring[0].common.status.state = QueueState.DRAINING
    inheritance.taken()
    inheritance.orphan(left)
    assert inheritance.adoptable
    assert inheritance.served(segment).ending
    segment.close()


def test_whoever_serves_it_is_waited_for(estate: Estate) -> None:
    inheritance = inherited(estate)
    held = State.take_over(str(estate.path(0)))
    with pytest.raises(HostError, match=r"xbbd\.0 has not ended$") as error:
        inheritance.take(CONFIG)
    assert (error.value.errno, error.value.passes) == (EBUSY, True)
    assert inheritance.adoptable
    held.close()
    inheritance.take(CONFIG).close()


def test_a_file_that_somebody_has_removed(estate: Estate) -> None:
    inheritance = inherited(estate)
    estate.path(0).unlink()
    with pytest.raises(HostError, match=r"xbbd\.0: No such file") as error:
        inheritance.take(CONFIG)
    assert (error.value.errno, error.value.passes) == (ENOENT, False)


def test_one_that_begins_anew_leaves_it(estate: Estate) -> None:
    inheritance = inherited(estate)
    assert inheritance.leave()
    assert not inheritance.leave()
    assert (inheritance.adoptable, inheritance.refusal, estate.files()) == (False, "", [])


def test_one_that_cannot_go_on_says_why(estate: Estate) -> None:
    inheritance = inherited(estate)
    inheritance.give_up("the disk has gone")
    assert (inheritance.adoptable, inheritance.refusal) == (False, "the disk has gone")
    assert estate.files() == []
    assert inheritance.leave()
    assert (inheritance.refusal, inheritance.leave()) == ("", False)


@pytest.mark.parametrize(
    "ends",
    [
        lambda inheritance: inheritance.give_up("whatever"),
        lambda inheritance: inheritance.is_for(MACHINE[:-1] + "5"),
        lambda inheritance: inheritance.leave(),
    ],
    ids=["given up", "another guest's", "begun anew"],
)
def test_whoever_serves_it_still_hears_that_nobody_goes_on(
    estate: Estate, ends: Callable[[Inheritance], object]
) -> None:
    estate.leave(0)
    former = FakeFormer()
    inheritance = inheritance_of(estate.heritage().claim(identity()), former)
    assert not former.said
    ends(inheritance)
    inheritance.leave()
    assert former.said == ["drop"]


def test_whose_guest_has_closed_it_is_given_back_first(estate: Estate) -> None:
    """Until it has been the guest's pages are mapped, so that it is not to be told yet."""
    former = FakeFormer()
    estate.leave(0)
    inheritance = inheritance_of(estate.heritage().claim(identity()), former)
    inheritance.close()
    assert (inheritance.adoptable, inheritance.closing) == (False, True)
    inheritance.close()
    assert former.said == ["drop"], "once"
    former.dropped()
    assert not inheritance.closing
    assert former.said == ["drop", "woken"]


def test_whoever_serves_what_is_refused_hears_it_at_once(estate: Estate) -> None:
    segment = estate.make(0)
    segment.lose(EIO)
    segment.close()
    former = FakeFormer()
    inheritance_of(estate.heritage().claim(identity()), former).leave()
    assert former.said == ["drop"]


def test_a_loop_device_is_known_by_its_file(estate: Estate) -> None:
    """The disk is a device, and its key that of the file behind it (Disk.key)."""
    path = estate.leave(0)
    segment = State.open(str(path), writable=True)
    for number in segment.served:
        segment.handle.ring[number].params.disk_kind = DiskKind.DEVICE
    segment.close()
    left = estate.heritage().claim(identity())
    assert left is not None
    assert left.refusal == ""
