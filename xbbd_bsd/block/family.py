"""The family of block backends: a disk, the negotiation, and a queue in C.

It serves the directories "vbd" (xl's backendtype=phy) and "vbd3" (tap), which
differ only in the node that names the disk.  It does not know states, watches
or other devices; the data path it knows as descriptors and numbers.  Control
thread; the queue's threads are told apart by a byte in a socket pair.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from errno import EINVAL

from xbbd_bsd.block.disk import Disk, open_disk
from xbbd_bsd.block.negotiate import DiskInfo, RingParams, capabilities
from xbbd_bsd.config import DiskConfig
from xbbd_bsd.errors import GuestError, HostError, OperatorError, XbbdError, printable
from xbbd_bsd.events import Event, QueueStarted
from xbbd_bsd.events import QueueStatus as QueueWoke
from xbbd_bsd.host import Host, Medium, MediumName
from xbbd_bsd.native import (
    Abi,
    DiskKind,
    HvKind,
    QueueParams,
    QueueState,
    State,
    StopReason,
    Transport,
)
from xbbd_bsd.native import Queue as RingQueue
from xbbd_bsd.xenbus.family import Connection, Identity, Nodes
from xbbd_bsd.xenbus.states import Queue
from xbbd_bsd.xenbus.states import State as XenbusState

_DISK_KINDS = {Medium.FILE: DiskKind.FILE, Medium.DEVICE: DiskKind.DEVICE}


def tap_params(value: bytes) -> bytes:
    """The node params of a tap disk: "aio:PATH" is a raw disk, the only format served."""
    scheme, _, path = value.partition(b":")
    if scheme != b"aio" or not path:
        raise OperatorError(f"node params is '{printable(value)}': only aio:PATH is served", EINVAL)
    return path


class BlockFamily:
    """What all block devices of one kind have in common."""

    connect_on = frozenset((XenbusState.INITIALISED, XenbusState.CONNECTED))

    def __init__(
        self,
        media: Mapping[str, MediumName],
        *,
        host: Host,
        config: DiskConfig,
        state_dir: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`media`: nodes that may name the disk, best first; segments go to `state_dir`."""
        self.media = media
        self.host = host
        self.config = config
        self.state_dir = state_dir
        self.loop = loop
        self.segments: set[State] = set()

    def configure(self, config: DiskConfig, tunables: Iterable[str]) -> None:
        """Use a new configuration from now on; give those tunables to what runs already."""
        self.config = config
        values = config.tunables()
        for name in tunables:
            for segment in self.segments:
                segment.set_tunable(name, values[name])

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> "BlockBackend":
        return BlockBackend(self, identity, wake, journal)


class BlockBackend:
    """One disk for one guest."""

    def __init__(
        self,
        family: BlockFamily,
        identity: Identity,
        wake: Callable[[], None],
        journal: Callable[[Event], None],
    ) -> None:
        self._family = family
        self._identity = identity
        self._wake = wake
        self._journal = journal
        self._max_order = family.config.max_ring_page_order
        self._segment: State | None = None
        self._disk: Disk | None = None
        self._info: DiskInfo | None = None
        self._ring: RingQueue | None = None
        self._held = ExitStack()  # what the ring needs, given back after it

    @property
    def disk_open(self) -> bool:
        return self._disk is not None

    @property
    def queue(self) -> Queue:
        if self._ring is None:
            return Queue.NONE
        status = self._ring.status()
        if status.state is QueueState.RUNNING:
            return Queue.RUNNING
        if status.state is QueueState.DRAINING:
            return Queue.DRAINING
        return Queue.DRAINED if status.reason is StopReason.NONE else Queue.FAILED

    @property
    def fault(self) -> XbbdError | None:
        if self._ring is None:
            return None
        status = self._ring.status()
        reason = os.strerror(status.errno) if status.errno else "no reason given"
        match status.reason:
            case StopReason.RING:
                return GuestError("the frontend's ring indices are impossible", status.errno)
            case StopReason.DISK:
                return HostError(f"the disk is gone: {reason}", status.errno)
            case StopReason.EVENT:
                return HostError(f"the event channel fails: {reason}", status.errno)
        return None

    def capabilities(self) -> Mapping[str, bytes]:
        if self._segment is None:
            self._segment = self._make_segment()
            self._family.segments.add(self._segment)
        self._max_order = self._family.config.max_ring_page_order
        return capabilities(self._max_order)

    def medium_named(self, backend: Nodes) -> bool:
        return any(backend(node) is not None for node in self._family.media)

    def open(self, backend: Nodes) -> str:
        named = ((name, backend(node)) for node, name in self._family.media.items())
        name = next(read(value) for read, value in named if value is not None)
        mode = backend("mode")
        if mode is None:
            raise OperatorError(f"node {self._identity.path}/mode is missing", EINVAL)
        disk = open_disk(name, read_only=b"w" not in mode, prepare=self._family.host.prepare_disk)
        self._disk = disk
        self._info = DiskInfo(
            sectors=disk.sectors,
            sector_size=disk.geometry.sector_size,
            physical_sector_size=disk.geometry.physical_sector_size,
            read_only=disk.read_only,
            cdrom=backend("device-type") == b"cdrom",
            removable=backend("removable") == b"1",
            durable=disk.geometry.durable,
        )
        return str(disk)

    def connect(self, frontend: Nodes) -> Connection:
        assert self._disk is not None
        assert self._info is not None
        assert self._segment is not None
        offer = RingParams.from_nodes(frontend, self._max_order)
        with ExitStack() as held:
            try:
                self._ring = self._start(offer, self._disk, self._segment, held)
            except OSError as error:
                raise HostError(
                    f"unable to start a queue: {error.strerror}", error.errno or 0
                ) from None
            self._held = held.pop_all()
        refs = " ".join(str(ref) for ref in offer.refs)
        self._journal(QueueStarted(str(self._identity), offer.port, offer.protocol.value, refs))
        pages = "1 page" if len(offer.refs) == 1 else f"{len(offer.refs)} pages"
        return Connection(self._info.to_nodes(), f"ring of {pages}, {offer.protocol.value} layout")

    def drain(self) -> None:
        if self._ring is not None:
            self._ring.drain()

    def disconnect(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._held.close()

    def close(self) -> None:
        if self._disk is not None:
            self._disk.close()
            self._disk = None

    def forget(self) -> None:
        if self._segment is not None:
            self._family.segments.discard(self._segment)
            self._segment.close()
            with suppress(OSError):
                os.unlink(self._segment.path)
            self._segment = None

    def _make_segment(self) -> State:
        path = os.path.join(self._family.state_dir, f"xbbd.{self._identity.unit}")
        try:
            segment = State.create(path)
        except OSError as error:
            text = f"unable to make the state segment {path}: {error.strerror}"
            raise HostError(text, error.errno or 0) from None
        for name, value in self._family.config.tunables().items():
            segment.set_tunable(name, value)
        return segment

    def _start(self, offer: RingParams, disk: Disk, segment: State, held: ExitStack) -> RingQueue:
        """A queue at work; what must outlive it is put into `held`."""
        family = self._family
        reader, writer = socket.socketpair()
        held.callback(writer.close)
        held.callback(reader.close)
        reader.setblocking(False)
        writer.setblocking(False)
        descriptors = family.host.open_ring(self._identity.domid, offer.port)
        held.callback(os.close, descriptors.grants)
        held.callback(os.close, descriptors.events)
        ring = RingQueue(
            QueueParams(
                grant_fd=descriptors.grants,
                event_fd=descriptors.events,
                disk_fd=disk.fd,
                wake_fd=writer.fileno(),
                hv=HvKind(family.host.hv),
                domid=self._identity.domid,
                remote_port=offer.port,
                abi=Abi[offer.protocol.name],
                ring_refs=offer.refs,
                disk_kind=_DISK_KINDS[disk.geometry.medium],
                read_only=disk.read_only,
                sector_size=disk.geometry.sector_size,
                sectors=disk.sectors,
                workers=family.config.workers,
                max_batch_segments=family.config.max_batch_segments,
                transport=Transport[family.config.transport.upper()],
            ),
            segment,
        )
        family.loop.add_reader(reader, self._woken, reader)
        held.callback(family.loop.remove_reader, reader)
        return ring

    def _woken(self, reader: socket.socket) -> None:
        with suppress(BlockingIOError):
            reader.recv(64)
        if self._ring is not None:
            status = self._ring.status()
            self._journal(
                QueueWoke(
                    str(self._identity),
                    status.state.name.lower(),
                    status.reason.name.lower(),
                    status.errno,
                )
            )
        self._wake()
