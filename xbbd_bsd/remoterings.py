"""All rings of one connection, served in their guest's process: as `RingSet`, from outside.

How that process is found is not known here, nor what becomes of one that dies: `lost`
says that it has, and whoever connects the rings again, to adopt them, goes on where it
was.  Control thread, but for the beginning and for `close`, which wait for the process
and are a thread's of their own (errands.py).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from errno import EINVAL
from typing import Final

from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.host import Host, RingDescriptors
from xbbd_bsd.native import NbdExport, QueueState, QueueStatus, StopReason
from xbbd_bsd.native.addition import Kind, P
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.rates import NOT_SHARED, Level, SharedRates
from xbbd_bsd.native.remote import RemoteDevice
from xbbd_bsd.native.segment import MappedSegment
from xbbd_bsd.native.vitals import Process
from xbbd_bsd.ringset import OF_THE_RING, OfferedRing, about_ring

Subscribe = Callable[[Callable[[], None]], Callable[[], None]]
"""Whom to call when it has said something, or died; how to end that."""

LIMIT: Final = 30.0  # seconds, for what a process that is well does in some milliseconds
_SERVED: Final = (DeviceState.RUNNING, DeviceState.DRAINING)
_STATES: Final = {
    DeviceState.OPENING: QueueState.RUNNING,
    DeviceState.RUNNING: QueueState.RUNNING,
    DeviceState.DRAINING: QueueState.DRAINING,
}


class RemoteRings:
    """All rings of a connected frontend, from the start to `close`."""

    def __init__(
        self,
        offered: Mapping[int, OfferedRing],
        make: Callable[[int, RingDescriptors, int, ExitStack], P],
        *,
        kind: Kind[P],
        fault_of: Callable[[QueueStatus], XbbdError | None],
        host: Host,
        domid: int,
        segment: MappedSegment,
        unit: int,
        link: Link,
        kept: Sequence[int] = (),
        rates: Mapping[Level, SharedRates] = NOT_SHARED,
        adopts: bool = False,
        limit: float = LIMIT,
    ) -> None:
        """Have the guest's process open a queue for each, and then start them all.

        `make` says what one is made of, as `Asked.make`.  `adopts`: somebody served them
        before; if it is this very process, as when it is the daemon that died, nothing is
        begun.  `kept`: what holds locks on the device's medium, which the process keeps as
        well; `rates`: limits that it shares.  Waits; OSError, HostError or GuestError, and
        nothing is left behind then.  Any thread.
        """
        self._offered = offered
        self._fault_of = fault_of
        self._limit = limit
        self._unsubscribe: Callable[[], None] = lambda: None
        self._draining = self._finishing = False
        number = kind.number(unit)
        report = link.wait_open(number, limit=limit)
        self.paused = not (adopts and report is not None and report.state in _SERVED)
        if not self.paused:
            self._device = RemoteDevice(link, number, segment, len(offered))
            return
        if [*offered] != [*range(len(offered))]:
            raise HostError("some of its rings have ended", EINVAL)
        # One that is still being closed, of the connection before.
        link.wait_gone(number, limit=limit)
        segment.unlock()
        with ExitStack() as held:
            rings: list[P] = []
            grants = -1  # of the first, for all of them
            for ring_number, ring in offered.items():
                with about_ring(ring.text):
                    given = host.open_ring(domid, ring.port, grants)
                    held.callback(os.close, given.events)
                    if grants < 0:
                        grants = given.grants
                        held.callback(os.close, grants)
                    passed = -1 if host.grant_path else grants
                    given = RingDescriptors(passed, given.events)
                    rings.append(make(ring_number, given, -1, held))
            self._device = RemoteDevice.open(
                link, kind, unit, rings, segment, kept=kept, rates=rates, limit=limit
            )

    def listen(self, subscribe: Subscribe, woken: Callable[[], None]) -> None:
        """From now on call `woken` when there is news."""
        self._unsubscribe = subscribe(woken)

    @property
    def process(self) -> Process:
        """The one that serves them."""
        return self._device.link.process

    @property
    def lost(self) -> HostError | None:
        """That the process has died, or does not talk: the rings wait for another one."""
        return self._device.lost

    @property
    def status(self) -> QueueStatus:
        """Of all as one: drained when the last is, with the first reason there was."""
        if self.lost is not None:
            return QueueStatus(QueueState.DRAINED, StopReason.NONE, 0)
        report = self._device.report
        state = QueueState.DRAINED
        if isinstance(report.state, DeviceState):
            state = _STATES.get(report.state, QueueState.DRAINED)
        if self._draining and state is QueueState.RUNNING:
            state = QueueState.DRAINING  # it was told, and has not said so yet
        reason = report.reason if isinstance(report.reason, StopReason) else StopReason.SEGMENT
        return QueueStatus(state, reason, report.errno)

    @property
    def fault(self) -> XbbdError | None:
        """Why they stop by themselves, None if they do not."""
        whole = self.status
        if whole.reason is StopReason.NONE:
            return None
        # Which ring it was its segment says, as far as that is to be believed.
        for number, ring in self._offered.items():
            status = self._device.status(number)
            fault = self._fault_of(status)
            if fault is not None and status.reason in OF_THE_RING:
                return type(fault)(f"{ring.text}: {fault}", fault.errno)
        return self._fault_of(whole)

    def drain(self) -> None:
        """Take no new request; `woken` is called when all accepted ones are answered."""
        try:
            self._device.drain()
            self._draining = True
        except HostError as error:
            if self.lost is None:
                raise error from None

    def look(self) -> None:
        """Look at what their segment says, as soon as their process hears of it; HostError."""
        self._device.look()

    def connect(self, fd: int, export: NbdExport) -> None:
        """Give the only ring a connection, which is its own from then on; HostError: it is not."""
        self._device.connect(fd, export)
        os.close(fd)  # it has a copy

    def hand_over(self) -> None:
        """The process serves on, and the next daemon finds it at work."""

    handed_over = True

    def give_up(self) -> None:
        """Have them served by nobody, to be adopted anew; Pending until that is so.  HostError."""
        if self.lost is None and self._device.report.state != DeviceState.GONE:
            if not self._finishing:
                self._device.begin_quiesce()
                self._finishing = True
            raise Pending
        self._unsubscribe()

    def finish(self) -> None:
        """Give everything back once they have drained; Pending until that is done.

        Whoever listens is told when to ask again.
        """
        if self.lost is None and self._device.report.state != DeviceState.GONE:
            if not self._finishing:
                self._device.begin_close()
                self._finishing = True
            raise Pending
        self._unsubscribe()

    def close(self) -> None:
        """Give everything back.  Waits, for I/O in flight too; HostError if it takes too long.

        What is lost has nothing.  By any thread as long as nobody listens.
        """
        self._unsubscribe()
        if self.lost is None:
            self._device.close(limit=self._limit)
