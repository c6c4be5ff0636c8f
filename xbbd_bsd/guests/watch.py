"""The loop's look at guests' processes: whoever serves by one is woken when it says something.

A process has one connection for all devices of its guest, so that the loop reads it once,
here, for all who are interested.  What was said is not looked at.  The loop's thread,
but for `found`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from xbbd_bsd.errands import Outcome, Run
from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.service import GuestProcesses, Loss
from xbbd_bsd.native.link import Link

Woken = Callable[[], None]
LIMIT: Final = 30.0  # seconds, for what a process that is well does in some milliseconds


@dataclass(slots=True)
class _Watched:
    link: Link | None = None  # which the loop reads
    woken: list[Woken] = field(default_factory=list)


class Watch:
    """Of all processes of a daemon."""

    def __init__(
        self,
        guests: GuestProcesses,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        lost: Callable[[Loss], None],
    ) -> None:
        """`run` does what has to wait; `lost` is told of each process that has died.

        That is before whoever it served is woken.
        """
        self._guests = guests
        self._loop = loop
        self._run = run
        self._lost = lost
        self._watched: dict[int, _Watched] = {}
        self._server: int | None = None
        guests.on_found(self.found)

    def found(self, domid: int) -> None:
        """There is a connection to a guest's process.  Any thread."""
        with suppress(RuntimeError):  # the loop is closed: the program ends
            self._loop.call_soon_threadsafe(self._read_from, domid)

    def subscribe(self, domid: int, woken: Woken) -> Callable[[], None]:
        """Call `woken` when that guest's process has said something, or died; how to end that."""
        watched = self._watched.setdefault(domid, _Watched())
        watched.woken.append(woken)
        self._read_from(domid)

        def unsubscribe() -> None:
            with suppress(ValueError):
                watched.woken.remove(woken)

        return unsubscribe

    def reach(self, domid: int, name: str, *, limit: float) -> Link:
        """As `GuestProcesses.reach`."""
        return self._guests.reach(domid, name, limit=limit)

    def find(self, domid: int, *, limit: float) -> Link | None:
        """As `GuestProcesses.find`."""
        return self._guests.find(domid, limit=limit)

    def drop(self, domid: int, device: int) -> None:
        """Have a process that an earlier daemon started give a device back."""

        def work() -> None:
            link = self._guests.find(domid, limit=LIMIT)
            if link is not None and device in link.reports:
                link.close_device(device, limit=LIMIT)

        def done(outcome: Outcome) -> None:
            link = self._guests.link(domid)
            if link is not None and not link.reports:
                self.forget(domid)

        with suppress(HostError):  # no thread can be had: it is served to nobody
            self._run("letting go of rings", work, done, f"guest{domid}")

    def forgive(self, domid: int) -> None:
        """As `GuestProcesses.forgive`."""
        self._guests.forgive(domid)

    def bound(self, threads: int, size: int) -> None:
        """As `GuestProcesses.bound`."""
        self._guests.bound(threads, size)

    def forget(self, domid: int) -> None:
        """As `GuestProcesses.forget`, which must not be called by others while this looks."""
        watched = self._watched.pop(domid, None)
        if watched is not None:
            self._leave(watched)
        self._guests.forget(domid)

    def close(self) -> None:
        """Look no more; the processes serve on, and wait for the next daemon."""
        self._guests.on_found(lambda domid: None)
        for watched in self._watched.values():
            self._leave(watched)
        self._watched.clear()
        if self._server is not None:
            self._loop.remove_reader(self._server)
            self._server = None
        self._guests.leave()

    def _read_from(self, domid: int) -> None:
        self._follow_server()
        watched = self._watched.setdefault(domid, _Watched())
        link = self._guests.link(domid)
        if link is watched.link:
            return
        self._leave(watched)
        if link is not None and link.lost is None:
            watched.link = link
            self._loop.add_reader(link.fileno(), self._heard, domid)

    def _follow_server(self) -> None:
        server = self._guests.server
        if server != self._server:
            if self._server is not None:
                self._loop.remove_reader(self._server)
            if server is not None:
                self._loop.add_reader(server, self._look)
            self._server = server
        self._guests.close_past()

    def _leave(self, watched: _Watched) -> None:
        link, watched.link = watched.link, None
        if link is not None:
            self._loop.remove_reader(link.fileno())
            if link.lost is not None:
                link.close()

    def _heard(self, domid: int) -> None:
        watched = self._watched[domid]
        if watched.link is not None:
            watched.link.receive()
        self._look()
        for woken in list(watched.woken):
            woken()

    def _look(self) -> None:
        """Who has died?"""
        for loss in self._guests.look():
            watched = self._watched.setdefault(loss.domid, _Watched())
            self._leave(watched)
            self._lost(loss)
            for woken in list(watched.woken):
                woken()
        self._follow_server()
