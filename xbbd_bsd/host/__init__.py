"""What differs between the places we run in: FreeBSD, Linux, a simulated machine.

The interfaces that each of them fills; which one it is, choice.py decides, and nobody
here knows.  Control thread.
"""

import os
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host.resources import Resources

MediumName = Callable[[bytes], bytes]
"""From the value of a node that names a medium to the medium's path; OperatorError."""


class NoXen(OperatorError):
    """This computer does not run under Xen, so that there is nobody to serve."""


def path_itself(value: bytes) -> bytes:
    """Of the node physical-device-path, which hotplug scripts write as it is."""
    return value


class Medium(Enum):
    """What stands behind a disk's descriptor; of a server that is none of its own."""

    FILE = "file"
    DEVICE = "device"
    SERVER = "nbd"
    CLUSTER = "rbd"


@dataclass(frozen=True, slots=True)
class DiskGeometry:
    """A disk's measures, all in bytes; files have sectors of 512.

    `durable`: what is written is safe at once, so that there is nothing to flush.
    `flushes`: it can be told to flush, as was tried; it is not asked if it is only read.
    `aligned`: a transfer is whole sectors in one piece of aligned memory.
    `discard`: granularity and alignment of discarding, None if it cannot.
    `discard_secure`: that can be beyond recovery.
    `backing`: of a device that is made of another disk, what that is told apart by (Key in
    block/disk.py); None if it is not, or not known to be.
    `cdrom`, `removable`: what the system says of the device.
    """

    medium: Medium
    size: int
    sector_size: int
    physical_sector_size: int
    durable: bool = False
    flushes: bool = True
    aligned: bool = False
    discard: tuple[int, int] | None = None
    discard_secure: bool = False
    backing: tuple[str, int, int] | None = None
    cdrom: bool = False
    removable: bool = False


@dataclass(frozen=True, slots=True)
class RingDescriptors:
    """What a ring needs of the hypervisor; the caller owns both and closes them."""

    grants: int
    events: int


@dataclass(frozen=True, slots=True)
class Links:
    """What interfaces of network cards are like.

    `prefix`: of their names, before the guest's number.  `multi`: whether one can have
    several queues.  `offload`: what "auto" stands for (config.NetConfig).  `told`: whether
    a hotplug script says in the node hotplug-status that it has seen to one.
    """

    prefix: str
    multi: bool
    offload: str
    told: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """The user at the other end of a local socket, and all groups that are known of it."""

    uid: int
    gids: frozenset[int]


class Place(Protocol):
    """Where a process is put when it is started; see native.processes, which does that."""

    def fileno(self) -> int:
        """A file that the process writes 0 to."""

    def close(self) -> None:
        """Close that file."""

    def remove(self) -> None:
        """The process has ended, or there is none."""


class Quotas(Protocol):
    """How an operating system limits the processor time of processes.  Any thread."""

    def check(self, pid: int | None) -> None:
        """That a process could limit those that it starts; OperatorError, with what to do.

        `pid` None: one that is not there yet, of which less is known.
        """

    def prepare(self, percent: int) -> None:
        """Before the first process is started, or forked from: see that they can be limited.

        And take away what is left of others.  `percent` 0: no limit is wanted so far.
        OperatorError, HostError.
        """

    def place(self, domid: int, percent: int) -> Place | None:
        """Where the process of a guest is to be so that it has that limit; HostError.

        None: anywhere, since it sees to that itself, or there is no limit.
        """


class Platform(Protocol):
    """An operating system: one module of this package each."""

    @property
    def links(self) -> Links:
        """What interfaces of network cards are like here."""

    def prepare_disk(self, fd: int) -> DiskGeometry:
        """Make an open file or disk device ready for I/O and measure it.

        OperatorError if it is neither, HostError.
        """

    def xen(self) -> "Host":
        """This computer's Xen; OperatorError, with what to do, if it is not to be had.

        NoXen if there is none.
        """

    def disk_size(self, fd: int) -> int:
        """How large an open disk is now, bytes; HostError, with ENXIO of one that is gone."""

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        """Keep other programs off an open disk: writers, or all but us if we write.

        As far as this system has a custom for that.  A descriptor to be held beside the
        disk and closed after it, None if the disk's own holds the lock.  OperatorError if
        somebody is there.
        """

    def peer(self, channel: socket.socket) -> Peer:
        """Who is at the other end of a Unix socket, as the kernel says; OSError."""

    def most_threads(self) -> int:
        """How many a process may have."""

    def processors(self) -> frozenset[int]:
        """Numbers of those that a process of ours may be given; HostError."""

    def quotas(self) -> Quotas:
        """How the processor time of processes is limited."""


class Host(Protocol):
    """An operating system under a hypervisor."""

    @property
    def name(self) -> str:
        """For people, e.g. "sim:/tmp/m"."""

    @property
    def hv(self) -> int:
        """The data path's number for this hypervisor (native.HvKind)."""

    @property
    def store_path(self) -> str:
        """The socket of XenStore's daemon."""

    @property
    def media(self) -> Mapping[str, MediumName]:
        """Nodes by which the hotplug script of this system names a medium, best first."""

    @property
    def transports(self) -> Collection[str]:
        """The ways in which data can move here, as the key transport has them."""

    @property
    def resources(self) -> Resources:
        """What there is only once, as of now."""

    def check_kinds(self, kinds: Collection[str]) -> None:
        """Before those kinds of backend are served: OperatorError if somebody else would be first.

        HostError.
        """

    @property
    def links(self) -> Links:
        """As Platform's."""

    @property
    def grant_path(self) -> str:
        """The grant device, where only the process that opened it may map; "" elsewhere."""

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        """Descriptors for a ring with that domain's event channel.

        `grants`: that of another ring of the domain's, which shall do for this one too, below 0
        for one of its own.  An event channel's is never shared: whoever reads it takes what is
        there, for whichever ring that is.
        HostError, or GuestError if the guest has no such port.
        """

    def prepare_disk(self, fd: int) -> DiskGeometry:
        """As Platform's."""

    def disk_size(self, fd: int) -> int:
        """As Platform's."""

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        """As Platform's."""


def control_path(state_dir: str) -> str:
    """The control socket of a daemon with that directory."""
    return os.path.join(state_dir, "control")
