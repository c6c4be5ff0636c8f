"""Linux: what its disks are like, and Xen's devices in its dom0.

Who opened a disk is not known here, nor what travels on a ring.  Rules are
those of xen-blkback and of Xen's hotplug scripts for Linux.  Control thread.
"""

import errno
import fcntl
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError, printable
from xbbd_bsd.host import (
    DiskGeometry,
    Host,
    Links,
    Medium,
    MediumName,
    NoXen,
    Peer,
    Quotas,
    RingDescriptors,
    path_itself,
)
from xbbd_bsd.host.cgroups import Cgroups, mounted_at
from xbbd_bsd.host.files import refuse_pseudo
from xbbd_bsd.host.linux_locks import claim_device, lock_file, loop_backing
from xbbd_bsd.host.resources import Resources, resources
from xbbd_bsd.native import PAGE_SIZE, DiskKind, HvKind, can_flush, can_punch

# linux/fs.h, the same on amd64 and arm64.
BLKSSZGET: Final = 0x1268  # int: logical sector, bytes
BLKPBSZGET: Final = 0x127B  # unsigned int: physical sector, bytes
BLKGETSIZE64: Final = 0x80081272  # uint64_t: bytes
BLKSECDISCARD: Final = 0x127D  # uint64_t[2]: offset and length, bytes
BLKFLSBUF: Final = 0x1261  # none: write back and forget what is cached
CDROM_GET_CAPABILITY: Final = 0x5331  # linux/cdrom.h; none: only drives have an answer

# xen/evtchn.h: a domain in, the port as result.
BIND_UNBOUND_PORT: Final = 0x00044502

SO_PEERGROUPS: Final = 59  # asm-generic/socket.h: gid_t of each supplementary group
_UCRED: Final = struct.Struct("@iII")  # linux/socket.h: pid, uid, gid
_MOST_GROUPS: Final = 256
_MOST_PROCESSORS: Final = 1024  # sched.h: CPU_SETSIZE

# xen/event_channel.h: EVTCHN_FIFO_NR_CHANNELS.
EVENT_CHANNELS: Final = 131_072

GNTDEV: Final = "/dev/xen/gntdev"
GNTALLOC: Final = "/dev/xen/gntalloc"
EVTCHN: Final = "/dev/xen/evtchn"
TUN: Final = "/dev/net/tun"
NETBACK: Final = "/sys/bus/xen-backend/drivers/vif"  # there as long as it is loaded
XENSTORED: Final = "/run/xenstored/socket"


class Linux:
    """Platform of Linux."""

    links = Links("vif", multi=True, offload="full", told=True)

    def prepare_disk(self, fd: int) -> DiskGeometry:
        """Measure it, and have I/O of a device go past the page cache, as on FreeBSD.

        What is in that cache is written back and forgotten, as xen-blkback does.
        OperatorError, HostError.
        """
        status = os.fstat(fd)
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if stat.S_ISREG(status.st_mode):
            refuse_pseudo(fd)
            holes = writable and makes_holes(fd)
            return DiskGeometry(
                Medium.FILE,
                status.st_size,
                512,
                512,
                discard=(status.st_blksize, 0) if holes else None,
            )
        if not stat.S_ISBLK(status.st_mode):
            raise OperatorError("it is neither a regular file nor a disk", errno.EINVAL)
        geometry = DiskGeometry(
            Medium.DEVICE,
            _ask(fd, BLKGETSIZE64, "Q"),
            _ask(fd, BLKSSZGET, "i"),
            _ask(fd, BLKPBSZGET, "I"),
            backing=loop_backing(fd, status.st_rdev),
            cdrom=is_cdrom(fd),
            removable=is_removable(status.st_rdev),
        )
        if writable:
            geometry = replace(
                geometry,
                discard=discard_limits(status.st_rdev),
                discard_secure=can_erase(fd),
                flushes=can_flush(fd, DiskKind.DEVICE),
            )
        with suppress(OSError):  # not every driver has anything to forget
            fcntl.ioctl(fd, BLKFLSBUF, 0)
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError:  # a device that cannot is served all the same
            return geometry
        with suppress(OSError):  # when its node was read last nobody asks
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT | os.O_NOATIME)
        return replace(
            geometry,
            durable=not has_write_cache(status.st_rdev),
            # Then each piece of memory would have to be a whole sector too.
            aligned=geometry.sector_size > 512,
        )

    def disk_size(self, fd: int) -> int:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        size = _ask(fd, BLKGETSIZE64, "Q")
        if size == 0:  # of a device that was detached or pulled out while it was open
            raise HostError("the device is gone", errno.ENXIO)
        return size

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        """A file as QEMU does; a device that we write is ours alone."""
        if stat.S_ISREG(os.fstat(fd).st_mode):
            lock_file(fd, writable=writable)
            return None
        return claim_device(fd) if writable else None

    def peer(self, channel: socket.socket) -> Peer:
        ucred = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, gid = _UCRED.unpack(ucred)
        groups = channel.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _MOST_GROUPS)
        return Peer(uid, frozenset((gid, *memoryview(groups).cast("I"))))

    def most_threads(self) -> int:
        """Of the whole system, where each has a number of its own."""
        return min(_kernel_number("threads-max"), _kernel_number("pid_max"))

    def processors(self) -> frozenset[int]:
        """Those that run and that our control group has, whatever we are bound to.

        A thread that asks for all of them is given these, and ends with that.
        """
        found: set[int] = set()

        def ask() -> None:
            os.sched_setaffinity(0, range(_MOST_PROCESSORS))
            found.update(os.sched_getaffinity(0))

        thread = threading.Thread(target=ask, name="processors")
        try:
            thread.start()
        except RuntimeError as error:
            raise HostError(f"unable to ask which processors there are: {error}") from None
        thread.join()
        return frozenset(found)

    def quotas(self) -> Quotas:
        """By control groups."""
        return Cgroups(mounted_at())

    def xen(self) -> Host:
        """The Xen that we are a backend domain of; NoXen, or OperatorError without its drivers."""
        for path, module in ((GNTDEV, "xen-gntdev"), (EVTCHN, "xen-evtchn")):
            if not os.path.exists(path):
                missing = OperatorError if on_xen() else NoXen
                raise missing(
                    f"{path} is missing: not on Xen, or its driver is not loaded"
                    f" (modprobe {module}); --host sim:DIR needs neither"
                )
        return LinuxXen()


class LinuxXen:
    """Xen under Linux, as the daemon's host."""

    name = "Xen"
    hv = HvKind.XEN
    transports = ("best", "map", "copy")

    @property
    def store_path(self) -> str:
        """Where xenstored listens; XENSTORED_PATH, as libxenstore has it, says otherwise."""
        return os.environ.get("XENSTORED_PATH", XENSTORED)

    @property
    def media(self) -> Mapping[str, MediumName]:
        return {"physical-device-path": path_itself, "physical-device": device_of_number}

    @property
    def resources(self) -> Resources:
        return resources(event_channels=EVENT_CHANNELS, threads=PLATFORM.most_threads())

    def check_kinds(self, kinds: Collection[str]) -> None:
        """Refuse vif while the kernel's own backend takes every card, or without taps.

        Whether xen-blkback is loaded is left to the operator.  OperatorError.
        """
        if "vif" in kinds and not os.path.exists(TUN):
            raise OperatorError(f"cards want {TUN}: run modprobe tun", errno.ENOENT)
        if "vif" in kinds and os.path.isdir(NETBACK):
            raise OperatorError(
                "the kernel's own backend would take kind vif: run rmmod xen-netback, and see"
                " that it is not loaded at boot; or leave vif out (kinds in the configuration)",
                errno.EBUSY,
            )

    @property
    def links(self) -> Links:
        return PLATFORM.links

    @property
    def grant_path(self) -> str:
        return GNTDEV  # a mapping belongs to the memory of who opened it (gntdev.c)

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        """Fresh descriptors; what they are bound to is the data path's doing.  HostError."""
        device = _open(GNTDEV, os.O_RDWR) if grants < 0 else grants
        try:
            return RingDescriptors(device, _open(EVTCHN, os.O_RDWR | os.O_NONBLOCK))
        except HostError:
            if grants < 0:
                os.close(device)
            raise

    def prepare_disk(self, fd: int) -> DiskGeometry:
        return PLATFORM.prepare_disk(fd)

    def disk_size(self, fd: int) -> int:
        return PLATFORM.disk_size(fd)

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        return PLATFORM.lock_disk(fd, writable=writable)


class LinuxDomain:
    """The domain that we run in, as the home of frontends in user space."""

    hv = HvKind.XEN

    def __init__(self) -> None:
        """HostError if this is no Xen domain, or xen-gntalloc is not loaded."""
        self.grant_fd = _open(GNTALLOC, os.O_RDWR)
        self._ports: dict[int, int] = {}

    def unbound_port(self) -> tuple[int, int]:
        """A new event channel for dom0 to bind: its number, and our end's descriptor."""
        fd = _open(EVTCHN, os.O_RDWR | os.O_NONBLOCK)
        try:
            port = fcntl.ioctl(fd, BIND_UNBOUND_PORT, bytearray(struct.pack("I", 0)))
        except OSError as error:
            os.close(fd)
            raise HostError(f"no event channel: {error.strerror}", error.errno or 0) from None
        self._ports[port] = fd
        return port, fd

    def close_port(self, port: int) -> None:
        """Close an event channel."""
        os.close(self._ports.pop(port))

    def close(self) -> None:
        """Close everything; pages that a backend still maps stay until it lets go."""
        for port in list(self._ports):
            self.close_port(port)
        os.close(self.grant_fd)


def makes_holes(fd: int, descriptors: str = "/proc/self/fd") -> bool:
    """Whether holes can be made in files where an open one is; no, if that cannot be tried.

    Tried on a file without a name in the same directory: of the one that a guest
    has, nobody knows at that moment which bytes are data.
    """
    try:
        directory = os.path.dirname(os.readlink(f"{descriptors}/{fd}"))
        probe = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.ftruncate(probe, PAGE_SIZE)
        return os.fstat(probe).st_dev == os.fstat(fd).st_dev and can_punch(probe)
    except OSError:
        return False
    finally:
        os.close(probe)


def has_write_cache(number: int, devices: str = "/sys/dev/block") -> bool:
    """Whether a block device may lose what it was given last; yes, unless the kernel knows better.

    As xen-blkback asks (bdev_write_cache()).
    """
    return _queue_limit(number, "write_cache", devices) != b"write through"


def is_cdrom(fd: int) -> bool:
    """Whether a block device is a CD-ROM drive, or the like (xen-blkback: disk_to_cdi())."""
    try:
        fcntl.ioctl(fd, CDROM_GET_CAPABILITY, 0)
    except OSError:
        return False
    return True


def is_removable(number: int, devices: str = "/sys/dev/block") -> bool:
    """Whether its medium can be taken out (GENHD_FL_REMOVABLE)."""
    return _attribute(number, ("removable", "../removable"), devices) == b"1"


def discard_limits(number: int, devices: str = "/sys/dev/block") -> tuple[int, int] | None:
    """Granularity and alignment of discards of a block device, bytes; None if it has none."""

    def limit(name: str) -> int:
        value = _queue_limit(number, name, devices)
        return int(value) if value.isdigit() else 0

    if limit("discard_max_bytes") == 0:
        return None
    alignment = _attribute(number, ("discard_alignment",), devices)
    return limit("discard_granularity"), int(alignment) if alignment.isdigit() else 0


def can_erase(fd: int, release: str = "") -> bool:
    """Whether a block device, open for writing, can discard beyond recovery.

    Asked to erase what no device can, since it is no whole sector: one that could not
    erase anything says so first.  Kernels before 5.19 looked in the other order.
    """
    version = re.match(r"(\d+)\.(\d+)", release or os.uname().release)
    if version is None or (int(version[1]), int(version[2])) < (5, 19):
        return False
    try:
        fcntl.ioctl(fd, BLKSECDISCARD, struct.pack("QQ", 1, 1))
    except OSError as error:
        return error.errno == errno.EINVAL
    return False


def _queue_limit(number: int, name: str, devices: str) -> bytes:
    """What the kernel says of a device's queue, b"" if nothing; a partition's is its disk's."""
    return _attribute(number, (f"queue/{name}", f"../queue/{name}"), devices)


def _attribute(number: int, places: tuple[str, ...], devices: str) -> bytes:
    """What the kernel says of a device in the first of these places, b"" if nothing."""
    for place in places:
        path = f"{devices}/{os.major(number)}:{os.minor(number)}/{place}"
        with suppress(OSError), open(path, "rb") as file:
            return file.read().strip()
    return b""


def on_xen(path: str = "/sys/hypervisor/type") -> bool:
    """Whether a hypervisor runs this kernel, and that is Xen."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read().strip() == b"xen"
    return False


def device_of_number(value: bytes) -> bytes:
    """The device with the numbers of a node physical-device, "MAJOR:MINOR" in hex.

    OperatorError if that is no number of a block device here.
    """
    match = re.fullmatch(rb"([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,5})", value)
    if match is None:
        raise OperatorError(
            f"node physical-device is '{printable(value)}', not MAJOR:MINOR in hex", errno.EINVAL
        )
    number = os.makedev(int(match[1], 16), int(match[2], 16))
    shown = f"{os.major(number)}:{os.minor(number)}"
    try:
        with open(f"/sys/dev/block/{shown}/uevent", "rb") as file:
            names = re.findall(rb"^DEVNAME=(.+)$", file.read(), re.M)
        path = b"/dev/" + bytes(names[0])
        if os.stat(path).st_rdev != number:
            raise OperatorError(f"{os.fsdecode(path)} is not block device {shown}", errno.ENXIO)
    except (OSError, IndexError):
        raise OperatorError(f"there is no block device {shown}", errno.ENXIO) from None
    return path


def _kernel_number(name: str, directory: str = "/proc/sys/kernel") -> int:
    """A number of the kernel's; HostError."""
    path = os.path.join(directory, name)
    try:
        with open(path, "rb") as file:
            return int(file.read())
    except OSError as error:
        raise HostError(f"unable to read {path}: {error.strerror}", error.errno or 0) from None
    except ValueError:
        raise HostError(f"{path} is no number") from None


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"unable to open {path}: {error.strerror}", error.errno or 0) from None


def _ask(fd: int, request: int, form: str) -> int:
    try:
        reply = fcntl.ioctl(fd, request, bytes(struct.calcsize(form)))
    except OSError as error:
        raise HostError(f"ioctl {request:#x}: {error.strerror}", error.errno or 0) from None
    return int(struct.unpack(form, reply)[0])


PLATFORM: Final = Linux()
