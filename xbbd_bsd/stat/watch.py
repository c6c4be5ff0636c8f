"""Sample after sample of a daemon, over its restarts, and when the next one is due.

Asks by the control socket, a connection each time, so that nothing depends on
the daemon's life.  Layouts are not known here.  The command's only thread.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.oids import DAEMON_ROOT
from xbbd_bsd.stat.cards import CardRate
from xbbd_bsd.stat.sample import Rate, Sample, compare, compare_cards, read_sample


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, in seconds; `wall_ns` in nanoseconds since 1970."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    wall_ns: Callable[[], int] = time.time_ns


def ask(path: str, *, latency: bool) -> Sample:
    """A sample of the daemon that listens at `path`; OperatorError."""
    with Connection(path) as connection:
        daemon = connection.whole(Request(Verb.GET, DAEMON_ROOT))
        stat = connection.whole(Request(Verb.STAT, "", "latency" if latency else None))
    try:
        return read_sample(stat, daemon)
    except ValueError as error:
        raise OperatorError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two samples, `elapsed` seconds apart."""

    rates: list[Rate]
    elapsed: float
    cards: list[CardRate] = field(default_factory=list)


class Watch:
    """All samples of a command."""

    def __init__(self, sample: Callable[[], Sample], clock: Clock) -> None:
        self._sample = sample
        self._clock = clock
        self._previous: Sample | None = None
        self._taken_at = 0.0
        self.trouble: str | None = None
        """Why the daemon does not answer, None if it does."""

    def begin(self) -> Interval:
        """The first: what happened since the devices were made; OperatorError."""
        current = self._sample()
        self._taken_at = self._clock.now()
        self._previous = current
        return _interval(current, None, float(current.uptime))

    def next(self) -> Interval | None:
        """What happened since the sample before.

        None if the daemon does not answer, and when it does so again for the
        first time: there is nothing to compare with then.
        """
        try:
            current = self._sample()
        except OperatorError as error:
            self.trouble = str(error)
            return None
        taken_at = self._clock.now()
        again, self.trouble = self.trouble is not None, None
        previous, self._previous = self._previous, current
        elapsed, self._taken_at = taken_at - self._taken_at, taken_at
        if again:
            return None
        if previous is not None and None not in (previous.now_ns, current.now_ns):
            assert previous.now_ns is not None
            assert current.now_ns is not None
            elapsed = max(0, current.now_ns - previous.now_ns) / 1e9
        return _interval(current, previous, elapsed)


def _interval(current: Sample, previous: Sample | None, elapsed: float) -> Interval:
    return Interval(compare(current, previous), elapsed, compare_cards(current, previous))


class Schedule:
    """When the next sample is due: at the start and whole intervals after, never drifting."""

    def __init__(self, start: float, wait: float) -> None:
        """Times and intervals in seconds."""
        self._wait = wait
        self.due = start

    def after(self, now: float) -> float:
        """The next time; those that went by meanwhile are left out."""
        self.due += self._wait
        if self.due <= now:
            self.due += math.ceil((now - self.due) / self._wait) * self._wait
        return self.due

    def change(self, now: float, wait: float) -> None:
        """Other intervals, from now on."""
        self._wait = wait
        self.due = now + wait
