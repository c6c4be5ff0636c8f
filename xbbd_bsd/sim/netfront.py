"""The guest's network driver: negotiates queues for a card, and owns them.

It writes what Linux's netfront writes and goes straight to Connected as that does; what
it does as any driver does is in frontend.py.  A queue is a pair of rings, a descriptor
of the guest's interface, and a thread between them (native.front.netfront).  Runs on the
thread of its loop.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.errors import in_words
from xbbd_bsd.native.front.netfront import ALL_OFFLOADS, RX_BUFFERS, Netfront, NetfrontParams
from xbbd_bsd.native.netstate import NetAccepts
from xbbd_bsd.sim.frontend import BACKEND_DOMID, Domain, Frontend
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store

# What it can receive, by the node that says so; of sums of IPv4 one says the contrary.
FEATURES: Final = {
    "feature-sg": NetAccepts.SG,
    "feature-gso-tcpv4": NetAccepts.GSO_TCPV4,
    "feature-gso-tcpv6": NetAccepts.GSO_TCPV6,
    "feature-ipv6-csum-offload": NetAccepts.CSUM_IPV6,
}
NO_SUMS: Final = "feature-no-csum-offload"


@dataclass(frozen=True, slots=True)
class CardOptions:
    """How a card behaves: what is wanted of queues and offloads, and Netfront's other parameters.

    Queues and offloads are lowered to what the backend offers.
    """

    queues: int = 1
    offloads: NetAccepts = ALL_OFFLOADS
    rx_buffers: int = RX_BUFFERS
    skew: int = 0
    poll_us: int = 0
    patience: float = 0.0  # seconds


class Queue:
    """One pair of rings, and the thread that relays."""

    def __init__(self, front: Netfront, link_fd: int, number: int) -> None:
        """`link_fd` is the queue's from now on."""
        self.front = front
        self.error = ""
        self._link_fd = link_fd
        self._thread = threading.Thread(target=self._run, name=f"eth0 queue{number}")

    def start(self) -> None:
        """Begin to relay."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self.front.run()
        except OSError as error:
            self.error = in_words(error)

    def stop(self) -> None:
        """Relay no more; the rings are as they are."""
        self.front.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop, and take all grants back."""
        self.stop()
        self.front.close()
        os.close(self._link_fd)


class NetworkCard(Frontend):
    """One virtual network card of a guest, from its offer to Closed."""

    noun = "card"
    published = State.CONNECTED

    def __init__(
        self,
        domain: Domain,
        handle: int,
        *,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        open_link: Callable[[NetAccepts], int],
        options: CardOptions,
    ) -> None:
        """`open_link` gives a queue of the guest's interface, which does so much of its own."""
        super().__init__(domain, f"device/vif/{handle}", store=store, loop=loop)
        self._open_link = open_link
        self._options = options
        self.offloads = NetAccepts(0)
        self.queues: list[Queue] = []
        self._before: dict[str, int] = {}

    @property
    def mac(self) -> str:
        """The address that the toolstack gave it."""
        return self._read(f"{self._path}/mac").decode("ascii", "replace")

    def _make_rings(self) -> Mapping[str, bytes]:
        options = self._options
        queues = min(options.queues, self._offers("multi-queue-max-queues", 1))
        self.offloads = self._agreed(options.offloads)
        nodes = {name: int(bit in self.offloads) for name, bit in FEATURES.items()}
        nodes[NO_SUMS] = int(NetAccepts.CSUM_IPV4 not in self.offloads)
        nodes["request-rx-copy"] = nodes["feature-rx-notify"] = 1
        if queues > 1:
            nodes["multi-queue-num-queues"] = queues
        for number in range(queues):
            port, event_fd = self._new_port()
            link_fd = self._open_link(self.offloads)
            front = Netfront(
                NetfrontParams(
                    self._domain.grant_fd,
                    event_fd,
                    port,
                    self._domain.hv,
                    BACKEND_DOMID,
                    link_fd,
                    self.offloads,
                    options.rx_buffers,
                    options.skew,
                    options.poll_us,
                    round(options.patience * 1000),
                )
            )
            self.queues.append(Queue(front, link_fd, number))
            prefix = f"queue-{number}/" if queues > 1 else ""
            nodes[f"{prefix}tx-ring-ref"] = front.tx_ref
            nodes[f"{prefix}rx-ring-ref"] = front.rx_ref
            nodes[f"{prefix}event-channel"] = port
        return {name: b"%d" % value for name, value in nodes.items()}

    def _agreed(self, wanted: NetAccepts) -> NetAccepts:
        """What is wanted and offered; large frames of TCP need what they are made of."""
        agreed = wanted
        for name, bit in FEATURES.items():
            if not self._offers(name, 0):
                agreed &= ~bit
        for gso, csum in (
            (NetAccepts.GSO_TCPV4, NetAccepts.CSUM_IPV4),
            (NetAccepts.GSO_TCPV6, NetAccepts.CSUM_IPV6),
        ):
            if NetAccepts.SG not in agreed or csum not in agreed:
                agreed &= ~gso
        return agreed

    def _begun(self) -> None:
        for queue in self.queues:
            queue.start()

    def _drop_rings(self) -> None:
        self._before = self.counters()
        while self.queues:
            self.queues.pop().close()

    def counters(self) -> dict[str, int]:
        """Of all queues since the guest's birth, by the names of native.front.netfront."""
        total = dict(self._before)
        for queue in self.queues:
            for name, value in queue.front.counters().items():
                total[name] = total.get(name, 0) + value
        return total

    @property
    def errors(self) -> list[str]:
        """Why queues ended by themselves."""
        return [queue.error for queue in self.queues if queue.error]
