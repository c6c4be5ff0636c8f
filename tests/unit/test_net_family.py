"""The family of cards with a real queue: interface, offer, connection, end."""

from __future__ import annotations

import os
from dataclasses import replace
from errno import EBUSY, EEXIST, ENODEV, EPERM

import pytest

from tests.unit.family_bench import PORT
from tests.unit.net_bench import IDENTITY, MAC, NAME, NetBench
from tests.unit.slow_run import SlowRun
from tests.waiting import eventually
from xbbd_bsd.config import Config, NetConfig
from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import InterfaceStays, QueueStarted, QueueStatus
from xbbd_bsd.host import Links
from xbbd_bsd.native import NetState, QueueState, StopReason, sim_mapped
from xbbd_bsd.native import QueueStatus as Status
from xbbd_bsd.net.queues import fault_of
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue, State

WHO = "xnb0 (vif/5/0)"
HEADER = bytes(12)  # of a link: as it is
FRAME = bytes.fromhex("ffffffffffff00163e01020388b5") + bytes(50)


def crosses(card: NetBench) -> None:
    """Frames go both ways."""
    card.guest.wire.send(HEADER + FRAME)
    assert card.wire.recv(3000)[12:] == FRAME
    card.wire.send(HEADER + FRAME)
    assert card.guest.wire.recv(3000)[12:] == FRAME


def test_the_interface_is_there_from_the_offer_to_the_end(card: NetBench) -> None:
    assert card.fakes.names == []
    nodes = card.offer()
    assert (nodes["feature-sg"], nodes["multi-queue-max-queues"]) == (b"1", b"4")
    assert card.fakes.names == [NAME]
    tap = card.fakes.there[NAME]
    assert (tap.multi, tap.carrier, tap.up) == (True, False, False)
    card.backend.forget()
    assert card.fakes.names == []


def test_frames_go_through_and_the_cable_follows_the_connection(card: NetBench) -> None:
    descriptors = card.descriptors()
    assert card.open() == f"interface {NAME} for bridge xenbr0"
    assert card.fakes.there[NAME].up, "nobody else brings it up"
    assert card.connect() == "1 queue, sg csum-ipv4"
    assert card.fakes.there[NAME].carrier
    crosses(card)
    refs = f"{card.guest.front.tx_ref} {card.guest.front.rx_ref}"
    assert card.events == [QueueStarted(WHO, PORT, refs)]
    card.backend.drain()
    card.drained()
    assert QueueStatus(WHO, "drained", "none", 0) in card.events
    card.backend.disconnect()
    assert card.queue is Queue.NONE
    assert not card.fakes.there[NAME].carrier
    assert card.fakes.names == [NAME], "it stays in its bridge"
    assert sim_mapped(card.host.domain_fd) == 0
    # One is the segment's lock; the guest closes its end of the event channel when it notices.
    eventually(lambda: len(card.descriptors()) == len(descriptors) + 1, "none is left")


def test_it_connects_again(card: NetBench) -> None:
    for _ in range(3):
        card.open()
        card.connect()
        crosses(card)
        card.down()
        card.guest.close()
        card.guest = type(card.guest)(card.host)
        card.frontend_nodes = card.guest.nodes()
    assert card.fakes.there[NAME].opened == 6, "made or looked at, and connected"


def test_a_guest_that_comes_back_has_the_same_segment(card: NetBench) -> None:
    """What was counted goes on, until the card is gone."""
    card.open()
    before = (card.run / "xnb.0").stat().st_ino
    card.connect()
    crosses(card)
    card.down()
    card.open()
    assert (card.run / "xnb.0").stat().st_ino == before
    assert card.backend.numbers().group("counters")["tx_packets"] == 1


def test_a_card_connects_when_its_guest_is_connected(card: NetBench) -> None:
    assert card.family.connect_on == {State.CONNECTED}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"event-channel": b"9"}, r"^queue 0 \(references \d+ \d+, port 9\): .* no event channel"),
        ({"tx-ring-ref": b"4000000"}, r"^queue 0 \(references 4000000 \d+, port 3\): .*map"),
        ({"rx-ring-ref": b"4000000"}, r"^queue 0 \(references \d+ 4000000, port 3\): .*map"),
        ({"request-rx-copy": b"0"}, "^frontend node request-rx-copy is absent or 0"),
    ],
)
def test_a_connection_that_fails_leaves_nothing(
    card: NetBench, nodes: dict[str, bytes], message: str
) -> None:
    card.open()
    descriptors = card.descriptors()
    card.frontend_nodes |= nodes
    with pytest.raises((GuestError, HostError), match=message):
        card.connect()
    assert card.queue is Queue.NONE
    eventually(lambda: card.descriptors() == descriptors, "none is left")
    assert not card.fakes.there[NAME].carrier
    assert sim_mapped(card.host.domain_fd) == 0


def test_rings_whose_indices_lie_fail(card: NetBench) -> None:
    card.open()
    card.connect()
    card.guest.stop()
    card.guest.front.tx_ring[0:4] = (1000).to_bytes(4, "little")  # req_prod
    card.guest.front.notify()
    card.drained()
    assert card.queue is Queue.FAILED
    fault = card.backend.fault
    assert isinstance(fault, GuestError)
    assert str(fault).startswith("queue 0 (references ")
    assert "ring indices" in str(fault)


def test_names_of_interfaces(card: NetBench) -> None:
    card.backend_nodes["handle"] = b"3"
    card.offer()
    assert card.fakes.names == ["vif5.3"]
    card.backend_nodes["vifname"] = b"web1"
    card.offer()
    assert card.fakes.names == ["web1"], "the former is nobody's"
    card.host.links = Links("xnb", multi=False, offload="safe", told=False)
    del card.backend_nodes["vifname"]
    card.fakes.remove("web1")
    nodes = card.offer()
    assert card.fakes.names == ["xnb5.3"]
    assert nodes["multi-queue-max-queues"] is None
    assert not card.fakes.there["xnb5.3"].multi


def test_an_interface_is_one_cards(card: NetBench) -> None:
    card.backend_nodes["vifname"] = b"shared"
    card.offer()
    second = card.create(Identity("vif", 6, 0, "xnb", 1))
    with pytest.raises(OperatorError, match=r"^interface shared is xnb0's$") as refused:
        second.capabilities(card.backend_nodes.get)
    assert refused.value.errno == EEXIST
    second.forget()
    assert card.fakes.names == ["shared"]
    card.backend.forget()
    third = card.create(Identity("vif", 6, 0, "xnb", 1))
    third.capabilities(card.backend_nodes.get)
    third.forget()


def test_a_number_that_is_used_again_has_no_claim_to_the_former_ones_name(card: NetBench) -> None:
    card.backend_nodes["vifname"] = b"web1"
    card.offer()
    card.backend.forget()
    card.backend = card.create(IDENTITY)
    with pytest.raises(OperatorError, match=r"^node mac is 'x'"):
        card.backend.capabilities({"mac": b"x"}.get)
    second = card.create(Identity("vif", 6, 0, "xnb", 1))
    second.capabilities(card.backend_nodes.get)
    assert card.fakes.names == ["web1"]
    second.forget()


def test_an_interface_of_that_name_that_is_no_cards_is_left_alone(card: NetBench) -> None:
    others = card.fakes.open("web1", multi=True)
    card.backend_nodes["vifname"] = b"web1"
    with pytest.raises(OperatorError, match=r"^interface web1 is there already, and no") as no:
        card.offer()
    assert no.value.errno == EEXIST
    card.backend.forget()
    assert card.fakes.names == ["web1"]
    assert card.fakes.there["web1"].opened == 1
    os.close(others)
    card.fakes.remove("web1")


def test_a_script_sees_to_the_interface(card: NetBench) -> None:
    """On Linux it says so; somewhere else it does not."""
    named = card.backend.medium_named
    assert named(card.backend_nodes.get), "no script, nobody to wait for"
    card.backend_nodes["script"] = b"vif-bridge"
    card.backend = card.create(replace(IDENTITY, unit=1))
    card.offer()
    named = card.backend.medium_named
    assert not named(card.backend_nodes.get)
    card.backend_nodes["hotplug-status"] = b"error"
    assert not named(card.backend_nodes.get)
    card.backend_nodes["hotplug-status"] = b"connected"
    assert named(card.backend_nodes.get)
    del card.backend_nodes["hotplug-status"]
    assert named(card.backend_nodes.get), "as long as it is there"
    card.backend.open(card.backend_nodes.get)
    assert not card.fakes.there[NAME].up, "that is the script's"
    card.host.links = replace(card.host.links, told=False)
    card.backend.close()
    other = card.create(Identity("vif", 6, 0, "xnb", 2))
    assert other.medium_named(card.backend_nodes.get)
    other.forget()


def test_the_size_of_packets_is_the_toolstacks(card: NetBench) -> None:
    card.offer()
    assert card.fakes.there[NAME].mtu == 1500
    card.backend_nodes["mtu"] = b"9000"
    card.offer()
    assert card.fakes.there[NAME].mtu == 9000


@pytest.mark.parametrize(
    ("nodes", "message"),
    [({"mac": b"x"}, "^node mac is 'x'"), ({"mtu": b"1"}, "^node mtu is 1,")],
)
def test_nodes_that_cannot_be_make_nothing(
    card: NetBench, nodes: dict[str, bytes], message: str
) -> None:
    card.backend_nodes |= nodes
    with pytest.raises(OperatorError, match=message):
        card.offer()
    assert card.fakes.names == []


def test_an_interface_that_cannot_be_had(card: NetBench) -> None:
    card.fakes.broken = EPERM
    with pytest.raises(HostError, match=f"^interface {NAME}: ") as refused:
        card.offer()
    assert refused.value.errno == EPERM
    assert card.fakes.names == []
    card.fakes.broken = 0
    card.offer()


def test_an_interface_that_stays_is_said(card: NetBench) -> None:
    card.offer()
    card.fakes.stay = True
    card.backend.forget()
    (said,) = card.events
    assert isinstance(said, InterfaceStays)
    assert (said.device, said.interface) == (WHO, NAME)
    card.fakes.stay = False
    card.fakes.remove(NAME)


def test_the_filter_wants_an_address(card: NetBench) -> None:
    card.family.configure(Config(net=NetConfig(mac_filter=True)))
    del card.backend_nodes["mac"]
    with pytest.raises(OperatorError, match=r"^node mac is missing, which mac_filter needs$"):
        card.offer()


def test_the_filter_lets_through_what_is_the_cards(card: NetBench) -> None:
    card.family.configure(Config(net=NetConfig(mac_filter=True)))
    card.open()
    card.connect()
    other = FRAME[:6] + bytes.fromhex("00163e999999") + FRAME[12:]
    card.guest.wire.send(HEADER + other)
    crosses(card)
    assert card.backend.numbers().group("refusals")["refused.bad_source"] == 1
    assert card.backend_nodes["mac"] == MAC


@pytest.mark.parametrize(
    ("configured", "multi", "shown"),
    [("auto", True, "full"), ("safe", True, "safe"), ("full", True, "full")],
)
def test_what_an_interface_is_given(
    card: NetBench, configured: str, multi: bool, shown: str
) -> None:
    card.family.configure(Config(net=NetConfig(offload=configured)))
    card.open()
    card.connect()
    assert card.backend.numbers().group("card")["link_offload"] == shown


def test_auto_is_what_suits_the_host(card: NetBench) -> None:
    card.host.links = replace(card.host.links, offload="safe")
    card.open()
    card.connect()
    assert card.backend.numbers().group("card")["link_offload"] == "safe"


def test_as_many_queues_as_configured(card: NetBench) -> None:
    card.family.configure(Config(net=NetConfig(max_queues=2)))
    assert card.offer()["multi-queue-max-queues"] == b"2"
    card.family.configure(Config(net=NetConfig(max_queues=8)))
    assert card.offer()["multi-queue-max-queues"] == b"8"


def test_tunables_follow_the_configuration_but_not_over_an_operator(card: NetBench) -> None:
    card.offer()
    numbers = card.backend.numbers()
    assert numbers.group("tunables") == {"poll_max_us": 50}
    numbers.set("poll_max_us", 7, "dev.xnb.0.poll_max_us")
    card.family.configure(Config())
    assert numbers.group("tunables") == {"poll_max_us": 7}, "it has not changed"
    card.family.configure(Config(net=NetConfig(poll_max_us=9)))
    assert numbers.group("tunables") == {"poll_max_us": 9}
    assert card.backend.numbers().configured() == {"poll_max_us": 9}


def test_a_segment_that_was_cut_off_is_made_anew(card: NetBench) -> None:
    card.open()
    (card.run / "xnb.0").write_bytes(b"")
    assert card.backend.numbers().group("counters")["tx_packets"] == 0
    card.backend.close()
    card.offer()
    with NetSegment(card) as segment:
        assert segment.interface == NAME
        assert segment.guest == "vm"
        assert segment.identity.machine == "/vm/1"


class NetSegment:
    """The segment of a card, as another process has it."""

    def __init__(self, card: NetBench) -> None:
        self._state = NetState.open(str(card.run / f"xnb.{IDENTITY.unit}"))

    def __enter__(self) -> NetState:
        return self._state

    def __exit__(self, *error: object) -> None:
        self._state.close()


def test_mapping_is_waited_for_by_a_thread(card: NetBench) -> None:
    later = SlowRun()
    card.family.run = later
    card.backend.forget()
    card.backend = card.create(IDENTITY)
    card.open()
    with pytest.raises(Pending):
        card.connect()
    assert card.backend.medium_open
    later.finish()
    assert card.wakes == 1
    assert card.connect() == "1 queue, sg csum-ipv4"
    assert card.queue is Queue.RUNNING


def test_what_nobody_wants_any_more_is_undone_before_anything_is_given_back(
    card: NetBench,
) -> None:
    later = SlowRun()
    card.family.run = later
    card.backend.forget()
    card.backend = card.create(IDENTITY)
    card.open()
    descriptors = card.descriptors()
    with pytest.raises(Pending):
        card.connect()
    card.backend.abandon()
    with pytest.raises(Pending):
        card.backend.close()
    later.finish()  # it is mapped, and nobody asks
    assert card.backend.medium_open
    with pytest.raises(Pending):
        card.backend.close()
    later.finish()  # undone
    card.backend.close()
    assert not card.backend.medium_open
    eventually(lambda: card.descriptors() == descriptors, "none is left")
    assert sim_mapped(card.host.domain_fd) == 0


def test_an_operator_has_no_verbs(card: NetBench) -> None:
    with pytest.raises(OperatorError, match="unknown oid"):
        card.family.perform("resize", 0, "me")
    assert card.family.findings() == []


def test_leaving_hands_over(card: NetBench) -> None:
    card.open()
    assert card.backend.left
    card.connect()
    crosses(card)
    assert not card.backend.left
    card.backend.leave()
    card.drained()
    assert card.backend.left
    card.family.leave()
    with NetSegment(card) as segment:
        assert segment.served == [0]


def test_why_queues_stop() -> None:
    gone = fault_of(Status(QueueState.DRAINED, StopReason.MEDIUM, ENODEV))
    assert isinstance(gone, HostError)
    assert str(gone) == "the interface is gone: No such device"
    assert fault_of(Status(QueueState.DRAINED, StopReason.NONE, 0)) is None
    cut = fault_of(Status(QueueState.DRAINED, StopReason.SEGMENT, 0))
    assert str(cut) == "somebody has cut off the file of its state segment"


def test_an_interface_that_another_program_has(card: NetBench) -> None:
    card.host.links = Links("xnb", multi=False, offload="safe", told=False)
    kept = card.fakes.open("xnb5.0", multi=False)
    with pytest.raises(HostError) as refused:
        card.offer()
    assert refused.value.errno == EBUSY
    os.close(kept)
    card.fakes.remove("xnb5.0")
