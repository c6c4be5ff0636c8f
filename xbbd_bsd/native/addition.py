"""What a guest's process is told of a device that it is to serve, whatever the device's family.

A family is known here by what its rings are made of, and by its number in a device's.  Any
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from errno import EPROTO
from typing import Any, Final, Generic, Protocol, TypeVar

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import net, queue
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import MAX_RINGS
from xbbd_bsd.native.net import NetParams
from xbbd_bsd.native.queue import QueueParams
from xbbd_bsd.native.rates import Level

ffi.new("struct xbb_guest_add *")  # fails at import if the header does not fit

MAX_KEPT: Final[int] = lib.XBB_GUEST_KEPT
_UNITS: Final[int] = 1 << lib.XBB_GUEST_UNIT_BITS


class AnyParams(Protocol):
    """What a ring is made of, whatever its family's name for it."""

    @property
    def grant_fd(self) -> int:
        """The grant device; below 0: whoever serves it has its own."""

    @property
    def event_fd(self) -> int:
        """The event channel."""


P = TypeVar("P", bound=AnyParams)


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """A family as a process has it.

    `member`: of union xbb_guest_ring.  `medium` is the descriptor that a ring has for what
    it gives to its guest, `each` whether each has one of its own, or all the same.  `bare`:
    a ring's parameters without descriptors, and `c_params` as C has them.
    """

    family: int
    member: str
    medium: Callable[[P], int]
    each: bool
    bare: Callable[[P], P]
    c_params: Callable[[P], Any]

    def number(self, unit: int) -> int:
        """What a device is called there."""
        return (self.family - int(lib.XBB_FAMILY_BLOCK)) * _UNITS + unit

    def addition(
        self,
        device: int,
        rings: Sequence[P],
        *,
        segment: int,
        kept: Sequence[int],
        rates: Mapping[Level, int] | None = None,
    ) -> tuple[Any, list[int]]:
        """The message but for its head, and the descriptors in it; HostError.

        A ring's `grant_fd` below 0: the process has its own.  `rates`: files of limits that
        a disk shares.
        """
        if not 0 < len(rings) <= MAX_RINGS or len(kept) > MAX_KEPT:
            raise HostError(f"device {device}: {len(rings)} rings, {len(kept)} kept", EPROTO)
        descriptors: list[int] = [segment] if self.each else [segment, self.medium(rings[0])]
        message = ffi.new("struct xbb_guest_add *")
        message.device, message.nrings, message.nkept = device, len(rings), len(kept)
        for number, ring in enumerate(rings):
            if ring.grant_fd >= 0:
                descriptors.append(ring.grant_fd)
            descriptors.append(ring.event_fd)
            if self.each:
                descriptors.append(self.medium(ring))
            setattr(message.ring[number], self.member, self.c_params(self.bare(ring))[0])
        descriptors += kept
        for level, file in sorted((rates or {}).items()):
            message.rates |= 1 << level
            descriptors.append(file)
        return message, descriptors


DISKS: Final[Kind[QueueParams]] = Kind(
    lib.XBB_FAMILY_BLOCK,
    "disk",
    medium=lambda ring: ring.disk_fd,
    each=False,
    bare=lambda ring: replace(ring, grant_fd=-1, event_fd=-1, wake_fd=-1, disk_fd=-1),
    c_params=queue.c_params,
)

CARDS: Final[Kind[NetParams]] = Kind(
    lib.XBB_FAMILY_NET,
    "card",
    medium=lambda ring: ring.link_fd,
    each=True,
    bare=lambda ring: replace(ring, grant_fd=-1, event_fd=-1, wake_fd=-1, link_fd=-1),
    c_params=net.c_params,
)
