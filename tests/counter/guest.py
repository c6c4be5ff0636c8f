"""A guest that rings a counter: its domain, its frontend, and what its toolstack does for it.

A thread of the test; the loop is the chain's, and runs while something is waited for.
"""

import struct
from collections.abc import Mapping

from tests.waiting import eventually
from xbbd_bsd.native import Abi, Front, FrontParams, HvKind
from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.sim.hypervisor import Domain
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, Transaction
from xbbd_bsd.xenstore.waiting import wait_until

LIMIT = 20.0  # seconds
SLOT = struct.Struct("=QQ")  # id, count: to add; the sum
SLOTS = 128  # of a page


class CounterGuest:
    """A domain with one counter, number 0, offered and not yet connected."""

    def __init__(self, chain: Chain, domid: int) -> None:
        self.backend = f"/local/domain/0/backend/counter/{domid}/0"
        self.frontend = f"/local/domain/{domid}/device/counter/0"
        self._chain = chain
        self._domain = Domain(chain.layout, domid)
        self._store = Store(self._domain.store_path, loop=chain.loop)
        self._store.connect()
        self._front: Front | None = None
        self._rings = 0
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
        # Of a disk's frontend only the page, its grant and the event channel are used.
        params = FrontParams(
            grant_fd=self._domain.grant_fd,
            event_fd=listener,
            port=port,
            hv=HvKind.SIM,
            backend_domid=0,
            abi=Abi.NATIVE,
            ring_pages=1,
            depth=1,
        )
        self._front = Front(params)
        (self.ring_ref,) = self._front.ring_refs
        for name, value in (("ring-ref", self.ring_ref), ("event-channel", port)):
            self._store.write(f"{self.frontend}/{name}", b"%d" % value)
        self._switch(State.INITIALISED)
        self.await_state(State.CONNECTED)
        self._switch(State.CONNECTED)

    def ring(self, times: int = 1) -> int:
        """Have it add so many; its answer, the sum."""
        front = self._front
        assert front is not None
        at = 64 + self._rings % SLOTS * SLOT.size
        self._rings += 1
        front.ring[at : at + SLOT.size] = SLOT.pack(self._rings, times)
        front.ring[12:16] = struct.pack("=I", self._rings)  # rsp_event
        front.ring[0:4] = struct.pack("=I", self._rings)  # req_prod
        front.notify()
        eventually(lambda: self._answers() == self._rings, "an answer")
        id, count = SLOT.unpack(front.ring[at : at + SLOT.size])
        assert id == self._rings
        return int(count)

    def _answers(self) -> int:
        assert self._front is not None
        return int(struct.unpack("=I", self._front.ring[8:12])[0])

    def lie(self) -> None:
        """Claim more requests than a ring has."""
        assert self._front is not None
        self._front.ring[0:4] = struct.pack("=I", self._rings + SLOTS + 1)
        self._front.notify()

    def die(self) -> None:
        """The domain ends at once, and says nothing to anybody."""
        if self._front is not None:
            self._front.close()
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
