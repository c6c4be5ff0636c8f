"""A process as the kernel has it: how much memory it has, and for how long it has lived.

The kernel is asked and never the process, which may be an adversary: nothing here is what
somebody says of himself.  What the process does is not known here.  Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from xbbd_bsd.native._xbb import ffi, lib

ffi.new("struct xbb_process *")  # fails at import if the header does not fit

# FreeBSD's says when one began by another clock than it goes by itself.
_SAME_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Vitals:
    """Resident memory in KiB, and whole seconds since it began."""

    rss_kb: int
    age: int


class Process:
    """A process that there is now, and not the next one that has its number."""

    def __init__(self, pid: int) -> None:
        """By its number; 0: it is not known."""
        self.pid = pid
        self._first = _look(pid)

    @classmethod
    def behind(cls, fd: int) -> Process:
        """The one that a connected socket leads to; of one that listened, who did so last."""
        pid, uid = ffi.new("int32_t *"), ffi.new("uint32_t *")
        return cls(int(pid[0]) if lib.xbb_peer(fd, pid, uid) == 0 else 0)

    def look(self) -> Vitals | None:
        """What it has now; None once it has ended, or if the kernel does not tell."""
        found = _look(self.pid)
        if found is None or self._first is None:
            return None
        if abs(int(found.began_ms) - int(self._first.began_ms)) >= _SAME_MS:
            return None
        return Vitals(int(found.rss_kb), int(found.age_ms) // 1000)


def _look(pid: int) -> Any | None:
    found = ffi.new("struct xbb_process *")
    return found if pid > 0 and lib.xbb_process_look(pid, found) == 0 else None
