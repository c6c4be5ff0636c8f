"""Guests with network cards and a real IP stack: whatever one does with a network works."""

from __future__ import annotations

import pytest

from tests.sim.netmachine import NetMachine, addresses, net, running_netmachine, section
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.native import NetRefusal
from xbbd_bsd.sim.netchain import card

__all__ = ["net"]  # a fixture

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20


def test_two_guests_and_dom0(net: NetMachine) -> None:
    guests = {domid: net.online(domid) for domid in (1, 2)}
    for domid, other in ((1, 2), (2, 1)):
        for version in (0, 1):
            net.check_ping(guests[domid], addresses(other)[version])
            net.check_ping(None, addresses(domid)[version])
            net.check_ping(guests[domid], addresses(other)[version], "--size", "4000")
            net.move(guests[domid], guests[other], addresses(other)[version], 8 * MEGABYTE)
    net.check_figures(*guests.values())
    for domid in guests:
        assert net.detach_card(domid)
    for guest in guests.values():
        guest.event("closed", GIVE_UP)


def test_a_guest_sees_its_address_and_dom0_its_interface(net: NetMachine) -> None:
    guest = net.online(1)
    assert card(1).mac in net.chain.in_guest(guest, "ip", "link", "show", "eth0")
    assert net.chain.interfaces() == net.interfaces | {"vif1.0"}
    assert "master xenbr0" in net.chain.dom0.run("ip", "link", "show", "vif1.0")


def test_a_guest_gives_its_card_back_and_takes_it_again(net: NetMachine) -> None:
    guest = net.online(1)
    for _ in range(3):
        net.check_ping(guest, "10.0.0.254")
        guest.tell("close")
        guest.event("closed", GIVE_UP)
        assert "vif1.0" in net.chain.interfaces()  # which stays, and in its bridge
        assert not net.pings(None, addresses(1)[0], "--count", "1", "--limit", "0.1")
        guest.tell("open")
        guest.event("connected", GIVE_UP)
    net.check_ping(None, addresses(1)[0])
    net.check_figures(guest)


def test_frames_of_9000_bytes() -> None:
    with running_netmachine(mtu=9000) as net:
        guests = {domid: net.online(domid) for domid in (1, 2)}
        net.check_ping(guests[1], addresses(2)[0], "--size", "8972")
        net.check_ping(guests[2], addresses(1)[1], "--size", "8952")
        net.move(guests[1], guests[2], addresses(2)[0], 4 * MEGABYTE)
        net.move(guests[2], guests[1], addresses(1)[1], 4 * MEGABYTE)
        net.check_figures(*guests.values())
        assert net.counters()["tx_slots"] > net.counters()["tx_packets"]


@pytest.mark.parametrize("offered", [1, 3])
def test_several_queues(offered: int) -> None:
    """As many as both want; a stream may be on any of them."""
    with running_netmachine(section(max_queues=offered)) as net:
        guest = net.netguest(1, "--queues", "3")
        net.attach_card(1)
        assert guest.event("connected", GIVE_UP)["queues"] == offered

        def all_carry() -> bool:
            """The kernel chooses by stream: some more of them, then."""
            net.move(guest, None, "10.0.0.254", MEGABYTE)
            net.move(None, guest, addresses(1)[0], MEGABYTE)
            each = [net.counters(queue=queue) for queue in range(offered)]
            return all(counters["tx_packets"] and counters["rx_packets"] for counters in each)

        eventually(all_carry, "each queue has had something", 60.0)
        net.check_figures(guest)
        net.log_line(rf"connected: {offered} queue")


def test_only_from_its_own_address() -> None:
    with running_netmachine(section(mac_filter=True)) as net:
        guest = net.online(1)
        net.check_ping(guest, "10.0.0.254")
        net.chain.in_guest(guest, "ip", "link", "set", "eth0", "address", "00:16:3e:00:00:99")
        assert not net.pings(guest, "10.0.0.254", "--count", "3", "--limit", "0.1")
        assert net.refusals().keys() == {NetRefusal.BAD_SOURCE}
        net.chain.in_guest(guest, "ip", "link", "set", "eth0", "address", card(1).mac)
        net.check_ping(guest, "10.0.0.254")


def test_a_guest_is_destroyed_under_load(net: NetMachine) -> None:
    guest, other = net.online(1), net.online(2)
    inlet = net.chain.traffic(None, "receive", "5001")
    inlet.event("listening", GIVE_UP)
    outlet = net.chain.traffic(
        guest, "send", "10.0.0.254", "5001", "--seconds", "600", "--progress"
    )
    for _ in range(3):
        outlet.event("progress", GIVE_UP)
    guest.signal(9)
    guest.wait()
    net.guests.remove(guest)
    outlet.signal(9)
    inlet.signal(9)
    net.log_line(r"xnb0 \(vif/1/0\): disconnected")
    net.check_ping(other, "10.0.0.254")
    net.chain.detach(net.cards.pop(0))
    eventually(lambda: "vif1.0" not in net.chain.interfaces(), "its interface goes with it")
    net.check_figures(other)


def test_a_guest_answers_whatever_it_is_told(net: NetMachine) -> None:
    guest = net.online(1)
    for line, reason in (
        ("", "commands are help, figures"),
        ("dance", "dance: no such command"),
        ("figures now", "these words do not follow figures"),
        ("misbehave", "misbehave HOW SECONDS"),
        ("misbehave kindly 1", "misbehave HOW SECONDS"),
        ("misbehave short soon", "could not convert"),
        ("open", "the guest has its card already"),
    ):
        guest.tell(line)
        said = guest.next_event(GIVE_UP)
        assert said["event"] == "failed"
        assert reason in said["text"]
    guest.tell("close")
    guest.event("closed", GIVE_UP)
    guest.tell("figures")
    assert "open it first" in guest.next_event(GIVE_UP)["text"]
    guest.end_input()
    assert guest.wait() == 0
    assert guest.tail() == ""


def test_cards_come_and_go(net: NetMachine) -> None:
    guest = net.netguest(1)
    for _ in range(10):
        net.attach_card(1)
        guest.event("connected", GIVE_UP)
        net.check_ping(guest, "10.0.0.254", "--count", "1")
        assert net.detach_card(1)
        guest.event("closed", GIVE_UP)
        net.cards.clear()
        guest.tell("open")
        eventually(lambda: net.interfaces == net.chain.interfaces(), "its interface is gone")
    eventually(lambda: net.holds() == net.base, "all is given back")
