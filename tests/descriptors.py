"""What this process has open, asked in a way that every system answers; and all that it may.

FreeBSD shows only three descriptors in /dev/fd, however many there are, unless
fdescfs is mounted there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from collections.abc import Iterator


def open_descriptors() -> set[int]:
    """The descriptors below 256 that are open."""
    found = set()
    for number in range(256):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        found.add(number)
    return found


@contextlib.contextmanager
def no_descriptors(*, but: int = 0) -> Iterator[None]:
    """This process can open nothing more, `but` so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(but):
            os.close(held.pop())
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
