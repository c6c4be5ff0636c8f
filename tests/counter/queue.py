"""The data path of a counter, and a stand-in for it.

The family knows `CounterQueue` and `MakeQueue`, and nothing of what is behind them.
That is the seam where a queue in C comes in, built on native/core, with a thread and a
page that it maps: it replaces `ListeningQueue`, which listens on the control thread to
the event channel alone, and leaves the page where it is.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from tests.counter.negotiate import RingParams
from xbbd_bsd.host import Host


class CounterQueue(Protocol):
    """A ring that counts from when it is made, until `drain`."""

    @property
    def count(self) -> int:
        """How often it was rung."""

    @property
    def drained(self) -> bool:
        """Whether it counts no more; who made it is woken when that comes about."""

    def drain(self) -> None:
        """Count no more."""

    def close(self) -> None:
        """Give everything back; it is drained."""


MakeQueue = Callable[
    [Host, int, RingParams, asyncio.AbstractEventLoop, Callable[[], None]], CounterQueue
]
"""Host, domain, ring, loop, whom to wake: a queue that runs; GuestError, HostError."""


class ListeningQueue:
    """Counts the events of a ring's channel as they come, each a byte in a simulated machine."""

    def __init__(
        self,
        host: Host,
        domid: int,
        ring: RingParams,
        loop: asyncio.AbstractEventLoop,
        woken: Callable[[], None],
    ) -> None:
        descriptors = host.open_ring(domid, ring.port)
        self._grants, self._events = descriptors.grants, descriptors.events
        self._loop = loop
        self._woken = woken
        self.count = 0
        self.drained = False
        loop.add_reader(self._events, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            if heard := os.read(self._events, 4096):
                self.count += len(heard)
                return
        self._loop.remove_reader(self._events)  # the guest's end is closed: no more will come

    def drain(self) -> None:
        self._loop.remove_reader(self._events)
        if not self.drained:
            self.drained = True
            self._woken()

    def close(self) -> None:
        for descriptor in (self._events, self._grants):
            os.close(descriptor)
