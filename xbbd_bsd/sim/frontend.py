"""A guest's driver of any paravirtual device: what all of them do over the store.

It behaves as a kernel's driver does, from an offer to Closed.  What rings a device has,
and what is told of them, is its own: blkfront.py for disks, netfront.py for network
cards.  It trusts the backend's nodes no more than it must, and serves in a simulated
domain as in a real one.  Its domain need not be privileged: a node that it may not read
is one that is not there.  Runs on the thread of its loop.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from errno import EBUSY
from typing import ClassVar, Protocol

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import HvKind
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, StoreError, Transaction, Watch
from xbbd_bsd.xenstore.waiting import wait_until

BACKEND_DOMID = 0
LIMIT = 30.0  # seconds; a guest may have to wait for its toolstack


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


class Frontend(ABC):
    """One device of a guest, from its offer to Closed."""

    noun: ClassVar[str]  # in messages
    published: ClassVar[State]  # its state once its rings can be found

    def __init__(
        self, domain: Domain, path: str, *, store: Store, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Nothing is touched before `connect`."""
        self._domain = domain
        self._store = store
        self._loop = loop
        self._path = path
        self._backend = ""
        self._watch: Watch | None = None
        self._ports: list[int] = []
        self._state = State.INITIALISING
        self.on_closing: Callable[[], None] = lambda: None

    @abstractmethod
    def _make_rings(self) -> Mapping[str, bytes]:
        """Make them, with ports of `_new_port`; the nodes by which the backend finds them."""

    @abstractmethod
    def _drop_rings(self) -> None:
        """Take them back, whatever the backend thinks."""

    def _begun(self) -> None:  # noqa: B027  most have nothing to do then
        """The backend is Connected."""

    def _told_again(self) -> None:  # noqa: B027
        """The backend is Connected once more, which may mean something."""

    @property
    def closed(self) -> bool:
        """Whether it was given back, since it was offered."""
        return self._state is State.CLOSED

    def wait_offer(self, limit: float = LIMIT) -> None:
        """Wait until the toolstack offers one that the backend does not refuse; HostError.

        After `close` it starts over, as a reloaded driver would.
        """
        if self._state is State.CLOSED:
            self._switch(State.INITIALISING)
        if not wait_until(self._store, self._loop, self._path, self._offered, limit):
            raise HostError(f"{self._path}: no {self.noun} was offered")
        self._backend = self._read(f"{self._path}/backend").decode("ascii", "replace")

    def connect(self, limit: float = LIMIT) -> None:
        """After an offer: publish rings, wait for Connected; HostError on the way."""
        self._await_backend(lambda state: state is State.INIT_WAIT, limit)
        self._publish(self._make_rings())
        self._await_backend(lambda state: state is State.CONNECTED, limit)
        self._begun()
        if self._state is not State.CONNECTED:
            self._switch(State.CONNECTED)
        self._watch = self._store.watch(f"{self._backend}/state", self._backend_changed)

    def close(self, limit: float = LIMIT) -> None:
        """Give it back: Closing, Closed, and its pages once the backend has let go."""
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
        """Whether `refuse` was called since it was connected."""
        return self._state is State.CLOSING

    def refuse(self) -> None:
        """Asked to close, say that it is in use, and go on until `close`.

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
        """Whether it was taken away without our consent."""
        return self._backend_state() in (State.CLOSED, State.GONE)

    def abandon(self) -> None:
        """The backend refused, or it was taken back: Closed, until another is offered.

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
        """Take rings and event channels back, whatever the backend thinks."""
        self._unwatch()
        self._drop_rings()
        while self._ports:
            self._domain.close_port(self._ports.pop())

    def _new_port(self) -> tuple[int, int]:
        """An event channel that `withdraw` closes: its number and our end."""
        port, event_fd = self._domain.unbound_port()
        self._ports.append(port)
        return port, event_fd

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
        if self._backend_state() is not State.CONNECTED:
            self.on_closing()
        else:
            self._told_again()

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
            raise HostError(f"{self._backend}: the {self.noun} was taken back")
        if self._refuses(self._store):
            reason = self._backends("hotplug-error") or b"no reason given"
            raise HostError(f"{self._backend}: {reason.decode('utf-8', 'replace')}")

    def _refuses(self, nodes: Store | Transaction) -> bool:
        """Whether the backend says that it cannot open what is behind it."""
        return nodes.get_visible(f"{self._backend}/hotplug-status") == b"error"

    def _offers(self, name: str, otherwise: int) -> int:
        """A number that the backend offers."""
        value = self._backends(name) or b""
        return int(value) if value.isdigit() else otherwise

    def _publish(self, nodes: Mapping[str, bytes]) -> None:
        def body(transaction: Transaction) -> None:
            for name, value in nodes.items():
                transaction.write(f"{self._path}/{name}", value)
            transaction.write(f"{self._path}/state", self.published.node)

        self._store.transaction(body)
        self._state = self.published

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
