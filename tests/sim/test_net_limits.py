"""Limits over all devices in a whole machine, with cards: a guest that wants much leaves some."""

from __future__ import annotations

import pytest

from tests.sim.netmachine import running_netmachine, section
from tests.sim.test_operator import values, xbbctl
from tests.waiting import GIVE_UP
from xbbd_bsd.toolstack import remove

pytestmark = pytest.mark.slow


def test_many_queues_of_one_guest_leave_some_for_another() -> None:
    limits = "max_event_channels = 6\nmax_guest_share = 50\n"
    with running_netmachine(f"{limits}{section(max_queues=8)}") as net:
        greedy, other = (net.netguest(domid, "--queues", "8") for domid in (1, 2))
        for guest, domid in ((greedy, 1), (other, 2)):
            net.attach_card(domid)
            assert guest.event("connected", GIVE_UP)["queues"] == 3
        assert values(net)["hw.xbbd.event_channels"] == 6
        for guest in (greedy, other):
            net.check_ping(guest, "10.0.0.254")


def test_a_guest_waits_for_what_another_gives_back() -> None:
    with running_netmachine("max_event_channels = 1\nmax_guest_share = 100\n") as net:
        net.online(1)
        guest = net.netguest(2)
        net.attach_card(2)
        net.log_line(r"waits: all guests' devices have 1 event channels of 1.*max_event_channels")
        assert "max_event_channels" in xbbctl(net, "dev.xnb.1.held_back")
        remove(net.chain.store, net.cards.pop(0))
        guest.event("connected", GIVE_UP)
        net.check_ping(guest, "10.0.0.254")
