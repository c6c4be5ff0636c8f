"""How often a device may be looked at, and when what failed is tried again.

A guest can have us look and connect as often as it likes, so both have a
measure.  Pure: time, in seconds of a clock that only grows, is handed in.
"""

from collections import deque
from math import inf
from typing import Final

LOOKS: Final = 40  # in a second at once; each asks the store a dozen things
RETURNS: Final = 10  # connections that are nobody's concern
RETURNS_SECONDS: Final = 30.0  # within so long
FIRST_WAIT: Final = 1.0
LAST_WAIT: Final = 60.0
RESTLESS: Final = "the guest connects again and again"  # what holds it back then


class Pace:
    """The measure of one device."""

    def __init__(self) -> None:
        self._looks = 0
        self._looks_since = -inf
        self._failures = 0
        self._connected: deque[float] = deque(maxlen=RETURNS)
        self._excesses = 0

    def look(self, now: float) -> float:
        """When to look: now, or at the beginning of a second that has looks left."""
        if now - self._looks_since >= 1.0:
            self._looks, self._looks_since = 0, now
        self._looks += 1
        return now if self._looks <= LOOKS else self._looks_since + 1.0

    def failed(self) -> float:
        """How long to wait before the same is tried again, twice as long each time."""
        self._failures += 1
        return _wait(self._failures)

    def connected(self, now: float) -> float:
        """It went well.  How long to wait before the next connection, 0 if the guest behaves."""
        self._failures = 0
        self._connected.append(now)
        if len(self._connected) < RETURNS or now - self._connected[0] > RETURNS_SECONDS:
            if len(self._connected) == RETURNS:
                self._excesses = 0
            return 0.0
        self._excesses += 1
        return _wait(self._excesses)


def _wait(times: int) -> float:
    return min(FIRST_WAIT * 2.0 ** min(times - 1, 10), LAST_WAIT)
