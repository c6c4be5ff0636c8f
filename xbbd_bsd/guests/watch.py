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
from functools import partial
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
        processes: GuestProcesses,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        lost: Callable[[Loss], None],
    ) -> None:
        """`run` does what has to wait; `lost` is told of each process that has died.

        That is before whoever it served is woken.
        """
        self.processes = processes
        self._loop = loop
        self._run = run
        self._lost = lost
        self._watched: dict[int, _Watched] = {}
        self._server: int | None = None
        processes.on_found(self.found)

    def found(self, domid: int) -> None:
        """There is a connection to a guest's process.  Any thread."""
        self._soon(self._read_from, domid)

    def subscribe(self, domid: int, woken: Woken) -> Callable[[], None]:
        """Call `woken` when that guest's process has said something, or died; how to end that.

        Once it is called anyway: something may have been said before.
        """
        watched = self._watched.setdefault(domid, _Watched())
        watched.woken.append(woken)
        self._read_from(domid)
        self._loop.call_soon(self._heard, domid)

        def unsubscribe() -> None:
            with suppress(ValueError):
                watched.woken.remove(woken)

        return unsubscribe

    def release(self, domid: int, device: int, done: Callable[[bool | None], None]) -> None:
        """Have a process of another version hand over a device.

        `done` is told whether it has, and left nothing unanswered; None: it has not yet.
        """

        def work() -> bool:
            return self.processes.hand_over(domid, device, limit=LIMIT)

        def ended(outcome: Outcome) -> None:
            error = outcome.error
            if error is None:
                done(bool(outcome.value))
            else:
                done(None if isinstance(error, HostError) and error.passes else False)

        try:
            self._run("handing over rings", work, ended, f"guest{domid}")
        except HostError:  # no thread can be had
            done(None)

    def drop(self, domid: int, device: int, done: Callable[[bool], None]) -> None:
        """Have a process that an earlier daemon started give a device back, if it has it.

        `done` is told whether it has none then, or is not there; False if it would not do it.
        """

        def work() -> None:
            self.processes.drop(domid, device, limit=LIMIT)

        def ended(outcome: Outcome) -> None:
            done(outcome.error is None and not self.processes.devices(domid))

        try:
            self._run("letting go of rings", work, ended, f"guest{domid}")
        except HostError:  # no thread can be had: it is served to nobody
            done(False)

    def devices(self, domid: int) -> frozenset[int]:
        """As `GuestProcesses.devices`."""
        return self.processes.devices(domid)

    def forget(self, domid: int) -> None:
        """As `GuestProcesses.forget`, which must not be called by others while this looks."""
        watched = self._watched.pop(domid, None)
        if watched is not None:
            self._leave(watched)
        self.processes.forget(domid)

    def close(self) -> None:
        """Look no more; the processes serve on, and wait for the next daemon."""
        self.processes.on_found(lambda domid: None)
        for watched in self._watched.values():
            self._leave(watched)
        self._watched.clear()
        if self._server is not None:
            self._loop.remove_reader(self._server)
            self._server = None
        self.processes.leave()

    def _read_from(self, domid: int) -> None:
        self._follow_server()
        watched = self._watched.setdefault(domid, _Watched())
        link = self.processes.link(domid)
        if link is watched.link:
            return
        self._leave(watched)
        if link is not None and link.lost is None:
            watched.link = link
            link.heard = partial(self._soon, self._heard, domid)
            self._loop.add_reader(link.fileno(), self._readable, domid)

    def _soon(self, call: Callable[[int], None], domid: int) -> None:
        with suppress(RuntimeError):  # the loop is closed: the program ends
            self._loop.call_soon_threadsafe(call, domid)

    def _follow_server(self) -> None:
        server = self.processes.server
        if server != self._server:
            if self._server is not None:
                self._loop.remove_reader(self._server)
            if server is not None:
                self._loop.add_reader(server, self._look)
            self._server = server
        self.processes.close_past()

    def _leave(self, watched: _Watched) -> None:
        link, watched.link = watched.link, None
        if link is not None:
            self._loop.remove_reader(link.fileno())
            if link.lost is not None:
                link.close()

    def _readable(self, domid: int) -> None:
        link = self._watched[domid].link
        if link is None or not link.receive():  # what is taken is told anyway
            self._heard(domid)

    def _heard(self, domid: int) -> None:
        """Something was taken of what a process has said, or it has died."""
        watched = self._watched.get(domid)
        if watched is None:  # it was forgotten since
            return
        self._look()
        for woken in list(watched.woken):
            woken()

    def _look(self) -> None:
        """Who has died?"""
        for loss in self.processes.look():
            watched = self._watched.setdefault(loss.domid, _Watched())
            self._leave(watched)
            self._lost(loss)
            for woken in list(watched.woken):
                woken()
        self._follow_server()
