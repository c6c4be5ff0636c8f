"""A disk that meets a limit: who is refused, in which words, and what is given back."""

from collections.abc import Iterator

import pytest

from tests.descriptors import open_descriptors
from tests.unit.family_bench import Bench
from tests.unit.test_family_takeover import served
from xbbd_bsd.accounts import LimitError, Part
from xbbd_bsd.block.backend import BlockBackend
from xbbd_bsd.block.queues import disks_within, most_of_ring
from xbbd_bsd.config import Config, DiskConfig
from xbbd_bsd.errors import GuestError
from xbbd_bsd.limits import Limits, Need
from xbbd_bsd.native import HvKind
from xbbd_bsd.ringset import OF_CONNECTION
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue

MUCH = Limits(64, 64, 4096, 1000, 1000, 1 << 30)


def few(**bounds: int) -> Limits:
    """Much of everything else."""
    names = ("disks", "cards", "event_channels", "threads", "descriptors", "buffers")
    return Limits(*(bounds.get(name, getattr(MUCH, name)) for name in names))


@pytest.fixture
def other(bench: Bench) -> Iterator[BlockBackend]:
    """Another disk of the bench's guest."""
    other = bench.create(Identity("vbd", 5, 51728, "xbbd", 1))
    yield other
    other.forget()


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        (few(event_channels=0), "max_event_channels"),
        (few(threads=1), "max_threads"),
        (few(descriptors=8), "max_descriptors"),
        (few(buffers=1), "max_buffer_mb"),
    ],
)
def test_a_ring_that_there_is_no_room_for(bench: Bench, limits: Limits, key: str) -> None:
    """Said before anything is opened; nothing of it is kept, and it goes when there is room."""
    bench.limits.configure(limits)
    bench.open()
    before = open_descriptors()
    with pytest.raises(LimitError, match=rf"see {key} in \[daemon\]") as error:
        bench.connect()
    assert error.value.passes
    assert bench.queue() is Queue.NONE
    assert open_descriptors() == before
    assert bench.limits.values()["event_channels"] == 0
    bench.limits.configure(MUCH)
    assert bench.freed == [0], "it is tried again"
    bench.connect()
    assert bench.limits.values()["event_channels"] == 1


def test_a_connection_that_fails_gives_back_what_it_took(bench: Bench) -> None:
    bench.open()
    before = bench.limits.values()
    bench.frontend_nodes["event-channel"] = b"4"
    with pytest.raises(GuestError):
        bench.connect()
    assert bench.limits.values() == before


def test_a_disk_that_is_not_opened_gives_back_what_it_took(bench: Bench) -> None:
    bench.disk.unlink()
    with pytest.raises(Exception, match="unable to open"):
        bench.open()
    assert bench.limits.values()["descriptors"] == 1, "its segment's"


def test_a_disk_too_many_of_one_guest(bench: Bench, other: BlockBackend) -> None:
    bench.limits.configure(few(disks=1))
    bench.open()
    with pytest.raises(LimitError, match=r"guest 5 has 1 disks.*see max_disks_per_guest") as error:
        other.capabilities(bench.backend_nodes.get)
    assert error.value.passes
    bench.backend.capabilities(bench.backend_nodes.get)  # who is in may be offered again
    another = bench.create(Identity("vbd", 6, 51728, "xbbd", 2))
    another.capabilities(bench.backend_nodes.get)
    another.forget()
    bench.backend.close()
    bench.backend.forget()
    assert 1 in bench.freed
    other.capabilities(bench.backend_nodes.get)


def test_a_disk_without_a_descriptor_left(bench: Bench) -> None:
    bench.limits.configure(few(descriptors=0))
    with pytest.raises(LimitError, match="see max_descriptors"):
        bench.open()
    assert not bench.backend.medium_open


def test_fewer_queues_are_offered_when_little_is_left(bench: Bench) -> None:
    bench.family.configure(Config(disk=DiskConfig(max_queues=8)))
    bench.limits.configure(few(event_channels=3))
    nodes = bench.backend.capabilities(bench.backend_nodes.get)
    assert nodes["multi-queue-max-queues"] == b"3"
    bench.limits.take(("xbbd", 9), Part.CONNECTION, 9, Need(event_channels=3))
    nodes = bench.backend.capabilities(bench.backend_nodes.get)
    assert nodes["multi-queue-max-queues"] is None, "a single one, which is asked for later"
    bench.limits.forget(("xbbd", 9))


def test_what_is_counted_is_what_a_ring_opens(bench: Bench) -> None:
    """Descriptors, on the hypervisor that needs the most of them."""
    bench.open()
    before = open_descriptors()
    bench.connect()
    # The frontend's end of the event channel lies in this process too.
    took = len(open_descriptors() - before)
    ring = most_of_ring(DiskConfig(), 0, HvKind.SIM).descriptors
    assert took - 1 <= ring + OF_CONNECTION.descriptors <= took


def test_for_how_many_disks_descriptors_are_enough() -> None:
    """A segment, a disk and its lock, a grant device, a wake-up; a channel and a kick a ring."""
    for queues in (1, 4, 8):
        config, each = DiskConfig(max_queues=queues), 5 + 2 * queues
        assert disks_within(1000 * each - 1, config, HvKind.XEN) == 999
        assert disks_within(1000 * each, config, HvKind.XEN) == 1000
    assert disks_within(21, DiskConfig(), HvKind.SIM) == 1, "and two more on a simulated machine"
    assert disks_within(20, DiskConfig(), HvKind.SIM) == 0


def test_an_exchange_that_there_is_no_room_for_is_wanted_no_longer(bench: Bench) -> None:
    """The disk's own descriptor stays its own, and no bound is in anybody's way."""
    served(bench)
    before = bench.limits.values()
    bench.limits.configure(few(descriptors=before["descriptors"]))
    with pytest.raises(LimitError, match="see max_descriptors"):
        for _ in bench.family.perform("swap", 0, "root", str(bench.disk)):
            pass
    assert bench.limits.values()["descriptors"] == before["descriptors"]
    assert bench.limits.reached() == []
