"""Limits of what may be done in a second: their names, and the words that several disks share.

What a limit is, and how it is kept to, is the data plane's.  Any thread and any process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import IntEnum
from errno import EINVAL, ESTALE
from typing import Any, Final

from xbbd_bsd.errors import HostError
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import check

ffi.new("struct xbb_rate_file *")  # fails at import if the header does not fit

RATES: Final = (
    *("iops_max", "bytes_max", "read_iops_max", "read_bytes_max"),
    *("write_iops_max", "write_bytes_max", "burst_ms"),
)
"""By their numbers: the kinds of `enum xbb_rate_kind`, then the burst of all of them."""


class Level(IntEnum):
    """Whose limits those are."""

    DISK = lib.XBB_RATE_DISK
    GUEST = lib.XBB_RATE_GUEST
    GROUP = lib.XBB_RATE_GROUP


SHARED: Final = (Level.GUEST, Level.GROUP)
"""The levels whose words are others' as well."""

_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class SharedRates:
    """The words of a guest, or of a group, in a file that all have whose disks go by them."""

    def __init__(self, path: str) -> None:
        """Map the file, which is made if there is none, or none that is like ours.

        OSError, HostError.
        """
        self.path = path
        fd = _opened(path)
        pointer = ffi.new("struct xbb_rate_words **")
        try:
            check(lib.xbb_rate_map(fd, pointer), f"map {path}")
            self._key = _key(fd)
        finally:
            os.close(fd)
        self._words = pointer[0]

    def open(self) -> int:
        """A descriptor of the file, for whoever else shall map it; OSError, HostError."""
        fd = os.open(self.path, _FLAGS)
        if _key(fd) != self._key:
            os.close(fd)
            raise HostError(f"{self.path} is another file than it was", ESTALE)
        return fd

    @property
    def words(self) -> Any:
        """The C struct, which stays until `close`."""
        return self._words

    def close(self) -> None:
        """Unmap it; no queue may go by it any more.  The file stays."""
        lib.xbb_rate_unmap(self._words)


def _key(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _opened(path: str) -> int:
    try:
        fd = os.open(path, _FLAGS)
        if _is_one(fd):
            return fd
        os.close(fd)
        os.unlink(path)
    except FileNotFoundError:
        pass
    fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        check(lib.xbb_rate_format(fd), f"make {path}")
    except HostError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _is_one(fd: int) -> bool:
    pointer = ffi.new("struct xbb_rate_words **")
    error = lib.xbb_rate_map(fd, pointer)
    if error == -EINVAL:
        return False
    check(error, "map limits")
    lib.xbb_rate_unmap(pointer[0])
    return True


NOT_SHARED: Final[Mapping[Level, SharedRates]] = {}
"""A disk that goes by its own words alone."""
