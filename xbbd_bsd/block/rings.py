"""The rings of one connection: descriptors, queues in C, and how they end together.

A frontend may have one ring or several; they start together, and one that stops
by itself takes the others along, since a disk that answers only in part is
none.  It knows no XenStore and no state table.  Control thread, but for the
beginning and for what nobody wants, which are a thread's of their own (errands.py);
the queues' threads wake the loop by one descriptor.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from xbbd_bsd.block.marks import cause_of_loss
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.errors import GuestError, HostError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.events import QueueStatus as QueueWoke
from xbbd_bsd.host import Host
from xbbd_bsd.native import (
    Queue,
    QueueParams,
    QueueState,
    QueueStatus,
    State,
    StopReason,
    open_wake,
)
from xbbd_bsd.native.vitals import Process

MakeParams = Callable[[int, RingParams, int, int, int], QueueParams]
"""Ring's number, what was offered, descriptors of grants, events, wake-up: a queue's parameters."""

_SHOWN: Final = 4  # references in a message, of a ring that may have 32
# What a ring stops for that is not the disk's.
_OF_THE_RING: Final = (StopReason.RING, StopReason.EVENT, StopReason.UNMAP)


def fault_of(status: QueueStatus) -> XbbdError | None:
    """Why rings stopped by themselves, None if they did not."""
    reason = os.strerror(status.errno) if status.errno else "no reason given"
    match status.reason:
        case StopReason.RING:
            return GuestError("the frontend's ring indices are impossible", status.errno)
        case StopReason.DISK:
            return HostError(f"the disk is gone: {reason}", status.errno)
        case StopReason.EVENT:
            return HostError(f"the event channel fails: {reason}", status.errno)
        case StopReason.LOST:
            return HostError(f"writes may be lost: {cause_of_loss(status.errno)}", status.errno)
        case StopReason.SEGMENT:
            return HostError("somebody has cut off the file of its state segment", status.errno)
        case StopReason.UNMAP:
            return HostError(f"pages of the guest stay mapped: {reason}", status.errno)
    return None


def woke(device: str, status: QueueStatus) -> Event:
    """That rings have said something, for the log."""
    state, reason = status.state.name.lower(), status.reason.name.lower()
    return QueueWoke(device, state, reason, status.errno)


def named(number: int, ring: RingParams) -> str:
    """A ring as a message has it: what its guest published for it."""
    refs = " ".join(str(ref) for ref in ring.refs[:_SHOWN])
    more = f" and {len(ring.refs) - _SHOWN} more" if len(ring.refs) > _SHOWN else ""
    return f"ring {number} (reference {refs}{more}, port {ring.port})"


class Rings:
    """All rings of a connected frontend, from the start to `close`."""

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
        self._queues: dict[int, Queue] = {}
        self._offered = offered
        self._process = Process(os.getpid())
        with ExitStack() as held:
            self._wake = open_wake()
            held.callback(os.close, self._wake)
            grants = -1  # of the first, for all of them
            for number, ring in offered.items():
                with _about(named(number, ring)):
                    descriptors = host.open_ring(domid, ring.port, grants)
                    events = descriptors.events
                    held.callback(os.close, events)
                    if grants < 0:
                        grants = descriptors.grants
                        held.callback(os.close, grants)
                    queue = Queue(make(number, ring, grants, events, self._wake), segment)
                held.callback(queue.close)
                self._queues[number] = queue
            # One that cannot be had must not wait for the requests of those that can.
            for queue in self._queues.values():
                queue.start()
            self._held = held.pop_all()

    def listen(self, loop: asyncio.AbstractEventLoop, woken: Callable[[], None]) -> None:
        """From now on call `woken` on the loop when one has drained."""
        loop.add_reader(self._wake, self._read, woken)
        self._held.callback(loop.remove_reader, self._wake)

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

    @property
    def status(self) -> QueueStatus:
        """Of all as one: drained when the last is, with the first reason there was."""
        found = [queue.status() for queue in self._queues.values()]
        reasons = [status for status in found if status.reason is not StopReason.NONE]
        states = {status.state for status in found}
        # Where they differ some have ended, and the rest will.
        state = states.pop() if len(states) == 1 else QueueState.DRAINING
        if not reasons:
            return QueueStatus(state, StopReason.NONE, 0)
        return QueueStatus(state, reasons[0].reason, reasons[0].errno)

    @property
    def fault(self) -> XbbdError | None:
        """Why they stop by themselves, None if they do not."""
        for number, queue in self._queues.items():
            status = queue.status()
            fault = fault_of(status)
            if fault is not None and status.reason in _OF_THE_RING:
                text = f"{named(number, self._offered[number])}: {fault}"
                return type(fault)(text, fault.errno)
            if fault is not None:
                return fault
        return None

    def drain(self) -> None:
        """Take no new request; `woken` is called when all accepted ones are answered."""
        for queue in self._queues.values():
            queue.drain()

    def hand_over(self) -> None:
        """As `drain`, for the next daemon, which adopts them."""
        for queue in self._queues.values():
            queue.hand_over()

    @property
    def handed_over(self) -> bool:
        """Whether all that was accepted is answered, so that this daemon may end."""
        return self.status.state is QueueState.DRAINED

    def finish(self) -> None:
        """Give everything back once they have drained."""
        self.close()

    def close(self) -> None:
        """Give everything back.  Waits for I/O in flight unless all have drained.

        By any thread as long as nobody listens.
        """
        self._queues.clear()
        self._held.close()

    def _read(self, woken: Callable[[], None]) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake, 8)
        if any(queue.status().state is not QueueState.RUNNING for queue in self._queues.values()):
            self.drain()
        woken()


@contextmanager
def _about(ring: str) -> Iterator[None]:
    """Errors say which ring it was."""
    try:
        yield
    except (GuestError, HostError) as error:
        raise type(error)(f"{ring}: {error}", error.errno) from None
