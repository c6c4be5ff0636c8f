"""The family of block backends: what the driver "xbbd" and all its disks are.

It serves the directories "vbd" (xl's backendtype=phy) and "vbd3" (tap), which
differ only in the node that names the disk.  One disk for one guest is backend.py's
matter.  Control thread.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from errno import EINVAL, ENOENT
from typing import Any

from xbbd_bsd.accounts import Accounts
from xbbd_bsd.block.condition import Condition
from xbbd_bsd.block.health import of_shared
from xbbd_bsd.block.heritage import Heritage
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.numbers import SegmentNumbers
from xbbd_bsd.block.oids import CLEAR, DRIVER, PAUSE, RESIZE, RESUME, SWAP
from xbbd_bsd.block.served import note_passport
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.block.shown import DiskNumbers
from xbbd_bsd.block.stores import Store, store_named
from xbbd_bsd.block.swapped import SwappedBackend
from xbbd_bsd.block.tuning import Allowances
from xbbd_bsd.charter import NODE
from xbbd_bsd.config import Config
from xbbd_bsd.deeds import SizeAsked
from xbbd_bsd.errands import Run, until
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.findings import Finding
from xbbd_bsd.host import Host, MediumName
from xbbd_bsd.ledger import Ledger
from xbbd_bsd.native import QueueParams
from xbbd_bsd.native import State as Segment
from xbbd_bsd.serving import Serving
from xbbd_bsd.xenbus.family import Identity, Nodes, Numbers
from xbbd_bsd.xenbus.states import Queue, State


class BlockFamily:
    """What all block devices of a daemon have in common."""

    driver = DRIVER
    connect_on = frozenset((State.INITIALISED, State.CONNECTED))

    def __init__(
        self,
        media: Mapping[str, Mapping[str, MediumName]],
        *,
        host: Host,
        config: Config,
        state_dir: str,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        serving: Serving[QueueParams, Segment],
        sharing: Sharing,
        marks: Marks,
        heritage: Heritage,
        limits: Accounts,
        journal: Callable[[Event], None],
        try_again: Callable[[Iterable[int]], None],
    ) -> None:
        """`media`: by kind, nodes that may name the disk, best first; segments go to `state_dir`.

        `run` does what may have to wait, and `serving` has rings served.  `try_again`: what
        held these units back may be over.
        """
        self._try_again = try_again
        self.ledger = Ledger()
        self.limits = limits
        self.allowances = Allowances(state_dir)
        self._to_settle = set(media)
        self.marks = marks
        self.heritage = heritage
        self.media = media
        self.sharing = sharing
        self.host = host
        self.config = config
        self.state_dir = state_dir
        self.loop = loop
        self.run = run
        self.serving = serving
        self.devices: dict[int, SegmentNumbers] = {}  # with a state segment, by unit
        self.known: dict[int, SwappedBackend] = {}  # all there are, by unit
        self._journal = journal
        self._condition = Condition(
            marks=marks,
            ledger=self.ledger,
            devices=self.devices,
            run=run,
            loop=loop,
            journal=journal,
            try_again=lambda: try_again(tuple(self.known)),
        )

    def configure(self, config: Config) -> None:
        """Use a new configuration from now on; give what runs the tunables that differ."""
        self.config = config
        for backend in self.known.values():
            backend.configure()

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> SwappedBackend:
        backend = SwappedBackend(self, identity, wake, journal)
        self.known[identity.unit] = backend
        return backend

    def unit_of(self, kind: str, domid: int, number: int, backend: Nodes) -> int | None:
        return self.heritage.unit_of(kind, domid, number, backend(NODE))

    @property
    def promised(self) -> Collection[int]:
        return self.heritage.units

    def settle(self, kind: str) -> None:
        for gone in self.heritage.settle(kind):
            self.serving.drop(gone, lambda: None)
        self._to_settle.discard(kind)
        if not self._to_settle:
            self.allowances.settle()

    def leave(self) -> None:
        for unit, numbers in self.devices.items():
            queue = self.known[unit].queue
            if queue is not Queue.NONE and self.known[unit].left:
                # Of a disk that is paused some may have been left.
                answered = queue is not Queue.RUNNING and not numbers.segment.owes
                note_passport(numbers.segment, answered=answered, journal=self._journal)

    def again(self, unit: int) -> None:
        """What a device waits for may have come, whether it is held back for it or not."""
        if unit in self.known:
            self.known[unit].woken()
        self._try_again((unit,))

    def store(self, name: bytes) -> Store | None:
        """What a medium's name stands for that is no path; OperatorError."""
        store = store_named(name, self.config.stores)
        if store is not None and self.config.guest.processes and store.address.denied:
            reason = f"{store.address.denied} at a socket of Unix, as xbbd.conf(5) has it"
            raise OperatorError(f"{store.shown}: {reason}", EINVAL)
        return store

    def numbers(self, unit: int) -> Numbers:
        backend = self.known[unit]
        return DiskNumbers(
            unit,
            backend.name,
            segment=self.devices.get(unit),
            facts=backend.medium_facts,
            process=backend.process_facts,
            configured=backend.configured,
            ledger=self.ledger,
        )

    def findings(self) -> list[Finding]:
        return of_shared(self._condition.facts())

    def perform(
        self, verb: str, operand: int | str, who: str, value: str = ""
    ) -> Iterator[Mapping[str, Any] | None]:
        if verb == CLEAR:
            path = operand if isinstance(operand, str) else self._path(operand)
            yield from until(self._condition.clear(path, who))
        elif verb in (PAUSE, RESUME) and isinstance(operand, int):
            backend = self.known[operand]
            yield from (backend.pause if verb == PAUSE else backend.resume)(who)
        elif verb == SWAP and isinstance(operand, int):
            yield from self.known[operand].swap(value, who)
        elif verb == RESIZE and isinstance(operand, int):
            yield from self._resize(operand, who)
        else:
            raise OperatorError(f"unknown oid '{operand}'", ENOENT)

    def _path(self, unit: int) -> str:
        return str(self.numbers(unit).group("medium").get("path", ""))

    def _resize(self, unit: int, who: str) -> Iterator[Mapping[str, Any] | None]:
        """Have a disk measured now; says how large it was, if one is open."""
        backend, numbers = self.known[unit], self.devices.get(unit)
        before = backend.medium_facts().get("sectors")
        if numbers is not None:
            yield from until(numbers.resize())
            after = int(backend.medium_facts().get("sectors", 0))
            self._journal(SizeAsked(backend.name, int(before or 0), after, who))
        if before is not None:
            yield {DRIVER.oid(unit, "sectors"): before}
