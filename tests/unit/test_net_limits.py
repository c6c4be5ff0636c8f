"""A card that meets a limit: who is refused, in which words, and what is given back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from tests.unit.net_bench import IDENTITY, NAME, NetBench
from tests.unit.test_family_limits import MUCH, few
from xbbd_bsd.accounts import LimitError, Part
from xbbd_bsd.config import Config, NetConfig
from xbbd_bsd.errors import GuestError, HostError
from xbbd_bsd.limits import Limits, Need
from xbbd_bsd.native import HvKind
from xbbd_bsd.net.backend import NetBackend
from xbbd_bsd.net.queues import OF_DEVICE, most_of_queue
from xbbd_bsd.ringset import OF_CONNECTION
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue

DISK = ("xbbd", 0)  # whoever else takes something


@pytest.fixture
def card(tmp_path: Path) -> Iterator[NetBench]:
    bench = NetBench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def other(card: NetBench) -> Iterator[NetBackend]:
    """Another card of the bench's guest."""
    other = card.create(Identity("vif", 5, 1, "xnb", 1))
    yield other
    other.forget()


def offer(backend: NetBackend, number: int) -> None:
    nodes = {"handle": b"%d" % number}
    backend.capabilities(nodes.get)


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        (few(event_channels=0), "max_event_channels"),
        (few(threads=0), "max_threads"),
        (few(descriptors=3), "max_descriptors"),
        (few(buffers=1), "max_buffer_mb"),
    ],
)
def test_a_queue_that_there_is_no_room_for(card: NetBench, limits: Limits, key: str) -> None:
    """Said before anything is opened; nothing of it is kept, and it goes when there is room."""
    card.limits.configure(limits)
    card.open()
    before, opened = card.descriptors(), card.fakes.there[NAME].opened
    with pytest.raises(LimitError, match=rf"see {key} in \[daemon\]") as error:
        card.connect()
    assert error.value.passes
    assert card.queue is Queue.NONE
    assert card.descriptors() == before
    assert card.fakes.there[NAME].opened == opened
    assert card.limits.values()["event_channels"] == 0
    card.limits.configure(MUCH)
    assert card.freed == [IDENTITY.unit], "it is tried again"
    card.connect()
    assert card.limits.values()["event_channels"] == 1


def test_a_disk_has_what_a_card_wants(card: NetBench) -> None:
    """There is one account of all devices, and what others have is not there for a card."""
    card.limits.configure(few(event_channels=4))
    card.limits.take(DISK, Part.CONNECTION, 7, Need(event_channels=4))
    card.open()
    with pytest.raises(LimitError, match="all guests' devices have 4 event channels of 4"):
        card.connect()
    card.limits.forget(DISK)
    assert card.freed == [IDENTITY.unit]
    card.connect()
    with pytest.raises(LimitError):
        card.limits.take(DISK, Part.CONNECTION, 7, Need(event_channels=4))
    card.limits.forget(DISK)


def test_a_connection_that_fails_gives_back_what_it_took(card: NetBench) -> None:
    card.open()
    before = card.limits.values()
    card.frontend_nodes["event-channel"] = b"4"
    with pytest.raises(GuestError):
        card.connect()
    assert card.limits.values() == before


def test_an_end_gives_back_what_was_taken(card: NetBench) -> None:
    card.open()
    before = card.limits.values()
    card.connect()
    assert card.limits.values()["threads"] == before["threads"] + 1
    card.down()
    assert card.limits.values() == before


def test_a_card_too_many_of_one_guest(card: NetBench, other: NetBackend) -> None:
    """Disks are not counted with them."""
    card.limits.configure(few(cards=1))
    card.limits.take(DISK, Part.DEVICE, 5, Need(disks=1))
    card.offer()
    before = card.fakes.names
    with pytest.raises(
        LimitError, match=r"guest 5 has 1 network cards.*see max_cards_per_guest"
    ) as error:
        offer(other, 1)
    assert error.value.passes
    assert card.fakes.names == before
    card.offer()  # who is in may be offered again
    another = card.create(Identity("vif", 6, 0, "xnb", 2))
    offer(another, 0)
    another.forget()
    card.backend.forget()
    assert 1 in card.freed
    offer(other, 1)
    card.limits.forget(DISK)


def test_a_card_without_a_descriptor_left(card: NetBench) -> None:
    card.limits.configure(few(descriptors=0))
    with pytest.raises(LimitError, match="see max_descriptors"):
        card.offer()
    assert card.fakes.names == []


def test_fewer_queues_are_offered_when_little_is_left(card: NetBench) -> None:
    card.family.configure(Config(net=NetConfig(max_queues=8)))
    card.limits.configure(few(event_channels=3))
    assert card.offer()["multi-queue-max-queues"] == b"3"
    card.limits.take(DISK, Part.CONNECTION, 9, Need(event_channels=3))
    assert card.offer()["multi-queue-max-queues"] is None, "a single one, which is asked for later"
    card.limits.forget(DISK)


def test_what_is_counted_is_what_a_queue_opens(card: NetBench) -> None:
    """Descriptors, on the hypervisor that needs the most of them."""
    card.open()
    before = open_descriptors()
    card.connect()
    # The frontend's end of the event channel, and the network's of the interface, lie here too.
    took = len(open_descriptors() - before)
    queue = most_of_queue(HvKind.SIM)
    assert took - 2 <= queue.descriptors + OF_CONNECTION.descriptors <= took
    assert queue.threads == queue.event_channels == 1
    assert Need(cards=1, descriptors=1) == OF_DEVICE


def test_what_is_adopted_is_counted_and_never_refused(card: NetBench) -> None:
    """A guest at work loses nothing to a bound that others have reached."""
    card.open()
    card.connect()
    before = card.limits.values()
    card.die()
    card.limits.configure(few(cards=0, event_channels=0, descriptors=0))
    card.adopt()
    for name in ("event_channels", "threads", "descriptors", "buffer_kb"):
        assert card.limits.values()[name] == before[name]


def test_what_cannot_be_adopted_is_not_counted(card: NetBench) -> None:
    card.open()
    card.connect()
    card.die()
    card.fakes.broken = 6
    with pytest.raises(HostError, match="cannot be taken over"):
        card.adopt()
    card.backend.abandon()  # as the table does
    assert card.limits.values()["event_channels"] == 0
    card.fakes.broken = 0
