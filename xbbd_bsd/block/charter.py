"""What was agreed for a disk, in words that no server can write (xbbd_bsd/charter.py).

Any thread.
"""

from collections.abc import Mapping
from dataclasses import replace

from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.rings import MakeParams
from xbbd_bsd.charter import charter_of, said
from xbbd_bsd.native import QueueParams, SegmentIdentity, SegmentMedium


def charter(
    identity: SegmentIdentity,
    medium: SegmentMedium | None,
    rings: Mapping[int, RingParams],
    make: MakeParams,
) -> bytes:
    """The node's value: the unit, and what is never to change while the disk is served."""
    made = (make(number, ring, -1, -1, -1) for number, ring in rings.items())
    text = repr((said(identity), said(medium), sorted(map(_bare, made))))
    return charter_of(identity.unit, text)


def _bare(ring: QueueParams) -> tuple[int, str]:
    block_size = ring.block_size or ring.sector_size
    bare = replace(ring, disk_fd=-1, block_size=block_size, adopt=False, answered=False)
    return ring.ring, said(bare)
