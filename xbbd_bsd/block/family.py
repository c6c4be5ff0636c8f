"""The family of block backends: a disk, the negotiation, and rings served in C.

It serves the directories "vbd" (xl's backendtype=phy) and "vbd3" (tap), which
differ only in the node that names the disk.  It does not know states, watches
or other devices; the data path it knows as descriptors and numbers.  Control
thread.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from errno import EINVAL, ENODEV, ENXIO
from math import inf

from xbbd_bsd.block.disk import Disk, disk_path, open_disk
from xbbd_bsd.block.marks import Marks, cause_of_loss
from xbbd_bsd.block.negotiate import DiskInfo, FrontendParams, Offer
from xbbd_bsd.block.numbers import Numbers, Value, facts_of, limits_of
from xbbd_bsd.block.queues import describe, info_of, queue_maker, requests_of_order
from xbbd_bsd.block.rings import Rings, fault_of
from xbbd_bsd.block.sharing import Owner, Sharing, check_shared
from xbbd_bsd.config import Config
from xbbd_bsd.errors import HostError, OperatorError, XbbdError, printable
from xbbd_bsd.events import (
    Event,
    MediumIgnored,
    QueueStarted,
    Resized,
    SizeRefused,
    SizeRounded,
    WritesLost,
)
from xbbd_bsd.events import QueueStatus as QueueWoke
from xbbd_bsd.host import Host, MediumName
from xbbd_bsd.native import QueueState, SegmentMedium, State, StopReason
from xbbd_bsd.vdev import vdev_name
from xbbd_bsd.xenbus.family import Changes, Connection, Identity, Nodes
from xbbd_bsd.xenbus.states import Queue
from xbbd_bsd.xenbus.states import State as XenbusState


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
        config: Config,
        state_dir: str,
        loop: asyncio.AbstractEventLoop,
        sharing: Sharing,
        marks: Marks,
    ) -> None:
        """`media`: nodes that may name the disk, best first; segments go to `state_dir`.

        `sharing` and `marks`: of all families that may serve the same disks.
        """
        self.marks = marks
        self.media = media
        self.sharing = sharing
        self.host = host
        self.config = config
        self.state_dir = state_dir
        self.loop = loop
        self.devices: dict[int, Numbers] = {}  # with a state segment, by unit
        self.known: dict[int, BlockBackend] = {}  # all there are, by unit
        self.backends: set[BlockBackend] = set()  # with an open disk
        self._look: asyncio.TimerHandle | None = None

    def configure(self, config: Config) -> None:
        """Use a new configuration from now on; give what runs the tunables that differ."""
        self.config = config
        for backend in self.known.values():
            backend.configure()
        self._look_later()

    def opened(self, backend: "BlockBackend") -> None:
        """From now on look at the size of its disk every so often."""
        self.backends.add(backend)
        self._look_later()

    def _look_later(self) -> None:
        """When the next disk is due, unless that is planned already, or not wanted."""
        due = min((backend.look_due for backend in self.backends), default=inf)
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if due < inf:
            self._look = self.loop.call_at(due, self._look_at_sizes)

    def _look_at_sizes(self) -> None:
        self._look = None
        now = self.loop.time()
        for backend in self.backends:
            if backend.look_due <= now:
                backend.measure()
        self._look_later()

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> "BlockBackend":
        backend = BlockBackend(self, identity, wake, journal)
        self.known[identity.unit] = backend
        return backend


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
        self._config = family.config.disk
        self.name = str(identity)
        self._owner = Owner(identity.domid, "")
        self._guest = ""
        self._vdev = vdev_name(identity.number)
        self._path = ""  # as far as it is known yet
        self._given: dict[str, int] = {}  # tunables, as last written by us
        self.look_due = inf  # on the loop's clock, when to measure the disk again
        self._offer = Offer()
        self._sector_size = 0  # presented; what was configured when the offer was made
        self._segment: State | None = None
        self._disk: Disk | None = None
        self._info: DiskInfo | None = None
        self._lent = False  # another domain of its machine has the disk's lock
        self._disk_fault: HostError | None = None  # that the data path has not seen
        self._medium: tuple[str, bytes] | None = None
        self._odd_size = -1  # bytes; one that was complained about
        self._rings: Rings | None = None
        self._news: Mapping[str, bytes] = {}

    @property
    def disk_open(self) -> bool:
        return self._disk is not None

    @property
    def queue(self) -> Queue:
        if self._rings is None:
            return Queue.NONE
        status = self._rings.status
        if status.state is QueueState.RUNNING:
            return Queue.RUNNING
        if status.state is QueueState.DRAINING:
            return Queue.DRAINING
        return Queue.DRAINED if status.reason is StopReason.NONE else Queue.FAILED

    @property
    def fault(self) -> XbbdError | None:
        if self._rings is None:
            return None
        return fault_of(self._rings.status) or self._disk_fault

    @property
    def news(self) -> Mapping[str, bytes]:
        return self._news

    def told(self) -> None:
        self._news = {}

    def configure(self) -> None:
        """Go by the family's configuration as it is now.

        What was agreed with a guest stays until it connects again.
        """
        domid, number = str(self._identity.domid), str(self._identity.number)
        self._config = self._family.config.disk_for(
            self._path, (self._guest, domid), (self._vdev, number)
        )
        if self._segment is not None:
            for name, value in self._config.tunables().items():
                # What has not changed may have been set by the operator meanwhile.
                if value != self._given.get(name):
                    self._segment.set_tunable(name, value)
                    self._given[name] = value
        self._plan_look()

    def _plan_look(self) -> None:
        interval = self._config.resize_interval
        wanted = self._disk is not None and interval > 0
        self.look_due = self._family.loop.time() + interval if wanted else inf

    def introduce(self, backend: Nodes, guest: str, vm: str) -> None:
        self._guest, self._owner = guest, Owner(self._identity.domid, vm)
        self._path = self._named_path(backend)

    def capabilities(self, backend: Nodes) -> Changes:
        self._path = self._named_path(backend)
        self.configure()
        config = self._config
        if self._segment is None:
            self._segment = self._make_segment()
            self.configure()
            self._family.devices[self._identity.unit] = Numbers(
                self._segment, self.medium_facts, lambda: limits_of(self._config), self.measure
            )
        self._sector_size = config.sector_size
        # The segment is as large as the configuration wanted it when the device was found.
        orders = range(config.max_ring_page_order + 1)
        order = max(n for n in orders if requests_of_order(n) <= self._segment.table_entries)
        self._offer = Offer(
            max_ring_page_order=order,
            # Sectors that are parts of the disk's are read and written within one queue.
            max_queues=1 if self._sector_size else min(config.max_queues, self._segment.rings),
            max_indirect_segments=config.max_indirect_segments,
            persistent=config.max_persistent_grants > 0,
        )
        return self._offer.to_nodes()

    def medium_named(self, backend: Nodes) -> bool:
        """Also tells the operator of an attempt to change it under a guest."""
        named = self._named(backend)
        if self._disk is not None and named is not None and named != self._medium:
            self._medium = named
            self._journal(MediumIgnored(self.name, named[0]))
        return named is not None

    def _named(self, backend: Nodes) -> tuple[str, bytes] | None:
        """The best node that names a medium, with its value."""
        for node in self._family.media:
            if (value := backend(node)) is not None:
                return node, value
        return None

    def _named_path(self, backend: Nodes) -> str:
        """The path of the medium before it is opened: the toolstack's word, maybe a script's."""
        named = self._named(backend)
        try:
            if named is not None:
                return disk_path(self._family.media[named[0]](named[1]))
            return disk_path(backend("params") or b"")
        except OperatorError:
            return ""

    def open(self, backend: Nodes) -> str:
        # All nodes first: what is open must be ours before the store can fail.
        named, mode = self._named(backend), backend("mode")
        self._path = self._named_path(backend)
        self.configure()
        discard = self._config.discard and backend("discard-enable") != b"0"
        cdrom, removable = backend("device-type") == b"cdrom", backend("removable") == b"1"
        if named is None or mode is None:
            missing = "mode" if mode is None else " or ".join(self._family.media)
            raise OperatorError(f"node {self._identity.path}/{missing} is missing", EINVAL)
        self._medium = named
        name = self._family.media[named[0]](named[1])
        disk = open_disk(name, read_only=b"w" not in mode, prepare=self._family.host.prepare_disk)
        shared = self._config.shared or b"!" in mode
        try:
            self._family.marks.check(disk)
            if shared:
                check_shared(disk, self._sector_size)
            self._claim(disk, shared=shared)
        except OperatorError as error:
            disk.close()
            raise type(error)(f"unable to open {disk.path}: {error}", error.errno) from None
        if disk.left_over:
            self._journal(SizeRounded(self.name, disk.left_over, disk.geometry.sector_size))
        self._disk = disk
        self._disk_fault = None
        if self._segment is not None:
            self._segment.forget_loss()
            self._segment.medium = SegmentMedium(disk.key, self._path, self._guest)
        self._odd_size = -1
        self._info = info_of(
            disk, self._sector_size, cdrom=cdrom, removable=removable, discard=discard
        )
        self._plan_look()
        self._family.opened(self)
        return str(disk)

    def _keep_loss(self) -> None:
        """A failure belongs to the disk: it is kept beyond the segment, and ourselves."""
        if self._segment is not None and (mark := self._family.marks.note(self._segment)):
            self._journal(WritesLost(self.name, mark.path, cause_of_loss(mark.errno)))
            self._family.sharing.distrust(self, mark.errno)

    def distrust(self, errno: int) -> None:
        if self._segment is not None and not self._segment.lost_errno:
            self._segment.lose(errno)
            self._stop(HostError(f"writes may be lost: {cause_of_loss(errno)}", errno))

    def _stop(self, fault: HostError) -> None:
        """End the data path for a fault of the disk that it has not seen itself."""
        self._disk_fault = fault
        self.drain()
        self._wake()

    def _claim(self, disk: Disk, *, shared: bool) -> None:
        """Keep others off the disk, our own guests and other programs; OperatorError."""
        sharing = self._family.sharing
        self._lent = sharing.claim(disk, self, shared=shared, owner=self._owner)
        if shared or self._lent:
            return
        try:
            self._family.host.lock_disk(disk.fd, writable=not disk.read_only)
        except OperatorError:
            sharing.release(self)
            raise

    def left(self) -> None:
        """Take the lock, if another domain of our machine had it; quietly, we serve already."""
        if self._lent and self._disk is not None:
            with suppress(OperatorError):
                self._family.host.lock_disk(self._disk.fd, writable=not self._disk.read_only)
                self._lent = False

    def measure(self) -> None:
        """See whether the open disk has grown or shrunk, and go by what it is now.

        What is there of a sector at the end does not count.
        """
        self._plan_look()
        if self._disk is None or self._info is None:
            return
        try:
            size = self._family.host.disk_size(self._disk.fd)
        except (HostError, OSError) as error:
            if error.errno in (ENXIO, ENODEV) and self._disk_fault is None:
                reason = os.strerror(error.errno)
                self._stop(HostError(f"the disk is gone: {reason}", error.errno))
            return
        whole = size - size % self._disk.geometry.sector_size
        if whole == self._disk.geometry.size:
            return
        if whole == 0:
            if size != self._odd_size:
                self._odd_size = size
                self._journal(SizeRefused(self.name, size))
            return
        before = self._info.sectors
        self._disk = replace(self._disk, geometry=replace(self._disk.geometry, size=whole))
        self._info = replace(self._info, sectors=self._disk.sectors)
        self._journal(Resized(self.name, before, self._info.sectors))
        if self._segment is not None:
            self._segment.resize(self._info.sectors)
        if self._rings is not None:
            self._news = self._info.size_nodes()
            self._wake()

    def connect(self, frontend: Nodes) -> Connection:
        assert self._disk is not None
        assert self._info is not None
        assert self._segment is not None
        if self._disk_fault is not None:
            raise self._disk_fault
        wanted = FrontendParams.from_nodes(frontend, self._offer)
        self._segment.resize(self._info.sectors)
        try:
            self._rings = Rings(
                wanted.rings,
                queue_maker(
                    wanted,
                    self._disk,
                    self._info,
                    identity=self._identity,
                    hv=self._family.host.hv,
                    config=self._config,
                    max_indirect_segments=self._offer.max_indirect_segments,
                ),
                host=self._family.host,
                domid=self._identity.domid,
                segment=self._segment,
                loop=self._family.loop,
                woken=self._woken,
            )
        except OSError as error:
            raise HostError(
                f"unable to start a queue: {error.strerror}", error.errno or 0
            ) from None
        self._news = {}
        for ring in wanted.rings:
            refs = " ".join(str(ref) for ref in ring.refs)
            name = self.name
            self._journal(QueueStarted(name, ring.port, wanted.protocol.value, refs))
        return Connection(self._info.to_nodes(), describe(wanted))

    def drain(self) -> None:
        if self._rings is not None:
            self._rings.drain()

    def disconnect(self) -> None:
        if self._rings is not None:
            rings, self._rings = self._rings, None
            rings.close()
            self._keep_loss()

    def close(self) -> None:
        if self._disk is not None:
            disk, self._disk = self._disk, None
            self._disk_fault = None
            self.look_due = inf
            disk.close()
            self._family.backends.discard(self)
            self._family.sharing.release(self)

    def forget(self) -> None:
        self._family.known.pop(self._identity.unit, None)
        if self._segment is not None:
            del self._family.devices[self._identity.unit]
            self._segment.close()
            with suppress(OSError):
                os.unlink(self._segment.path)
            self._segment = None

    def medium_facts(self) -> dict[str, Value]:
        """Leaves of the group "medium" that are known here."""
        disk, info = self._disk, self._info
        facts: dict[str, Value] = {"guest": self._guest, "vdev": self._vdev, "path": self._path}
        if disk is None or info is None:
            return facts
        return {**facts, **facts_of(disk, info)}

    def _make_segment(self) -> State:
        config = self._config
        path = os.path.join(self._family.state_dir, f"xbbd.{self._identity.unit}")
        try:
            segment = State.create(
                path,
                rings=config.max_queues,
                table_entries=requests_of_order(config.max_ring_page_order),
            )
        except OSError as error:
            text = f"unable to make the state segment {path}: {error.strerror}"
            raise HostError(text, error.errno or 0) from None
        return segment

    def _woken(self) -> None:
        self._keep_loss()
        if self._rings is not None:
            status = self._rings.status
            self._journal(
                QueueWoke(
                    self.name,
                    status.state.name.lower(),
                    status.reason.name.lower(),
                    status.errno,
                )
            )
        self._wake()
