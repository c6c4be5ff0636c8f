"""Looks about once a second whether requests of a connected disk have failed.

What to say of it is faults.py's.  All devices look at the same moments, so that an
idle daemon wakes once for all of them.  A look is a sum over memory that is mapped
anyway: it waits for nobody.  Control thread.
"""

import asyncio
from collections.abc import Callable
from math import floor
from typing import Final

from xbbd_bsd.block.faults import Holds, Reports
from xbbd_bsd.events import Event
from xbbd_bsd.native import State

EVERY_SECONDS: Final = 1.0


class Lookout:
    """Of one device, as long as it has rings."""

    def __init__(
        self, device: str, loop: asyncio.AbstractEventLoop, journal: Callable[[Event], None]
    ) -> None:
        self._reports = Reports(device)
        self._holds = Holds(device)
        self._loop = loop
        self._journal = journal
        self._segment: State | None = None  # while there are rings
        self._last: State | None = None
        self._path = ""
        self._next: asyncio.TimerHandle | None = None

    def begin(self, segment: State, path: str) -> None:
        """Rings work on that segment; `path`: of their disk."""
        # Of one that somebody served before, what failed then was told then.
        told = segment.faults() if segment is not self._last else None
        self._reports.begin(self._loop.time(), told)
        self._holds.begin(segment.held)
        self._segment, self._last, self._path = segment, segment, path
        self._plan()

    def end(self) -> None:
        """They have ended: the last look, at what happened until now."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._look(ended=True)
        self._segment = None

    def look(self) -> None:
        """There may be something: not only when it is time."""
        self._look(ended=False)

    def _plan(self) -> None:
        due = (floor(self._loop.time() / EVERY_SECONDS) + 1) * EVERY_SECONDS
        self._next = self._loop.call_at(due, self._regular)

    def _regular(self) -> None:
        self._look(ended=False)
        self._plan()

    def _look(self, *, ended: bool) -> None:
        segment = self._segment
        if segment is not None:
            now = self._loop.time()
            for event in self._reports.look(
                now, segment.failures, segment.faults, self._path, ended=ended
            ):
                self._journal(event)
            paused = segment.paused
            for event in self._holds.look(
                now,
                segment.held,
                paused=paused is not None and paused.failed,
                read=segment.faults,
                path=self._path,
            ):
                self._journal(event)
