"""The rings of one connection, served in their guest's process: as `Rings`, from outside.

How that process is found is not known here, nor what becomes of one that dies: `lost`
says that it has, and whoever connects the rings again, to adopt them, goes on where it
was.  Control thread, but for the beginning and for `close`, which wait for the process
and are a thread's of their own (errands.py).
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.rings import MakeParams, fault_of, named
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.host import Host
from xbbd_bsd.native import QueueParams, QueueState, QueueStatus, State, StopReason
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.remote import RemoteDevice

Reach = Callable[[], Link]
"""The process of the guest: the one that there is, or a new one.  Waits; HostError."""
Subscribe = Callable[[Callable[[], None]], Callable[[], None]]
"""Whom to call when it has said something, or died; how to end that."""

LIMIT: Final = 30.0  # seconds, for what a process that is well does in some milliseconds
# What a ring stops for that is not the disk's.
_OF_THE_RING: Final = (StopReason.RING, StopReason.EVENT, StopReason.UNMAP)
_STATES: Final = {
    DeviceState.OPENING: QueueState.RUNNING,
    DeviceState.RUNNING: QueueState.RUNNING,
    DeviceState.DRAINING: QueueState.DRAINING,
}


class RemoteRings:
    """All rings of a connected frontend, from the start to `close`."""

    def __init__(
        self,
        offered: tuple[RingParams, ...],
        make: MakeParams,
        *,
        host: Host,
        domid: int,
        segment: State,
        unit: int,
        reach: Reach,
        own_grants: bool = False,
        kept: Sequence[int] = (),
        limit: float = LIMIT,
    ) -> None:
        """Have the guest's process open a queue for each, and then start them all.

        `segment` is not locked; `own_grants`: only who has opened a grant device may map, so
        that the process has its own; `kept`: what holds locks on the disk, which the process
        keeps as well.  Waits; OSError, HostError or GuestError, and nothing is left behind then.
        Any thread.
        """
        self._offered = offered
        link = reach()
        # One that is still being closed, of the connection before.
        link.wait_gone(unit, limit=limit)
        with ExitStack() as held:
            rings: list[QueueParams] = []
            for number, ring in enumerate(offered):
                descriptors = host.open_ring(domid, ring.port)
                held.callback(os.close, descriptors.grants)
                held.callback(os.close, descriptors.events)
                grants = -1 if own_grants else descriptors.grants
                rings.append(make(number, ring, grants, descriptors.events, -1))
            self._device = RemoteDevice.open(link, unit, rings, segment, kept=kept, limit=limit)
        self._limit = limit
        self._unsubscribe: Callable[[], None] = lambda: None

    def listen(self, subscribe: Subscribe, woken: Callable[[], None]) -> None:
        """From now on call `woken` when there is news."""
        self._unsubscribe = subscribe(woken)

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
        reason = report.reason if isinstance(report.reason, StopReason) else StopReason.SEGMENT
        return QueueStatus(state, reason, report.errno)

    @property
    def fault(self) -> XbbdError | None:
        """Why they stop by themselves, None if they do not."""
        whole = self.status
        if whole.reason is StopReason.NONE:
            return None
        # Which ring it was its segment says, as far as that is to be believed.
        for number, ring in enumerate(self._offered):
            status = self._device.status(number)
            fault = fault_of(status)
            if fault is not None and status.reason in _OF_THE_RING:
                return type(fault)(f"{named(number, ring)}: {fault}", fault.errno)
        return fault_of(whole)

    def drain(self) -> None:
        """Take no new request; `woken` is called when all accepted ones are answered."""
        try:
            self._device.drain()
        except HostError as error:
            if self.lost is None:
                raise error from None

    def close(self) -> None:
        """Give everything back.  Waits, for I/O in flight too; HostError if it takes too long.

        By any thread as long as nobody listens; see `leave`.
        """
        self._unsubscribe()
        if self.lost is None:
            self._device.close(limit=self._limit)

    def leave(self) -> None:
        """Stop listening: the daemon ends, or the process has died, and the rings are served on."""
        self._unsubscribe()
