"""Images in a cluster of Ceph: opened, measured, closed; by librbd.

An open image is a descriptor, which is the disk of a queue.  Any thread that may wait for
the cluster.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from errno import ENOENT
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError, shown
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import check, put_text
from xbbd_bsd.native.segment import text_of

MOST_NAME: Final[int] = lib.XBB_RBD_NAME - 1  # bytes of a name, or of a path


@dataclass(frozen=True, slots=True)
class RbdImage:
    """Which image, and as which client; "" is no namespace, no snapshot, and what librados takes.

    ``timeout``: seconds to reach the cluster.
    """

    pool: str
    image: str
    space: str = ""
    snapshot: str = ""
    conf: str = ""
    id: str = ""
    keyring: str = ""
    timeout: int = 30


@dataclass(frozen=True, slots=True)
class RbdFound:
    """An image that is open, ``fd``; bytes.

    ``unit``: of what the cluster keeps together.  ``identity``: what it is told apart by,
    whatever it is called.  ``holder``: what the cluster calls us, who have its lock; "" if
    we have none.
    """

    fd: int
    size: int
    unit: int
    identity: str
    holder: str


def load_rbd() -> None:
    """Have librbd loaded; HostError if there is none, or one that is too old."""
    result = int(lib.xbb_rbd_load())
    if result == -ENOENT:
        raise HostError(
            "librbd.so.1 is not installed, or cannot be loaded (Debian: apt-get install librbd1)",
            ENOENT,
        )
    if result < 0:
        raise HostError("librbd.so.1 is older than Ceph 15, and lacks what is needed", -result)


def open_image(
    image: RbdImage, *, read_only: bool, shared: bool = False, former: str = ""
) -> RbdFound:
    """Open an image; who writes has its lock, which no other client gets.  OperatorError.

    ``shared``: others may write, too.  ``former``: who had the lock and is dead, as
    ``holder`` was; whatever he has sent and is not done yet will not be.
    """
    wanted = ffi.new("struct xbb_rbd_wanted *")
    wanted.read_only, wanted.shared, wanted.timeout = read_only, shared, image.timeout
    for name in ("pool", "space", "image", "snapshot", "conf", "id", "keyring"):
        part = "namespace" if name == "space" else name
        put_text(getattr(wanted, name), getattr(image, name), part)
    put_text(wanted.former, former, "client")
    found = ffi.new("struct xbb_rbd_found *")
    fd = int(lib.xbb_rbd_open(wanted, found))
    if fd < 0:
        words = shown(text_of(found.words))
        if not found.explained:
            words = f"{words or 'it cannot be opened'}: {os.strerror(-fd)}"
        raise OperatorError(words, -fd)
    identity = f"{text_of(found.fsid)}/{found.pool_id}/{image.space}/{text_of(found.id)}"
    return RbdFound(
        fd,
        int(found.size),
        int(found.unit),
        f"{identity}@{image.snapshot}",
        text_of(found.holder),
    )


def close_image(fd: int) -> None:
    """Close one; what is at the cluster still is waited for, as long as that takes."""
    lib.xbb_rbd_close(fd)


def image_size(fd: int) -> int:
    """Its size now, bytes; HostError.  As long as the cluster takes, if it has news."""
    size = ffi.new("uint64_t *")
    check(lib.xbb_rbd_size(fd, size), "measure the image")
    return int(size[0])
