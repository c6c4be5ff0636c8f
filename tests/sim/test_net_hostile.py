"""A guest that misbehaves with its card beside one that does not: only it suffers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.netmachine import NetMachine, addresses, net
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.native import NetRefusal
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.sim.netchain import card

__all__ = ["net"]  # a fixture

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20
REFUSED = {
    "short": {NetRefusal.TOO_SHORT},
    "long": {NetRefusal.TOO_LONG, NetRefusal.TOO_MANY},
    "beyond": {NetRefusal.BEYOND_PAGE, NetRefusal.TOO_LONG},
    "grants": {NetRefusal.BAD_GRANT},
    "extras": {NetRefusal.BAD_EXTRA, NetRefusal.BAD_GSO},
}


def rss_kb(net: NetMachine) -> int:
    text = Path(f"/proc/{net.daemon.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def cpu_seconds(net: NetMachine) -> float:
    fields = Path(f"/proc/{net.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def honest(net: NetMachine) -> Guest:
    guest = net.online(2)
    net.check_ping(guest, "10.0.0.254")
    return guest


def unharmed(net: NetMachine, guest: Guest) -> None:
    net.check_ping(guest, "10.0.0.254")
    net.move(guest, None, "10.0.0.254", MEGABYTE)
    net.move(None, guest, addresses(2)[0], MEGABYTE)
    net.check_figures(guest)


@pytest.mark.parametrize("way", [*map(in_more, REFUSED), "noise", "flood", "storm"])
def test_nonsense(net: NetMachine, way: str) -> None:
    hostile, other = net.online(1), honest(net)
    before = rss_kb(net)
    hostile.tell(f"misbehave {way} 1.5")
    hostile.event("begun", GIVE_UP)
    unharmed(net, other)
    done = hostile.event("misbehaved", GIVE_UP)
    if way in REFUSED:
        assert net.refusals().keys() == REFUSED[way]
        assert done["answered"] > 0
        eventually(
            lambda: net.counters()["tx_errors"] == sum(net.refusals().values()),
            "what was still to be read has been",
        )
    if way == "flood":
        assert done["answered"] > 256
    unharmed(net, other)
    assert rss_kb(net) < before + 16 * 1024  # the arena of a queue is touched bit by bit
    assert net.log().count("\n") < 60


def test_a_grant_that_is_bad_costs_its_packet(net: NetMachine) -> None:
    """And none beside it: of five in a round one is good."""
    hostile = net.online(1)
    before = net.counters()
    hostile.tell("misbehave grants 0.5")
    done = hostile.event("misbehaved", GIVE_UP)
    assert done["answered"] > 100

    def as_sent() -> bool:
        """All but the round that was under way."""
        good = net.counters()["tx_packets"] - before["tx_packets"]
        return abs(4 * good - net.refusals()[NetRefusal.BAD_GRANT]) <= 8

    eventually(as_sent, "what was still to be read has been")


def test_indices_that_lie(net: NetMachine) -> None:
    hostile, other = net.online(1, "--hold"), honest(net)
    hostile.tell("lie")
    hostile.event("lied", GIVE_UP)
    net.log_line(r"xnb0 \(vif/1/0\): .*(ring|indices|lost)")
    unharmed(net, other)


def test_one_that_posts_no_buffers(net: NetMachine) -> None:
    """It costs neither memory nor time, however much is sent to it."""
    silent, other = net.online(1, "--rx-buffers", "0"), honest(net)
    net.chain.dom0.run(
        "ip", "neighbour", "replace", addresses(1)[0], "lladdr", card(1).mac, "dev", "xenbr0"
    )
    flood = ("datagrams", addresses(1)[0], "5001", "--size", "1000")
    first = net.chain.traffic(None, *flood, "--seconds", "0.2")
    first.event("sent", GIVE_UP)
    first.wait()
    eventually(lambda: net.counters()["rx_full"] == 1, "it is known that it has none")
    memory, spent = rss_kb(net), cpu_seconds(net)
    begun = time.monotonic()
    flooder = net.chain.traffic(None, *flood, "--seconds", "5")
    flooder.event("sent", GIVE_UP)
    flooder.wait()
    took = time.monotonic() - begun
    assert rss_kb(net) <= memory + 256
    assert cpu_seconds(net) - spent < 0.05 * took + 0.05
    assert net.counters()["rx_packets"] == 0
    unharmed(net, other)
    assert net.figures(silent)["rx_packets"] == 0


def test_frames_that_no_ethernet_has(net: NetMachine) -> None:
    """What is refused of one guest's does not reach another."""
    hostile, other = net.online(1), honest(net)
    capture = net.wire(net.inside(other), "capture", "eth0")
    capture.event("ready", GIVE_UP)
    for way in ("short", "long", "beyond"):
        hostile.tell(f"misbehave {way} 0.3")
        hostile.event("misbehaved", GIVE_UP)
    capture.end_input()
    seen = capture.event("captured", GIVE_UP)
    capture.wait()
    assert seen["largest"] < 1000
    assert seen["wrong"] == []
