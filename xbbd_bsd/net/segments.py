"""A card's state segment, from its making to its end: a file in the daemon's directory.

What is in it is the data path's, but for whose card it is about.  Control thread.
"""

from xbbd_bsd.native import NetState, SegmentIdentity
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.segmentfiles import about_segment, remove_file, segment_path
from xbbd_bsd.xenbus.family import Identity


def make_segment(directory: str, identity: Identity, machine: str, queues: int) -> NetState:
    """A fresh one, in place of what an earlier daemon left; HostError.

    `machine`: the virtual machine that the guest is, "" if unknown.
    """
    path = segment_path(directory, DRIVER.name, identity.unit)
    whose = SegmentIdentity(identity.kind, identity.domid, identity.number, identity.unit, machine)
    with about_segment(f"unable to make the state segment {path}"):
        return NetState.create(path, queues=queues, identity=whose)


def inherit_segment(path: str) -> NetState:
    """One that somebody left who is gone; HostError, with EBUSY as long as he is not."""
    with about_segment(path):
        return NetState.take_over(path)


def look_at_segment(path: str) -> NetState:
    """One that somebody has, or had; HostError."""
    with about_segment(path):
        return NetState.open(path)


def remove_segment(segment: NetState) -> None:
    """Unmap it, and remove its file."""
    segment.close()
    remove_file(segment.path)
