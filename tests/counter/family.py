"""The family of counters: what the driver "xcount" is, and its line of the registry.

A counter has nothing to open, so its medium is always named, and open once it was asked
for.  Control thread.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from errno import ENOENT
from typing import Any

from tests.counter.names import DRIVER, RESET
from tests.counter.negotiate import OFFER, RingParams
from tests.counter.queue import CounterQueue, MakeQueue, NativeQueue
from xbbd_bsd.config import Config
from xbbd_bsd.errors import OperatorError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.findings import Finding, Kind, Severity
from xbbd_bsd.host import Host
from xbbd_bsd.oids import Value
from xbbd_bsd.surroundings import Entry, Surroundings
from xbbd_bsd.xenbus.family import Changes, Connection, Identity, Nodes, Standing
from xbbd_bsd.xenbus.states import Queue, State


class CounterBackend:
    """One counter for one guest, and its numbers."""

    adoptable = False  # what was not counted is nobody's loss
    lost = ""
    fault: XbbdError | None = None
    news: Mapping[str, bytes] = {}

    def __init__(self, family: "CounterFamily", identity: Identity, wake: Callable[[], None]):
        self.identity = identity
        self.medium_open = False
        self._family = family
        self._wake = wake
        self._guest = ""
        self._ring: RingParams | None = None
        self._queue: CounterQueue | None = None
        self._drains = False
        self._before = 0  # what connections that are over have counted

    # The life of a device (family.Backend).

    @property
    def queue(self) -> Queue:
        if self._queue is None:
            return Queue.NONE
        if self._queue.drained:
            return Queue.DRAINED
        return Queue.DRAINING if self._drains else Queue.RUNNING

    def closing(self) -> None:
        """It has nothing that is held back."""

    def told(self) -> None:
        """There are no news."""

    def introduce(self, backend: Nodes, guest: str, vm: str) -> None:
        self._guest = guest

    def capabilities(self, backend: Nodes) -> Changes:
        return OFFER

    def medium_named(self, backend: Nodes) -> bool:
        return True

    def open(self, backend: Nodes) -> str:
        self.medium_open = True
        return "a counter"

    def connect(self, frontend: Nodes) -> Connection:
        ring = RingParams.from_nodes(frontend)
        family, who = self._family, self.identity
        self._queue = family.make_queue(
            family.host, who.domid, who.unit, ring, family.loop, self._wake
        )
        self._ring = ring
        return Connection({}, f"a ring at reference {ring.ref}, port {ring.port}")

    def adopt(self, backend: Nodes) -> str:
        raise AssertionError("nothing is adoptable")

    def leave(self) -> None:
        self.drain()

    @property
    def left(self) -> bool:
        return self.queue is not Queue.RUNNING

    def abandon(self) -> None:
        """Nothing takes its time here."""

    def drain(self) -> None:
        if self._queue is not None:
            self._drains = True
            self._queue.drain()

    def disconnect(self) -> None:
        if self._queue is not None:
            self._before, self._drains = self.count, False
            queue, self._queue, self._ring = self._queue, None, None
            queue.close()

    def close(self) -> None:
        self.medium_open = False

    def forget(self) -> None:
        del self._family.backends[self.identity.unit]

    # What an operator sees of it (family.Numbers).

    @property
    def count(self) -> int:
        """What was counted, on all connections."""
        return self._before + (self._queue.count if self._queue is not None else 0)

    def group(self, name: str) -> Mapping[str, Value]:
        if name != "counter":
            return {}
        found: dict[str, Value] = {"guest": self._guest, "count": self.count}
        return {**found, "ring_ref": self._ring.ref} if self._ring is not None else found

    def rings(self) -> Sequence[int]:
        return (0,) if self._queue is not None else ()

    def ring(self, number: int) -> Mapping[str, Value]:
        assert self._queue is not None
        return {"events": self._queue.count}

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        return {"guest": self._guest, "count": self.count}

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return ()

    def configured(self) -> Mapping[str, Value]:
        return {}

    def set(self, name: str, value: int, where: str) -> None:
        """Of all leaves only the count can be written."""
        self._before += value - self.count

    def health(
        self, standing: Standing, bound: float, shared: Sequence[Finding], *, alone: bool
    ) -> list[Finding]:
        name = f"{DRIVER.name}{self.identity.unit}"
        reason = standing.held_back or standing.closed
        severity = Severity.NOTICE if standing.by_guest else Severity.ERROR
        kind = Kind.HELD_BACK if standing.held_back else Kind.CLOSED
        return [Finding(severity, kind, name, reason, "see to the reason")] if reason else []


class CounterFamily:
    """All counters of a daemon."""

    driver = DRIVER
    connect_on = frozenset((State.INITIALISED, State.CONNECTED))
    promised: Collection[int] = ()

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop, make_queue: MakeQueue) -> None:
        self.host = host
        self.loop = loop
        self.make_queue = make_queue
        self.backends: dict[int, CounterBackend] = {}

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> CounterBackend:
        backend = self.backends[identity.unit] = CounterBackend(self, identity, wake)
        return backend

    def configure(self, config: Config) -> None:
        """It has no keys."""

    def unit_of(self, kind: str, domid: int, number: int, backend: Nodes) -> int | None:
        return None

    def settle(self, kind: str) -> None:
        """Nothing is left by anybody."""

    def leave(self) -> None:
        """What was not counted is nobody's loss."""

    def numbers(self, unit: int) -> CounterBackend:
        return self.backends[unit]

    def findings(self) -> list[Finding]:
        return []

    def perform(
        self, verb: str, operand: int | str, who: str, value: str = ""
    ) -> Iterator[Mapping[str, Any] | None]:
        """The only verb: from 0 again; says what it was."""
        assert verb == RESET
        if isinstance(operand, str):
            raise OperatorError(f"unknown oid '{operand}'", ENOENT)
        backend = self.backends[operand]
        yield {DRIVER.oid(operand, "count"): backend.count}
        backend.set("count", 0, "")


def make(given: Surroundings) -> Mapping[str, CounterFamily]:
    """The family of the one directory of counters."""
    return {"counter": CounterFamily(given.host, given.loop, NativeQueue)}


COUNTER = Entry(DRIVER, make)
