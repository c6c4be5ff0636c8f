"""Opens what a guest's disk is made of: a regular file or a disk device.

The format of a medium is never guessed from its content, which the guest
writes (CVE-2008-2004): all is raw.  It knows no XenStore and no ring.  Errors
are OperatorError with a reason for people.  Control thread.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EINVAL

from xbbd_bsd.block.stores import Store
from xbbd_bsd.errors import HostError, OperatorError, shown
from xbbd_bsd.host import DiskGeometry, Medium
from xbbd_bsd.storeuri import is_store, tells_too_much

Key = tuple[str, int, int]
"""What disks are told apart by: "file", st_dev, st_ino; "device", st_rdev, 0; or key_of()."""


def key_of(status: os.stat_result) -> Key:
    """The same for every descriptor and every path of a disk."""
    if stat.S_ISREG(status.st_mode):
        return "file", status.st_dev, status.st_ino
    return "device", status.st_rdev, 0


def _close(fd: int) -> None:
    """Close a disk, once: of a provider that is gone FreeBSD says ENXIO, and has closed it."""
    with suppress(OSError):
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Disk:
    """An open disk; the descriptor is closed by `close`, once.

    What can be known for good is known here: a disk that is gone later answers no
    question any more.  `path` is fit for a log; `left_over` are the bytes behind
    the last whole sector, not served.  `number` is a device's own, whatever it is made
    of; `lock` a descriptor that keeps others off, if there is one.  `store`: what it is
    reached over, where `fd` is a file for what is not flushed yet (nbd.py), or an image
    (rbd.py); `shut` closes that, and `holder` is what the store calls us, if it has but one
    who writes.
    """

    fd: int
    path: str
    read_only: bool
    geometry: DiskGeometry
    key: Key
    left_over: int
    number: int = 0
    lock: int | None = None
    store: Store | None = None
    shut: Callable[[int], None] = _close
    holder: str = ""

    @property
    def device(self) -> str:
        """MAJOR:MINOR in hex, as in the node physical-device; "" of a file."""
        if self.geometry.medium is not Medium.DEVICE:
            return ""
        return f"{os.major(self.number):x}:{os.minor(self.number):x}"

    @property
    def sectors(self) -> int:
        """Size in sectors of 512 bytes."""
        return self.geometry.size // 512

    def close(self) -> None:
        self.shut(self.fd)
        if self.lock is not None:
            _close(self.lock)

    def __str__(self) -> str:
        access = "read-only" if self.read_only else "writable"
        return (
            f"{self.geometry.medium.value} {self.path}, {self.sectors} sectors of 512 bytes,"
            f" sector size {self.geometry.sector_size}, {access}"
        )


def disk_path(name: bytes) -> str:
    """The path of a disk that the toolstack names, or its other name (stores.py); "" of none.

    One that does not begin with a slash is one of /dev.  FreeBSD's driver tries it as it
    is first, which for a process would mean whatever directory it stands in.
    """
    if not name:
        return ""
    if is_store(name):
        return "" if tells_too_much(os.fsdecode(name)) else os.fsdecode(name)
    return os.fsdecode(name if name.startswith(b"/") else b"/dev/" + name)


def open_disk(name: bytes, *, read_only: bool, prepare: Callable[[int], DiskGeometry]) -> Disk:
    """Open the disk that the toolstack names (`disk_path`).

    `prepare` makes a descriptor ready and measures it.  Raises OperatorError.
    """
    if not name or b"\0" in name:
        raise OperatorError(
            "unable to open the disk: its name in XenStore is empty or has a NUL", EINVAL
        )
    path = disk_path(name)
    access = os.O_RDONLY if read_only else os.O_RDWR
    try:
        # Opening a fifo would wait for its other end; O_NONBLOCK does not.
        fd = os.open(path, access | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _unable(path, error) from None
    try:
        with suppress(OSError):  # disks may refuse (FreeBSD's FIONBIO), and do not care
            os.set_blocking(fd, True)
        geometry = prepare(fd)
        _check(geometry)
        status = os.fstat(fd)
        key = geometry.backing or key_of(status)
    except OSError as error:
        _close(fd)
        raise _unable(path, error) from None
    except (OperatorError, HostError) as error:
        _close(fd)
        raise OperatorError(f"unable to open {shown(path)}: {error}", error.errno) from None
    left_over = geometry.size % geometry.sector_size
    served = replace(geometry, size=geometry.size - left_over)
    return Disk(fd, shown(path), read_only, served, key, left_over, status.st_rdev)


def _check(geometry: DiskGeometry) -> None:
    size, sector_size = geometry.size, geometry.sector_size
    if sector_size < 512 or sector_size & (sector_size - 1):
        reason = f"its sector size of {sector_size} bytes is no power of two above 511"
    elif size < sector_size:
        reason = f"its {size} bytes are less than one sector of {sector_size}"
    else:
        return
    raise OperatorError(reason, EINVAL)


def _unable(path: str, error: OSError) -> OperatorError:
    return OperatorError(f"unable to open {shown(path)}: {error.strerror}", error.errno or 0)
