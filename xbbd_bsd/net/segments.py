"""A card's state segment, from its making to its end: a file in the daemon's directory.

What is in it is the data path's, but for whose card it is about.  Beside it lies what its
interface is called, in a file that no process which serves a guest can write: whoever
follows may have to remove that interface, and shall remove no other.  Control thread.
"""

import os
from contextlib import suppress
from typing import Final

from xbbd_bsd import passportfiles
from xbbd_bsd.native import NET_INTERFACE_NAME, NetState, SegmentIdentity
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.segmentfiles import about_segment, remove_file, segment_path
from xbbd_bsd.xenbus.family import Identity

SUFFIX: Final = ".interface"  # of that file's name, after the segment's


def make_segment(directory: str, identity: Identity, machine: str, queues: int) -> NetState:
    """A fresh one, in place of what an earlier daemon left; HostError.

    `machine`: the virtual machine that the guest is, "" if unknown.
    """
    path = segment_path(directory, DRIVER.name, identity.unit)
    whose = SegmentIdentity(identity.kind, identity.domid, identity.number, identity.unit, machine)
    with about_segment(f"unable to make the state segment {path}"):
        return NetState.create(path, queues=queues, identity=whose)


def look_at_segment(path: str) -> NetState:
    """One that somebody has, or had; HostError."""
    with about_segment(path):
        return NetState.open(path)


def name_interface(segment: NetState, name: str) -> None:
    """Note what the interface is called; HostError."""
    path = segment.path + SUFFIX
    with about_segment(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(os.fsencode(name))
    segment.interface = name


def named_interface(segment: NetState) -> str:
    """What it is called; a daemon that has left no such file served its cards itself."""
    return interface_beside(segment.path) or segment.interface


def interface_beside(path: str) -> str:
    """What that of a segment is called by the file beside it; "" if there is none."""
    try:
        fd = os.open(path + SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return os.fsdecode(file.read(NET_INTERFACE_NAME))
    except OSError:
        return ""


def remove_segment(segment: NetState) -> None:
    """Unmap it, and remove its file."""
    segment.close()
    remove_left(segment.path)


def remove_left(path: str) -> None:
    """Remove the file of one, and what was noted beside it."""
    remove_file(path)
    remove_file(path + SUFFIX)
    passportfiles.remove(path)
