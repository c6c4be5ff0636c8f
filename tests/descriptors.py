"""What this process has open, asked in a way that every system answers.

FreeBSD shows only three descriptors in /dev/fd, however many there are, unless
fdescfs is mounted there.
"""

from __future__ import annotations

import fcntl


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
