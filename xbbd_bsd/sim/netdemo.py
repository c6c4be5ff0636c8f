"""The demonstration of network cards: two guests on a bridge, every step shown and checked.

`make demo-net`.  Starts machine, daemon and guests as processes, each with a network
name space; the guests ping each other and one sends the other a stream whose hash must
be the same at both ends; then everything must be back to zero.  Prints what it sees; the
exit status is the verdict.
"""

import os
import sys
import time

from xbbd_bsd.cards import CardOffer
from xbbd_bsd.errors import XbbdError, in_words
from xbbd_bsd.native import NetState, sim_mapped
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.sim.demo import Verdict
from xbbd_bsd.sim.netchain import NetChain, card, ping, stream

GUESTS = (1, 2)
ADDRESSES = {1: ("10.0.0.1", "fd00::1"), 2: ("10.0.0.2", "fd00::2")}
SHOWN_NODES = (
    "mac", "bridge", "state", "hotplug-status", "feature-sg", "feature-gso-tcpv4",
    "feature-gso-tcpv6", "feature-ipv6-csum-offload", "feature-rx-copy",
    "multi-queue-max-queues",
)  # fmt: skip
CHECKED = {
    "tx_errors": "no frame of a guest's was refused",
    "rx_errors": "no frame for a guest failed",
    "rx_unwanted": "no frame came in a form that its guest had not agreed to",
    "still_mapped": "no page was still mapped when its answer came",
    "bad_responses": "every slot was answered once",
}


def show_attached(chain: NetChain, offer: CardOffer, facts: dict[str, object]) -> None:
    """What the two ends agreed on."""
    print(f"\nAttached: {offer.backend}, interface {chain.interface(offer)}")
    for name in SHOWN_NODES:
        value = chain.store.get(f"{offer.backend}/{name}")
        print(f"  {name:<26} {'-' if value is None else value.decode()}")
    print(f"  {'queues':<26} {facts['queues']}")


def show_counters(chain: NetChain) -> None:
    """The backend's own account, from the state segments."""
    print("\nThe backend's counters:")
    for unit in range(len(GUESTS)):
        state = NetState.open(os.path.join(chain.layout.run, f"{DRIVER.name}.{unit}"))
        try:
            for name, value in state.counters().items():
                if value:
                    print(f"  {DRIVER.oid(unit, name)}: {value}")
        finally:
            state.close()


def move(chain: NetChain, guests: dict[int, Guest], megabytes: int, verdict: Verdict) -> None:
    """Streams by IPv4 one way and by IPv6 the other."""
    for sender, receiver, version in ((1, 2, 0), (2, 1, 1)):
        address = ADDRESSES[receiver][version]
        moved = stream(
            chain, guests[sender], guests[receiver], address, "--bytes", str(megabytes * 10**6)
        )
        rate = moved.bytes * 8 / moved.seconds / 1e9
        print(f"  guest {sender} to {address}: {moved.seconds:.2f} s, {rate:.2f} Gbit/s")
        verdict.check(
            moved.intact and moved.bytes == megabytes * 10**6,
            f"{megabytes} MB, SHA-256 equal at both ends",
        )


def check_guests(guests: dict[int, Guest], verdict: Verdict) -> None:
    """What the guests' drivers have counted."""
    total = dict.fromkeys(CHECKED, 0)
    for guest in guests.values():
        guest.tell("figures")
        figures = guest.event("figures")
        for name in CHECKED:
            total[name] += figures[name]
    for name, what in CHECKED.items():
        verdict.check(total[name] == 0, what, str(total[name]))


def end(chain: NetChain, guests: dict[int, Guest], verdict: Verdict, before: set[str]) -> None:
    """All is given back, and nothing is left."""
    for domid, guest in guests.items():
        guest.tell("close")
        guest.event("closed")
        verdict.check(
            chain.detach(card(domid)), f"guest {domid}: both ends closed", "by force only"
        )
    mapped = ports = 0
    for domid in GUESTS:
        fd = os.open(chain.layout.domain(domid), os.O_RDONLY)
        mapped += sim_mapped(fd)
        os.close(fd)
        ports += len(os.listdir(os.path.join(chain.layout.domain(domid), "ports")))
    verdict.check(mapped == 0, "grants still mapped: 0", str(mapped))
    verdict.check(ports == 0, "event channels left: 0", str(ports))
    for domid, guest in guests.items():
        guest.end_input()
        verdict.check(guest.wait() == 0, f"guest {domid} has ended")
    daemon = next(process for process in chain.processes if process.name == "xbbd")
    verdict.check(daemon.stop() == 0, "the daemon has ended", daemon.tail())
    left = sorted(chain.interfaces() - before)
    verdict.check(not left, "interfaces left: 0", ", ".join(left))
    segments = sorted(os.listdir(chain.layout.run))
    verdict.check(not segments, "state segments left: 0", ", ".join(segments))


def run(chain: NetChain, megabytes: int) -> bool:
    """The whole story on a running machine; whether all went well."""
    verdict = Verdict()
    chain.add_bridge()
    before = chain.interfaces()
    chain.start_daemon()
    guests = {}
    for domid in GUESTS:
        four, six = ADDRESSES[domid]
        guests[domid] = chain.start_netguest(
            domid, 0, "--address", f"{four}/24", "--address", f"{six}/64"
        )
        chain.attach_card(card(domid))
        show_attached(chain, card(domid), guests[domid].event("connected"))

    print("\nThe guests ping each other:")
    for domid, other in ((1, 2), (2, 1)):
        for address in ADDRESSES[other]:
            seen = ping(chain, guests[domid], address)
            verdict.check(
                seen["received"] == seen["sent"],
                f"guest {domid} to {address}: {seen['median_ms']:.2f} ms",
                f"{seen['received']} of {seen['sent']} answered",
            )

    print("\nAnd send each other streams of TCP:")
    move(chain, guests, megabytes, verdict)
    check_guests(guests, verdict)
    show_counters(chain)

    print("\nThe guests give their cards back, the toolstack takes them:")
    end(chain, guests, verdict, before)
    return verdict.good


def main(megabytes: int) -> int:
    """The command `demo-net`; its exit status."""
    begun = time.monotonic()
    good = False
    try:
        with NetChain() as chain:
            try:
                good = run(chain, megabytes)
            except (XbbdError, OSError) as error:
                print(f"FAIL: {in_words(error)}\n{chain.tails()}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (XbbdError, OSError) as error:
        print(f"demo-net: {in_words(error)}", file=sys.stderr)
        return 1
    verdict = "all is well" if good else "something is wrong"
    print(f"\nVerdict: {verdict} ({time.monotonic() - begun:.0f} s)")
    return 0 if good else 1
