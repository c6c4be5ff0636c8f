"""Who uses which disk: two guests that write to one would ruin it.

As Xen's own hotplug script for Linux has it, a writer wants a disk for itself,
unless the operator says otherwise; readers do not mind each other, nor does a
virtual machine itself: while it is saved, restored or migrated on one host it has
two domains, of which one is paused.  Control thread.
"""

import os
import stat
from dataclasses import dataclass
from errno import EBUSY, EINVAL
from typing import Final

from xbbd_bsd.block.disk import Disk
from xbbd_bsd.errors import OperatorError

Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Owner:
    """A domain and the virtual machine that it is: "/vm/UUID", "" if that is not known."""

    domid: int
    vm: str

    def is_another_domain_of(self, other: "Owner") -> bool:
        return self.vm != "" and self.vm == other.vm and self.domid != other.domid


NOBODY: Final = Owner(-1, "")


@dataclass(frozen=True, slots=True)
class _Use:
    who: str
    writable: bool
    owner: Owner


class Sharing:
    """All disks that are open."""

    def __init__(self) -> None:
        self._uses: dict[Key, list[_Use]] = {}

    def claim(
        self, fd: int, who: str, *, writable: bool, shared: bool, owner: Owner = NOBODY
    ) -> bool:
        """Note that `who` uses an open disk; OperatorError if that is not safe.

        `shared`: the operator says that it is.  True if the disk is in use by another
        domain of the same virtual machine, which hands it over.
        """
        key = key_of_fd(fd)
        uses = self._uses.get(key, [])
        handed_over = False
        for use in uses:
            if owner.is_another_domain_of(use.owner):
                handed_over = True
            elif not shared and (use.writable or writable):
                how = "writable" if use.writable else "read-only"
                raise OperatorError(
                    f"it is in use by {use.who}, {how}; if that is meant,"
                    " configure shared = true for it",
                    EBUSY,
                )
        self._uses[key] = [*uses, _Use(who, writable, owner)]
        return handed_over

    def release(self, who: str) -> None:
        """`who` does not use its disk any more; harmless if it used none."""
        for key, uses in list(self._uses.items()):
            self._uses[key] = [use for use in uses if use.who != who]
            if not self._uses[key]:
                del self._uses[key]


def check_shared(disk: Disk, sector_size: int) -> None:
    """That a disk that others use too is written by whole sectors; OperatorError.

    `sector_size`: bytes of those that the guest shall see, 0 for the disk's own.
    """
    own = disk.geometry.sector_size
    if 0 < sector_size < own and not disk.read_only:
        raise OperatorError(
            f"it is shared, and its sectors of {own} bytes shall be presented as of"
            f" {sector_size}: a write of a part would undo what another writes beside it;"
            " configure sector_size = 0 for it, or do not share it",
            EINVAL,
        )


def key_of_fd(fd: int) -> Key:
    """The same for every descriptor of a disk, whatever path it was opened by."""
    return key_of_status(os.fstat(fd))


def key_of_status(status: os.stat_result) -> Key:
    """As `key_of_fd`, of what stat(2) says of a disk."""
    if stat.S_ISREG(status.st_mode):
        return "file", status.st_dev, status.st_ino
    return "device", status.st_rdev, 0
