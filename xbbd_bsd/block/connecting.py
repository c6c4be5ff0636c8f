"""Sees to it that the ring of a device whose disk is a server's has a connection.

The ring says in its segment that it wants one, and whoever serves it cannot make one; so it
is made here, and handed over.  A server that has not what it had is refused, in words, and
tried again.  A thread does what may have to wait.  Control thread.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.servers import is_connected, kind_of
from xbbd_bsd.errands import Outcome, Run
from xbbd_bsd.errors import HostError, XbbdError, in_words
from xbbd_bsd.events import Event
from xbbd_bsd.native import LinkState, NbdExport, State
from xbbd_bsd.storesaid import StoreBack, StoreLost

EVERY_SECONDS: Final = 0.5  # between looks at what the segment says
LONGEST_WAIT: Final = 30.0  # seconds, between attempts
_TAKEN_SECONDS: Final = 5.0  # by then a connection is taken, or has got lost
Give = Callable[[int, NbdExport], None]
"""Hand over a connected socket, which is not the caller's from then on; HostError: it still is."""


class Connecting:
    """Of one device."""

    def __init__(
        self,
        device: str,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        journal: Callable[[Event], None],
    ) -> None:
        self._device = device
        self._loop = loop
        self._run = run
        self._journal = journal
        self._serial = 0  # of the connection of rings that is attended to
        self._segment: State | None = None
        self._next: asyncio.TimerHandle | None = None
        self._busy = False
        self._wait, self._not_before = 0.0, 0.0
        self._since = 0.0  # when it was lost, 0 if it is not
        self._reason = ""
        self._given, self._given_at = -1, 0.0  # since_ns of what was last helped, and when
        self._ended = -1  # since_ns of the end that was last told

    def begin(self, segment: State, disk: Disk, give: Give) -> None:
        """A ring works on that segment; `give` hands it over a connection."""
        self.end()
        if not is_connected(disk):
            return
        self._segment, self._disk, self._give = segment, disk, give
        self._wait = self._not_before = 0.0
        self._look()

    def end(self) -> None:
        """It has ended."""
        self._serial += 1
        if self._next is not None:
            self._next.cancel()
        self._segment = self._next = None
        self._since, self._reason, self._given, self._ended = 0.0, "", -1, -1

    def _look(self) -> None:
        segment = self._segment
        if segment is None:
            return
        self._next = self._loop.call_later(EVERY_SECONDS, self._look)
        link, now = segment.link(), self._loop.time()
        if link.state is LinkState.READY:
            self._wait = 0.0
            self._found(now)
        elif link.state is LinkState.WANTED and (
            link.since_ns != self._given or now >= self._given_at + _TAKEN_SECONDS
        ):
            if link.errno and link.since_ns != self._ended:
                # Once: what an attempt has come to since then is the newer reason.
                self._ended = link.since_ns
                self._lost(os.strerror(link.errno), now)
            if not self._busy and now >= self._not_before:
                self._begin(segment, link.since_ns)

    def _begin(self, segment: State, since_ns: int) -> None:
        serial, disk, least = self._serial, self._disk, segment.sectors
        assert disk.store is not None
        connect = kind_of(disk.store).connect_again
        assert connect is not None

        def then(outcome: Outcome) -> None:
            self._busy = False
            self._connected(outcome, serial, since_ns)

        self._wait = min(max(1.0, 2 * self._wait), LONGEST_WAIT)
        self._not_before = self._loop.time() + self._wait
        try:
            whose = self._device.partition(" ")[0]
            self._run("connecting the disk", lambda: connect(disk, least), then, whose)
            self._busy = True
        except HostError as error:  # no thread can be had just now
            self._lost(str(error), self._loop.time())

    def _connected(self, outcome: Outcome, serial: int, since_ns: int) -> None:
        try:
            channel, export = outcome.get()
        except (XbbdError, OSError) as error:
            if serial == self._serial:
                self._lost(in_words(error), self._loop.time())
            return
        if serial != self._serial:
            channel.close()
            return
        self._hand_over(channel, export, since_ns)

    def _hand_over(self, channel: socket.socket, export: NbdExport, since_ns: int) -> None:
        fd = channel.detach()
        try:
            self._give(fd, export)
            self._given, self._given_at = since_ns, self._loop.time()
        except HostError as error:
            os.close(fd)
            self._lost(str(error), self._loop.time())

    def _lost(self, reason: str, now: float) -> None:
        self._since = self._since or now
        if reason != self._reason:
            self._reason = reason
            self._journal(StoreLost(self._device, self._disk.path, reason))

    def _found(self, now: float) -> None:
        if self._since:
            self._journal(StoreBack(self._device, self._disk.path, now - self._since))
        self._since, self._reason = 0.0, ""
