"""What a disk is served on, for whoever goes on with it: said where no server can write.

A state segment is written by whoever serves the disk, who shares memory with a guest; what
it says of disk, rings and guest is believed only as far as it is what the daemon made.  So
a node of ours in XenStore has the segment's number and a digest of all that.  Any thread.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Final

from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.rings import MakeParams
from xbbd_bsd.native import QueueParams, SegmentIdentity, SegmentMedium

NODE: Final = "served"


def charter(
    identity: SegmentIdentity,
    medium: SegmentMedium | None,
    rings: Mapping[int, RingParams],
    make: MakeParams,
) -> bytes:
    """The node's value: the unit, and what is never to change while the disk is served."""
    made = (make(number, ring, -1, -1, -1) for number, ring in rings.items())
    text = repr((_said(identity), _said(medium), sorted(map(_bare, made))))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{identity.unit} {digest}".encode()


def unit_of(value: bytes | None) -> int | None:
    """The number that a device had, by the node; None if there is none."""
    unit, _, _ = (value or b"").partition(b" ")
    return int(unit) if unit.isdigit() and len(unit) < 10 else None


def _bare(ring: QueueParams) -> tuple[int, str]:
    block_size = ring.block_size or ring.sector_size
    bare = replace(ring, disk_fd=-1, block_size=block_size, adopt=False, answered=False)
    return ring.ring, _said(bare)


def _said(of: SegmentIdentity | SegmentMedium | QueueParams | None) -> str:
    """By name, but for what is as it ever was: so a version that has more says the same."""
    if of is None:
        return ""
    pairs = ((f.name, getattr(of, f.name), f.default) for f in fields(of))
    return repr([(name, value) for name, value, usual in pairs if value != usual])
