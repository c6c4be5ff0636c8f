"""Servers of NBD: what one has, and how a ring is given a connection to it.

Whoever may connect does so; here a connection is a descriptor.  Any thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from errno import ENOENT, EPROTO
from typing import Any, Final

from xbbd_bsd.errors import HostError, OperatorError, shown
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import DiskKind, check, put_text

MOST_NAME: Final[int] = lib.XBB_NBD_NAME - 1  # bytes of an export's
MOST_PATH: Final[int] = lib.XBB_NBD_PATH - 1


class LinkState(IntEnum):
    """Of the connection that a store is reached over; WANTED: somebody is to make one."""

    NONE = lib.XBB_LINK_NONE
    WANTED = lib.XBB_LINK_WANTED
    BEGUN = lib.XBB_LINK_BEGUN
    READY = lib.XBB_LINK_READY


@dataclass(frozen=True, slots=True)
class StoreLink:
    """A connection as it is, since when (CLOCK_MONOTONIC), and why the last one ended (errno).

    ``unflushed``: bytes that are kept to be written again.
    """

    state: LinkState | int
    errno: int
    since_ns: int
    unflushed: int


@dataclass(frozen=True, slots=True)
class NbdExport:
    """What a server is asked for; of TLS where its keys are, "" if that is not said."""

    name: str
    tls: bool = False
    certificates: str = ""
    psk_file: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class NbdFound:
    """What a server has; bytes.  ``minimum``, ``preferred``: of a block."""

    size: int
    minimum: int
    preferred: int
    read_only: bool
    can_flush: bool
    can_trim: bool


def load_nbd() -> None:
    """Have libnbd loaded; HostError if there is none, or one that is too old."""
    result = int(lib.xbb_nbd_load())
    if result == -ENOENT:
        raise HostError("libnbd.so.0 is not installed, or cannot be loaded", ENOENT)
    if result < 0:
        raise HostError("libnbd.so.0 is too old: it lacks what is needed", -result)


def look_at_export(fd: int, export: NbdExport, *, limit: float) -> NbdFound:
    """What is at the other end of a connected socket, which is closed.

    Waits for `limit` seconds; OperatorError in words of the server's and libnbd's.
    """
    found = ffi.new("struct xbb_nbd_found *")
    result = lib.xbb_nbd_look(fd, c_export(export), int(limit * 1000), found)
    if result < 0:
        words = ffi.string(found.words).decode("utf-8", "replace")
        raise OperatorError(shown(words) or os.strerror(-result), EPROTO)
    return NbdFound(
        int(found.size),
        int(found.minimum),
        int(found.preferred),
        bool(found.read_only),
        bool(found.can_flush),
        bool(found.can_trim),
    )


KEPT_SIZE: Final[int] = lib.XBB_KEPT_SIZE
"""Bytes of the file where a queue leaves what its server has acknowledged, and not flushed."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Such a file, -1 for none; how much is in it (StoreLink), and how large the disk is."""

    fd: int
    unflushed: int
    size: int


def carry_to_disk(kept: Kept, fd: int, kind: DiskKind) -> None:
    """Have what was kept on another disk, which is flushed; HostError."""
    target = {"size": kept.size, "fd": fd, "disk_kind": kind}
    _carry(kept, ffi.new("struct xbb_kept_target *", target))


def carry_to_server(kept: Kept, fd: int, export: NbdExport, *, limit: float) -> None:
    """Likewise, at the other end of a connected socket, which is closed; HostError."""
    target = ffi.new(
        "struct xbb_kept_target *",
        {"size": kept.size, "fd": fd, "disk_kind": DiskKind.NBD, "limit_ms": int(limit * 1000)},
    )
    target.wanted = c_export(export)[0]
    _carry(kept, target)


def _carry(kept: Kept, target: Any) -> None:
    result = int(lib.xbb_kept_carry(kept.fd, kept.unflushed, target))
    check(result, "write what the disk before it had acknowledged, and flush it")


def c_export(export: NbdExport) -> Any:
    """As C has it; OperatorError if it has no room for a name."""
    c = ffi.new("struct xbb_nbd_export *")
    c.tls = export.tls
    fields = (
        (c.name, export.name),
        (c.certificates, export.certificates),
        (c.psk_file, export.psk_file),
        (c.user, export.user),
    )
    for field, text in fields:
        put_text(field, text, "name")
    return c
