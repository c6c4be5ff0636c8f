"""What a network card costs: the same traffic through rings and backend, and without.

`make bench-net`.  A guest and dom0, each in a network name space, send each other TCP
and 64-byte datagrams, through the ring and through the bare relay of two taps that
copies each frame as often (relay.c), alternately, several rounds in one run; medians.
What was sent in vain does not count: datagrams are counted where they arrive.
"""

import json
import os
import statistics
import sys
from dataclasses import dataclass

from xbbd_bsd.errors import XbbdError, in_words
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.sim.netchain import NetChain, card, stream

BAR = 0.7  # of the bare relay
DATAGRAM = 64  # bytes of data
PORT = 5001


@dataclass(frozen=True, slots=True)
class Path:
    """A way between a guest and dom0."""

    name: str
    guest: Guest
    guest_address: str
    dom0_address: str
    interface: str  # in dom0


def _arrived(chain: NetChain, path: Path, *, to_dom0: bool) -> int:
    """Frames that an end's interface has got."""
    show = ("ip", "-json", "-statistics", "link", "show", "dev")
    text = (
        chain.dom0.run(*show, path.interface)
        if to_dom0
        else chain.in_guest(path.guest, *show, "eth0")
    )
    return int(json.loads(text)[0]["stats64"]["rx"]["packets"])


def tcp(chain: NetChain, path: Path, seconds: float, *, to_dom0: bool) -> float:
    """Gbit/s of one stream."""
    ends = (path.guest, None) if to_dom0 else (None, path.guest)
    address = path.dom0_address if to_dom0 else path.guest_address
    moved = stream(chain, *ends, address, "--seconds", str(seconds), hashed=False)
    return moved.bytes * 8 / moved.seconds / 1e9


def datagrams(chain: NetChain, path: Path, seconds: float, *, to_dom0: bool) -> float:
    """Thousands a second that arrive."""
    sender, receiver = (path.guest, None) if to_dom0 else (None, path.guest)
    address = path.dom0_address if to_dom0 else path.guest_address
    sink = chain.traffic(receiver, "sink", str(PORT))
    sink.event("listening")
    before = _arrived(chain, path, to_dom0=to_dom0)
    outlet = chain.traffic(
        sender, "datagrams", address, str(PORT), "--size", str(DATAGRAM), "--seconds", str(seconds)
    )
    sent = outlet.event("sent")
    outlet.wait()
    arrived = _arrived(chain, path, to_dom0=to_dom0) - before
    sink.end_input()
    sink.wait()
    return arrived / float(sent["seconds"]) / 1e3


KINDS = {
    "TCP, guest to dom0, Gbit/s": (tcp, True),
    "TCP, dom0 to guest, Gbit/s": (tcp, False),
    f"UDP of {DATAGRAM} bytes, guest to dom0, thousand/s": (datagrams, True),
    f"UDP of {DATAGRAM} bytes, dom0 to guest, thousand/s": (datagrams, False),
}


def _paths(chain: NetChain) -> tuple[Path, Path]:
    """The ring's, and the relay's."""
    chain.start_daemon()
    guest = chain.start_netguest(1, 0, "--address", "10.1.0.1/24")
    offer = card(1, bridge="")
    chain.attach_card(offer)
    guest.event("connected")
    ring = Path("ring", guest, "10.1.0.1", "10.1.0.254", chain.interface(offer))
    bare = Path("relay", chain.start_relay("tap0", "10.2.0.1/24"), "10.2.0.1", "10.2.0.254", "tap0")
    for path in (ring, bare):
        chain.dom0.run("ip", "address", "add", f"{path.dom0_address}/24", "dev", path.interface)
        chain.dom0.run("ip", "link", "set", path.interface, "up")
    return ring, bare


def compare(chain: NetChain, rounds: int, seconds: float) -> bool:
    """All kinds of traffic; whether each is as good as it has to be."""
    paths = _paths(chain)
    found: dict[str, dict[str, list[float]]] = {
        kind: {path.name: [] for path in paths} for kind in KINDS
    }
    for number in range(rounds):
        for kind, (measure, to_dom0) in KINDS.items():
            for path in paths if number % 2 == 0 else paths[::-1]:
                figure = measure(chain, path, seconds, to_dom0=to_dom0)
                found[kind][path.name].append(figure)
    good = True
    print(f"\n  {'':<46}{'ring':>9}{'relay':>9}  ring/relay")
    for kind, figures in found.items():
        ring, relay = (statistics.median(figures[path.name]) for path in paths)
        ratio = ring / relay
        good &= ratio >= BAR
        print(f"  {kind:<46}{ring:>9.2f}{relay:>9.2f}  {ratio:.2f}")
    return good


def main(rounds: int, seconds: float) -> int:
    """The command `bench-net`; its exit status."""
    try:
        with NetChain() as chain:
            print(
                f"Medians of {rounds} rounds of {seconds:.1f} s each; {os.cpu_count()} processors,"
                f" load {os.getloadavg()[0]:.1f}"
            )
            try:
                good = compare(chain, rounds, seconds)
            except (XbbdError, OSError) as error:
                print(f"bench-net: {in_words(error)}\n{chain.tails()}", file=sys.stderr)
                return 1
    except KeyboardInterrupt:
        return 130
    except (XbbdError, OSError) as error:
        print(f"bench-net: {in_words(error)}", file=sys.stderr)
        return 1
    print(f"\nThe bar is {BAR:.2f}: {'all are over it' if good else 'not all are over it'}")
    return 0
