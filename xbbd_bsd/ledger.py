"""Errors of disks that no operator has seen to yet: of those there are, and of those that are gone.

Counters go on counting; what they stood at when somebody last said "seen to" is
kept here, for as long as the daemon lives.  A guest that starts again, maybe for
such an error, has a new device: what its old one had is kept by the disk's path.
Pure: numbers and names are handed in.  Control thread.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from xbbd_bsd.faults import DISK_OPERATIONS, GUEST_KINDS

Group = Callable[[str], Mapping[str, int | str]]
"""The values of a group of a device's leaves, as of Numbers."""

MOST: Final = 256  # disks without a device that are remembered, the oldest go first

_HOST: Final = "errors."
_GUEST: Final = "errors.guest."


@dataclass(frozen=True, slots=True)
class Errors:
    """How often what failed; `last`: a sentence, with errno and time since 1970 of the last."""

    counts: Mapping[str, int] = field(default_factory=dict)
    last: str = ""
    errno: int = 0
    when: float = 0.0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


NO_ERRORS: Final = Errors()


@dataclass(frozen=True, slots=True)
class Past:
    """Of a disk whose device is gone."""

    path: str
    guest: str
    errors: Errors


class Ledger:
    """What has been seen to, of all devices of a family."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[str, int]] = {}  # by unit, leaves as they stood
        self._past: dict[str, Past] = {}  # by path, the latest last

    @property
    def past(self) -> tuple[Past, ...]:
        """Disks that have no device any more, and had errors."""
        return tuple(self._past.values())

    def errors(self, unit: int, group: Group) -> Errors:
        """The host's, of a device, since they were last seen to."""
        return self._errors(unit, group, _HOST, DISK_OPERATIONS)

    def guest_errors(self, unit: int, group: Group) -> Errors:
        """What its guest did wrong, likewise."""
        return self._errors(unit, group, _GUEST, GUEST_KINDS)

    def _errors(self, unit: int, group: Group, prefix: str, names: Iterable[str]) -> Errors:
        values = group("errors")
        seen = self._seen.get(unit, {})
        counts = {}
        for name in names:
            now, then = int(values.get(prefix + name, 0)), seen.get(prefix + name, 0)
            # One that has gone back was set by hand, or begun anew.
            if n := now - then if now >= then else now:
                counts[name] = n
        if not counts:
            return NO_ERRORS
        return Errors(
            counts,
            str(values.get(f"{prefix}last", "")),
            int(values.get(f"{prefix}last_errno", 0)),
            float(values.get(f"{prefix}last_time", 0)),
        )

    def clear(self, unit: int, group: Group) -> tuple[int, int]:
        """An operator has seen to a device's errors; how many there were, host's and guest's."""
        found = self.errors(unit, group).total, self.guest_errors(unit, group).total
        values = group("errors")
        self._seen[unit] = {
            prefix + name: int(values.get(prefix + name, 0))
            for prefix, names in ((_HOST, DISK_OPERATIONS), (_GUEST, GUEST_KINDS))
            for name in names
        }
        return found

    def clear_path(self, path: str) -> int:
        """As `clear`, of a disk that has no device any more: the host's."""
        past = self._past.pop(path, None)
        return past.errors.total if past is not None else 0

    def leave(self, unit: int, group: Group, *, sound: bool) -> None:
        """A device is gone, or begins to count anew; its numbers mean nothing unless `sound`."""
        errors = self.errors(unit, group) if sound else NO_ERRORS
        self._seen.pop(unit, None)
        if not errors.total:
            return
        medium = group("medium")
        path, guest = str(medium.get("path", "")), str(medium.get("guest", ""))
        before = self._past.pop(path, None)
        if before is not None:
            sums = dict(before.errors.counts)
            for name, n in errors.counts.items():
                sums[name] = sums.get(name, 0) + n
            errors = replace(errors, counts=sums)
        self._past[path] = Past(path, guest, errors)
        if len(self._past) > MOST:
            del self._past[next(iter(self._past))]
