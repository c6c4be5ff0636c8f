"""Numbers of devices as newbus counts: the smallest that is free, each driver from 0.

Costs the same however many there are.  Pure.
"""

from collections.abc import Collection
from heapq import heappop, heappush


class Units:
    """The numbers that the devices of one driver have."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._low = 0  # every one below that is used, or among those that are free
        self._free: list[int] = []  # a heap; some of it may be used by now
        self._in_free: set[int] = set()  # what is in it, so that it is there once

    def __contains__(self, unit: int) -> bool:
        return unit in self._used

    def smallest(self, kept: Collection[int]) -> int:
        """The smallest that nobody has and that is not `kept` for somebody; to be taken."""
        passed: list[int] = []
        found = -1
        while self._free and found < 0:
            unit = heappop(self._free)
            self._in_free.remove(unit)
            if unit in kept:
                passed.append(unit)
            elif unit not in self._used:
                found = unit
        while found < 0:
            if self._low in kept:
                passed.append(self._low)
            elif self._low not in self._used:
                found = self._low
            self._low += 1
        for unit in (*passed, found):
            self._put(unit)
        return found

    def take(self, unit: int) -> None:
        """A device has that number, whether it is the smallest or not."""
        self._used.add(unit)

    def give_back(self, unit: int) -> None:
        """It has not any more."""
        self._used.discard(unit)
        if unit < self._low:
            self._put(unit)

    def _put(self, unit: int) -> None:
        if unit not in self._in_free:
            self._in_free.add(unit)
            heappush(self._free, unit)
