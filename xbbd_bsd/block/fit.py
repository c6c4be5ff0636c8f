"""May a disk take the place of another one under a guest, and what is noted when it shall.

A guest is told what its disk is when it connects, and of a change of size; all else has to
be true of the other disk as well.  It opens nothing.  Control thread.
"""

from errno import EINVAL

from xbbd_bsd.block.charter import charter
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.negotiate import DiskInfo, RingParams
from xbbd_bsd.block.passport import Passport
from xbbd_bsd.block.queues import for_another, info_of
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.native import SegmentMedium, State, params_of


def check_fits(disk: Disk, old: Disk, told: DiskInfo, rings: int = 1) -> None:
    """That a guest that was told this of the old disk may go on with another; OperatorError.

    `rings`: that it has connected.
    """
    new = info_of(
        disk,
        told.sector_size,
        cdrom=told.cdrom,
        removable=told.removable,
        discard=told.discard is not None,
    )
    sector, was = disk.geometry.sector_size, old.geometry.sector_size
    reason = ""
    if sector != was:
        reason = f"its sectors are of {sector} bytes, and those of {old.path} of {was}"
    elif disk.sectors < told.sectors:
        reason = f"it has {disk.sectors} sectors of 512 bytes, less than the {told.sectors} before"
    elif disk.store is not None and rings > 1:
        reason = f"it is a server's, which can have one ring, and its guest has {rings}"
    elif (new.cdrom, new.removable) != (told.cdrom, told.removable):
        reason = f"it is another kind of medium than {old.path}, as its guest was told"
    elif told.durable and not new.durable:
        reason = "it has to be flushed, and its guest was told that there is nothing to flush"
    elif told.discard is not None and new.discard is None:
        reason = "it cannot discard, which its guest was told that it can"
    elif (
        told.discard is not None
        and told.discard.secure
        and not (new.discard is not None and new.discard.secure)
    ):
        reason = "it cannot discard securely, which its guest was told that it can"
    if reason:
        raise OperatorError(f"{disk.path} does not fit: {reason}", EINVAL)


def note_of_exchange(segment: State, disk: Disk, path: str) -> Passport:
    """What holds of the device once another disk is in the place of its own; HostError."""
    medium = segment.medium
    assert medium is not None
    medium = SegmentMedium(disk.key, path, medium.guest, shared=medium.shared)
    params = {
        ring: for_another(params_of(segment, ring), disk)
        for ring in range(segment.connection_rings)
    }
    rings = dict.fromkeys(params, RingParams(0, ()))
    agreed = charter(segment.identity, medium, rings, lambda ring, *_: params[ring])
    return Passport(segment.identity, medium, params, {}, agreed.decode(), answered=False)
