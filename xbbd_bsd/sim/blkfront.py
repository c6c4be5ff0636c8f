"""The guest's block driver: negotiates rings for a disk, and owns them.

It behaves as a kernel's blkfront does, and owns the frontends of the data plane,
native.Front; what it does as any driver does is in frontend.py.  Runs on the thread of
its loop; the frontend's transfers may be used from others.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xbbd_bsd.native import MAX_SEGMENTS, Abi, Front, FrontParams, max_requests
from xbbd_bsd.sim.frontend import BACKEND_DOMID, Domain, Frontend
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store

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


class Blkfront(Frontend):
    """One virtual disk of a guest, from its offer to Closed."""

    noun = "disk"
    published = State.INITIALISED

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
        super().__init__(domain, f"device/vbd/{vdev}", store=store, loop=loop)
        self._abi = abi
        self._ring_order = ring_order
        self._wanted_depth = depth
        self._queues = queues
        self._wanted_segments = max_segments
        self._persistent = persistent
        self._patience_ms = round(patience * 1000)
        self.fronts: list[Front] = []
        self.ring_pages = 0
        self.depth = 0
        self.max_segments = MAX_SEGMENTS
        self.disk = Disk(0, 512, 0)
        self.on_resized: Callable[[], None] = lambda: None

    @property
    def front(self) -> Front:
        """The ring, or the first of several, once connected."""
        assert self.fronts, "not connected"
        return self.fronts[0]

    def _make_rings(self) -> Mapping[str, bytes]:
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
            port, event_fd = self._new_port()
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
        said = {} if protocol is None else {"protocol": protocol.encode()}
        return {**{name: b"%d" % value for name, value in nodes.items()}, **said}

    def _drop_rings(self) -> None:
        while self.fronts:
            self.fronts.pop().close()

    def _begun(self) -> None:
        self._read_disk()

    def _told_again(self) -> None:
        """That the disk has changed its size."""
        before = self.disk
        self._read_disk()
        if self.disk != before:
            self.on_resized()

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
