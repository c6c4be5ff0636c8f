"""A machine with network cards for each test, and the proof that nothing is left of it.

As conftest.py has them for disks; besides, no interface may be left in the name space of
dom0.  Needs root and Linux, and skips with the reason otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.sim.conftest import Machine
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.cards import CardOffer
from xbbd_bsd.native import NetRefusal, NetState
from xbbd_bsd.sim import namespace
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.sim.netchain import CONFIG, Moved, NetChain, card, ping, stream
from xbbd_bsd.toolstack import remove

DOM0 = ("10.0.0.254", "fd00::fe")
"""Addresses of dom0's bridge."""
WRONG = ("tx_errors", "rx_errors", "rx_unwanted", "bad_responses", "still_mapped")


def addresses(domid: int) -> tuple[str, str]:
    """Of a guest: of IPv4 and IPv6."""
    return f"10.0.0.{domid}", f"fd00::{domid:x}"


class NetMachine(Machine):
    """A chain with a running daemon that serves cards, and a bridge."""

    chain: NetChain

    def __init__(self, chain: NetChain, mtu: int = 1500, daemon: str = "xbbd_bsd.daemon") -> None:
        chain.add_bridge(f"{DOM0[0]}/24", f"{DOM0[1]}/64", mtu=mtu)
        self.interfaces = chain.interfaces()
        self.cards: list[CardOffer] = []
        self.mtu = mtu
        super().__init__(chain, daemon)

    def netguest(self, domid: int, *options: str) -> Guest:
        """A guest that waits for its card."""
        four, six = addresses(domid)
        guest = self.chain.start_netguest(
            domid, 0, "--address", f"{four}/24", "--address", f"{six}/64",
            "--mtu", str(self.mtu), *options,
        )  # fmt: skip
        self.guests.append(guest)
        return guest

    def online(self, domid: int, *options: str) -> Guest:
        """A guest with a card that is in the bridge."""
        guest = self.netguest(domid, *options)
        self.attach_card(domid)
        guest.event("connected", GIVE_UP)
        return guest

    def attach_card(self, domid: int) -> None:
        """Offer a card, as of `card`."""
        offer = card(domid, mtu=self.mtu)
        self.cards.append(offer)
        self.chain.attach_card(offer)

    def detach_card(self, domid: int) -> bool:
        """Take it back; whether it was let go."""
        return self.chain.detach(card(domid))

    def figures(self, guest: Guest) -> dict[str, Any]:
        """What its driver has counted."""
        guest.tell("figures")
        return guest.event("figures", GIVE_UP)

    def check_figures(self, *guests: Guest) -> None:
        """Nothing was wrong with any answer."""
        for guest in guests:
            figures = self.figures(guest)
            wrong = {name: figures[name] for name in WRONG if figures[name]}
            assert (wrong, figures["errors"]) == ({}, []), figures

    def pings(self, where: Guest | None, address: str, *options: str) -> bool:
        """Whether an address answers at all."""
        pinger = self.chain.traffic(where, "ping", address, *options)
        received = pinger.event("pinged", GIVE_UP)["received"]
        pinger.wait()
        return bool(received)

    def check_ping(self, where: Guest | None, address: str, *options: str) -> None:
        """It answers, whatever is lost on a busy machine at first."""
        eventually(lambda: self.pings(where, address, *options), f"{address} answers")

    def move(self, sender: Guest | None, receiver: Guest | None, address: str, size: int) -> Moved:
        """A stream that must be the same at both ends."""
        moved = stream(self.chain, sender, receiver, address, "--bytes", str(size), limit=GIVE_UP)
        assert moved.intact
        assert moved.bytes == size
        return moved

    def counters(self, unit: int = 0, queue: int | None = None) -> dict[str, int]:
        """The backend's own account of a card, or of one of its queues."""
        state = NetState.open(os.path.join(self.chain.layout.run, f"xnb.{unit}"))
        try:
            return state.counters(queue)
        finally:
            state.close()

    def refusals(self, unit: int = 0) -> dict[NetRefusal, int]:
        """Of a card: what was refused, by reason, if anything was."""
        state = NetState.open(os.path.join(self.chain.layout.run, f"xnb.{unit}"))
        try:
            return {reason: n for reason, n in state.refusals().items() if n}
        finally:
            state.close()

    def inside(self, guest: Guest) -> Sequence[str]:
        """What to put before a command that is to run in a guest's name space."""
        return namespace.inside(guest.pid)

    def wire(self, prefix: Sequence[str], *arguments: str) -> Guest:
        """A program of wire.py in some name space."""
        return self.chain.start_program("wire", "tests.sim.wire", *arguments, prefix=prefix)

    def segments(self) -> list[str]:
        """The state segments there are."""
        names = os.listdir(self.chain.layout.run)
        return [name for name in names if re.fullmatch(r"x(bbd|nb)\.\d+", name)]

    def check_nothing_left(self) -> None:
        """As of any machine; and no interface."""
        for offer in self.cards:
            remove(self.chain.store, offer)
        super().check_nothing_left()
        assert self.chain.interfaces() == self.interfaces


@contextmanager
def running_netmachine(
    more: str = "", mtu: int = 1500, daemon: str = "xbbd_bsd.daemon"
) -> Iterator[NetMachine]:
    """A machine whose daemon has `more` in its configuration; nothing may be left of it.

    `daemon` is the module that is its program.
    """
    lacking = namespace.lacking()
    if lacking:
        pytest.skip(f"this needs {lacking}")
    with NetChain(CONFIG + more) as chain:
        running = NetMachine(chain, mtu, daemon)
        with running.log_in_failures():
            yield running
            running.check_nothing_left()


@pytest.fixture
def net() -> Iterator[NetMachine]:
    """A running machine; afterwards nothing may be left."""
    with running_netmachine() as running:
        yield running


__all__ = ["Moved", "NetMachine", "addresses", "net", "ping", "running_netmachine"]


def section(**keys: object) -> str:
    """The section [net] of a configuration."""
    lines: Sequence[str] = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in keys.items()
    ]
    return "[net]\n" + "\n".join(lines) + "\n"
