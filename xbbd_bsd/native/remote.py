"""A device that is served in its guest's process: the handle of its rings, as `Queue` is of one.

What the process says of it is link.py's; what stands in its segment is as little to be
trusted, and becomes a value whatever it is.  Any thread; calls that say so wait, and are
meant for a thread of their own (errands.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from errno import ENOENT, EPROTO

from xbbd_bsd.errors import HostError
from xbbd_bsd.native.addition import Kind, P
from xbbd_bsd.native.binding import QueueState, StopReason, known
from xbbd_bsd.native.link import DeviceReport, DeviceState, Link, sane
from xbbd_bsd.native.nbd import NbdExport
from xbbd_bsd.native.queue import QueueStatus
from xbbd_bsd.native.rates import NOT_SHARED, Level, SharedRates
from xbbd_bsd.native.segment import MappedSegment


class RemoteDevice:
    """All rings of a device, served in the guest's process; as `Queue`, but of all at once."""

    def __init__(self, link: Link, number: int, state: MappedSegment, rings: int) -> None:
        """A device that is served there, by its number there; see `open`."""
        self.link = link
        self.number = number
        self._state = state
        self._rings = rings

    @classmethod
    def open(
        cls,
        link: Link,
        kind: Kind[P],
        unit: int,
        rings: Sequence[P],
        state: MappedSegment,
        *,
        kept: Sequence[int] = (),
        rates: Mapping[Level, SharedRates] = NOT_SHARED,
        limit: float,
    ) -> RemoteDevice:
        """Have all rings opened and then started.  Waits; HostError, and nothing is left then.

        As `Link.add`; `kind` is its family, `unit` its number of that, `state` its segment,
        mapped here.
        """
        number = kind.number(unit)
        # Anew, so that its lock is nobody's but that process's.
        with ExitStack() as held:
            files: dict[Level, int] = {}
            try:
                segment = os.open(state.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                held.callback(os.close, segment)
                for level, shared in rates.items():
                    files[level] = shared.open()
                    held.callback(os.close, files[level])
            except OSError as error:
                text = f"unable to open {error.filename}: {error.strerror}"
                raise HostError(text, error.errno or ENOENT) from None
            link.add(number, kind, rings, segment=segment, kept=kept, rates=files, limit=limit)
        return cls(link, number, state, len(rings))

    @property
    def lost(self) -> HostError | None:
        """Why nothing is known of it any more; None as long as it is."""
        return self.link.lost

    @property
    def report(self) -> DeviceReport:
        """What its process said of it last; GONE if there is no such device."""
        gone = DeviceReport(self.number, DeviceState.GONE, StopReason.NONE, 0)
        return self.link.reports.get(self.number, gone)

    def status(self, ring: int) -> QueueStatus:
        """Where a ring is in its life, as its segment says; DRAINED if that says nonsense."""
        if not 0 <= ring < self._rings:
            raise IndexError(ring)
        shown = self._state.handle.ring[ring].common.status
        state, reason = known(QueueState, shown.state), known(StopReason, shown.reason)
        if not isinstance(state, QueueState) or not isinstance(reason, StopReason):
            return QueueStatus(QueueState.DRAINED, StopReason.SEGMENT, EPROTO)
        return QueueStatus(state, reason, sane(int(shown.errnum)))

    def drain(self) -> None:
        """Take no new request; a report tells when all are answered.  HostError."""
        self.link.drain(self.number)

    def look(self) -> None:
        """Have all rings look at what the segment says.  HostError."""
        self.link.have_look(self.number)

    def connect(self, fd: int, export: NbdExport) -> None:
        """Give its only ring a connection; the socket stays the caller's.  HostError."""
        self.link.connect_device(self.number, fd, export)

    def begin_close(self) -> None:
        """Give everything back; a report tells when that is done.  HostError."""
        self.link.begin_close(self.number)

    def begin_quiesce(self) -> None:
        """Hand over; a report tells when others may adopt it.  HostError."""
        self.link.begin_quiesce(self.number)

    def quiesce(self, *, limit: float) -> None:
        """As `Link.quiesce`."""
        self.link.quiesce(self.number, limit=limit)

    def close(self, *, limit: float) -> None:
        """As `Link.close_device`; one that is not there any more is closed."""
        try:
            self.link.close_device(self.number, limit=limit)
        except HostError as error:
            if error.errno != ENOENT:
                raise
