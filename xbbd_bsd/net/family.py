"""The family of network cards: what the driver "xnb" and all its cards are.

It serves the directory "vif"; one card for one guest is backend.py's matter.  Control
thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from errno import EEXIST, ENOENT
from functools import partial
from typing import Any

from xbbd_bsd.accounts import Accounts
from xbbd_bsd.charter import NODE
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Run
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import Event, InterfaceStays
from xbbd_bsd.findings import Finding
from xbbd_bsd.host import Host
from xbbd_bsd.native import NetParams, NetState
from xbbd_bsd.net.backend import NetBackend
from xbbd_bsd.net.heritage import Heritage, Left
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.net.queues import Taps
from xbbd_bsd.serving import Serving
from xbbd_bsd.xenbus.family import Identity, Nodes, Numbers
from xbbd_bsd.xenbus.states import State


class NetFamily:
    """What all cards of a daemon have in common."""

    driver = DRIVER
    # A netfront says what it wants and goes straight to Connected (netif.h).
    connect_on = frozenset((State.CONNECTED,))

    def __init__(
        self,
        *,
        host: Host,
        config: Config,
        state_dir: str,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        serving: Serving[NetParams, NetState],
        taps: Taps,
        heritage: Heritage,
        limits: Accounts,
        journal: Callable[[Event], None],
        try_again: Callable[[Iterable[int]], None],
    ) -> None:
        """`run` does what may have to wait, and `serving` has queues served.

        Segments go to `state_dir`.  `try_again`: what held these units back may be over.
        """
        self._try_again = try_again
        self.host = host
        self.config = config
        self.state_dir = state_dir
        self.loop = loop
        self.run = run
        self.serving = serving
        self.taps = taps
        self.heritage = heritage
        self.limits = limits
        self.known: dict[int, NetBackend] = {}  # all there are, by unit
        self._journal = journal

    def configure(self, config: Config) -> None:
        self.config = config
        for backend in self.known.values():
            backend.configure()

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> NetBackend:
        backend = self.known[identity.unit] = NetBackend(self, identity, wake, journal)
        return backend

    def check_free(self, name: str, unit: int) -> None:
        """OperatorError if the interface of another card is called that.

        Two cards at one interface would see each other's frames.
        """
        for other, card in self.known.items():
            if card.claimed == name and other != unit:
                raise OperatorError(f"interface {name} is {DRIVER.name}{other}'s", EEXIST)

    def is_others(self, name: str) -> bool:
        """Whether there is an interface of that name which is left of no card that is gone."""
        return name not in self.heritage.interfaces and self.taps.is_there(name)

    def unit_of(self, kind: str, domid: int, number: int, backend: Nodes) -> int | None:
        return self.heritage.unit_of(kind, domid, number, backend(NODE))

    @property
    def promised(self) -> frozenset[int]:
        return self.heritage.units

    def settle(self, kind: str) -> None:
        for left in self.heritage.settle(kind):
            self.serving.drop(left.who, partial(self._remove_interface, left))

    def _remove_interface(self, left: Left) -> None:
        """Of a card that is gone, and nobody serves any more."""
        claimed = {card.claimed for card in self.known.values()}
        if left.interface and left.interface not in claimed:
            try:
                self.taps.remove(left.interface)
            except HostError as error:
                self._journal(InterfaceStays(str(left.who), left.interface, str(error)))

    def leave(self) -> None:
        for backend in self.known.values():
            backend.note_passport()

    def again(self, unit: int) -> None:
        """What a card waits for may have come, whether it is held back for it or not."""
        if unit in self.known:
            self.known[unit].woken()
        self._try_again((unit,))

    def numbers(self, unit: int) -> Numbers:
        return self.known[unit].numbers()

    def findings(self) -> list[Finding]:
        return []

    def perform(
        self, verb: str, operand: int | str, who: str, value: str = ""
    ) -> Iterator[Mapping[str, Any] | None]:
        """Cards have no verbs of their own."""
        raise OperatorError(f"unknown oid '{operand}'", ENOENT)
