"""The guest's block driver: negotiates over the guest's own way to the store.

It behaves as a kernel's blkfront does, and owns the frontend of the data plane,
native.Front.  It trusts the backend's nodes no more than it must, and serves in
a simulated domain as in a real one.  Its domain need not be privileged: a node
that it may not read is one that is not there.  Runs on the thread of its loop; the
frontend's transfers may be used from others.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from errno import EBUSY
from typing import Protocol

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import MAX_SEGMENTS, Abi, Front, FrontParams, HvKind, max_requests
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, StoreError, Transaction, Watch
from xbbd_bsd.xenstore.waiting import wait_until

BACKEND_DOMID = 0
LIMIT = 30.0  # seconds; a guest may have to wait for its toolstack

PROTOCOLS = {Abi.NATIVE: None, Abi.X86_32: "x86_32-abi", Abi.X86_64: "x86_64-abi"}


@dataclass(frozen=True, slots=True)
class Disk:
    """What the backend says of the disk: 512-byte sectors, bytes, flags of VDISK_*.

    `flushes`: there is something to flush, and a way to.
    """

    sectors: int
    sector_size: int
    info: int
    discard: bool = False
    physical_sector_size: int = 512
    discard_granularity: int = 0
    flushes: bool = True


class Domain(Protocol):
    """The domain that a driver lives in; descriptors stay the domain's."""

    @property
    def hv(self) -> HvKind:
        """The data path's number for its hypervisor."""

    @property
    def grant_fd(self) -> int:
        """What a frontend grants pages with."""

    def unbound_port(self) -> tuple[int, int]:
        """A new event channel for dom0 to bind: its number, and our end's descriptor."""

    def close_port(self, port: int) -> None:
        """Close an event channel."""


class Blkfront:
    """One virtual disk of a guest, from its offer to Closed."""

    def __init__(
        self,
        domain: Domain,
        vdev: int,
        *,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        abi: Abi = Abi.X86_64,
        ring_order: int = 0,
        depth: int = 32,
        queues: int = 1,
        max_segments: int = MAX_SEGMENTS,
        persistent: bool = False,
        patience: float = 0.0,
    ) -> None:
        """Nothing is touched before `connect`.

        `ring_order`, `queues`, `max_segments` and `persistent` are lowered to
        what the backend offers, `depth`, which is of one ring, to what that holds.
        """
        self._domain = domain
        self._store = store
        self._loop = loop
        self._abi = abi
        self._ring_order = ring_order
        self._wanted_depth = depth
        self._queues = queues
        self._wanted_segments = max_segments
        self._persistent = persistent
        self._patience_ms = round(patience * 1000)
        self._path = f"device/vbd/{vdev}"
        self._backend = ""
        self._watch: Watch | None = None
        self._ports: list[int] = []
        self.fronts: list[Front] = []
        self._state = State.INITIALISING
        self.ring_pages = 0
        self.depth = 0
        self.max_segments = MAX_SEGMENTS
        self.disk = Disk(0, 512, 0)
        self.on_closing: Callable[[], None] = lambda: None
        self.on_resized: Callable[[], None] = lambda: None

    @property
    def front(self) -> Front:
        """The ring, or the first of several, once connected."""
        assert self.fronts, "not connected"
        return self.fronts[0]

    def wait_offer(self, limit: float = LIMIT) -> None:
        """Wait until the toolstack offers a disk that the backend does not refuse; HostError.

        After `close` it starts over, as a reloaded driver would.
        """
        if self._state is State.CLOSED:
            self._switch(State.INITIALISING)
        if not wait_until(self._store, self._loop, self._path, self._offered, limit):
            raise HostError(f"{self._path}: no disk was offered")
        self._backend = self._read(f"{self._path}/backend").decode("ascii", "replace")

    def connect(self, limit: float = LIMIT) -> None:
        """After an offer: publish a ring, wait for Connected; HostError on the way."""
        self._await_backend(lambda state: state is State.INIT_WAIT, limit)
        self._publish()
        self._await_backend(lambda state: state is State.CONNECTED, limit)
        self._read_disk()
        self._switch(State.CONNECTED)
        self._watch = self._store.watch(f"{self._backend}/state", self._backend_changed)

    def close(self, limit: float = LIMIT) -> None:
        """Give the disk back: Closing, Closed, and its pages once the backend has let go."""
        self._unwatch()
        if self._state is State.CONNECTED:
            self._switch(State.CLOSING)
            self._await_backend(
                lambda state: state in (State.CLOSING, State.CLOSED, State.GONE), limit
            )
        if self._state is State.CLOSING:
            self._switch(State.CLOSED)
            self._await_backend(lambda state: state in (State.CLOSED, State.GONE), limit)
        self.withdraw()
        self._switch(State.CLOSED)

    @property
    def refusing(self) -> bool:
        """Whether `refuse` was called since the disk was connected."""
        return self._state is State.CLOSING

    def refuse(self) -> None:
        """Asked to close, say that the disk is in use, and go on with I/O until `close`.

        As Linux 2.6.36 to 5.14 does for a disk that is open (blkfront_closing()): the
        state is Closing from then on, with a ring that is used as before.
        """
        if self._state is not State.CONNECTED:
            return
        with contextlib.suppress(StoreError):  # only a message, and not every toolstack lets us
            self._store.write(
                f"error/{self._path}/error", b"%d Device in use; refusing to close" % EBUSY
            )
        self._switch(State.CLOSING)

    @property
    def backend_gone(self) -> bool:
        """Whether the disk was taken away without our consent."""
        return self._backend_state() in (State.CLOSED, State.GONE)

    def abandon(self) -> None:
        """The backend refused, or the disk was taken back: Closed, until another is offered.

        Another may be there by now, and that one is not ours to close: its state is
        not what we wrote, or we wrote nothing and its backend refuses nothing.
        """
        self.withdraw()

        def body(transaction: Transaction) -> None:
            if parse_state(transaction.get_visible(f"{self._path}/state")) is not self._state:
                return
            if self._state is not State.INITIALISING or self._refuses(transaction):
                transaction.write(f"{self._path}/state", State.CLOSED.node)

        with contextlib.suppress(StoreError):
            self._store.transaction(body)
        self._state = State.INITIALISING

    def withdraw(self) -> None:
        """Take ring and event channel back, whatever the backend thinks."""
        self._unwatch()
        while self.fronts:
            self.fronts.pop().close()
        while self._ports:
            self._domain.close_port(self._ports.pop())

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _offered(self) -> bool:
        backend = self._store.get_visible(f"{self._path}/backend")
        if backend is None:
            return False
        path = backend.decode("ascii", "replace")
        there = self._store.get_visible(f"{path}/state") is not None
        status = self._store.get_visible(f"{path}/hotplug-status")
        state = parse_state(self._store.get_visible(f"{self._path}/state"))
        return there and state is State.INITIALISING and status != b"error"

    def _backend_state(self) -> State:
        return parse_state(self._backends("state"))

    def _backends(self, name: str) -> bytes | None:
        """A node of the backend's; None if it is not there."""
        return self._store.get_visible(f"{self._backend}/{name}")

    def _backend_changed(self, _: str) -> None:
        """Connected once more means that the disk has changed its size."""
        if self._backend_state() is not State.CONNECTED:
            self.on_closing()
            return
        before = self.disk
        self._read_disk()
        if self.disk != before:
            self.on_resized()

    def _await_backend(self, holds: Callable[[State], bool], limit: float) -> None:
        def reached() -> bool:
            state = self._backend_state()
            return holds(state) or state is State.GONE or self._refuses(self._store)

        if not wait_until(self._store, self._loop, self._backend, reached, limit):
            raise HostError(f"{self._backend}: still {self._backend_state().label}")
        state = self._backend_state()
        if holds(state):
            return
        if state is State.GONE:
            raise HostError(f"{self._backend}: the disk was taken back")
        if self._refuses(self._store):
            reason = self._backends("hotplug-error") or b"no reason given"
            raise HostError(f"{self._backend}: {reason.decode('utf-8', 'replace')}")

    def _refuses(self, nodes: Store | Transaction) -> bool:
        """Whether the backend says that it cannot open the disk."""
        return nodes.get_visible(f"{self._backend}/hotplug-status") == b"error"

    def _offers(self, name: str, otherwise: int) -> int:
        """A number that the backend offers."""
        value = self._backends(name) or b""
        return int(value) if value.isdigit() else otherwise

    def _publish(self) -> None:
        order = min(self._ring_order, self._offers("max-ring-page-order", 0))
        queues = min(self._queues, self._offers("multi-queue-max-queues", 1))
        persistent = self._persistent and self._offers("feature-persistent", 0) == 1
        segments = min(self._wanted_segments, self._offers("feature-max-indirect-segments", 0))
        self.max_segments = max(segments, MAX_SEGMENTS)
        self.ring_pages = 1 << order
        self.depth = min(self._wanted_depth, max_requests(self._abi, self.ring_pages))
        nodes: dict[str, int] = {"feature-persistent": int(persistent)}
        if order:
            nodes["ring-page-order"] = order
        if queues > 1:
            nodes["multi-queue-num-queues"] = queues
        for queue in range(queues):
            port, event_fd = self._domain.unbound_port()
            self._ports.append(port)
            front = Front(
                FrontParams(
                    self._domain.grant_fd,
                    event_fd,
                    port,
                    self._domain.hv,
                    BACKEND_DOMID,
                    self._abi,
                    self.ring_pages,
                    self.depth,
                    self.max_segments,
                    persistent,
                    self._patience_ms,
                )
            )
            self.fronts.append(front)
            prefix = f"queue-{queue}/" if queues > 1 else ""
            nodes[f"{prefix}event-channel"] = port
            if order == 0:
                nodes[f"{prefix}ring-ref"] = front.ring_refs[0]
            else:
                for page, ref in enumerate(front.ring_refs):
                    nodes[f"{prefix}ring-ref{page}"] = ref
        protocol = PROTOCOLS[self._abi]

        def body(transaction: Transaction) -> None:
            for name, value in nodes.items():
                transaction.write(f"{self._path}/{name}", b"%d" % value)
            if protocol is not None:
                transaction.write(f"{self._path}/protocol", protocol.encode())
            transaction.write(f"{self._path}/state", State.INITIALISED.node)

        self._store.transaction(body)
        self._state = State.INITIALISED

    def _read_disk(self) -> None:
        sector_size = self._number("sector-size")
        self.disk = Disk(
            self._number("sectors"),
            sector_size,
            self._number("info"),
            discard=self._offers("feature-discard", 0) == 1,
            physical_sector_size=self._offers("physical-sector-size", sector_size),
            discard_granularity=self._offers("discard-granularity", sector_size),
            flushes=self._offers("feature-flush-cache", 0) == 1,
        )

    def _switch(self, state: State) -> None:
        def body(transaction: Transaction) -> None:
            # Else the toolstack took it.
            if transaction.get_visible(f"{self._path}/state") is not None:
                transaction.write(f"{self._path}/state", state.node)

        self._store.transaction(body)
        self._state = state

    def _read(self, path: str) -> bytes:
        value = self._store.get_visible(path)
        if value is None:
            raise HostError(f"no node {path}")
        return value

    def _number(self, name: str) -> int:
        value = self._read(f"{self._backend}/{name}")
        if not value.isdigit():
            raise HostError(f"node {self._backend}/{name} is no number")
        return int(value)
