"""The file of a state segment: whose it is, who has it, and the texts in it.

What is in it beside that is state.py's and netstate.py's.  Any thread and any process.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from errno import EBUSY, EINVAL, EMFILE, ENFILE, ENOMEM
from typing import Any

from xbbd_bsd.errors import HostError
from xbbd_bsd.native._xbb import ffi, lib


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
