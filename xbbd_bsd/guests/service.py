"""Guests' processes, one a guest: found, started, started again, given up.

A process listens in the daemon's directory, so that the next daemon finds it there.  It
is asked for by whoever connects rings, in a thread of its own (errands.py), and has
what deaths.py says about being started again.  Which devices a process has is not known
here, nor what a disk is.

Any thread, but for `look` and `listen`, which are the loop's.  One lock a guest, held while
its process is being reached; and one for what all share, held across nothing that waits.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from errno import EAGAIN, EBUSY, ECANCELED, EIO, ETIMEDOUT
from typing import Final

from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.deaths import Deaths
from xbbd_bsd.guests.outdated import NOBODY, Outdated
from xbbd_bsd.native import HvKind, IoUse
from xbbd_bsd.native.link import BUILD, Bounds, Link, listens
from xbbd_bsd.native.packets import listen_at
from xbbd_bsd.native.processes import Confinement, Ended, Place, Processes, Started, how_it_ended
from xbbd_bsd.native.vitals import Process

_SLICE: Final = 0.02  # seconds; another thread may have heard what is waited for
_UNTIL_GREETED: Final = 60  # seconds that a new process waits for us
_ANY: Final = (1 << 32) - 1  # no bound
_LISTENS: Final = re.compile(r"guest\.\d+(\.\d+)?")  # where one does


@dataclass(frozen=True, slots=True)
class Terms:
    """What each process is started with; see `Processes.start` and `Link.hello`.

    `place` makes that of a guest's process, HostError.
    """

    hv: HvKind
    bounds: Bounds
    idle_seconds: int = 60
    grant_path: str = ""
    confinement: Confinement = field(default_factory=Confinement)
    place: Callable[[int], Place | None] = lambda domid: None


@dataclass(frozen=True, slots=True)
class Loss:
    """A guest's process is not to be talked to any more: what it served is to be taken over.

    `how` it ended, as far as that is known; `given_up` says why there will be no other one,
    "" if there will.
    """

    domid: int
    how: str
    given_up: str


@dataclass(slots=True)
class _Guest:
    outdated: Outdated
    lock: threading.Lock = field(default_factory=threading.Lock)
    deaths: Deaths = field(default_factory=Deaths)
    link: Link | None = None
    pid: int = 0  # 0: none, or not a child of our server's
    how: str = ""  # the last one ended
    told: bool = True  # that the connection is lost
    forgotten: bool = False


def _end(process: Process) -> None:
    """One that an earlier daemon started; which it is says the kernel, and not it."""
    if process.pid != os.getpid() and process.look() is not None:
        with suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)


class GuestProcesses:
    """All of them."""

    def __init__(
        self,
        directory: str,
        terms: Callable[[], Terms],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """They listen in `directory`; `terms` are asked for anew whenever one is reached."""
        self._directory = directory
        self._terms = terms
        self._clock = clock
        self._sleep = sleep
        self._found: Callable[[int], None] = lambda domid: None
        self._lock = threading.Lock()  # all below, but for what a guest's own is for
        self._processes: Processes | None = None
        self._past: list[Processes] = []  # that have gone, and are not closed
        self._guests: dict[int, _Guest] = {}
        self._io = (_ANY, _ANY)
        self._asked: dict[int, _Guest] = {}  # by serial, as the next
        self._started: dict[int, Started] = {}
        self._children: dict[int, _Guest] = {}  # by process

    def prepare(self) -> None:
        """Have the server that they are forked from; HostError."""
        try:
            with self._lock:
                self._server()
        except OSError as error:
            text = f"no server for the processes of guests: {error.strerror}"
            raise HostError(text, error.errno or EIO) from None

    def exist(self) -> bool:
        """Whether some are at work already, for an earlier daemon."""
        found = os.scandir(self._directory)
        with found:
            return any(_LISTENS.fullmatch(entry.name) and listens(entry.path) for entry in found)

    def path(self, domid: int) -> str:
        """Where the process of a guest listens."""
        return os.path.join(self._directory, f"guest.{domid}")

    def reach(self, domid: int, name: str, *, limit: float) -> Link:
        """The process of a guest: the one that there is, or a new one.  Waits; HostError.

        For one that has died again and again it waits longer and longer (deaths.py).
        """
        link = self._have(domid, lambda guest, end: self._start(domid, name, guest, end), limit)
        assert link is not None
        return link

    def holder(self, domid: int, device: int, *, limit: float) -> Link | None:
        """Whichever process has a device of a guest, None if none has.  Waits; HostError."""
        link = self._have(domid, lambda guest, end: None, limit)
        if link is not None and device in link.reports:
            return link
        return self._guest(domid).outdated.holder(device)

    def hand_over(self, domid: int, device: int, *, limit: float) -> bool:
        """A process of another build shall serve a device no longer; whether one did.

        `limit` is for finding it.  Waits; HostError.
        """
        self._have(domid, lambda guest, end: None, limit)
        return self._guest(domid).outdated.hand_over(device)

    def drop(self, domid: int, device: int, *, limit: float) -> None:
        """Nobody goes on with a device: whoever has it gives it back.  Waits; HostError."""
        link = self._have(domid, lambda guest, end: None, limit)
        if link is not None and device in link.reports:
            link.close_device(device, limit=limit)
        self._guest(domid).outdated.drop(device, limit=limit)

    def devices(self, domid: int) -> frozenset[int]:
        """Those that processes of a guest have, as far as they have said; a dead one has none."""
        guest = self._guest(domid)
        link = guest.link
        own = link.reports.keys() if link is not None and link.lost is None else ()
        return guest.outdated.devices.union(own)

    def bound(self, threads: int, size: int) -> IoUse:
        """Threads and bytes of I/O that one may have beyond what its rings need, once reached.

        What they have they do not say.
        """
        self._io = (threads, size)
        return IoUse(0, 0, 0, 0)

    def look(self) -> list[Loss]:
        """Hear the server and all processes; what is lost.  The loop's thread, often."""
        self._listen()
        with self._lock:
            guests = dict(self._guests)
        losses = []
        for domid, guest in guests.items():
            link = guest.link
            if link is None or guest.told:
                continue
            link.receive()
            if link.lost is None:
                continue
            guest.told = True
            if guest.pid == 0 and not guest.how:  # a child of nobody that we know
                self._count(guest, "ended")
            losses.append(Loss(domid, guest.how or str(link.lost), guest.deaths.reason))
        return losses

    def on_found(self, found: Callable[[int], None]) -> None:
        """Call `found` with the guest, in whatever thread, when there is a new connection."""
        self._found = found

    @property
    def server(self) -> int | None:
        """A descriptor that is readable when a process has ended; None while there is no server."""
        with self._lock:
            return None if self._processes is None else self._processes.fileno()

    def link(self, domid: int) -> Link | None:
        """The connection to a guest's process, if there was one."""
        with self._lock:
            guest = self._guests.get(domid)
        return guest.link if guest is not None else None

    def forget(self, domid: int) -> None:
        """The guest is gone, and no device of it is left: so is its process, soon."""
        with self._lock:
            guest = self._guests.pop(domid, None)
        if guest is not None:
            guest.forgotten = True
            guest.outdated.leave(ends=True)
        self._send_away(domid, guest.link if guest is not None else None)

    def _send_away(self, domid: int, link: Link | None) -> None:
        if link is not None:
            with suppress(HostError):
                link.bye(limit=0)
            link.close()
        with suppress(OSError):
            os.unlink(self.path(domid))

    def forgive(self, domid: int) -> None:
        """Start it again after all, when it is asked for."""
        with self._lock:
            guest = self._guests.get(domid)
        if guest is not None:
            guest.deaths.forgive()

    def close_past(self) -> int:
        """Close what is kept of servers that have gone; how many have not ended yet."""
        with self._lock:
            for processes in self._past:
                processes.close()
            self._past = [processes for processes in self._past if not processes.reap()]
            return len(self._past)

    def leave(self) -> None:
        """The daemon ends: the processes serve on, and wait for the next one."""
        with self._lock:
            processes, self._processes = self._processes, None
            guests, self._guests = self._guests, {}
        for guest in guests.values():
            guest.outdated.leave()
            if guest.link is not None:
                guest.link.close()
        if processes is not None:
            self._past.append(processes)
        self.close_past()

    def kill(self, domid: int) -> None:
        """One that does not do what it is told; only a child of our server's.  HostError."""
        with self._lock:
            guest = self._guests.get(domid)
            if guest is not None and guest.pid and self._processes is not None:
                self._processes.kill(guest.pid)

    def _have(
        self, domid: int, otherwise: Callable[[_Guest, float], Link | None], limit: float
    ) -> Link | None:
        """The process that there is, or `otherwise`, which is told by when."""
        end = time.monotonic() + limit
        guest = self._guest(domid)
        with guest.lock:
            if guest.link is not None and guest.link.lost is None:
                return guest.link
            guest.outdated.find(limit)
            link = self._find(domid, guest, end) or otherwise(guest, end)
            if link is None:
                return None
            if guest.forgotten:  # while it was being reached
                self._send_away(domid, link)
                raise HostError("its guest is gone", ECANCELED)
            guest.link, guest.told = link, False
        self._found(domid)
        return link

    def _guest(self, domid: int) -> _Guest:
        with self._lock:
            found = self._guests.get(domid)
            if found is None:
                found = self._guests[domid] = _Guest(Outdated(self.path(domid)))
            return found

    def _find(self, domid: int, guest: _Guest, end: float) -> Link | None:
        """The one that listens already, of an earlier daemon or a lost connection."""
        try:
            link = Link.connect(self.path(domid))
        except HostError as error:
            if error.errno in NOBODY:
                return None
            raise
        try:
            link.meet(limit=max(0.0, end - time.monotonic()))
            if link.build != BUILD:
                guest.outdated.set_aside(link)
                return None
            return self._greet(link, end)
        except OSError as error:
            link.close()
            text = f"unable to rename {self.path(domid)}: {error.strerror}"
            raise HostError(text, error.errno or EIO) from None
        except HostError as error:
            link.close()
            if error.errno == EBUSY:  # it has not noticed yet that it was left
                raise HostError(str(error), EAGAIN) from None
            # It has ended, or will not talk, and is no use to anybody: another one adopts.
            if guest.pid == 0:
                _end(link.process)
            with suppress(HostError):
                self.kill(domid)
            return None

    def _start(self, domid: int, name: str, guest: _Guest, end: float) -> Link:
        self._wait_ended(guest, end)
        if guest.deaths.reason:
            raise HostError(guest.deaths.reason, EIO)
        self._sleep(guest.deaths.wait(self._clock()))
        terms = self._terms()
        path = self.path(domid)
        try:
            with listen_at(path) as listener, self._lock:
                serial = self._server().start(
                    name,
                    listener,
                    hv=terms.hv,
                    idle_seconds=_UNTIL_GREETED,
                    grant_path=terms.grant_path,
                    confinement=terms.confinement,
                    place=terms.place(domid),
                )
                self._asked[serial] = guest
        except OSError as error:
            raise HostError(f"no process: {error.strerror}", error.errno or EIO) from None
        self._wait_started(serial, guest, end)
        link = Link.connect(path)
        try:
            link.meet(limit=max(0.0, end - time.monotonic()))
            return self._greet(link, end)
        except HostError:
            link.close()
            raise

    def _greet(self, link: Link, end: float) -> Link:
        terms = self._terms()
        left = max(0.0, end - time.monotonic())
        threads, size = self._io
        bounds = replace(terms.bounds, io_threads=threads, io_bytes=size)
        link.hello(bounds, idle_seconds=terms.idle_seconds, limit=left)
        return link

    def _wait_started(self, serial: int, guest: _Guest, end: float) -> None:
        try:
            self._wait(lambda: serial in self._started, end)
            started = self._started.pop(serial)
        finally:
            with self._lock:
                self._asked.pop(serial, None)
        if started.errno:
            raise HostError(f"no process: {os.strerror(started.errno)}", started.errno)

    def _wait_ended(self, guest: _Guest, end: float) -> None:
        """Nobody listens: the last one is about to end, if it has not."""
        self._wait(lambda: guest.pid == 0, end)

    def _wait(self, holds: Callable[[], bool], end: float) -> None:
        while True:
            self._listen()
            if holds():
                return
            with self._lock:
                processes = self._processes
            left = end - time.monotonic()
            if left <= 0 or processes is None:
                raise HostError("no process: its server does not answer", ETIMEDOUT)
            processes.wait(min(left, _SLICE))

    def _server(self) -> Processes:
        """The lock is held.  OSError."""
        if self._processes is None:
            self._processes = Processes()
        return self._processes

    def _listen(self) -> None:
        with self._lock:
            if self._processes is None:
                return
            try:
                news = self._processes.news()
            except HostError:  # it has gone: the next process has a server of its own
                self._past.append(self._processes)
                self._processes = None
                for guest in self._children.values():
                    guest.pid = 0
                self._children.clear()
                return
            for item in news:
                self._file(item)

    def _file(self, item: Started | Ended) -> None:
        """The lock is held."""
        if isinstance(item, Ended):
            guest = self._children.pop(item.pid, None)
            if guest is None:
                return
            guest.pid = 0
            if item.status:
                self._count(guest, how_it_ended(item.status))
            return
        guest = self._asked.get(item.serial)
        if guest is not None and not item.errno:
            self._children[item.pid] = guest
            guest.pid, guest.how = item.pid, ""
        if guest is not None:
            self._started[item.serial] = item

    def _count(self, guest: _Guest, how: str) -> None:
        guest.how = how
        guest.deaths.died(self._clock(), how)
