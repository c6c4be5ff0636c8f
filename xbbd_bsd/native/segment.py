"""A state segment of any family: its file, whose it is, who has it, and what all of them say.

What is in it beside that is state.py's and netstate.py's.  Any thread and any process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EBUSY, EINVAL, EMFILE, ENFILE, ENOMEM
from typing import Any, ClassVar, Self

from xbbd_bsd.errors import HostError
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import QueueState, check

COMMON_COUNTERS: tuple[str, ...] = tuple(
    name for name, _ in ffi.typeof("struct xbb_common_counters").fields
)


@dataclass(frozen=True, slots=True)
class SegmentIdentity:
    """Whose device a segment is about, for whoever finds it after us.

    `kind`: the backend directory's name, up to 31 bytes; `domid` and `number`: the
    device there; `unit`: our number of it.  32 bits each, without sign.  `machine`: the
    virtual machine that the guest is ("/vm/UUID"), cut after 63 bytes, "" if unknown.
    """

    kind: str
    domid: int
    number: int
    unit: int
    machine: str = ""


NOBODYS = SegmentIdentity("", 0, 0, 0)
"""Of a segment that is about no device of the store's."""


@dataclass(frozen=True, slots=True)
class SegmentMedium:
    """Whose disk a segment is about.

    `key`: "file" or "device", device number, inode (0 of a device), as the kernel
    tells disks apart; path and guest are for people, and may be cut.  `shared`: others
    may have the disk as well.
    """

    key: tuple[str, int, int]
    path: str
    guest: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Takeovers:
    """How often one who served a device died and another went on.

    ``longest_ns``: of the requests in flight then, the longest that one had waited.
    """

    count: int
    longest_ns: int


def lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HostError(f"whoever serves {path} has not ended", EBUSY) from None


def unlock(fd: int) -> None:
    """Let go, and close: the descriptor alone would not, while the file is mapped."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def remove(path: str) -> None:
    """Remove a file, unless somebody has it locked; OSError, HostError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in (EMFILE, ENFILE, ENOMEM):
            raise
        os.unlink(path)  # none that could be locked: a link, say
        return
    try:
        lock(fd, path)
        os.unlink(path)
    finally:
        os.close(fd)


def cut(text: str, size: int) -> bytes:
    """As it lies in so many bytes, the last of which is NUL."""
    return os.fsencode(text)[: size - 1].ljust(size, b"\0")


def text_of(field: object) -> str:
    return os.fsdecode(bytes(ffi.buffer(field)).partition(b"\0")[0])


def make(path: str) -> int:
    """A fresh file, mode 0600 and locked, in place of an old one; OSError or HostError."""
    remove(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return _locked(fd, path)


def take(path: str) -> int:
    """The file of one that is gone, locked; OSError, HostError with EBUSY if it is not gone."""
    return _locked(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), path)


def look(path: str, *, writable: bool) -> int:
    """The file of somebody else's, not locked; OSError."""
    flags = os.O_RDWR if writable else os.O_RDONLY
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _locked(fd: int, path: str) -> int:
    try:
        lock(fd, path)
    except HostError:
        os.close(fd)
        raise
    return fd


def c_identity(identity: SegmentIdentity, path: str) -> Any:
    """As C wants it, for the segment at a path; HostError if its kind is too long."""
    kind = os.fsencode(identity.kind)
    if len(kind) >= lib.XBB_KIND_NAME:
        raise HostError(f"make state segment {path}: {identity.kind} is too long", EINVAL)
    return ffi.new(
        "struct xbb_identity *",
        {
            "kind": kind.ljust(lib.XBB_KIND_NAME, b"\0"),
            "domid": identity.domid,
            "number": identity.number,
            "unit": identity.unit,
            "machine": cut(identity.machine, lib.XBB_MACHINE_NAME),
        },
    )


def identity_in(head: Any) -> SegmentIdentity:
    """Whose device it is about, as it stands in the head."""
    found = head.identity
    return SegmentIdentity(
        text_of(found.kind), found.domid, found.number, found.unit, text_of(found.machine)
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """A family's segment in C: its struct, what is called for it, and names in it.

    `counters`: the family's own, beside those of any ring.
    """

    struct: str
    map: Callable[..., int]
    unmap: Callable[[Any], None]
    is_damaged: Callable[[Any], int]
    count_rings: Callable[[Any], int]
    counters: tuple[str, ...]
    tunables: tuple[str, ...]


class MappedSegment:
    """A mapped state segment.  Use `create`, :meth:`take_over` or :meth:`open`.

    Whoever serves its device has the file locked (flock(2)): a lock that is free says that
    no thread of theirs is in a system call any more, be it alive or not.
    """

    _SHAPE: ClassVar[Shape]

    def __init__(self, path: str, fd: int, *, writable: bool, locked: bool = False) -> None:
        """Map the segment behind ``fd``, which is ours; :class:`HostError` if it is none.

        ``locked``: it holds the lock, and is kept for that.
        """
        self.path = path
        self._lock = -1
        pointer = ffi.new(f"struct {self._SHAPE.struct} **")
        try:
            check(self._SHAPE.map(fd, writable, pointer), f"map state segment {path}")
            if locked:
                self._lock, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        self._state = pointer[0]

    @classmethod
    def _made(cls, path: str, identity: SegmentIdentity, form: Callable[[int, Any], int]) -> Self:
        """A fresh file, mode 0600, in place of an old one; OSError or HostError.

        `form` makes a segment of it.  An old one that somebody still serves is left alone:
        HostError with EBUSY.
        """
        c = c_identity(identity, path)
        fd = make(path)
        try:
            check(form(fd, c), f"make state segment {path}")
        except HostError:
            os.close(fd)
            raise
        return cls(path, fd, writable=True, locked=True)

    @classmethod
    def take_over(cls, path: str) -> Self:
        """Map the segment of one that served a device and is gone; OSError or HostError.

        EBUSY if it is not gone, as when a disk does not let go of its threads.
        """
        return cls(path, take(path), writable=True, locked=True)

    @classmethod
    def open(cls, path: str, *, writable: bool = False) -> Self:
        """Map a segment that a daemon made; OSError or :class:`HostError` if there is none."""
        return cls(path, look(path, writable=writable), writable=writable)

    @property
    def identity(self) -> SegmentIdentity:
        """Whose device it is about, as it stands there."""
        return identity_in(self._state.head)

    @property
    def handle(self) -> Any:
        """The C struct, for the queue that works on it."""
        return self._state

    @property
    def damaged(self) -> bool:
        """Whether a part of the file was missing; numbers mean nothing then."""
        return bool(self._SHAPE.is_damaged(self._state))

    @property
    def rings(self) -> int:
        """How many rings, or queues, the segment has room for."""
        return int(self._SHAPE.count_rings(self._state))

    def _rings(self, ring: int | None) -> range:
        return range(self.rings) if ring is None else range(ring, ring + 1)

    def counters(self, ring: int | None = None) -> dict[str, int]:
        """All counters by name, of one ring or added up."""
        rings = [self._state.ring[i] for i in self._rings(ring)]
        own = [r.counters for r in rings]
        common = [r.common.counters for r in rings]
        return {name: sum(int(getattr(c, name)) for c in own) for name in self._SHAPE.counters} | {
            name: sum(int(getattr(c, name)) for c in common) for name in COMMON_COUNTERS
        }

    def count_on(self, counters: Mapping[int, Mapping[str, int]]) -> None:
        """Begin with these, by ring; names that are none of ours are left out."""
        ours = {*self._SHAPE.counters, *COMMON_COUNTERS}
        for ring in counters.keys() & set(range(self.rings)):
            r = self._state.ring[ring]
            for name in counters[ring].keys() & ours:
                group = r.common.counters if name in COMMON_COUNTERS else r.counters
                setattr(group, name, counters[ring][name] % (1 << 64))

    def tunables(self) -> dict[str, int]:
        """The tunables by name."""
        return {name: int(getattr(self._state.tunables, name)) for name in self._SHAPE.tunables}

    def set_tunable(self, name: str, value: int) -> None:
        """Change a tunable (32-bit signed); the data plane sees it at its next use.

        Raises KeyError for a name that is no tunable, OverflowError beyond 32 bits.
        """
        if name not in self._SHAPE.tunables:
            raise KeyError(name)
        lib.xbb_tunable_set(ffi.addressof(self._state.tunables, name), value)

    @property
    def served(self) -> list[int]:
        """The rings that somebody serves, or served when he died."""
        return [n for n in range(self.rings) if self._state.ring[n].common.connected]

    @property
    def ending(self) -> bool:
        """Whether some of its guest's rings have ended, or are about to."""
        states = [self._state.ring[n].common.status.state for n in self.served]
        whole = len(states) == self._state.connection_rings
        return not whole or any(state != QueueState.RUNNING for state in states)

    @property
    def connection_rings(self) -> int:
        """On how many rings its guest was served last; at most as many as it has room for."""
        return min(int(self._state.connection_rings), self.rings)

    def connect(self, rings: int) -> None:
        """A guest is about to be served on so many rings."""
        self._state.connection_rings = rings

    def close(self) -> None:
        """Unmap, and let go of the lock.  The file stays; harmless if done before."""
        if self._state is not None:
            self._SHAPE.unmap(self._state)
            self._state = None
        self.unlock()

    def unlock(self) -> None:
        """Let go of the lock: somebody else is to serve the device.  Harmless without one."""
        if self._lock >= 0:
            unlock(self._lock)
            self._lock = -1
