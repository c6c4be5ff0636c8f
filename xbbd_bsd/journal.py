"""Gives events to a log: which are worth a line, how many a device may have, which are kept.

Two switches let the chatter through, one for the control path (XenStore, states)
and one for the data path (rings, media).  Guests can cause events at will, so
those of one device are limited in rate, and cannot hide what an operator has to
know.  Whoever follows gets each line as it is logged (feed.py).  Pure: log and
clock are handed in.  Control thread.
"""

import itertools
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from xbbd_bsd.errors import one_line
from xbbd_bsd.events import DeviceEvent, Event, Path, Severity
from xbbd_bsd.feed import Feed, Record

BURST: Final = 20
REFILL_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 60.0  # until an urgent line is news again
KEPT_OF_DEVICE: Final = 64  # of each kind of line, see _Lines
KEPT: Final = 512
_NUMBER: Final = re.compile(r"\d+")
_NEWS: Final = 32  # urgent lines of a device, but for their numbers, that are remembered


Line = tuple[float, str, str]


class Journal:
    """Gives events to a log, after the switches and the limit of rate.

    `sink` takes severity and line.  `clock` gives seconds that only grow, `date`
    those since 1970.  Each device may log BURST lines at once and one more every
    REFILL_SECONDS; what is left out is counted, and told with the device's next
    line.  So may the daemon itself, of what somebody else can cause.  An urgent line
    has a limit of its own if it is news, that is if none like it (numbers apart, which
    may be the guest's) was logged in the last AGAIN_SECONDS: so a guest that has used
    up its lines, or has the host fail in one way again and again, does not hide that
    the disk is gone.  What an operator does has no limit.  The last lines are kept to
    be asked for: of the daemon what was logged, of each device also what the switches
    or the limit left out.
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
        self._kept: deque[Record] = deque(maxlen=KEPT)
        self._devices: dict[str, _Lines] = {}
        self._own: _Lines | None = None  # the daemon's, of those that are limited
        self._feeds: set[Feed] = set()

    def __call__(self, event: Event) -> None:
        """Log an event, or leave it out."""
        now = self._clock()
        shown = event.severity is not Severity.DEBUG or event.path in self.switches
        record = self._record(event)
        lines = self._lines(event, now)
        if lines is not None:
            if not shown:
                lines.unlogged.append(record)
                return
            if event.limited and not lines.may_log(event, record.text, now):
                self.left_out += 1
                lines.unlogged.append(record)
                return
            record = lines.counted(record)
            lines.of(event).append(record)
        elif not shown:
            return
        self._kept.append(record)
        self._sink(event.severity, record.text)
        for feed in list(self._feeds):
            feed.add(record)

    def _record(self, event: Event) -> Record:
        named = {field.name: getattr(event, field.name) for field in fields(event)}
        device = named.pop("device", None)
        return Record(
            self._date(),
            event.severity.name.lower(),
            device,
            type(event).__name__,
            named,
            one_line(str(event)),
        )

    def _lines(self, event: Event, now: float) -> "_Lines | None":
        """Where its lines are kept and counted; None of what the daemon says without limit."""
        if isinstance(event, DeviceEvent):
            if event.device not in self._devices:
                self._devices[event.device] = _Lines(now)
            return self._devices[event.device]
        if event.limited and self._own is None:
            self._own = _Lines(now)
        return self._own if event.limited else None

    def last(self, device: str | None = None) -> list[Line]:
        """The last lines of a device, or of the daemon: when, severity, text."""
        if device is None:
            return [record.line for record in self._kept]
        found = self._devices.get(device)
        return [record.line for record in found.all()] if found is not None else []

    def follow(self, device: str | None, last: int) -> Feed:
        """The `last` lines that were logged, of a device or of all, and each from now on.

        To be given to `unfollow`.
        """
        kept = [record for record in self._kept if device in (None, record.device)]
        feed = Feed(device, kept[-last:] if last > 0 else [])
        self._feeds.add(feed)
        return feed

    def unfollow(self, feed: Feed) -> None:
        """Nobody wants any more of it."""
        self._feeds.discard(feed)

    def forget(self, device: str) -> None:
        """A device is gone for good: free what is kept for it; there will be no more lines."""
        self._devices.pop(device, None)
        for feed in self._feeds:
            if feed.device == device:
                feed.end()


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


class _Lines:
    """What a device may still log, and its last lines.

    These are apart, so that neither steps without number nor what a guest can cause
    wash away what was wrong, or what an operator did.
    """

    def __init__(self, now: float) -> None:
        self._left_out = 0
        self._urgent: deque[Record] = deque(maxlen=KEPT_OF_DEVICE)
        self._operators: deque[Record] = deque(maxlen=KEPT_OF_DEVICE)
        self._logged: deque[Record] = deque(maxlen=KEPT_OF_DEVICE)
        self.unlogged: deque[Record] = deque(maxlen=KEPT_OF_DEVICE)
        self._common = _Bucket(now)
        self._news = _Bucket(now)
        self._when: dict[str, float] = {}  # urgent lines without numbers, oldest first

    def may_log(self, event: Event, text: str, now: float) -> bool:
        """Take a line from the bucket that it belongs to; False is counted."""
        if (event.urgent and self._is_news(text, now)) or self._common.take(now):
            return True
        self._left_out += 1
        return False

    def counted(self, record: Record) -> Record:
        """With how many before it were left out."""
        count, self._left_out = self._left_out, 0
        return record.saying(f" ({count} lines before this left out)") if count else record

    def of(self, event: Event) -> "deque[Record]":
        """Where a line that is logged is kept."""
        if not event.limited:
            return self._operators
        return self._urgent if event.urgent else self._logged

    def all(self) -> list[Record]:
        """By time."""
        kept = itertools.chain(self._urgent, self._operators, self._logged, self.unlogged)
        return sorted(kept, key=lambda record: record.time)

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
