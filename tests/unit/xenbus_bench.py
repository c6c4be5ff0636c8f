"""A bench for devices and the bus: a store, a toolstack, a guest, and a family without disks."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.waiting import GIVE_UP
from xbbd_bsd.block.family import BlockFamily
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import XbbdError
from xbbd_bsd.events import Event, InternalError, Severity
from xbbd_bsd.events import Path as EventPath
from xbbd_bsd.findings import Finding
from xbbd_bsd.journal import Journal
from xbbd_bsd.oids import Driver
from xbbd_bsd.sim.xenstore import StoreServer
from xbbd_bsd.xenbus.bus import Bus
from xbbd_bsd.xenbus.family import Changes, Connection, Identity, Nodes, Numbers
from xbbd_bsd.xenbus.states import Queue, State
from xbbd_bsd.xenstore.client import Store, Transaction

DOMID = 5
NUMBER = 51712
ERROR_NODE = f"/local/domain/0/error/backend/vbd/{DOMID}/{NUMBER}/error"


class ServerThread:
    """The embedded store on a loop and a thread of its own; our calls to it are synchronous."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "socket")
        self.start()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = StoreServer()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._server.start(str(self.directory)))

    def stop(self) -> None:
        self._run(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GIVE_UP)
        self._loop.close()

    def _run(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(GIVE_UP)


class FakeBackend:
    """A backend that does nothing but remember, and fails as it is told."""

    def __init__(self, family: "FakeFamily", identity: Identity, wake: Callable[[], None]) -> None:
        self.identity = identity
        self.wake = wake
        self.deeds: list[str] = []
        self.medium_open = False
        self.queue = Queue.NONE
        self.fault: XbbdError | None = None
        self.news: Mapping[str, bytes] = {}
        self.guest: str | None = None
        self.vm = ""
        self.looks = 0
        self.adoptable = False
        self.lost = ""
        self._family = family

    def _deed(self, name: str) -> None:
        if name in self._family.pending:
            self.deeds.append(f"{name}?")
            raise Pending
        self.deeds.append(name)
        self._family.on_deed(self, name)
        error = self._family.errors.get(name)
        if error is not None:
            raise error

    def introduce(self, backend: Nodes, guest: str, vm: str) -> None:
        self.guest, self.vm = guest, vm

    def capabilities(self, backend: Nodes) -> Changes:
        self._deed("capabilities")
        return self._family.offer

    def medium_named(self, backend: Nodes) -> bool:
        self.looks += 1
        return backend("physical-device-path") is not None

    def open(self, backend: Nodes) -> str:
        self._deed("open")
        self.medium_open = True
        return str(backend("physical-device-path"))

    def connect(self, frontend: Nodes) -> Connection:
        self._deed("connect")
        self.queue = Queue.RUNNING
        return Connection({"sectors": b"8", "info": frontend("hint") or b"0"}, "ring")

    def adopt(self, backend: Nodes) -> str:
        try:
            self._deed("adopt")
        except XbbdError as error:
            self.adoptable = error.passes
            raise
        self.medium_open, self.queue = True, Queue.RUNNING
        self.adoptable = False
        return "a ring"

    def leave(self) -> None:
        self._deed("leave")

    @property
    def left(self) -> bool:
        return self.queue is not Queue.RUNNING

    def abandon(self) -> None:
        if self.deeds and self.deeds[-1].endswith("?"):
            self.deeds.append("abandon")

    def drain(self) -> None:
        self._deed("drain")
        if self.queue is Queue.NONE:
            self.adoptable = False  # nobody serves it
        else:
            self.queue = Queue.DRAINING

    def closing(self) -> None:
        """It holds nothing back."""

    def told(self) -> None:
        self._deed("told")
        self.news = {}

    def finish(self, queue: Queue = Queue.DRAINED, fault: XbbdError | None = None) -> None:
        """The queue's threads have ended, and say so."""
        self.queue, self.fault = queue, fault
        self.wake()

    def disconnect(self) -> None:
        assert self.queue in (Queue.DRAINED, Queue.FAILED)
        self._deed("disconnect")
        self.queue = Queue.NONE

    def close(self) -> None:
        assert self.queue is Queue.NONE
        self._deed("close")
        self.medium_open = False

    def forget(self) -> None:
        assert not self.medium_open
        self._deed("forget")


class FakeFamily:
    """Makes fake backends and keeps them.

    `errors` are raised by the deeds of these names, and what is `pending` comes to nothing yet.
    """

    connect_on = frozenset((State.INITIALISED, State.CONNECTED))

    def __init__(self, driver: Driver = DRIVER) -> None:
        self.driver = driver
        self.left: dict[tuple[str, int, int], int] = {}  # units that an earlier daemon gave
        self.backends: dict[Identity, FakeBackend] = {}
        self.errors: dict[str, Exception] = {}
        self.pending: set[str] = set()
        self.offer: Changes = {"feature-flush-cache": b"1"}
        self.on_deed: Callable[[FakeBackend, str], None] = lambda backend, name: None

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> FakeBackend:
        backend = FakeBackend(self, identity, wake)
        self.backends[identity] = backend
        self.claim(backend)
        return backend

    def claim(self, backend: FakeBackend) -> None:
        """What an earlier daemon left of a device is that device's."""
        who = backend.identity
        backend.adoptable = self.left.pop((who.kind, who.domid, who.number), None) is not None

    def unit_of(self, kind: str, domid: int, number: int, backend: Nodes) -> int | None:
        return self.left.get((kind, domid, number))

    @property
    def promised(self) -> Collection[int]:
        return self.left.values()

    def settle(self, kind: str) -> None:
        self.left = {key: unit for key, unit in self.left.items() if key[0] != kind}

    def configure(self, config: Config) -> None:
        """Nothing is as configured here."""

    def leave(self) -> None:
        """Nothing is adopted from here."""

    def numbers(self, unit: int) -> Numbers:
        raise AssertionError("nobody looks")

    def findings(self) -> list[Finding]:
        return []

    def perform(
        self, verb: str, operand: int | str, who: str, value: str = ""
    ) -> Iterator[Mapping[str, Any] | None]:
        raise AssertionError("nobody asks")


class Bench:
    """Everything around a bus, on one loop."""

    def __init__(
        self, directory: Path, block: BlockFamily | None = None, other: Driver = DRIVER
    ) -> None:
        """`block` takes the place of the family without disks for vbd; `other` serves vbd3."""
        self.server = ServerThread(directory)
        self.loop = block.loop if block is not None else asyncio.new_event_loop()
        self.owns_loop = block is None
        self.lines: list[str] = []
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda loop, context: self.faults.append(context))
        self.lost: list[str] = []
        self.store = Store(
            self.server.socket,
            loop=self.loop,
            on_lost=lambda error: self.lost.append(str(error)),
            on_connected=lambda: self.bus.look(),
        )
        self.toolstack = Store(self.server.socket, loop=self.loop)
        self.store.connect()
        self.toolstack.connect()
        self.family = FakeFamily()
        self.other_family = FakeFamily(other)
        self.journal = Journal(self._log, lambda: 0.0, frozenset(EventPath))
        self.bus = Bus(
            self.store,
            {"vbd": block or self.family, "vbd3": self.other_family},
            loop=self.loop,
            journal=self.journal,
        )
        self._fences = 0
        self._fenced: set[str] = set()
        self.store.watch("/fence", self._fenced.add)

    def _log(self, severity: Severity, line: str) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.store.close()
        self.toolstack.close()
        if self.owns_loop:
            self.loop.close()
        self.server.stop()
        internal = InternalError.text.partition("{")[0]
        assert not self.faults
        assert not [line for line in self.lines if internal in line]

    # Time.

    def until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until the condition holds."""
        deadline = self.loop.time() + GIVE_UP
        while not condition():
            assert self.loop.time() < deadline, "\n".join(["timed out", *self.lines])
            self.loop.call_later(0.002, self.loop.stop)
            self.loop.run_forever()

    def rest(self) -> None:
        """Run the loop until all that was done by now has had its effect."""
        for _ in range(2):
            self._fences += 1
            fence = f"/fence/{self._fences}"
            self.toolstack.write(fence, b"")
            self.until(lambda fence=fence: fence in self._fenced)  # type: ignore[misc]
        for _ in range(20):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    # The toolstack.

    def path(self, name: str = "", number: int = NUMBER, domid: int = DOMID) -> str:
        return f"/local/domain/0/backend/vbd/{domid}/{number}/{name}".rstrip("/")

    def front(self, name: str = "", number: int = NUMBER, domid: int = DOMID) -> str:
        return f"/local/domain/{domid}/device/vbd/{number}/{name}".rstrip("/")

    def attach(
        self,
        nodes: Mapping[str, str] = MappingProxyType({}),
        number: int = NUMBER,
        domid: int = DOMID,
    ) -> None:
        """What xl does for a new disk, but for `nodes`."""
        backend = {
            "frontend": self.front(number=number, domid=domid),
            "frontend-id": str(domid),
            "online": "1",
            "state": "1",
            "mode": "w",
            **nodes,
        }

        def body(transaction: Transaction) -> None:
            transaction.write(self.front("state", number, domid), b"1")
            for name, value in backend.items():
                transaction.write(self.path(name, number, domid), value.encode())

        self.toolstack.transaction(body)

    def hotplug(self, number: int = NUMBER, domid: int = DOMID) -> None:
        """What the hotplug script does."""
        self.toolstack.write(self.path("physical-device-path", number, domid), b"/dev/null")

    def detach(self) -> None:
        """What xl does first to remove a disk."""

        def body(transaction: Transaction) -> None:
            transaction.write(self.path("online"), b"0")
            transaction.write(self.path("state"), b"5")

        self.toolstack.transaction(body)

    def delete(self) -> None:
        """What xl does last."""

        def body(transaction: Transaction) -> None:
            transaction.remove(self.path())
            transaction.remove(self.front())

        self.toolstack.transaction(body)

    # The guest.

    def guest(self, state: int | bytes, number: int = NUMBER, domid: int = DOMID) -> None:
        value = state if isinstance(state, bytes) else b"%d" % state
        self.toolstack.write(self.front("state", number, domid), value)

    # What there is to see.

    def node(self, name: str, number: int = NUMBER, domid: int = DOMID) -> bytes | None:
        return self.toolstack.get(self.path(name, number, domid))

    def state(self, expected: int, number: int = NUMBER, domid: int = DOMID) -> None:
        """Wait for the backend's state."""
        self.until(lambda: self.node("state", number, domid) == b"%d" % expected)
        self.rest()
        assert self.node("state", number, domid) == b"%d" % expected

    @property
    def backend(self) -> FakeBackend:
        """The only backend of vbd that was made last."""
        return list(self.family.backends.values())[-1]

    def up(self) -> FakeBackend:
        """Serve vbd, attach a disk and connect it."""
        self.bus.serve(["vbd"])
        self.attach()
        self.hotplug()
        self.guest(3)
        self.state(4)
        self.guest(4)
        self.rest()
        return self.backend


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    """A bench for one test; a module that wants it gives it this name."""
    bench = Bench(short_path)
    yield bench
    bench.close()
