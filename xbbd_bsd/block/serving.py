"""Where the rings of a connection are served: in this process, or in one of their guest's.

Chosen once, when the family is made; what has rings does not know which.  Nothing of a
process's life is known here, only that it may be lost: then the rings wait for another
one, which adopts them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from errno import EAGAIN
from typing import Protocol

from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.remote import LIMIT, RemoteRings
from xbbd_bsd.block.rings import MakeParams, Rings
from xbbd_bsd.block.segments import inherit_segment, look_at_segment
from xbbd_bsd.errands import Errands
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.host import Host
from xbbd_bsd.native import IoUse, QueueStatus, State, bound_io
from xbbd_bsd.native.link import Link
from xbbd_bsd.native.vitals import Process
from xbbd_bsd.xenbus.family import Identity


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

    def hand_over(self) -> None:
        """As `drain`, but for the next daemon, which adopts them; nothing else follows."""

    @property
    def handed_over(self) -> bool:
        """Whether this daemon may end, and nothing that was accepted is lost by that."""

    def finish(self) -> None:
        """Give everything back once they have drained.  May raise Pending."""

    def close(self) -> None:
        """Give everything back, and wait as long as that takes; of lost ones nothing is there.

        Any thread, if nobody listens.
        """


@dataclass(frozen=True, slots=True)
class Asked:
    """Rings that are to be served, by number, with what each is made of.

    `guest`: its name, for people.  `kept`: descriptors that are to be open as long as the
    rings are served.
    """

    who: Identity
    guest: str
    rings: Mapping[int, RingParams]
    make: MakeParams
    segment: State
    kept: Sequence[int]

    @property
    def adopts(self) -> bool:
        """Whether somebody served them before."""
        return all(self.make(n, ring, -1, -1, -1).adopt for n, ring in self.rings.items())


class Serving(Protocol):
    """How rings come to be served."""

    def serve(self, asked: Asked) -> ServedRings:
        """Have them all served; OSError, HostError, GuestError, and nothing is left then.

        Waits; any thread.
        """

    def listen(self, rings: ServedRings, who: Identity, woken: Callable[[], None]) -> None:
        """From now on call `woken` on the loop when there is news of them."""

    def inherit(self, path: str) -> State:
        """The segment of rings that an earlier daemon had; HostError, EBUSY: they are not free."""

    def lend(self, who: Identity) -> list[int]:
        """Copies of the disk's descriptor, and of those kept, by whoever serves it; HostError.

        Waits; any thread.
        """

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        """As heritage.Former says."""

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        """As heritage.Former says."""

    def forget(self, who: Identity) -> None:
        """The device is gone."""

    def bound(self, threads: int, size: int) -> IoUse:
        """Bound the threads and bytes that rings may have beyond what they need; what they have."""


class Here:
    """In this process, whose end is the end of them."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop

    def serve(self, asked: Asked) -> Rings:
        return Rings(
            asked.rings,
            asked.make,
            host=self._host,
            domid=asked.who.domid,
            segment=asked.segment,
        )

    def listen(self, rings: ServedRings, who: Identity, woken: Callable[[], None]) -> None:
        assert isinstance(rings, Rings)
        rings.listen(self._loop, woken)

    def inherit(self, path: str) -> State:
        return inherit_segment(path)

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

    def bound(self, threads: int, size: int) -> IoUse:
        return bound_io(threads, size)


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

    def bound(self, threads: int, size: int) -> None:
        """What each may have beyond what its rings need, from when it is reached."""


class Guests(Protocol):
    """The loop's look at them (guests/watch.py)."""

    @property
    def processes(self) -> Processes:
        """What is looked at."""

    def subscribe(self, domid: int, woken: Callable[[], None]) -> Callable[[], None]:
        """Call `woken` when a process has said something, or died; how to end that."""

    def forget(self, domid: int) -> None:
        """No device of the guest is left."""

    def release(self, domid: int, device: int, done: Callable[[bool | None], None]) -> None:
        """Have a process of another version hand over what it serves: heritage.Former."""

    def drop(self, domid: int, device: int, done: Callable[[bool], None]) -> None:
        """Have a process that another daemon had give a device back, if it has it.

        `done` is told whether it has none then, or is not there; False if it would not do it.
        """


class ByProcess:
    """In the process of their guest, which this one's end does not touch."""

    def __init__(self, host: Host, guests: Guests) -> None:
        self._host = host
        self._guests = guests
        self._processes = guests.processes
        self._devices: dict[int, set[int]] = {}  # units by guest
        self._dropping: dict[tuple[int, int], list[Callable[[], None]]] = {}  # by guest, unit

    def serve(self, asked: Asked) -> RemoteRings:
        who = asked.who
        if (who.domid, who.unit) in self._dropping:
            raise HostError("its process still has what was served before", EAGAIN)
        # Before it is reached: nobody shall send it away for want of devices.
        self._devices.setdefault(who.domid, set()).add(who.unit)
        if not asked.adopts:
            self._processes.forgive(who.domid)
        link = self._processes.reach(who.domid, asked.guest or str(who.domid), limit=LIMIT)
        self._processes.hand_over(who.domid, who.unit, limit=LIMIT)
        return RemoteRings(
            asked.rings,
            asked.make,
            host=self._host,
            domid=who.domid,
            segment=asked.segment,
            unit=who.unit,
            link=link,
            kept=asked.kept,
            adopts=asked.adopts,
        )

    def listen(self, rings: ServedRings, who: Identity, woken: Callable[[], None]) -> None:
        assert isinstance(rings, RemoteRings)
        rings.listen(lambda call: self._guests.subscribe(who.domid, call), woken)

    def inherit(self, path: str) -> State:
        """Locked or not: that is between those processes."""
        return look_at_segment(path)

    def lend(self, who: Identity) -> list[int]:
        link = self._processes.holder(who.domid, who.unit, limit=LIMIT)
        return [] if link is None else link.give(who.unit, limit=LIMIT)

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        self._guests.release(who.domid, who.unit, done)

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        device = who.domid, who.unit

        def dropped(bare: bool) -> None:
            waiting = self._dropping.pop(device)
            if bare and who.domid not in self._devices:  # none has come meanwhile
                self._guests.forget(who.domid)
            for done in waiting:
                done()

        if device in self._dropping:
            self._dropping[device].append(done)
        else:
            self._dropping[device] = [done]
            self._guests.drop(*device, dropped)

    def forget(self, who: Identity) -> None:
        units = self._devices.get(who.domid)
        if units is None:
            return  # its process, if there is one, is another daemon's: see `drop`
        units.discard(who.unit)
        if not units:
            del self._devices[who.domid]
            self._guests.forget(who.domid)

    def bound(self, threads: int, size: int) -> IoUse:
        """What they have they do not say."""
        self._processes.bound(threads, size)
        return IoUse(0, 0, 0, 0)


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
