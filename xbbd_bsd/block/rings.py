"""The rings of one connection: queues in C of what a guest has published for its disk.

How several begin and end as one is ringset.py's.  It knows no XenStore and no state
table.  Control thread, but for the beginning and for what nobody wants.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from xbbd_bsd.block.marks import cause_of_loss
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.events import QueueStatus as QueueWoke
from xbbd_bsd.host import Host, RingDescriptors
from xbbd_bsd.native import Queue, QueueParams, QueueStatus, State, StopReason
from xbbd_bsd.native.vitals import Process
from xbbd_bsd.ringset import OfferedRing, RingSet, reason_of
from xbbd_bsd.ringset import fault_of as fault_of_any

MakeParams = Callable[[int, RingParams, int, int, int], QueueParams]
"""Ring's number, what was offered, descriptors of grants, events, wake-up: a queue's parameters."""

_SHOWN: Final = 4  # references in a message, of a ring that may have 32


def fault_of(status: QueueStatus) -> XbbdError | None:
    """Why rings stopped by themselves, None if they did not."""
    match status.reason:
        case StopReason.DISK:
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


class Rings(RingSet[Queue]):
    """All rings of a connected frontend, in this process, from the start to `close`."""

    def __init__(
        self,
        offered: Mapping[int, RingParams],
        make: MakeParams,
        *,
        host: Host,
        domid: int,
        segment: State,
    ) -> None:
        """Have a queue for each, by its number, and then start them all.

        OSError, HostError or GuestError, and nothing is left behind then.  Any thread.
        """
        self._process = Process(os.getpid())

        def open_queue(number: int, given: RingDescriptors, wake: int) -> Queue:
            params = make(number, offered[number], given.grants, given.events, wake)
            return Queue(params, segment)

        super().__init__(
            {n: OfferedRing(ring.port, named(n, ring)) for n, ring in offered.items()},
            open_queue,
            host=host,
            domid=domid,
            fault_of=fault_of,
        )

    @property
    def process(self) -> Process:
        """The one that serves them: this one."""
        return self._process

    @property
    def paused(self) -> bool:
        """They are begun by whoever makes them."""
        return True

    @property
    def lost(self) -> None:
        """Their process is this one."""
        return

    def look(self) -> None:
        """Look at what their segment says."""
        for queue in self.queues.values():
            queue.look()

    def finish(self) -> None:
        """Give everything back once they have drained."""
        self.close()
