"""Processes of a guest that another build of xbbd started: what they serve is handed over.

They serve on until each of their devices is adopted by a process of ours, or given up,
and end with the last.  Where they listen is renamed, so that the process of ours may
listen there, and whoever follows a daemon that dies meanwhile finds both.  Any thread.
"""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import EALREADY, EBUSY, ECONNREFUSED, ENOENT, ETIMEDOUT
from typing import Final

from xbbd_bsd.errors import HostError
from xbbd_bsd.native.link import Link

LIMIT: Final = 5.0  # seconds, for requests to end; whose disk hangs is asked again
NOBODY: Final = (ENOENT, ECONNREFUSED)


@dataclass(slots=True)
class _Process:
    link: Link
    path: str
    users: int = 0  # threads that wait for an answer of it
    late: set[int] = field(default_factory=set)  # devices: how their hand-over ended is not heard


class Outdated:
    """Those of one guest."""

    def __init__(self, path: str) -> None:
        """`path`: where its process listens."""
        self._path = path
        self._lock = threading.Lock()
        self._processes: list[_Process] = []
        self._looked = False

    def set_aside(self, link: Link) -> None:
        """This is one, which listens at the path; OSError."""
        with self._lock:
            number = 1
            while os.path.lexists(path := f"{self._path}.{number}"):
                number += 1
            os.rename(self._path, path)
            self._processes.append(_Process(link, path))

    def find(self, limit: float) -> None:
        """Meet those that an earlier daemon set aside, until all have been."""
        with self._lock:
            if self._looked:
                return
            self._looked = True
            known = {process.path for process in self._processes}
            for path in sorted(glob.glob(f"{glob.escape(self._path)}.*")):
                if path not in known:
                    self._meet(path, limit)

    def _meet(self, path: str, limit: float) -> None:
        """The lock is held."""
        try:
            link = Link.connect(path)
        except HostError as error:
            if error.errno in NOBODY:
                _remove(path)
            return
        try:
            link.meet(limit=limit)
        except HostError:
            link.close()
            self._looked = False  # it may not have noticed yet that it was left
        else:
            self._processes.append(_Process(link, path))

    def holder(self, device: int) -> Link | None:
        """Whoever has a device, None if it is none of these."""
        with self._lock:
            found = self._holder(device)
        return found.link if found is not None else None

    def _holder(self, device: int) -> _Process | None:
        """The lock is held."""
        for process in self._processes:
            process.link.receive()
            if process.link.lost is None and device in process.link.reports:
                return process
        return None

    def _former(self, device: int) -> _Process | None:
        """Whoever was asked to hand it over, and has not been heard.  The lock is held."""
        return next((process for process in self._processes if device in process.late), None)

    @contextmanager
    def _asked(self, device: int) -> Iterator[_Process | None]:
        """Whoever has a device, or had, who stays until it has been heard; the others may end."""
        with self._lock:
            found = self._former(device) or self._holder(device)
            if found is not None:
                found.users += 1
        try:
            yield found
        finally:
            with self._lock:
                if found is not None:
                    found.users -= 1
            self._end_idle()

    def hand_over(self, device: int) -> bool:
        """Have a device given up, with nothing unanswered, by whoever has it, if anybody has.

        Waits; HostError, EBUSY: its disk hangs.  It may have come to it when it is asked again.
        """
        with self._asked(device) as process:
            if process is None:
                return False
            process.late.discard(device)
            try:
                process.link.quiesce(device, limit=LIMIT)
            except HostError as error:
                if error.errno == ETIMEDOUT:
                    process.late.add(device)
                if error.errno in (ETIMEDOUT, EALREADY):
                    text = "an earlier process has not answered all requests"
                    raise HostError(text, EBUSY) from None
                if error.errno != ENOENT and process.link.lost is None:
                    raise
                return False
            return True

    def drop(self, device: int, *, limit: float) -> None:
        """Have a device given back that nobody goes on with.  Waits; HostError."""
        with self._asked(device) as process:
            if process is not None:
                process.late.discard(device)
                if device in process.link.reports:
                    process.link.close_device(device, limit=limit)

    @property
    def devices(self) -> frozenset[int]:
        """Those that these have, as far as they have said; a dead one has none."""
        with self._lock:
            alive = [process.link for process in self._processes if process.link.lost is None]
        return frozenset().union(*(link.reports for link in alive))

    def leave(self, *, ends: bool = False) -> None:
        """The daemon leaves, and they serve on; or there is nothing left for them to serve."""
        with self._lock:
            processes, self._processes = self._processes, []
        for process in processes:
            _part(process, ends=ends)

    def _end_idle(self) -> None:
        """Have those end that have no device any more; what a dead one had is to be adopted."""
        with self._lock:
            over = [
                process
                for process in self._processes
                if process.users == 0
                and not process.late
                and (process.link.lost or not process.link.reports)
            ]
            self._processes = [process for process in self._processes if process not in over]
        for process in over:
            _part(process, ends=True)


def _part(process: _Process, *, ends: bool) -> None:
    if ends:
        with suppress(HostError):
            process.link.bye(limit=0)
        _remove(process.path)
    process.link.close()


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
