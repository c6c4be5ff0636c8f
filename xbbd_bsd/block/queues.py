"""What a frontend is told of a disk, and what the queues of a connection are made of.

It opens nothing and keeps nothing.  Control thread.
"""

from collections.abc import Mapping
from dataclasses import replace
from errno import EINVAL
from typing import Final

from xbbd_bsd.accounts import Share
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.negotiate import Discard, DiskInfo, FrontendParams, Offer, RingParams
from xbbd_bsd.block.rings import MakeParams
from xbbd_bsd.config import DiskConfig
from xbbd_bsd.errors import HostError
from xbbd_bsd.host import Medium
from xbbd_bsd.limits import Need
from xbbd_bsd.native import (
    Abi,
    DiskKind,
    HvKind,
    QueueParams,
    State,
    Transport,
    max_requests,
    queue_bytes,
    ring_descriptors,
)
from xbbd_bsd.ringset import OF_CONNECTION
from xbbd_bsd.storeuri import is_store
from xbbd_bsd.xenbus.family import Identity

RING_THREADS: Final = 2
"""Its own, and the first for I/O; the rest is shared by all rings."""

DISK_KINDS: Final = {
    Medium.FILE: DiskKind.FILE,
    Medium.DEVICE: DiskKind.DEVICE,
    Medium.SERVER: DiskKind.NBD,
    Medium.CLUSTER: DiskKind.RBD,
}
_MOST_MAPPED: Final = 2816  # pages of requests at the disk
_MOST_AWAY: Final = 1024  # of those at a server, each of which has a copy
_PATIENCE: Final = 30  # seconds; of no meaning but for servers


def bounces(disk: Disk, sector_size: int) -> bool:
    """Whether the disk wants one aligned buffer, if its guest sees sectors of that size."""
    return disk.geometry.aligned or disk.geometry.sector_size > sector_size


def queue_maker(
    wanted: FrontendParams,
    disk: Disk,
    info: DiskInfo,
    *,
    identity: Identity,
    hv: int,
    config: DiskConfig,
    max_indirect_segments: int,
) -> MakeParams:
    """How each queue of a connection is made.

    `wanted` is what the frontend published, `info` what it is told of the disk,
    `hv` the host's; `max_indirect_segments` is what it was offered.
    """
    geometry, store = disk.geometry, disk.store
    if store is not None and len(wanted.rings) > 1:
        raise HostError(f"{disk.path} is a server's, and can have one ring only", EINVAL)

    def make(number: int, ring: RingParams, grants: int, events: int, wake: int) -> QueueParams:
        return QueueParams(
            grant_fd=grants,
            event_fd=events,
            disk_fd=disk.fd,
            wake_fd=wake,
            hv=HvKind(hv),
            domid=identity.domid,
            remote_port=ring.port,
            abi=Abi[wanted.protocol.name],
            ring=number,
            ring_refs=ring.refs,
            disk_kind=DISK_KINDS[geometry.medium],
            unit=identity.unit,
            read_only=disk.read_only,
            sector_size=info.sector_size,
            block_size=geometry.sector_size,
            bounce=bounces(disk, info.sector_size),
            discard=info.discard is not None,
            discard_secure=info.discard is not None and info.discard.secure,
            workers=config.workers,
            max_batch_segments=max(config.max_batch_segments, max_indirect_segments),
            max_indirect_segments=max_indirect_segments,
            max_persistent=config.max_persistent_grants if wanted.persistent else 0,
            transport=Transport[config.transport.upper()],
            max_grants=_most_grants(disk),
            patience=_patience(disk),
        )

    return make


def _most_grants(disk: Disk) -> int:
    return _MOST_MAPPED if disk.store is None else _MOST_AWAY


def _patience(disk: Disk) -> int:
    return _PATIENCE if disk.store is None else disk.store.config.timeout


def for_another(ring: QueueParams, disk: Disk) -> QueueParams:
    """What a queue is made of when another disk takes the place of its own."""
    return replace(
        ring,
        disk_kind=DISK_KINDS[disk.geometry.medium],
        bounce=bounces(disk, ring.sector_size),
        max_grants=_most_grants(disk),
        patience=_patience(disk),
    )


OF_DEVICE: Final = Need(disks=1, descriptors=1)  # its segment, which is locked
OF_DISK: Final = Need(descriptors=2)  # the disk, and one that keeps others off


def need_of(rings: Mapping[int, RingParams], make: MakeParams) -> Need:
    """What a connection with those rings takes of what all devices share."""
    need = OF_CONNECTION
    for number, ring in rings.items():
        need += _of_ring(make(number, ring, -1, -1, -1))
    return need


def disks_within(descriptors: int, config: DiskConfig, hv: int) -> int:
    """How many disks can have these, each with all the rings that it is offered."""
    ring = most_of_ring(config, config.max_ring_page_order, hv)
    disk = OF_DEVICE + OF_DISK + OF_CONNECTION + ring.times(config.max_queues)
    return descriptors // disk.descriptors


def most_of_ring(config: DiskConfig, order: int, hv: int) -> Need:
    """What a ring of 2 ** `order` pages may take, of whatever disk."""
    segments = config.max_indirect_segments
    return _of_ring(
        QueueParams(
            grant_fd=-1,
            event_fd=-1,
            disk_fd=-1,
            wake_fd=-1,
            hv=HvKind(hv),
            domid=0,
            remote_port=0,
            abi=Abi.NATIVE,
            ring_refs=(0,) * (1 << order),
            disk_kind=DiskKind.DEVICE,
            read_only=False,
            sector_size=512,
            block_size=4096,
            bounce=True,
            max_batch_segments=max(config.max_batch_segments, segments),
            max_indirect_segments=segments,
            max_persistent=config.max_persistent_grants,
        )
    )


def _of_ring(params: QueueParams) -> Need:
    return Need(
        event_channels=1,
        threads=RING_THREADS,
        descriptors=ring_descriptors(params),
        buffers=queue_bytes(params),
    )


def info_of(
    disk: Disk, sector_size: int, *, cdrom: bool, removable: bool, discard: bool
) -> DiskInfo:
    """What a frontend is told of an open disk.

    `cdrom`, `removable`: the toolstack says so; it may be so without.  `sector_size`:
    bytes of the sectors that it shall see, 0 for the disk's own; `discard`: whether
    nobody minds.
    """
    geometry = disk.geometry
    presented = sector_size or geometry.sector_size
    # A promise cannot be kept of a part of a sector.
    secure = geometry.discard_secure and presented == geometry.sector_size
    return DiskInfo(
        sectors=disk.sectors,
        sector_size=presented,
        physical_sector_size=geometry.physical_sector_size,
        read_only=disk.read_only,
        cdrom=cdrom or geometry.cdrom,
        removable=removable or geometry.removable,
        durable=geometry.durable or not geometry.flushes,
        discard=Discard(*geometry.discard, secure) if discard and geometry.discard else None,
    )


def requests_of_order(order: int) -> int:
    """Most requests that a ring of 2 ** `order` pages holds, of any layout."""
    return max(max_requests(abi, 1 << order) for abi in Abi)


def describe(wanted: FrontendParams) -> str:
    """A connection in words, for the log."""
    count, pages = len(wanted.rings), len(wanted.rings[0].refs)
    rings = "ring" if count == 1 else f"{count} rings"
    size = "1 page" if pages == 1 else f"{pages} pages"
    grants = ", persistent grants" if wanted.persistent else ""
    return f"{rings} of {size}, {wanted.protocol.value} layout{grants}"


def offer_of(config: DiskConfig, segment: State, share: Share, hv: int, path: str) -> Offer:
    """What a guest may have, of what is configured and there is; `path`: of its disk, if known.

    Its segment is as large as the configuration wanted it when the device was found.
    """
    orders = range(config.max_ring_page_order + 1)
    order = max(n for n in orders if requests_of_order(n) <= segment.table_entries)
    # Sectors that are parts of the disk's are read and written within one queue.
    queues = 1 if config.sector_size or is_store(path) else min(config.max_queues, segment.rings)
    return Offer(
        max_ring_page_order=order,
        # A guest with fewer rings is better than one that is refused.
        max_queues=share.rings(most_of_ring(config, order, hv), queues),
        max_indirect_segments=config.max_indirect_segments,
        persistent=config.max_persistent_grants > 0,
    )
