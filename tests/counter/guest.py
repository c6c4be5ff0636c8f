"""A guest that rings a counter: its domain, its frontend, and what its toolstack does for it.

A thread of the test; the loop is the chain's, and runs while something is waited for.
"""

import os
import socket
from collections.abc import Mapping

from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.sim.hypervisor import Domain
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, Transaction
from xbbd_bsd.xenstore.waiting import wait_until

LIMIT = 20.0  # seconds
RING_REF = 8  # nobody maps it


class CounterGuest:
    """A domain with one counter, number 0, offered and not yet connected."""

    def __init__(self, chain: Chain, domid: int) -> None:
        self.backend = f"/local/domain/0/backend/counter/{domid}/0"
        self.frontend = f"/local/domain/{domid}/device/counter/0"
        self._chain = chain
        self._domain = Domain(chain.layout, domid)
        self._store = Store(self._domain.store_path, loop=chain.loop)
        self._store.connect()
        self._channel: socket.socket | None = None
        self._offer(domid)

    def _offer(self, domid: int) -> None:
        """As its toolstack does."""
        ends: Mapping[str, tuple[list[str], Mapping[str, bytes]]] = {
            self.frontend: (
                [f"n{domid}", "r0"],
                {"backend": self.backend.encode(), "backend-id": b"0", "state": b"1"},
            ),
            self.backend: (
                ["n0", f"r{domid}"],
                {
                    "frontend": self.frontend.encode(),
                    "frontend-id": b"%d" % domid,
                    "online": b"1",
                    "state": b"1",
                },
            ),
        }

        def body(transaction: Transaction) -> None:
            for path, (permissions, nodes) in ends.items():
                transaction.mkdir(path)
                transaction.set_permissions(path, permissions)
                for name, value in nodes.items():
                    transaction.write(f"{path}/{name}", value)

        self._chain.store.transaction(body)

    def read(self, name: str) -> bytes | None:
        """A node of the backend's, as a guest may read it."""
        return self._store.get(f"{self.backend}/{name}")

    def connect(self) -> None:
        """Publish a ring, and be connected."""
        self.await_state(State.INIT_WAIT)
        port, listener = self._domain.unbound_port()
        for name, value in (("ring-ref", RING_REF), ("event-channel", port)):
            self._store.write(f"{self.frontend}/{name}", b"%d" % value)
        self._switch(State.INITIALISED)
        self.await_state(State.CONNECTED)
        self._switch(State.CONNECTED)
        with socket.socket(fileno=os.dup(listener)) as waiting:
            self._channel, _ = waiting.accept()

    def ring(self, times: int = 1) -> None:
        """Have it count."""
        assert self._channel is not None
        self._channel.sendall(b"\1" * times)

    def die(self) -> None:
        """The domain ends at once, and says nothing to anybody."""
        if self._channel is not None:
            self._channel.close()
        self._store.close()
        self._domain.close()

    def withdraw(self) -> None:
        """Its toolstack takes the nodes away."""

        def body(transaction: Transaction) -> None:
            for path in (self.backend, self.frontend):
                if transaction.get(f"{path}/state") is not None:
                    transaction.remove(path)

        self._chain.store.transaction(body)

    def await_state(self, state: State) -> None:
        """Wait for the backend."""
        node = f"{self.backend}/state"
        found = wait_until(
            self._store, self._chain.loop, node, lambda: self._state(node) is state, LIMIT
        )
        assert found, f"{node} is {self._store.get(node)!r}"

    def _state(self, node: str) -> State:
        return parse_state(self._store.get(node))

    def _switch(self, state: State) -> None:
        self._store.write(f"{self.frontend}/state", state.node)
