"""FreeBSD: what its disks are like.

Only descriptors come in; who opened them is not known here.  Disks are
character devices on FreeBSD, so what answers DIOCGMEDIASIZE is a disk, as the
kernel's own test has it.  Control thread.
"""

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import DiskGeometry, Host, Medium, Peer

# sys/disk.h, the same on amd64 and arm64.
DIOCGSECTORSIZE: Final = 0x40046480  # u_int: logical sector, bytes
DIOCGMEDIASIZE: Final = 0x40086481  # off_t: bytes
DIOCGSTRIPESIZE: Final = 0x4008648B  # off_t: physical sector, bytes; 0 if not known

DIOCGATTR: Final = 0xC148648E  # struct diocgattr_arg: name, length, value
_ATTRIBUTE: Final = struct.Struct("@64sii256s")  # the value begins at 72

_SOL_LOCAL: Final = 0  # sys/un.h
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("@IIh16I")  # version, uid, number of groups, these; sys/ucred.h

_NO_DISK: Final = (errno.ENOTTY, errno.ENODEV, errno.EINVAL, errno.ENOSYS)


class FreeBSD:
    """Platform of FreeBSD."""

    def prepare_disk(self, fd: int) -> DiskGeometry:
        """Measure it; disk devices have no cache in front of them.  OperatorError, HostError."""
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            # fspacectl(2) works on any file system, if only by writing zeros.
            writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            discard = (status.st_blksize, 0) if writable else None
            return DiskGeometry(Medium.FILE, status.st_size, 512, 512, discard=discard)
        if not stat.S_ISCHR(status.st_mode):
            raise OperatorError("it is neither a regular file nor a disk", errno.EINVAL)
        size = _ask(fd, DIOCGMEDIASIZE, "q")
        sector_size = _ask(fd, DIOCGSECTORSIZE, "I")
        try:
            stripe = _ask(fd, DIOCGSTRIPESIZE, "q")
        except (HostError, OperatorError):
            stripe = 0  # only a hint, and not every class of provider gives it
        return DiskGeometry(
            Medium.DEVICE,
            size,
            sector_size,
            max(stripe, sector_size),
            aligned=True,
            discard=(max(stripe, sector_size), 0) if _can_delete(fd) else None,
        )

    def disk_size(self, fd: int) -> int:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        return _ask(fd, DIOCGMEDIASIZE, "q")

    def peer(self, channel: socket.socket) -> Peer:
        """By struct xucred, which has up to 16 groups (sys/ucred.h, unix(4))."""
        xucred = channel.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
        _, uid, ngroups, *groups = _XUCRED.unpack(xucred.ljust(_XUCRED.size, b"\0"))
        return Peer(uid, frozenset(groups[:ngroups]))

    def xen(self) -> Host:
        """OperatorError: this comes with a later version."""
        raise OperatorError("Xen on FreeBSD is not served yet: use --host sim:DIR")


def _can_delete(fd: int) -> bool:
    """Whether the provider takes BIO_DELETE (GEOM attribute candelete, an int)."""
    request = bytearray(_ATTRIBUTE.pack(b"GEOM::candelete", 4, 0, b""))
    try:
        fcntl.ioctl(fd, DIOCGATTR, request)
    except OSError:
        return False
    return bool(int.from_bytes(request[72:76], sys.byteorder))


def _ask(fd: int, request: int, form: str) -> int:
    try:
        reply = fcntl.ioctl(fd, request, bytes(struct.calcsize(form)))
    except OSError as error:
        if error.errno in _NO_DISK:
            raise OperatorError("it is neither a regular file nor a disk", errno.EINVAL) from None
        raise HostError(f"ioctl {request:#x}: {error.strerror}", error.errno or 0) from None
    return int(struct.unpack(form, reply)[0])


PLATFORM: Final = FreeBSD()
