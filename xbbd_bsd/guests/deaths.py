"""How often something that is started again has died, and whether it is once more.

The first time at once, since a guest waits; then later and later; and once it has died
too often in too short a time not at all, since what kills it is still there.  Pure: the
time is told.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MOST: Final = 5  # deaths
WINDOW: Final = 60.0  # seconds, in which so many are too many
FIRST_WAIT: Final = 0.25  # seconds after the second death, twice that after the next


class Deaths:
    """Of one guest's process, and of those that came after it."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST)
        self._start_at = 0.0
        self._reason = ""

    def died(self, now: float, how: str) -> None:
        """One has, at that time and in those words."""
        while self._times and now - self._times[0] > WINDOW:
            self._times.popleft()
        self._times.append(now)
        count = len(self._times)
        if count >= MOST:
            span = now - self._times[0]
            self._reason = f"its process has died {count} times in {span:.0f} s, at last {how}"
        self._start_at = now + (FIRST_WAIT * 2 ** (count - 2) if count > 1 else 0.0)

    @property
    def reason(self) -> str:
        """Why it is not started any more; "" if it is."""
        return self._reason

    def wait(self, now: float) -> float:
        """Seconds until it may be started; 0: now."""
        return max(0.0, self._start_at - now)

    def forgive(self) -> None:
        """Begin anew: an operator said so, or the guest is another one."""
        self._times.clear()
        self._start_at = 0.0
        self._reason = ""
