"""Processes of a guest that another build of xbbd started: what they serve is handed over.

They serve on until each of their devices is adopted by a process of ours, or given up,
and end with the last.  Where they listen is renamed, so that the process of ours may
listen there, and whoever follows a daemon that dies meanwhile finds both.  Any thread.
"""

from __future__ import annotations

import glob
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from errno import EALREADY, EBUSY, ECONNREFUSED, ENOENT, ETIMEDOUT

from xbbd_bsd.errors import HostError
from xbbd_bsd.native.link import Link

NOBODY = (ENOENT, ECONNREFUSED)


@dataclass(frozen=True, slots=True)
class _Process:
    link: Link
    path: str


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
        """Meet those that an earlier daemon set aside, once."""
        with self._lock:
            if self._looked:
                return
            self._looked = True
            for path in sorted(glob.glob(f"{glob.escape(self._path)}.*")):
                try:
                    link = Link.connect(path)
                except HostError as error:
                    if error.errno in NOBODY:
                        _remove(path)
                    continue
                try:
                    link.meet(limit=limit)
                except HostError:
                    link.close()
                else:
                    self._processes.append(_Process(link, path))

    def holder(self, device: int) -> Link | None:
        """Whoever has a device, None if it is none of these."""
        with self._lock:
            links = [process.link for process in self._processes]
        for link in links:
            link.receive()
            if link.lost is None and device in link.reports:
                return link
        return None

    def hand_over(self, device: int, *, limit: float) -> bool:
        """Have a device given up, with nothing unanswered, by whoever has it, if anybody has.

        Waits; HostError, EBUSY: its disk hangs.
        """
        link = self.holder(device)
        had = link is not None
        try:
            if link is not None:
                link.quiesce(device, limit=limit)
        except HostError as error:
            if error.errno in (ETIMEDOUT, EALREADY):
                raise HostError("an earlier process has not answered all requests", EBUSY) from None
            if error.errno != ENOENT and link is not None and link.lost is None:
                raise
            had = False
        self._end_idle()
        return had

    def drop(self, device: int, *, limit: float) -> None:
        """Have a device given back that nobody goes on with.  Waits; HostError."""
        link = self.holder(device)
        if link is not None:
            link.close_device(device, limit=limit)
        self._end_idle()

    @property
    def idle(self) -> bool:
        """Whether none of these has a device."""
        with self._lock:
            return not any(process.link.reports for process in self._processes)

    def leave(self, *, ends: bool = False) -> None:
        """The daemon leaves, and they serve on; or there is nothing left for them to serve."""
        with self._lock:
            processes, self._processes = self._processes, []
        for process in processes:
            _part(process, ends=ends)

    def _end_idle(self) -> None:
        """Have those end that have no device any more; what a dead one had is to be adopted."""
        with self._lock:
            over = [p for p in self._processes if p.link.lost is not None or not p.link.reports]
            self._processes = [p for p in self._processes if p not in over]
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
