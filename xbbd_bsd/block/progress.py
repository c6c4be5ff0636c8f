"""Whether rings that have requests in flight answer any.

Pure: time, in seconds of a clock that only grows, and what rings show are handed in.
"""

from collections.abc import Iterable


class Progress:
    """Of all rings of a device, from one look to the next."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # by ring: its index of responses, since when

    def look(self, now: float, rings: Iterable[tuple[int, int, int]]) -> float:
        """Seconds since the ring that waits the longest was first seen where it is still.

        `rings`: of each its number, requests in flight, and index of the last response.
        """
        seen: dict[int, tuple[int, float]] = {}
        for number, inflight, answered in rings:
            if inflight > 0:
                before = self._seen.get(number)
                waits = before is not None and before[0] == answered
                seen[number] = before if before is not None and waits else (answered, now)
        self._seen = seen
        return max((now - since for _, since in seen.values()), default=0.0)
