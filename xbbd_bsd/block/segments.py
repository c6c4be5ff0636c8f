"""A device's state segment, from its making to its end: a file in the daemon's directory.

What is in it is the data path's, but for whose device it is about; how large it has to
be, the configuration's.
Control thread.
"""

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.block.queues import requests_of_order
from xbbd_bsd.config import DiskConfig
from xbbd_bsd.native import SegmentIdentity, State
from xbbd_bsd.segmentfiles import about_segment, remove_file, segment_path
from xbbd_bsd.xenbus.family import Identity


def make_segment(
    directory: str,
    identity: Identity,
    machine: str,
    config: DiskConfig,
    *,
    rings: int = 0,
    entries: int = 0,
) -> State:
    """A fresh one, in place of what an earlier daemon left; HostError.

    `machine`: the virtual machine that the guest is, "" if unknown.  It has room for so many
    rings and requests on each, whatever is configured.
    """
    path = segment_path(directory, DRIVER.name, identity.unit)
    with about_segment(f"unable to make the state segment {path}"):
        return State.create(
            path,
            rings=max(config.max_queues, rings),
            table_entries=max(requests_of_order(config.max_ring_page_order), entries),
            identity=SegmentIdentity(
                identity.kind, identity.domid, identity.number, identity.unit, machine
            ),
        )


def remove_segment(segment: State) -> None:
    """Unmap it, and remove its file."""
    segment.close()
    remove_file(segment.path)
