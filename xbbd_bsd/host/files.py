"""Which files can be no disks, on any system: what is one of them, C knows.  Control thread."""

import errno

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.native import pseudo_file_system


def refuse_pseudo(fd: int) -> None:
    """OperatorError if an open file is one of the kernel's, which no disk can be; HostError."""
    name = pseudo_file_system(fd)
    if name is not None:
        raise OperatorError(f"it is a file of {name}, which is no disk", errno.EINVAL)
