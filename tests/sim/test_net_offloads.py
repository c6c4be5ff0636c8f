"""Every combination of what guest and interface leave to others: streams are whole, sums right."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.circumstances import in_more
from tests.sim.netmachine import NetMachine, addresses, running_netmachine, section
from tests.sim.wire import judge, total_of
from tests.waiting import GIVE_UP
from xbbd_bsd.sim.namespace import Namespace

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20
MODES = ("full", "safe")
# Of each version of IP: large frames need what they are made of.
PLAIN = [("", ""), ("csum_ipv4", ""), ("", "csum_ipv6"), ("csum_ipv4", "csum_ipv6")]
FOUR = ("", "csum_ipv4", "csum_ipv4,gso_tcpv4")
SIX = ("", "csum_ipv6", "csum_ipv6,gso_tcpv6")
COMBINATIONS = [
    ",".join(filter(None, parts))
    for parts in [*PLAIN, *(("sg", *both) for both in itertools.product(FOUR, SIX))]
]
CORNERS = (COMBINATIONS[0], COMBINATIONS[3], COMBINATIONS[4], COMBINATIONS[-1])
WIRE = "10.0.0.77", "fd00::77"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "offloads",
    [text if text in CORNERS else in_more(text) for text in COMBINATIONS],
    ids=lambda text: text or "none",
)
def test_streams_with(offloads: str, mode: str) -> None:
    with running_netmachine(section(offload=mode)) as net:
        guest = net.netguest(1, "--offloads", offloads, "--skew", "66")
        net.attach_card(1)
        agreed = guest.event("connected", GIVE_UP)["offloads"]
        assert sorted(agreed) == sorted(filter(None, offloads.split(",")))
        for version, dom0 in enumerate(("10.0.0.254", "fd00::fe")):
            net.check_ping(guest, dom0)
            net.move(guest, None, dom0, 2 * MEGABYTE)
            net.move(None, guest, addresses(1)[version], 2 * MEGABYTE)
        net.check_figures(guest)
        assert net.figures(guest)["tx_dropped"] == 0
        assert net.refusals() == {}


@contextmanager
def behind_a_wire(net: NetMachine) -> Iterator[Namespace]:
    """Another computer, at a veth in dom0's bridge that does nothing for anybody."""
    far = Namespace()
    try:
        dom0 = net.chain.dom0
        dom0.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
        dom0.run("ip", "link", "set", "far", "netns", str(far.pid))
        plain = net.wire(dom0.prefix, "plain", "near")
        plain.event("plain", GIVE_UP)
        plain.wait()
        dom0.run("ip", "link", "set", "near", "master", "xenbr0", "up")
        for address, bits, more in ((WIRE[0], 24, ()), (WIRE[1], 64, ("nodad",))):
            far.run("ip", "address", "add", f"{address}/{bits}", "dev", "far", *more)
        far.run("ip", "link", "set", "far", "up")
        yield far
        dom0.run("ip", "link", "del", "near")
    finally:
        far.close()


@pytest.mark.parametrize("mode", MODES)
def test_sums_are_right_on_the_wire(mode: str) -> None:
    """And no frame is larger than the wire takes."""
    with running_netmachine(section(offload=mode)) as net, behind_a_wire(net) as far:
        guest = net.online(1)
        for address in WIRE:
            net.check_ping(guest, address)
        capture = net.wire(far.prefix, "capture", "far")
        capture.event("ready", GIVE_UP)
        for address in WIRE:
            inlet = net.chain.start_program(
                "receiver", "xbbd_bsd.sim.traffic", "receive", "0", prefix=far.prefix
            )
            port = str(inlet.event("listening", GIVE_UP)["port"])
            outlet = net.chain.traffic(guest, "send", address, port, "--bytes", str(4 * MEGABYTE))
            sent, received = outlet.event("sent", GIVE_UP), inlet.event("received", GIVE_UP)
            assert sent["sha256"] == received["sha256"]
            outlet.wait()
            inlet.wait()
            net.check_ping(guest, address)
        capture.end_input()
        seen = capture.event("captured", GIVE_UP)
        capture.wait()
        assert seen["wrong"] == []
        assert seen["kinds"]["tcp"] > 2 * 4 * MEGABYTE / 1460
        assert seen["largest"] <= 1514
        net.check_figures(guest)


def udp(source: int, target: int, payload: bytes, tags: bytes) -> bytes:
    """A frame from one guest to another, with tags and all sums."""
    macs = bytes([0, 0x16, 0x3E, 0, target, 0, 0, 0x16, 0x3E, 0, source, 0])
    ends = bytes([10, 0, 0, source, 10, 0, 0, target])
    size = 8 + len(payload)
    head = struct.pack(">HHHH", 9, 9, size, 0)
    pseudo = ends + struct.pack(">HH", 17, size)
    total = 0xFFFF - total_of(pseudo + head + payload)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, 17, 0) + ends
    ip = ip[:10] + struct.pack(">H", 0xFFFF - total_of(ip)) + ip[12:]
    return macs + tags + b"\x08\x00" + ip + head[:6] + struct.pack(">H", total) + payload


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("offloads", ["", "sg,csum_ipv4", "sg,csum_ipv4,csum_ipv6"])
def test_frames_with_tags(offloads: str, mode: str) -> None:
    """As they were sent, or with the sum that was left to others."""
    tags = (b"\x81\x00\x00\x05", b"\x88\xa8\x00\x07\x81\x00\x00\x05")
    frames = [udp(1, 2, b"a frame", tag).hex() for tag in tags]
    assert all(judge(bytes.fromhex(frame)) == ("udp", True) for frame in frames)
    with running_netmachine(section(offload=mode)) as net:
        sender = net.online(1)
        net.netguest(2, "--offloads", offloads)
        net.attach_card(2)
        receiver = net.guests[-1]
        receiver.event("connected", GIVE_UP)
        net.check_ping(sender, addresses(2)[0])  # the bridge knows where both are
        capture = net.wire(net.inside(receiver), "capture", "eth0")
        capture.event("ready", GIVE_UP)
        inject = net.wire(net.inside(sender), "inject", "eth0")
        inject.event("ready", GIVE_UP)
        for frame in frames:
            inject.tell(frame)
            assert capture.event("frame", GIVE_UP)["hex"] == frame
        if "csum" not in offloads:  # else it is left to who captures, too
            for frame in frames:
                inject.tell(f"blank {frame}")
                assert capture.event("frame", GIVE_UP)["hex"] == frame
        net.check_figures(sender, receiver)
        for program in (inject, capture):
            program.end_input()
            program.wait()
