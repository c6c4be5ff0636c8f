"""What went wrong with requests, as data, in words and as events: host's and guest's, apart.

The host's is that a disk failed; the guest's, that it asked for what it cannot have.
Where that is counted (native/block/faults.h), who is told and who shows it is not known
here.  Pure; any thread.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from errno import errorcode
from typing import Final

from xbbd_bsd.errors import shown
from xbbd_bsd.events import DeviceEvent, Path, Severity

SECTOR_BYTES: Final = 512
DISK_OPERATIONS: Final = ("read", "write", "flush", "discard")

GUEST_KINDS: Final[Mapping[str, str]] = {
    "read_only": "writes to a read-only disk",
    "beyond_end": "requests beyond an end of the disk that was never there",
    "grants": "requests whose pages the guest does not grant",
    "malformed": "requests that are none: operation, segments or alignment",
}
"""What a guest can do wrong: names, and what they count."""

REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "read_only": ("read_only", "the disk is read-only"),
    "beyond_end": ("beyond_end", "beyond the end of the disk"),
    "grants": ("grants", "the guest does not grant its pages"),
    "operation": ("malformed", "the operation was not offered"),
    "segments": ("malformed", "no segments, too many, or impossible ones"),
    "alignment": ("malformed", "it begins or ends within a sector"),
}
"""Why a request is refused: the kind that it counts as, and words."""

SHRUNK: Final = "beyond the end of a disk that has shrunk"


@dataclass(frozen=True, slots=True)
class DiskFault:
    """The last request that a disk failed.

    `operation`: what the disk failed at, one of DISK_OPERATIONS, or a number in words.
    `sector` and `sectors`, of 512 bytes, are the request's; 0 sectors: not known, or none.
    `reason`: the errno in the system's words.  `shrunk`: it was beyond an end that has come
    nearer.  `time_ns`: since 1970.
    """

    operation: str
    sector: int
    sectors: int
    errno: int
    reason: str
    shrunk: bool
    time_ns: int

    @property
    def what(self) -> str:
        """What the disk failed at, in words."""
        if self.operation == "flush":
            return self.operation
        return _what(self.operation, self.sector, self.sectors)

    @property
    def why(self) -> str:
        """Likewise, but for the errno."""
        return SHRUNK if self.shrunk else self.reason

    def sentence(self, path: str) -> str:
        """All of it, fit for a line of a log; `path`: of the disk, as of os.fsdecode."""
        return f"{self.what} of {shown(path)} failed: {self.why} ({errno_name(self.errno)})"


@dataclass(frozen=True, slots=True)
class GuestFault:
    """The last request of a guest's that was refused.

    `operation`: the one it asked for, in words; `refusal`: why, one of REFUSALS, or a
    number in words.  The rest as in DiskFault.
    """

    operation: str
    sector: int
    sectors: int
    refusal: str
    time_ns: int

    @property
    def what(self) -> str:
        """What it asked for, in words."""
        return _what(self.operation, self.sector, self.sectors)

    @property
    def why(self) -> str:
        """Why that was refused, likewise."""
        return REFUSALS[self.refusal][1] if self.refusal in REFUSALS else self.refusal

    def __str__(self) -> str:
        return f"{self.what} refused: {self.why}"


@dataclass(frozen=True, slots=True)
class Faults:
    """How many requests of a disk have failed since it was attached, and the last ones.

    `disk`: by operation and errno, 0 for those that are not told apart; `guest`: by kind.
    `last_held`: the last one that the disk failed, and that was not answered for that.
    """

    disk: Mapping[tuple[str, int], int]
    guest: Mapping[str, int]
    last_disk: DiskFault | None = None
    last_guest: GuestFault | None = None
    last_held: DiskFault | None = None

    @property
    def of_disk(self) -> int:
        """All that the disk failed."""
        return sum(self.disk.values())

    @property
    def of_guest(self) -> int:
        """All that the guest did wrong."""
        return sum(self.guest.values())

    def by_operation(self) -> dict[str, int]:
        """What the disk failed, by DISK_OPERATIONS."""
        found = dict.fromkeys(DISK_OPERATIONS, 0)
        for (operation, _), count in self.disk.items():
            if operation in found:
                found[operation] += count
        return found

    def by_errno(self) -> dict[str, dict[str, int]]:
        """The same by the name of the errno too; without those that there were not."""
        found: dict[str, dict[str, int]] = {}
        for (operation, number), count in self.disk.items():
            if operation in DISK_OPERATIONS and count:
                counts = found.setdefault(operation, {})
                name = errno_name(number)
                counts[name] = counts.get(name, 0) + count
        return found


@dataclass(frozen=True)
class RequestErrors(DeviceEvent):
    """Requests failed: the last one, and how many before it; one class for each blame."""

    path = Path.DATA
    what: str
    reason: str
    more: int
    seconds: int

    def __str__(self) -> str:
        more = f"; {self.more} more in {self.seconds} s" if self.more else ""
        return super().__str__() + more


@dataclass(frozen=True)
class GuestErrors(RequestErrors):
    """The guest asks for what it cannot have."""

    severity = Severity.WARNING
    text = "{what} refused, the guest's fault: {reason}"


@dataclass(frozen=True)
class DiskErrors(RequestErrors):
    """The disk failed, the host's fault; `errno` by name."""

    severity = Severity.ERROR
    urgent = True
    text = "{what} of {disk} failed: {reason} ({errno})"
    disk: str
    errno: str


@dataclass(frozen=True)
class DiskPaused(DeviceEvent):
    """The disk failed, and all of it waits for an operator; `errno` by name."""

    path = Path.DATA
    severity = Severity.ERROR
    urgent = True
    text = (
        "paused, its guest waits: {what} of {disk} failed: {reason} ({errno}); see to it, then"
        " run xbbctl resume"
    )
    what: str
    disk: str
    reason: str
    errno: str


@dataclass(frozen=True)
class DiskRetried(DeviceEvent):
    """The disk failed, which its guest is not told yet; `errno` by name."""

    path = Path.DATA
    severity = Severity.WARNING
    urgent = True
    text = "{what} of {disk} failed, and is tried again: {reason} ({errno})"
    what: str
    disk: str
    reason: str
    errno: str


def together(parts: Iterable[Faults]) -> Faults:
    """Of several rings as of one disk."""
    disk: dict[tuple[str, int], int] = {}
    guest = dict.fromkeys(GUEST_KINDS, 0)
    last_disk: DiskFault | None = None
    last_guest: GuestFault | None = None
    last_held: DiskFault | None = None
    for part in parts:
        for entry, count in part.disk.items():
            disk[entry] = disk.get(entry, 0) + count
        for kind, count in part.guest.items():
            guest[kind] += count
        if part.last_disk and (last_disk is None or part.last_disk.time_ns > last_disk.time_ns):
            last_disk = part.last_disk
        if part.last_guest and (last_guest is None or part.last_guest.time_ns > last_guest.time_ns):
            last_guest = part.last_guest
        if part.last_held and (last_held is None or part.last_held.time_ns > last_held.time_ns):
            last_held = part.last_held
    return Faults(disk, guest, last_disk, last_guest, last_held)


def errno_name(number: int) -> str:
    """The name of an errno, "ENOSPC"; "other" for 0, the number where it has none."""
    return errorcode.get(number, str(number)) if number else "other"


def _what(operation: str, sector: int, sectors: int) -> str:
    size = f" of {sectors * SECTOR_BYTES} bytes" if sectors else ""
    return f"{operation}{size} at sector {sector}"
