"""Where the rings of a connection are served: in this process, or in one of their guest's.

Chosen once, when a family is made; what has rings does not know which.  What a family's
rings are it says itself (`Craft`).  Nothing of a process's life is known here, only that it
may be lost: then the rings wait for another one, which adopts them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from xbbd_bsd.errands import Errands
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.host import Host, RingDescriptors
from xbbd_bsd.native import NbdExport, QueueStatus
from xbbd_bsd.native.addition import Kind, P
from xbbd_bsd.native.link import Link
from xbbd_bsd.native.rates import Level, SharedRates
from xbbd_bsd.native.segment import MappedSegment
from xbbd_bsd.native.vitals import Process
from xbbd_bsd.oids import Value
from xbbd_bsd.remoterings import LIMIT, RemoteRings
from xbbd_bsd.ringset import OfferedRing, RingSet, ServedQueue
from xbbd_bsd.segmentfiles import about_segment
from xbbd_bsd.xenbus.family import Identity

S = TypeVar("S", bound=MappedSegment)


class ServedRings(Protocol):
    """All rings of a connected frontend, wherever they are; control thread but for `close`."""

    @property
    def lost(self) -> HostError | None:
        """Why they are served by nobody any more, and may be adopted; None as long as they are."""

    @property
    def process(self) -> Process:
        """The one that serves them."""

    @property
    def paused(self) -> bool:
        """Whether they were served by nobody before these were made."""

    @property
    def status(self) -> QueueStatus:
        """Of all as one."""

    @property
    def fault(self) -> XbbdError | None:
        """Why they stop by themselves, None if they do not."""

    def drain(self) -> None:
        """Take no new request; whoever listens is told when all accepted ones are answered."""

    def look(self) -> None:
        """Look at what their segment says, sooner or later; HostError."""

    def connect(self, fd: int, export: NbdExport) -> None:
        """Give the only ring a connection, which is its own from then on; HostError: it is not."""

    def hand_over(self) -> None:
        """As `drain`, but for the next daemon, which adopts them; nothing else follows."""

    @property
    def handed_over(self) -> bool:
        """Whether this daemon may end, and nothing that was accepted is lost by that."""

    def give_up(self) -> None:
        """Have them served by nobody, to be adopted anew, and by this daemon too.

        Raises Pending until that is so, and HostError.
        """

    def finish(self) -> None:
        """Give everything back once they have drained.  May raise Pending."""

    def close(self) -> None:
        """Give everything back, and wait as long as that takes; of lost ones nothing is there.

        Any thread, if nobody listens.
        """


@dataclass(frozen=True, slots=True)
class Craft(Generic[P, S]):
    """How the rings of a family are served: what is of its kind alone.

    `queue` opens one in this process, as native.Queue; `fault_of` says why one has stopped,
    None if it did not.
    """

    kind: Kind[P]
    segment: type[S]
    queue: Callable[[P, S], ServedQueue]
    fault_of: Callable[[QueueStatus], XbbdError | None]


@dataclass(frozen=True, slots=True)
class Asked(Generic[P, S]):
    """Rings that are to be served, by number.

    `make` says what one is made of: of its number, its descriptors and one that wakes us;
    what it opens for that it puts on a stack, and which is not closed before the ring is
    served by somebody who has that.  `guest`: its name, for people.  `adopts`: somebody
    served them before.  `kept`: descriptors that are to be open as long as they are served.
    `rates`: limits that the device shares.
    """

    who: Identity
    guest: str
    rings: Mapping[int, OfferedRing]
    make: Callable[[int, RingDescriptors, int, ExitStack], P]
    segment: S
    adopts: bool
    kept: Sequence[int] = ()
    rates: Mapping[Level, SharedRates] = field(default_factory=dict)


class Serving(Protocol[P, S]):
    """How rings of a family come to be served."""

    def serve(self, asked: Asked[P, S]) -> ServedRings:
        """Have them all served; OSError, HostError, GuestError, and nothing is left then.

        Waits; any thread.
        """

    def listen(self, rings: ServedRings, who: Identity, woken: Callable[[], None]) -> None:
        """From now on call `woken` on the loop when there is news of them."""

    def inherit(self, path: str) -> S:
        """The segment of rings that an earlier daemon had; HostError, EBUSY: they are not free."""

    def lend(self, who: Identity) -> list[int]:
        """Copies of a disk's descriptor, and of those kept, by whoever serves it; HostError.

        Waits; any thread.
        """

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        """As inheritance.Former says."""

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        """As inheritance.Former says."""

    def forget(self, who: Identity) -> None:
        """The device is gone."""


class Here(Generic[P, S]):
    """In this process, whose end is the end of them."""

    def __init__(self, craft: Craft[P, S], host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._craft = craft
        self._host = host
        self._loop = loop

    def serve(self, asked: Asked[P, S]) -> RingSet[ServedQueue]:
        def open_queue(
            number: int, given: RingDescriptors, wake: int, held: ExitStack
        ) -> ServedQueue:
            return self._craft.queue(asked.make(number, given, wake, held), asked.segment)

        return RingSet(
            asked.rings,
            open_queue,
            host=self._host,
            domid=asked.who.domid,
            fault_of=self._craft.fault_of,
        )

    def listen(self, rings: ServedRings, who: Identity, woken: Callable[[], None]) -> None:
        assert isinstance(rings, RingSet)
        rings.listen(self._loop, woken)

    def inherit(self, path: str) -> S:
        with about_segment(path):
            return self._craft.segment.take_over(path)

    def lend(self, who: Identity) -> list[int]:
        """Nobody serves it."""
        return []

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        """It went with that daemon, and nobody can say what it left."""
        self._loop.call_soon(done, False)

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        """It went with that daemon."""
        self._loop.call_soon(done)

    def forget(self, who: Identity) -> None:
        """There is nothing of a device's own."""


class Processes(Protocol):
    """The processes of guests (guests/service.py)."""

    def reach(self, domid: int, name: str, *, limit: float) -> Link:
        """The process of a guest: the one that there is, or a new one.  Waits; HostError."""

    def holder(self, domid: int, device: int, *, limit: float) -> Link | None:
        """Whichever has a device of a guest, if any has.  Waits; HostError."""

    def hand_over(self, domid: int, device: int, *, limit: float) -> bool:
        """One of another build gives a device up, nothing unanswered; whether it had it.

        Waits; HostError.
        """

    def forgive(self, domid: int) -> None:
        """Start it again, however often it has died."""


class Guests(Protocol):
    """Which devices they are wanted for, of whatever family (guests/claims.py).

    A device is called as its process calls it.
    """

    @property
    def processes(self) -> Processes:
        """The processes themselves."""

    def claim(self, domid: int, device: int) -> None:
        """A device is to be served; HostError: what was served before is not given back yet.

        Any thread.
        """

    def subscribe(self, domid: int, woken: Callable[[], None]) -> Callable[[], None]:
        """Call `woken` when a process has said something, or died; how to end that."""

    def forget(self, domid: int, device: int) -> None:
        """A device is gone."""

    def release(self, domid: int, device: int, done: Callable[[bool | None], None]) -> None:
        """Have a process of another version hand over what it serves: inheritance.Former."""

    def drop(self, domid: int, device: int, done: Callable[[], None]) -> None:
        """Have a process that another daemon had give a device back, if it has it.

        `done` is called when it has, or would not do it.
        """


class ByProcess(Generic[P, S]):
    """In the process of their guest, which this one's end does not touch."""

    def __init__(self, craft: Craft[P, S], host: Host, guests: Guests) -> None:
        self._craft = craft
        self._host = host
        self._guests = guests
        self._processes = guests.processes

    def serve(self, asked: Asked[P, S]) -> RemoteRings:
        who, device = asked.who, self._device(asked.who)
        # Before it is reached: nobody shall send it away for want of devices.
        self._guests.claim(who.domid, device)
        if not asked.adopts:
            self._processes.forgive(who.domid)
        link = self._processes.reach(who.domid, asked.guest or str(who.domid), limit=LIMIT)
        self._processes.hand_over(who.domid, device, limit=LIMIT)
        return RemoteRings(
            asked.rings,
            asked.make,
            kind=self._craft.kind,
            fault_of=self._craft.fault_of,
            host=self._host,
            domid=who.domid,
            segment=asked.segment,
            unit=who.unit,
            link=link,
            kept=asked.kept,
            rates=asked.rates,
            adopts=asked.adopts,
        )

    def _device(self, who: Identity) -> int:
        return self._craft.kind.number(who.unit)

    def listen(self, rings: ServedRings, who: Identity, woken: Callable[[], None]) -> None:
        assert isinstance(rings, RemoteRings)
        rings.listen(lambda call: self._guests.subscribe(who.domid, call), woken)

    def inherit(self, path: str) -> S:
        """Locked or not: that is between those processes."""
        with about_segment(path):
            return self._craft.segment.open(path, writable=True)

    def lend(self, who: Identity) -> list[int]:
        device = self._device(who)
        link = self._processes.holder(who.domid, device, limit=LIMIT)
        return [] if link is None else link.give(device, limit=LIMIT)

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        self._guests.release(who.domid, self._device(who), done)

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        self._guests.drop(who.domid, self._device(who), done)

    def forget(self, who: Identity) -> None:
        self._guests.forget(who.domid, self._device(who))


def ask_for_rings(errands: Errands, asked: object, serve: Callable[[], ServedRings]) -> ServedRings:
    """Have them served by a thread; raises Pending until they are.  HostError, GuestError.

    Mapping waits where a guest's page is paged out (GNTST_eagain).
    """

    def work() -> ServedRings:
        try:
            return serve()
        except OSError as error:
            reason = f"unable to start a queue: {error.strerror}"
            raise HostError(reason, error.errno or 0) from None

    return errands.ask("mapping the guest's pages", asked, work, lambda made: made.close())


_NOBODY: Final[Mapping[str, Value]] = {"process": 0, "process_rss_kb": 0, "process_age": 0}


def process_facts(process: Process | None) -> Mapping[str, Value]:
    """Leaves of oids.PROCESS, of the one that serves a device; zeros if none does."""
    vitals = process.look() if process is not None else None
    if process is None or vitals is None:
        return _NOBODY
    return {
        "process": process.pid,
        "process_rss_kb": vitals.rss_kb,
        "process_age": vitals.age,
    }
