"""Which file system a file is on: fstatfs(2), which Python's os module lacks.

It knows no system: what the bytes mean is in the modules that ask.  Control
thread.
"""

import ctypes
import os
from typing import Final

_SIZE: Final = 4096  # bytes; FreeBSD's struct statfs has 2344, Linux's 120


def fstatfs(fd: int) -> bytes:
    """The kernel's struct statfs, with zeros after it; OSError."""
    buffer = ctypes.create_string_buffer(_SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw
