"""Which faults of a disk and of its guest are told, and when: two looks at counts to events.

The first at once, then at most one line each AGAIN_SECONDS with how many more there
were; what is left is told when a connection ends.  Pure: time, in seconds of a clock
that only grows, and counts are handed in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.errors import shown
from xbbd_bsd.events import Event
from xbbd_bsd.faults import DiskErrors, DiskPaused, DiskRetried, Faults, GuestErrors, errno_name

AGAIN_SECONDS: Final = 30.0
_UNKNOWN: Final = ("a request", "somebody has damaged the state segment")


@dataclass(slots=True)
class _Account:
    """Of one blame: how many have been told, when, and when there was nothing to tell."""

    told: int = 0
    told_at: float | None = None
    calm_at: float = 0.0

    def open(self, count: int, now: float) -> None:
        self.told = count
        self.calm_at = now

    def due(self, count: int, now: float, *, ended: bool) -> tuple[int, int] | None:
        """How many to tell, and in how many seconds there were so many; None: not now."""
        if count <= self.told:  # fewer: the segment was damaged
            self.open(count, now)
            return None
        if self.told_at is not None and now - self.told_at < AGAIN_SECONDS and not ended:
            return None
        found = count - self.told, max(1, round(now - self.calm_at))
        self.open(count, now)
        self.told_at = now
        return found


class Holds:
    """What is told of errors that no guest hears of: a disk that is paused, or tried again."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._held = 0
        self._paused = False
        self._told_at: float | None = None

    def begin(self, held: int) -> None:
        """A guest has connected just now; of so many that were held nobody needs to hear."""
        self._held = held
        self._paused = False
        self._told_at = None

    def look(
        self, now: float, held: int, *, paused: bool, read: Callable[[], Faults], path: str
    ) -> Iterator[Event]:
        """What is to be said now.

        `held`: how many there were so far; `paused`: for an error; `read` is asked which it
        was, if that is to be told.
        """
        more, began = held > self._held, paused and not self._paused
        self._paused, self._held = paused, held
        if began:
            yield DiskPaused(self._device, *_held(read(), path))
        elif more and not paused and not self._told_lately(now):
            self._told_at = now
            yield DiskRetried(self._device, *_held(read(), path))

    def _told_lately(self, now: float) -> bool:
        return self._told_at is not None and now - self._told_at < AGAIN_SECONDS


def _held(faults: Faults, path: str) -> tuple[str, str, str, str]:
    last = faults.last_held
    what, why = (last.what, last.why) if last else _UNKNOWN
    return what, shown(path), why, errno_name(last.errno if last else 0)


class Reports:
    """What is told of one device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._disk = _Account()
        self._guest = _Account()
        self._failures: int | None = None  # of both, when last looked at
        self._held = False  # something is to be told later

    def begin(self, now: float, told: Faults | None) -> None:
        """A guest has connected just now.

        `told`: of the failures that are counted from now on, these nobody needs to hear of;
        None: it is counted on as before.
        """
        self._disk.open(self._disk.told if told is None else told.of_disk, now)
        self._guest.open(self._guest.told if told is None else told.of_guest, now)
        self._failures = None

    def look(
        self,
        now: float,
        failures: int,
        read: Callable[[], Faults],
        path: str,
        *,
        ended: bool = False,
    ) -> Iterator[Event]:
        """What is to be said now.

        `failures`: all there were so far; only if these are more, or some are held, `read`
        is asked which.  `ended`: there will be no other look for a while.
        """
        if failures == self._failures and not self._held:
            self._disk.calm_at = self._guest.calm_at = now
            return
        self._failures = failures
        faults = read()
        if due := self._disk.due(faults.of_disk, now, ended=ended):
            yield self._of_disk(faults, path, *due)
        if due := self._guest.due(faults.of_guest, now, ended=ended):
            yield self._of_guest(faults, *due)
        self._held = faults.of_disk > self._disk.told or faults.of_guest > self._guest.told

    def _of_disk(self, faults: Faults, path: str, count: int, seconds: int) -> Event:
        last = faults.last_disk
        what, why = (last.what, last.why) if last else _UNKNOWN
        return DiskErrors(
            self._device,
            what=what,
            reason=why,
            more=count - 1,
            seconds=seconds,
            disk=shown(path),
            errno=errno_name(last.errno if last else 0),
        )

    def _of_guest(self, faults: Faults, count: int, seconds: int) -> Event:
        last = faults.last_guest
        what, why = (last.what, last.why) if last else _UNKNOWN
        return GuestErrors(self._device, what=what, reason=why, more=count - 1, seconds=seconds)
