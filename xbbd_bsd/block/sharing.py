"""Who uses which disk: two guests that write to one would ruin it.

As Xen's own hotplug script has it, a writer wants a disk for itself, unless the
operator says otherwise; readers do not mind each other.  Control thread.
"""

import os
import stat
from dataclasses import dataclass
from errno import EBUSY

from xbbd_bsd.errors import OperatorError

Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class _Use:
    who: str
    writable: bool


class Sharing:
    """All disks that are open."""

    def __init__(self) -> None:
        self._uses: dict[Key, list[_Use]] = {}

    def claim(self, fd: int, who: str, *, writable: bool, shared: bool) -> None:
        """Note that `who` uses an open disk; OperatorError if that is not safe.

        `shared`: the operator says that it is.
        """
        key = _key(fd)
        uses = self._uses.get(key, [])
        if not shared:
            for use in uses:
                if use.writable or writable:
                    how = "writable" if use.writable else "read-only"
                    raise OperatorError(
                        f"it is in use by {use.who}, {how}; if that is meant,"
                        " configure shared = true for it",
                        EBUSY,
                    )
        self._uses[key] = [*uses, _Use(who, writable)]

    def release(self, who: str) -> None:
        """`who` does not use its disk any more; harmless if it used none."""
        for key, uses in list(self._uses.items()):
            self._uses[key] = [use for use in uses if use.who != who]
            if not self._uses[key]:
                del self._uses[key]


def _key(fd: int) -> Key:
    """The same for every descriptor of a disk, whatever path it was opened by."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return "file", status.st_dev, status.st_ino
    return "device", status.st_rdev, 0
