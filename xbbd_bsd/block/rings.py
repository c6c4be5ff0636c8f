"""The rings of one connection: what a guest has published for its disk, and how it is served.

How several begin and end as one is ringset.py's.  It knows no XenStore and no state
table.  Control thread.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from errno import ESHUTDOWN
from typing import Final

from xbbd_bsd.block.marks import cause_of_loss
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.events import QueueStatus as QueueWoke
from xbbd_bsd.host import RingDescriptors
from xbbd_bsd.native import Queue, QueueParams, QueueStatus, State, StopReason
from xbbd_bsd.native.addition import DISKS
from xbbd_bsd.native.rates import Level, SharedRates
from xbbd_bsd.ringset import OfferedRing, reason_of
from xbbd_bsd.ringset import fault_of as fault_of_any
from xbbd_bsd.serving import Asked, Craft
from xbbd_bsd.xenbus.family import Identity

MakeParams = Callable[[int, RingParams, int, int, int], QueueParams]
"""Ring's number, what was offered, descriptors of grants, events, wake-up: a queue's parameters."""

_SHOWN: Final = 4  # references in a message, of a ring that may have 32


def fault_of(status: QueueStatus) -> XbbdError | None:
    """Why rings stopped by themselves, None if they did not."""
    match status.reason:
        case StopReason.MEDIUM if status.errno == ESHUTDOWN:
            return HostError("the disk is gone: another client has taken it", status.errno)
        case StopReason.MEDIUM:
            return HostError(f"the disk is gone: {reason_of(status)}", status.errno)
        case StopReason.LOST:
            return HostError(f"writes may be lost: {cause_of_loss(status.errno)}", status.errno)
        case StopReason.ERROR:
            why = reason_of(status)
            return HostError(f"the disk has failed, and is to stop then: {why}", status.errno)
    return fault_of_any(status)


def woke(device: str, status: QueueStatus) -> Event:
    """That rings have said something, for the log."""
    state, reason = status.state.name.lower(), status.reason.name.lower()
    return QueueWoke(device, state, reason, status.errno)


def named(number: int, ring: RingParams) -> str:
    """A ring as a message has it: what its guest published for it."""
    refs = " ".join(str(ref) for ref in ring.refs[:_SHOWN])
    more = f" and {len(ring.refs) - _SHOWN} more" if len(ring.refs) > _SHOWN else ""
    return f"ring {number} (reference {refs}{more}, port {ring.port})"


CRAFT: Final[Craft[QueueParams, State]] = Craft(DISKS, State, Queue, fault_of)
"""How a disk's rings are served."""


def asked_of(
    who: Identity,
    guest: str,
    rings: Mapping[int, RingParams],
    make: MakeParams,
    segment: State,
    kept: Sequence[int],
    rates: Mapping[Level, SharedRates],
) -> Asked[QueueParams, State]:
    """Rings to be served; `kept` and `rates` as of `Asked`."""

    def made(number: int, given: RingDescriptors, wake: int, held: ExitStack) -> QueueParams:
        return make(number, rings[number], given.grants, given.events, wake)

    return Asked(
        who,
        guest,
        {n: OfferedRing(ring.port, named(n, ring)) for n, ring in rings.items()},
        made,
        segment,
        all(make(n, ring, -1, -1, -1).adopt for n, ring in rings.items()),
        kept,
        rates,
    )
