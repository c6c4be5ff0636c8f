"""Network cards of real guests: Linux's xen-netfront on a bridge, as xl makes and takes them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.real.conftest import Guests
from tests.real.service import Service, command, eventually
from xbbd_bsd.native import NetState

more = pytest.mark.more
BRIDGE = "xenbr7"
HERE, THERE, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"
CARD = f"bridge={BRIDGE},mac=00:16:3e:00:00:{{:02x}}"


@pytest.fixture(scope="module")
def cards(service: Service) -> Iterator[Service]:
    """The daemon, with cards too."""
    if first := DOM0.kernel_cards():
        pytest.skip(f"the kernel's backend would be first: {first}")
    service.begin_anew('kinds = ["vbd", "vbd3", "vif"]')
    yield service
    service.begin_anew("")


@pytest.fixture(autouse=True)
def no_card_left(cards: Service) -> Iterator[None]:
    """And no interface, nor a segment."""
    before = DOM0.interfaces()
    yield
    eventually(lambda: DOM0.interfaces() <= before, "no interface is left")
    assert not [name for name in os.listdir(cards.directory / "run") if name.startswith("xnb.")]


@pytest.fixture(autouse=True)
def bridge(no_card_left: None) -> Iterator[None]:
    with DOM0.bridge(BRIDGE, f"{HERE}/24", f"{HERE6}/64"):
        yield


@dataclass
class Lan:
    """Guests on the bridge."""

    service: Service
    guests: Guests
    plugged: set[str] = field(default_factory=set)

    def plug(self, guest: DomU, number: int = 2) -> None:
        """Give it a card, and that an address."""
        self.plugged.add(guest.name)
        sh("xl", "network-attach", guest.name, *CARD.format(number).split(","))
        self.up(guest, number)

    def up(self, guest: DomU, number: int = 2) -> None:
        guest.run(
            "until [ -e /sys/class/net/eth0 ]; do usleep 50000; done;"
            f" ip addr add 192.0.2.{number}/24 dev eth0;"
            " ip link set eth0 up; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad;"
            f" ip -6 addr add 2001:db8::{number}/64 dev eth0;"
            " until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done",
            check=True,
        )

    def unplug(self, guest: DomU) -> None:
        sh("xl", "network-detach", guest.name, "0")
        guest.run("while [ -e /sys/class/net/eth0 ]; do usleep 50000; done", check=True)
        self.plugged.remove(guest.name)

    def state(self, unit: int = 0) -> NetState:
        return NetState.open(str(self.service.directory / "run" / f"xnb.{unit}"))


@pytest.fixture
def lan(cards: Service, guests: Guests) -> Iterator[Lan]:
    """Nobody plugged in; whoever still is when a test has failed goes with it."""
    network = Lan(cards, guests)
    yield network
    for name in network.plugged:
        guests.forget(name)


@pytest.fixture
def plugged(lan: Lan, guest: DomU) -> Iterator[DomU]:
    """A guest with a card that has an address."""
    lan.plug(guest)
    yield guest
    lan.unplug(guest)


def pings(guest: DomU, address: str, size: int = 56) -> None:
    family = "-6" if ":" in address else "-4"
    guest.run(f"ping {family} -c 3 -i 0.2 -W 5 -s {size} {address}", 60, check=True)


@contextmanager
def server() -> Iterator[None]:
    """Of iperf3 in dom0, for one client."""
    with subprocess.Popen(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL) as child:
        try:
            eventually(lambda: DOM0.listens(5201), "the server listens")
            yield
        finally:
            child.kill()


def iperf(guest: DomU, *options: str, seconds: int = 3) -> dict[str, Any]:
    """From the guest to dom0, or the other way round with -R; what it reports."""
    with server():
        _, text = guest.run(f"iperf3 -J -c {HERE} -t {seconds} {' '.join(options)}", 60 + seconds)
    report: dict[str, Any] = json.loads(text[text.index("{") :])
    assert "error" not in report, report["error"]
    return report


def test_a_card_comes_and_goes(lan: Lan, guest: DomU) -> None:
    lan.plug(guest)
    assert f"{DOM0.card}{guest.domid}.0" in DOM0.interfaces()
    pings(guest, HERE)
    pings(guest, HERE, 8000)  # in pieces, of the IP's making
    pings(guest, HERE6)
    assert command("ping", "-c", "3", "-i", "0.2", THERE).returncode == 0
    state = lan.state()
    try:
        counters = state.counters()
        assert counters["tx_packets"] > 9
        assert counters["rx_packets"] > 9
        assert counters["tx_errors"] == 0
    finally:
        state.close()
    lan.unplug(guest)


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=more)])
def test_again_and_again(lan: Lan, guest: DomU, times: int) -> None:
    for _ in range(times):
        lan.plug(guest)
        lan.unplug(guest)


@more
@pytest.mark.parametrize("reverse", [False, True], ids=["out", "in"])
def test_much_of_tcp(plugged: DomU, reverse: bool) -> None:
    report = iperf(plugged, *(["-R"] if reverse else []))
    assert report["end"]["sum_received"]["bytes"] > 1 << 20


@pytest.mark.parametrize(
    "feature", ["sg", pytest.param("tso", marks=more), pytest.param("tx", marks=more)]
)
def test_without_an_offload_of_the_guest(plugged: DomU, feature: str) -> None:
    plugged.run(f"ethtool -K eth0 {feature} off", check=True)
    for options in ([], ["-R"]):
        report = iperf(plugged, *options, seconds=1)
        assert report["end"]["sum_received"]["bytes"] > 1 << 18
    plugged.run(f"ethtool -K eth0 {feature} on", check=True)


def test_what_arrives_is_what_was_sent(plugged: DomU, lan: Lan) -> None:
    """By way of two guests on the bridge."""
    other = lan.guests.get("other")
    lan.plug(other, 3)
    plugged.run("head -c 8000000 /dev/urandom >/tmp/data", check=True)
    # One that reads to the end of its input ends; a FIFO that it has open itself has none.
    other.run("mkfifo /tmp/never; (nc -l -p 9 <>/tmp/never >/tmp/data; >/tmp/done) &", check=True)
    plugged.run(f"sleep 1; nc {OTHER} 9 </tmp/data", 120, check=True)
    other.run("until [ -e /tmp/done ]; do usleep 50000; done", 120, check=True)
    assert blocks(plugged) == blocks(other)
    lan.unplug(other)
    lan.guests.forget("other")


def blocks(guest: DomU) -> list[str]:
    """What it has, by blocks of 64 KiB, so that a difference says where."""
    each = "dd if=/tmp/data bs=65536 skip=$n count=1 2>/dev/null | md5sum"
    _, sums = guest.run(
        f"wc -c </tmp/data; n=0; while [ $n -lt 123 ]; do {each}; n=$((n+1)); done", check=True
    )
    return sums.split()


def test_a_card_at_boot_and_after_a_reboot(lan: Lan) -> None:
    lan.guests.forget("g1")
    guest = DomU("booted", cards=[CARD.format(2)], on_reboot="restart")
    try:
        guest.start()
        lan.up(guest)
        pings(guest, HERE)
        guest.send("reboot -f")
        guest.restarted()
        lan.up(guest)
        pings(guest, HERE)
    finally:
        guest.destroy()


def test_a_guest_is_destroyed_under_load(lan: Lan) -> None:
    guest = lan.guests.get("widow")
    lan.plug(guest)
    with server():
        guest.send(f"iperf3 -c {HERE} -t 600 >/dev/null 2>&1")
        state = lan.state()
        eventually(lambda: state.counters()["tx_packets"] > 1000, "it sends")
        state.close()
        lan.guests.forget("widow")


@more
def test_the_driver_is_unbound_and_bound(lan: Lan, plugged: DomU) -> None:
    plugged.run("echo vif-0 >/sys/bus/xen/drivers/vif/unbind", check=True)
    plugged.run("echo vif-0 >/sys/bus/xen/drivers/vif/bind", check=True)
    lan.up(plugged)
    pings(plugged, HERE)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGUSR1, id="restarted", marks=more),
    ],
)
def test_the_next_daemon_goes_on(
    cards: Service, lan: Lan, plugged: DomU, number: signal.Signals
) -> None:
    """A pause, and no connection is reset."""
    plugged.run("rm -f /tmp/iperf /tmp/status", check=True)
    with server():
        plugged.send(f"(iperf3 -J -c {HERE} -t 40 >/tmp/iperf; echo $? >/tmp/status) &")
        for _ in range(2):
            moves(lan)
            cards.mark()
            assert cards.signal(number) == (-number if number == signal.SIGKILL else 0)
            cards.start()
            cards.log_line(r"xnb0 .*taken over: ")
        moves(lan)
        plugged.run("until [ -s /tmp/status ]; do usleep 100000; done", 120, check=True)
    _, text = plugged.run("cat /tmp/iperf", check=True)
    assert "error" not in json.loads(text[text.index("{") :]), text


def moves(lan: Lan) -> None:
    """Packets of the guest's arrive."""
    state = lan.state()
    try:
        before = state.counters()["tx_packets"]
        eventually(lambda: state.counters()["tx_packets"] > before + 200, "it goes on", 60)
    finally:
        state.close()


@more
@pytest.mark.skipif(DOM0.name != "linux", reason="dom0's end is made by ip(8)")
def test_vlan(plugged: DomU) -> None:
    """A tag of the guest's is carried as it is."""
    sh("ip", "link", "add", "link", BRIDGE, "name", "tagged", "type", "vlan", "id", "7")
    sh("ip", "addr", "add", "198.51.100.1/24", "dev", "tagged")
    sh("ip", "link", "set", "tagged", "up")
    try:
        plugged.run(
            "ip link add link eth0 name eth0.7 type vlan id 7;"
            " ip addr add 198.51.100.2/24 dev eth0.7; ip link set eth0.7 up",
            check=True,
        )
        pings(plugged, "198.51.100.1")
        plugged.run("ip link del eth0.7", check=True)
    finally:
        sh("ip", "link", "del", "tagged")


def test_a_queue_a_processor(lan: Lan) -> None:
    """xen-netfront has as many as the guest has processors, if it is offered so many."""
    guest = DomU("wide", vcpus=2)
    try:
        guest.start()
        lan.plug(guest)
        _, queues = guest.run("ls /sys/class/net/eth0/queues", check=True)
        assert re.findall(r"tx-\d", queues) == ["tx-0", "tx-1"][: 2 if DOM0.queues else 1]
        pings(guest, HERE)
        report = iperf(guest, "-P", "4")
        assert report["end"]["sum_received"]["bytes"] > 1 << 20
    finally:
        guest.destroy()
