"""Gives events to a log: which are worth a line, how many a device may have, which are kept.

Two switches let the chatter through, one for the control path (XenStore, states)
and one for the data path (rings, disks).  Guests can cause events at will, so
those of one device are limited in rate, and cannot hide what an operator has to
know.  Pure: log and clock are handed in.  Control thread.
"""

import itertools
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.errors import one_line
from xbbd_bsd.events import DeviceEvent, Event, Path, Severity

BURST: Final = 20
REFILL_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 60.0  # until an urgent line is news again
KEPT_OF_DEVICE: Final = 64  # urgent lines, as many others that were logged, and that were not
KEPT: Final = 512
_NUMBER: Final = re.compile(r"\d+")
_NEWS: Final = 32  # urgent lines of a device, but for their numbers, that are remembered


Line = tuple[float, str, str]


class Journal:
    """Gives events to a log, after the switches and the limit of rate.

    `sink` takes severity and line.  `clock` gives seconds that only grow, `date`
    those since 1970.  Each device may log BURST lines at once and one more every
    REFILL_SECONDS; what is left out is counted, and told with the device's next
    line.  An urgent line has a limit of its own if it is news, that is if none like
    it (numbers apart, which may be the guest's) was logged in the last
    AGAIN_SECONDS: so a guest that has used up its lines, or has the host fail in
    one way again and again, does not hide that the disk is gone.  The last lines
    are kept to be asked for: of the daemon what was logged, of each device also
    what the switches or the limit left out.
    """

    def __init__(
        self,
        sink: Callable[[Severity, str], None],
        clock: Callable[[], float],
        switches: frozenset[Path] = frozenset(),
        date: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.switches = switches
        self.left_out = 0  # lines, of all devices since the start
        self._sink = sink
        self._clock = clock
        self._date = date
        self._kept: deque[Line] = deque(maxlen=KEPT)
        self._devices: dict[str, _OfDevice] = {}

    def __call__(self, event: Event) -> None:
        """Log an event, or leave it out."""
        shown = event.severity is not Severity.DEBUG or event.path in self.switches
        text = one_line(str(event))
        line = (self._date(), event.severity.name.lower(), text)
        if isinstance(event, DeviceEvent):
            now = self._clock()
            device = self._devices.get(event.device)
            if device is None:
                device = self._devices[event.device] = _OfDevice(now)
            if not shown:
                device.unlogged.append(line)
                return
            if not device.may_log(event, text, now):
                self.left_out += 1
                device.unlogged.append(line)
                return
            if device.left_out:
                text += f" ({device.left_out} lines before this left out)"
                device.left_out = 0
                line = (*line[:2], text)
            (device.urgent if event.urgent else device.logged).append(line)
        elif not shown:
            return
        self._kept.append(line)
        self._sink(event.severity, text)

    def last(self, device: str | None = None) -> list[Line]:
        """The last lines of a device, or of the daemon: when, severity, text."""
        if device is None:
            return list(self._kept)
        found = self._devices.get(device)
        if found is None:
            return []
        lines = itertools.chain(found.urgent, found.logged, found.unlogged)
        return sorted(lines, key=lambda line: line[0])

    def forget(self, device: str) -> None:
        """A device is gone for good: free what is kept for it."""
        self._devices.pop(device, None)


@dataclass(slots=True)
class _Bucket:
    """How many lines may still be logged; refills by itself."""

    since: float
    lines: float = BURST

    def take(self, now: float) -> bool:
        self.lines = min(BURST, self.lines + (now - self.since) / REFILL_SECONDS)
        self.since = now
        if self.lines < 1:
            return False
        self.lines -= 1
        return True


class _OfDevice:
    """What a device may still log, and its last lines.

    These are apart, so that neither steps without number nor what a guest can cause
    wash away what was wrong.
    """

    def __init__(self, now: float) -> None:
        self.left_out = 0
        self.urgent: deque[Line] = deque(maxlen=KEPT_OF_DEVICE)
        self.logged: deque[Line] = deque(maxlen=KEPT_OF_DEVICE)
        self.unlogged: deque[Line] = deque(maxlen=KEPT_OF_DEVICE)
        self._common = _Bucket(now)
        self._news = _Bucket(now)
        self._when: dict[str, float] = {}  # urgent lines without numbers, oldest first

    def may_log(self, event: DeviceEvent, text: str, now: float) -> bool:
        """Take a line from the bucket that it belongs to; False is counted."""
        if (event.urgent and self._is_news(text, now)) or self._common.take(now):
            return True
        self.left_out += 1
        return False

    def _is_news(self, text: str, now: float) -> bool:
        key = _NUMBER.sub("#", text)
        when = self._when.get(key)
        if (when is not None and now - when < AGAIN_SECONDS) or not self._news.take(now):
            return False
        self._when.pop(key, None)
        self._when[key] = now
        if len(self._when) > _NEWS:
            del self._when[next(iter(self._when))]
        return True
