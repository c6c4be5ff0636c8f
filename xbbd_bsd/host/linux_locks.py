"""Linux: keeping other programs off a disk, and what a loop device is made of.

Files are locked as QEMU does it (block/file-posix.c there), which everything else
that serves images looks at too: a byte for each thing that one does, from 100 on,
and one for each thing that one lets nobody else do, from 200 on.  Locks go with
the open file, so that a daemon that died leaves none.  Control thread.
"""

import errno
import fcntl
import os
import re
import struct
from contextlib import suppress
from typing import Final

from xbbd_bsd.errors import OperatorError

# What is done, by QEMU's bits (include/block/block-common.h).
READ: Final = 0  # and relies on what it reads
WRITE: Final = 1
RESIZE: Final = 3
_DONE: Final = 100
_DENIED: Final = 200
_DENY: Final = (WRITE, RESIZE)  # as a disk of a guest that is not shared

_FLOCK: Final = struct.Struct("@hhqqi4x")  # asm-generic/fcntl.h: type, whence, start, length, pid

# linux/loop.h: struct loop_info64, which begins with device and inode of the file, and the
# number of the device that it is if it is one.
LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO: Final = struct.Struct("@QQQ208x")

Backing = tuple[str, int, int]


def lock_file(fd: int, *, writable: bool) -> None:
    """Lock an open file; OperatorError if somebody does what must not be, or denies what we do.

    Not every file system has locks; then there are none.
    """
    done = (READ, WRITE) if writable else (READ,)
    try:
        for byte in _bytes(_DONE, done) | _bytes(_DENIED, _DENY):
            _call(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, byte)
        free = all(
            _call(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte) == fcntl.F_UNLCK
            for byte in _bytes(_DENIED, done) | _bytes(_DONE, _DENY)
        )
    except OSError as error:
        unlock_file(fd)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return
        free = False
    if not free:
        unlock_file(fd)
        who = "uses" if writable else "writes to"
        raise OperatorError(f"another program {who} it", errno.EBUSY)


def unlock_file(fd: int) -> None:
    """Give all locks of an open file back."""
    with suppress(OSError):
        _call(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _DONE, 2 * (_DENIED - _DONE))


def claim_device(fd: int, descriptors: str = "/proc/self/fd") -> int | None:
    """Claim a block device for us alone, against mounts, md, lvm and swap; OperatorError.

    A descriptor to be held for as long; None if it cannot be claimed.  It is of its own,
    and reads only: one that could write would have udev look at the disk when it is closed.
    """
    flags = os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(f"{descriptors}/{fd}", flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            return None
    raise OperatorError(
        "it is mounted on this host, or another program has it for itself", errno.EBUSY
    )


def loop_backing(fd: int, number: int, devices: str = "/sys/dev/block") -> Backing | None:
    """What a loop device with that number is made of, as disks are told apart; None of others.

    Its partitions are disks of their own.
    """
    place = os.path.realpath(f"{devices}/{os.major(number)}:{os.minor(number)}")
    if re.fullmatch(r"loop\d+", os.path.basename(place)) is None:
        return None
    try:
        info = fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(_LOOP_INFO.size))
    except OSError:  # it has none
        return None
    device, inode, itself = _LOOP_INFO.unpack(info)
    return ("device", itself, 0) if itself else ("file", device, inode)


def _bytes(base: int, what: tuple[int, ...]) -> set[int]:
    return {base + bit for bit in what}


def _call(fd: int, call: int, kind: int, start: int, length: int = 1) -> int:
    """A lock, or the kind of lock that is in the way of it; OSError."""
    reply = fcntl.fcntl(fd, call, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    return int(_FLOCK.unpack(reply)[0])
