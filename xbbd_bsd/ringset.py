"""All rings of one connection, of whatever family: how they begin, and how they end together.

They are served in this process (remoterings.py: in their guest's).  A frontend may have one
or several; they start together, and one that stops by itself takes the others along, since
a device that answers only in part is none.  What is on a ring is not known here, nor
XenStore and the table of states.  Control thread, but for the beginning and for what nobody
wants, which are a thread's of their own (errands.py); the queues' threads wake the loop by
one descriptor.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import GuestError, HostError, XbbdError
from xbbd_bsd.host import Host, RingDescriptors
from xbbd_bsd.limits import Need
from xbbd_bsd.native import NbdExport, QueueState, QueueStatus, StopReason, open_wake
from xbbd_bsd.native.vitals import Process

OF_THE_RING = (StopReason.RING, StopReason.EVENT, StopReason.UNMAP)
"""What a ring stops for that is not its medium's."""


OF_CONNECTION: Final = Need(descriptors=2)
"""What a connection takes, whatever rings it has: the grant device, and what wakes the loop."""


class ServedQueue(Protocol):
    """The handle of a queue in the data plane."""

    def start(self) -> None:
        """Begin to serve; HostError."""

    def drain(self) -> None:
        """Take nothing new."""

    def hand_over(self) -> None:
        """As `drain`, for one who adopts it."""

    def look(self) -> None:
        """Look at what its segment says."""

    def connect(self, fd: int, export: NbdExport) -> None:
        """What it serves is reached over that, which is its own from then on; HostError."""

    def status(self) -> QueueStatus:
        """Where it is in its life."""

    def close(self) -> None:
        """Give everything back."""


Q = TypeVar("Q", bound=ServedQueue)


@dataclass(frozen=True, slots=True)
class OfferedRing:
    """A ring by its event channel, and as a message has it: what its guest published for it."""

    port: int
    text: str


def fault_of(status: QueueStatus) -> XbbdError | None:
    """Why rings stopped by themselves, None if they did not, or if their family knows better."""
    why = reason_of(status)
    match status.reason:
        case StopReason.RING:
            return GuestError("the frontend's ring indices are impossible", status.errno)
        case StopReason.EVENT:
            return HostError(f"the event channel fails: {why}", status.errno)
        case StopReason.SEGMENT:
            return HostError("somebody has cut off the file of its state segment", status.errno)
        case StopReason.UNMAP:
            return HostError(f"pages of the guest stay mapped: {why}", status.errno)
    return None


def reason_of(status: QueueStatus) -> str:
    """What the system says of it."""
    return os.strerror(status.errno) if status.errno else "no reason given"


class RingSet(Generic[Q]):
    """All rings of a connected frontend, from the start to `close`."""

    def __init__(
        self,
        offered: Mapping[int, OfferedRing],
        open_queue: Callable[[int, RingDescriptors, int, ExitStack], Q],
        *,
        host: Host,
        domid: int,
        fault_of: Callable[[QueueStatus], XbbdError | None],
    ) -> None:
        """Have a queue for each, by its number, and then start them all.

        `open_queue` makes one of its number, its descriptors, one that it wakes us by when
        it has drained, and a stack of what it holds besides; HostError, GuestError.
        `fault_of`: why they stopped.  OSError, HostError or GuestError, and nothing is left
        behind then.  Any thread.
        """
        self.queues: dict[int, Q] = {}
        self._process = Process(os.getpid())
        self._offered = offered
        self._fault_of = fault_of
        with ExitStack() as held:
            self._wake = open_wake()
            held.callback(os.close, self._wake)
            grants = -1  # of the first, for all of them
            for number, ring in offered.items():
                with about_ring(ring.text):
                    given = host.open_ring(domid, ring.port, grants)
                    held.callback(os.close, given.events)
                    if grants < 0:
                        grants = given.grants
                        held.callback(os.close, grants)
                    queue = open_queue(number, given, self._wake, held)
                held.callback(queue.close)
                self.queues[number] = queue
            # One that cannot be had must not wait for what is on those that can.
            for queue in self.queues.values():
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
        found = [queue.status() for queue in self.queues.values()]
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
        for number, queue in self.queues.items():
            status = queue.status()
            fault = self._fault_of(status)
            if fault is not None and status.reason in OF_THE_RING:
                text = f"{self._offered[number].text}: {fault}"
                return type(fault)(text, fault.errno)
            if fault is not None:
                return fault
        return None

    def drain(self) -> None:
        """Take nothing new; `woken` is called when all that was accepted is answered."""
        for queue in self.queues.values():
            queue.drain()

    def hand_over(self) -> None:
        """As `drain`, for the next daemon, which adopts them."""
        for queue in self.queues.values():
            queue.hand_over()

    @property
    def handed_over(self) -> bool:
        """Whether all that was accepted is answered, so that this daemon may end."""
        return self.status.state is QueueState.DRAINED

    def give_up(self) -> None:
        """Have them served by nobody, to be adopted anew; Pending until that is so."""
        self.hand_over()
        if not self.handed_over:
            raise Pending
        self.close()

    def look(self) -> None:
        """Look at what their segment says."""
        for queue in self.queues.values():
            queue.look()

    def connect(self, fd: int, export: NbdExport) -> None:
        """Give the only ring a connection, which is its own from then on; HostError: it is not."""
        self.queues[0].connect(fd, export)

    def finish(self) -> None:
        """Give everything back once they have drained."""
        self.close()

    def close(self) -> None:
        """Give everything back.  Waits for what is in flight unless all have drained.

        By any thread as long as nobody listens.
        """
        self.queues.clear()
        self._held.close()

    def _read(self, woken: Callable[[], None]) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake, 8)
        if any(queue.status().state is not QueueState.RUNNING for queue in self.queues.values()):
            self.drain()
        woken()


@contextmanager
def about_ring(ring: str) -> Iterator[None]:
    """Errors say which ring it was."""
    try:
        yield
    except (GuestError, HostError) as error:
        raise type(error)(f"{ring}: {error}", error.errno) from None
