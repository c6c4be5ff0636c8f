"""A daemon that dies under a connected card, and the next one, which goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EBUSY, EPERM
from pathlib import Path

import pytest

from tests.unit.net_bench import IDENTITY, NAME, NetBench
from tests.unit.slow_run import SlowRun
from tests.unit.test_net_family import FRAME, HEADER, WHO, NetSegment, crosses
from xbbd_bsd.config import Config, NetConfig
from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import InterfaceStays
from xbbd_bsd.native import NetState, QueueState
from xbbd_bsd.net.heritage import Inheritance, Left
from xbbd_bsd.takeovers import SegmentLeft
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue


def connected(card: NetBench) -> None:
    card.open()
    card.connect()
    crosses(card)


def test_both_rings_go_on(card: NetBench) -> None:
    connected(card)
    counted = card.backend.numbers().group("counters")["tx_packets"]
    card.die()
    assert card.backend.adoptable
    assert card.queue is Queue.NONE
    assert card.family.unit_of("vif", 5, 0, card.backend_nodes.get) is None, "it has been claimed"
    assert card.adopt() == f"1 queue, sg csum-ipv4, interface {NAME}"
    assert not card.backend.adoptable
    assert card.backend.medium_open
    assert card.queue is Queue.RUNNING
    crosses(card)
    numbers = card.backend.numbers()
    assert numbers.group("counters")["tx_packets"] == int(counted) + 1
    assert numbers.group("takeovers") == {"takeovers": 1}
    card.down()
    card.open()


def test_a_frame_that_nobody_served_is_served(card: NetBench) -> None:
    connected(card)
    card.die()
    card.guest.wire.send(HEADER + FRAME)
    card.adopt()
    assert card.wire.recv(3000)[12:] == FRAME


def test_its_number_is_kept_for_it(card: NetBench) -> None:
    connected(card)
    left = card.die()
    family = card.make(Config())
    assert left.exists()
    assert set(family.promised) == {0}
    assert family.unit_of("vif", 5, 0, card.backend_nodes.get) == 0
    assert family.unit_of("vif", 6, 0, card.backend_nodes.get) is None
    card.adopt()


def test_what_nobody_wants_goes_with_its_interface(card: NetBench) -> None:
    connected(card)
    card.die()
    family = card.make(Config())
    family.settle("vbd")
    assert set(family.promised) == {0}
    family.settle("vif")
    card.turn()
    assert set(family.promised) == set()
    assert (card.fakes.names, os.listdir(card.run)) == ([], [])
    card.backend.drain()


def test_an_interface_that_stays_is_said(card: NetBench) -> None:
    connected(card)
    card.die()
    family = card.make(Config())
    card.fakes.stay = True
    family.settle("vif")
    card.turn()
    (said,) = card.events
    assert isinstance(said, InterfaceStays)
    assert (said.device, said.interface) == (WHO, NAME)
    card.fakes.stay = False
    card.backend.drain()
    card.backend.forget()
    card.turn()
    assert card.fakes.names == []


def test_an_interface_that_another_card_has_by_now_is_left_to_it(card: NetBench) -> None:
    card.backend_nodes["vifname"] = b"web1"
    card.open()
    card.connect()
    card.die()
    family = card.make(Config())
    second = family.create(Identity("vif", 6, 0, "xnb", 1), card.wake, card.events.append)
    second.capabilities(card.backend_nodes.get)
    family.settle("vif")
    card.turn()
    assert card.fakes.names == ["web1"]
    second.forget()
    card.backend.drain()


def test_an_interface_is_its_cards_before_that_is_taken_over(card: NetBench) -> None:
    card.backend_nodes["vifname"] = b"web1"
    card.open()
    card.connect()
    card.die()
    second = card.create(Identity("vif", 6, 0, "xnb", 1))
    with pytest.raises(OperatorError, match=r"^interface web1 is xnb0's$"):
        second.capabilities(card.backend_nodes.get)
    second.forget()
    card.adopt()
    assert card.queue is Queue.RUNNING


def test_as_it_was_whatever_is_configured_now(card: NetBench) -> None:
    card.family.configure(Config(net=NetConfig(offload="safe")))
    connected(card)
    card.die(Config(net=NetConfig(offload="full", poll_max_us=3)))
    card.backend_nodes["vifname"] = b"another"
    card.backend_nodes["mac"] = b"nonsense"
    card.adopt()
    shown = card.backend.numbers()
    assert shown.group("card")["link_offload"] == "safe"
    assert shown.group("card")["interface"] == NAME
    assert shown.group("tunables") == {"poll_max_us": 3}
    crosses(card)


def test_it_is_waited_for_as_long_as_somebody_serves_it(card: NetBench) -> None:
    connected(card)
    left = card.die()
    kept = NetState.take_over(str(left))
    with pytest.raises(HostError) as refused:
        card.adopt()
    assert refused.value.errno == EBUSY
    assert card.backend.adoptable
    kept.close()
    card.adopt()
    crosses(card)


def test_its_pages_are_mapped_by_a_thread(card: NetBench) -> None:
    connected(card)
    later = SlowRun()
    card._run = later
    card.die()
    with pytest.raises(Pending):
        card.adopt()
    assert card.backend.medium_open, "or its segment would be given back meanwhile"
    later.finish()
    card.adopt()
    crosses(card)


def test_a_virtual_machine_of_the_same_number_is_another(card: NetBench) -> None:
    connected(card)
    card.die()
    card.backend.introduce(card.backend_nodes.get, "vm", "/vm/2")
    assert not card.backend.adoptable
    assert card.backend.lost == "its state segment is another virtual machine's"
    card.open()
    assert card.fakes.there[NAME].opened == 3, "the same one"


def test_of_a_long_name_a_machine_is_known_by_what_a_segment_has_of_it(card: NetBench) -> None:
    machine = "/vm/" + "0" * 80
    card.backend.introduce(card.backend_nodes.get, "vm", machine)
    card.backend.capabilities(card.backend_nodes.get)
    with NetSegment(card) as segment:
        kept = segment.identity.machine
    left = Inheritance(
        Left("", 0, ("vif", 5, 0), kept, NAME), card.family.serving, IDENTITY, lambda: None
    )
    left.is_for(machine)
    assert left.adoptable
    left.is_for("/vm/" + "0" * 20)
    assert not left.adoptable


def test_what_it_said_is_forgotten_by_whoever_has_gone_on(card: NetBench) -> None:
    """Whose process may die, too, and leave it anew."""
    connected(card)
    card.die()
    inheritance = card.backend._inheritance
    left, segment = inheritance._left, inheritance.take()
    assert left is not None
    first = inheritance.served(segment)
    draining(segment)
    assert inheritance.served(segment) is first
    inheritance.taken()
    inheritance.orphan(left)
    assert inheritance.adoptable
    assert inheritance.served(segment).ending
    segment.close()
    card.follow()


def test_what_cannot_be_taken_over_is_begun_anew(card: NetBench) -> None:
    connected(card)
    card.die()
    card.fakes.broken = EPERM
    with pytest.raises(HostError, match=r"^cannot be taken over: queue 0 .*: interface vif5\.0"):
        card.adopt()
    assert not card.backend.adoptable
    assert card.backend.lost.startswith("queue 0 ")
    assert card.queue is Queue.NONE
    card.fakes.broken = 0
    card.guest.close()
    card.guest = type(card.guest)(card.host)
    card.frontend_nodes = card.guest.nodes()
    card.open()
    card.connect()
    crosses(card)
    assert card.backend.numbers().group("takeovers") == {"takeovers": 0}


def test_a_guest_that_has_closed_meanwhile_is_not_gone_on_with(card: NetBench) -> None:
    connected(card)
    left = card.die()
    card.backend.drain()
    assert not card.backend.adoptable
    assert not left.exists()
    card.open()


def test_begun_anew_under_another_name_the_former_goes(card: NetBench) -> None:
    connected(card)
    card.die()
    card.backend_nodes["vifname"] = b"web1"
    card.open()
    assert card.fakes.names == ["web1"]


def test_begun_anew_it_goes_with_the_card_though_another_has_the_new_name(card: NetBench) -> None:
    connected(card)
    card.die()
    second = card.create(Identity("vif", 6, 0, "xnb", 1))
    card.backend_nodes["vifname"] = b"web1"
    second.capabilities(card.backend_nodes.get)
    with pytest.raises(OperatorError, match=r"^interface web1 is xnb1's$"):
        card.offer()
    card.backend.forget()
    card.turn()
    assert card.fakes.names == ["web1"]
    second.forget()


def test_begun_anew_it_goes_with_the_card_though_it_could_not_be_opened(card: NetBench) -> None:
    connected(card)
    card.die()
    card.fakes.broken = EPERM
    with pytest.raises(HostError):
        card.offer()
    card.backend.forget()
    card.turn()
    assert card.fakes.names == []


def test_one_that_nobody_takes_over_goes_with_the_card(card: NetBench) -> None:
    connected(card)
    card.die()
    assert card.backend.lost == ""
    card.backend.forget()
    card.turn()
    assert (card.fakes.names, os.listdir(card.run)) == ([], [])


def test_what_could_not_be_taken_over_yet_is_begun_anew_with_a_fresh_segment(
    card: NetBench,
) -> None:
    connected(card)
    card.die()
    card.fakes.broken = EBUSY  # which passes
    with pytest.raises(HostError):
        card.adopt()
    assert card.backend.adoptable
    card.fakes.broken = 0
    card.open()
    assert card.backend.numbers().group("counters")["tx_packets"] == 0


def test_handed_over_is_taken_over(card: NetBench) -> None:
    connected(card)
    card.backend.leave()
    card.drained()
    card.die()
    assert card.backend.adoptable
    card.adopt()
    crosses(card)


def one_of_two(segment: NetState) -> None:
    segment.connect(2)


def draining(segment: NetState) -> None:
    segment.handle.ring[0].common.status.state = QueueState.DRAINING


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("was", [one_of_two, draining])
def test_one_that_was_ending_ends(
    card: NetBench, was: Callable[[NetState], None], *, slow: bool
) -> None:
    """Whether its pages are mapped at once or must be waited for."""
    connected(card)
    left = card.die()
    state = NetState.open(str(left), writable=True)
    was(state)
    state.close()
    del card.backend_nodes["served"]  # which would say that there was one queue
    if slow:
        card._run = later = SlowRun()
    card.follow()
    if slow:
        with pytest.raises(Pending):
            card.adopt()
        later.finish()
    card.adopt()
    card.drained()
    assert card.queue is Queue.DRAINED


@pytest.mark.parametrize("content", [b"", b"nothing that is a segment" * 400])
def test_what_is_no_segment_is_of_no_use(card: NetBench, content: bytes) -> None:
    path = card.run / "xnb.7"
    path.write_bytes(content)
    family = card.make(Config())
    (said,) = card.events
    assert isinstance(said, SegmentLeft)
    assert said.file == str(path)
    assert not path.exists()
    assert set(family.promised) == {7}, "its node may say whose it was"
    assert family.unit_of("vif", 5, 0, {"served": b"6 x"}.get) is None
    assert family.unit_of("vif", 5, 0, {"served": b"7 x"}.get) == 7


def test_a_disks_segment_is_none_of_a_card(card: NetBench) -> None:
    from xbbd_bsd.native import State

    path = card.run / "xnb.7"
    State.create(str(path)).close()
    card.make(Config())
    assert [type(event) for event in card.events] == [SegmentLeft]
    assert not path.exists()


def test_files_of_others_are_left_alone(card: NetBench) -> None:
    others = [card.run / name for name in ("xnb", "xnb.01", "xnb.x", "xbbd.0", "axnb.1")]
    for path in others:
        path.touch()
    card.make(Config())
    assert all(path.exists() for path in others)
    for path in others:
        path.unlink()
    assert card.events == []


def test_a_segment_under_another_number_is_of_no_use(card: NetBench) -> None:
    connected(card)
    left = card.die()
    moved = card.run / "xnb.4"
    moved.write_bytes(left.read_bytes())
    card.make(Config())
    (said,) = card.events
    assert isinstance(said, SegmentLeft)
    assert said.reason == "it is about another card"
    assert not moved.exists()
    card.adopt()


def test_one_that_was_not_served_keeps_its_number_and_interface(card: NetBench) -> None:
    card.open()
    left = card.die()
    assert not card.backend.adoptable
    assert card.backend.lost == "it was not served then"
    assert not left.exists()
    card.open()
    assert card.fakes.names == [NAME]
    with NetSegment(card) as segment:
        assert segment.identity.unit == IDENTITY.unit


def test_numbers_are_there_before_it_is_taken_over(card: NetBench) -> None:
    connected(card)
    card.die()
    numbers = card.backend.numbers()
    assert numbers.group("card")["queues"] == 0
    assert numbers.group("counters") == {}
    assert numbers.stat(latency=True)["guest"] == "vm"
    card.adopt()


def test_the_segment_is_in_the_daemons_directory(card: NetBench, tmp_path: Path) -> None:
    connected(card)
    assert sorted(os.listdir(card.run)) == ["xnb.0", "xnb.0.interface"]
    assert (card.run / "xnb.0").stat().st_mode & 0o777 == 0o600


def test_a_segment_that_somebody_wrote_to_is_not_believed(card: NetBench) -> None:
    """Whoever serves a card can, and may obey its guest."""
    connected(card)
    left = card.die()
    state = NetState.open(str(left), writable=True)
    state.handle.ring[0].params.filter ^= 1
    state.close()
    card.follow()
    with pytest.raises(HostError, match="not as its guest was connected"):
        card.adopt()
    assert not card.backend.adoptable


def test_what_its_interface_is_called_no_server_says(card: NetBench) -> None:
    """Another's is neither had by that nor removed."""
    connected(card)
    os.close(card.fakes.open("vif6.0", multi=True))
    left = card.die()
    state = NetState.open(str(left), writable=True)
    state.interface = "vif6.0"
    state.close()
    card.follow()
    card.adopt()
    assert card.backend.numbers().group("card")["interface"] == NAME
    crosses(card)
    card.die()
    card.make(Config()).settle("vif")
    card.turn()
    assert card.fakes.names == ["vif6.0"]
    card.backend.drain()
    card.fakes.remove("vif6.0")


def test_one_that_an_earlier_version_served_is_believed_and_noted(card: NetBench) -> None:
    """It served all cards itself, and has left no node."""
    connected(card)
    card.die()
    noted = card.backend_nodes.pop("served")
    card.adopt()
    assert card.backend.news == {"served": noted}
    card.backend.told()
    assert card.backend.news == {}
    crosses(card)
