"""What a host has only once, of which disks may have a part.

What differs between hosts is told by them; the rest any POSIX system says in the
same words.  Control thread.
"""

import os
import resource
from dataclasses import dataclass
from typing import Final

_MOST_DESCRIPTORS: Final = 1 << 30  # where there is no limit


@dataclass(frozen=True, slots=True)
class Resources:
    """All that there is, others' part included.

    `event_channels` of our domain; `threads` that a process may have; `descriptors`
    of our own process; `memory`: bytes.
    """

    event_channels: int
    threads: int
    descriptors: int
    memory: int


def resources(*, event_channels: int, threads: int) -> Resources:
    """Of this process as it is now, on a host that says the rest."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        descriptors = _MOST_DESCRIPTORS
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Resources(event_channels, threads, descriptors, memory)
