"""Linux: how to measure a disk.

Only descriptors come in; who opened them is not known here.  Control thread.
"""

import errno
import fcntl
import os
import stat
import struct
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import DiskGeometry, Medium

# linux/fs.h, the same on amd64 and arm64.
BLKSSZGET: Final = 0x1268  # int: logical sector, bytes
BLKPBSZGET: Final = 0x127B  # unsigned int: physical sector, bytes
BLKGETSIZE64: Final = 0x80081272  # uint64_t: bytes


class Linux:
    """Platform of Linux."""

    def probe_disk(self, fd: int) -> DiskGeometry:
        """Measure a regular file or block device; OperatorError, HostError."""
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return DiskGeometry(Medium.FILE, status.st_size, 512, 512)
        if not stat.S_ISBLK(status.st_mode):
            raise OperatorError("it is neither a regular file nor a disk", errno.EINVAL)
        return DiskGeometry(
            Medium.DEVICE,
            _ask(fd, BLKGETSIZE64, "Q"),
            _ask(fd, BLKSSZGET, "i"),
            _ask(fd, BLKPBSZGET, "I"),
        )


def _ask(fd: int, request: int, form: str) -> int:
    try:
        reply = fcntl.ioctl(fd, request, bytes(struct.calcsize(form)))
    except OSError as error:
        raise HostError(f"ioctl {request:#x}: {error.strerror}", error.errno or 0) from None
    return int(struct.unpack(form, reply)[0])


PLATFORM: Final = Linux()
