"""Who uses which disk: two guests that write to one would ruin it.

A writer wants a disk for itself, unless the operator says otherwise; readers do not
mind each other, nor does a virtual machine itself: while it is saved, restored or
migrated on one host it has two domains, of which one is paused.  Xen's hotplug
script for Linux asks the same of block devices and of files in use by a loop device;
but there a reader may join whoever writes with mode w!, and here it has to be said
for each who comes later.  Control thread.
"""

from dataclasses import dataclass
from errno import EBUSY, EINVAL
from typing import Final, Protocol

from xbbd_bsd.block.disk import Disk, Key
from xbbd_bsd.errors import OperatorError


class User(Protocol):
    """Who has a disk open, and what it hears of others that have the same."""

    @property
    def name(self) -> str:
        """For messages."""

    def left(self) -> None:
        """Another has closed the disk."""

    def distrust(self, errno: int) -> None:
        """Under another the disk has lost something (cause_of_loss in marks.py)."""


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
    user: User
    writable: bool
    owner: Owner


class Sharing:
    """All disks that are open."""

    def __init__(self) -> None:
        self._uses: dict[Key, list[_Use]] = {}
        self._disks: dict[User, set[Key]] = {}  # of each user

    def claim(self, disk: Disk, user: User, *, shared: bool, owner: Owner = NOBODY) -> bool:
        """Note that somebody uses an open disk; OperatorError if that is not safe.

        `shared`: the operator says that it is.  True if the disk is in use by another
        domain of the same virtual machine, which hands it over.
        """
        writable = not disk.read_only
        uses = self._uses.get(disk.key, [])
        handed_over = False
        for use in uses:
            if owner.is_another_domain_of(use.owner):
                handed_over = True
            elif not shared and (use.writable or writable):
                how = "writable" if use.writable else "read-only"
                raise OperatorError(
                    f"it is in use by {use.user.name}, {how}; if that is meant,"
                    " configure shared = true for it",
                    EBUSY,
                )
        self._uses[disk.key] = [*uses, _Use(user, writable, owner)]
        self._disks.setdefault(user, set()).add(disk.key)
        return handed_over

    def release(self, user: User) -> None:
        """Somebody does not use its disk any more; harmless if it used none."""
        for key in self._disks.pop(user, ()):
            rest = [use for use in self._uses[key] if use.user is not user]
            self._uses[key] = rest
            if not rest:
                del self._uses[key]
            for use in rest:
                use.user.left()

    def distrust(self, user: User, errno: int) -> None:
        """Somebody's disk has lost something: tell all others that have it."""
        for key in list(self._disks.get(user, ())):
            for use in self._uses.get(key, ()):
                if use.user is not user:
                    use.user.distrust(errno)


def check_shared(disk: Disk, sector_size: int) -> None:
    """That a disk that others use too, or a server has, is written by whole sectors; OperatorError.

    `sector_size`: bytes of those that the guest shall see, 0 for the disk's own.
    """
    own = disk.geometry.sector_size
    if 0 < sector_size < own and disk.store is not None:
        raise OperatorError(
            f"its server has blocks of {own} bytes, of which no part can be written: configure"
            " sector_size = 0 for it",
            EINVAL,
        )
    if 0 < sector_size < own and not disk.read_only:
        raise OperatorError(
            f"it is shared, and its sectors of {own} bytes shall be presented as of"
            f" {sector_size}: a write of a part would undo what another writes beside it;"
            " configure sector_size = 0 for it, or do not share it",
            EINVAL,
        )
