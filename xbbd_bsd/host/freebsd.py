"""FreeBSD: what its disks are like, and Xen's devices in its dom0.

Who opened a disk is not known here, nor what travels on a ring.  Disks are
character devices on FreeBSD, so what answers DIOCGMEDIASIZE is a disk, as the
kernel's own test has it.  Control thread.
"""

import errno
import fcntl
import os
import re
import socket
import stat
import struct
import sys
from collections.abc import Collection, Mapping
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError
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
    sysctl,
)
from xbbd_bsd.host.files import refuse_pseudo
from xbbd_bsd.host.resources import Resources, resources
from xbbd_bsd.native import DiskKind, HvKind, can_flush, kernel_environment

# sys/disk.h, the same on amd64 and arm64.
DIOCGSECTORSIZE: Final = 0x40046480  # u_int: logical sector, bytes
DIOCGMEDIASIZE: Final = 0x40086481  # off_t: bytes
DIOCGSTRIPESIZE: Final = 0x4008648B  # off_t: what is best written at once; 0 if not known

DIOCGATTR: Final = 0xC148648E  # struct diocgattr_arg: name, length, value
_ATTRIBUTE: Final = struct.Struct("@64sii256s")  # the value begins at 72

# sys/unistd.h, fpathconf(2): whether holes can be made in a file; 14.0 and newer.
PC_DEALLOC_PRESENT: Final = 65

_SOL_LOCAL: Final = 0  # sys/un.h
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("@IIh16I")  # version, uid, number of groups, these; sys/ucred.h

GNTDEV: Final = "/dev/xen/gntdev"
EVTCHN: Final = "/dev/xen/evtchn"
RUN_DIRECTORY: Final = "/var/run/xenstored"

# sys/xen: EVTCHN_2L_NR_CHANNELS, all that the kernel knows on 64 bits.
EVENT_CHANNELS: Final = 4096

# Makes the kernel's own backend leave devices alone, for as long as no unit 0 of it exists.
HINT: Final = "hint.{driver}.0.disabled"

CLONING: Final = "net.link.tap.devfs_cloning"  # tap(4)

_NO_DISK: Final = (errno.ENOTTY, errno.ENODEV, errno.EINVAL, errno.ENOSYS)


class Rules:
    """Quotas of FreeBSD; the rule itself is process_freebsd.c's, and ends with its process."""

    def check(self, pid: int | None) -> None:
        """The kernel counts what processes use only if it was told to when it was loaded."""
        try:
            sysctl.number("kern.racct.enable")
        except HostError:
            raise OperatorError(
                "the kernel does not count processor time: kern.racct.enable=1 in loader.conf(5)"
            ) from None
        if pid == os.getpid() and os.geteuid() != 0:
            raise OperatorError("only root can limit processor time")

    def prepare(self, percent: int) -> None:
        """Only a check: there is nothing to be left."""
        if percent:
            self.check(os.getpid())

    def place(self, domid: int, percent: int) -> None:
        """None is needed."""


class FreeBSD:
    """Platform of FreeBSD."""

    # A frame whose sum is still to be filled in would leave by a wire as it is.
    links = Links("xnb", multi=False, offload="safe", told=False)

    def prepare_disk(self, fd: int) -> DiskGeometry:
        """Measure it; disk devices have no cache in front of them.  OperatorError, HostError."""
        status = _status(fd)
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if stat.S_ISREG(status.st_mode):
            refuse_pseudo(fd)
            discard = (status.st_blksize, 0) if writable and _makes_holes(fd) else None
            return DiskGeometry(Medium.FILE, status.st_size, 512, 512, discard=discard)
        if not stat.S_ISCHR(status.st_mode):
            raise OperatorError("it is neither a regular file nor a disk", errno.EINVAL)
        size = _ask(fd, DIOCGMEDIASIZE, "q")
        sector_size = _ask(fd, DIOCGSECTORSIZE, "I")
        try:
            stripe = _ask(fd, DIOCGSTRIPESIZE, "q")
        except (HostError, OperatorError):
            stripe = 0  # only a hint, and not every class of provider gives it
        physical = _physical_sector(sector_size, stripe)
        return DiskGeometry(
            Medium.DEVICE,
            size,
            sector_size,
            physical,
            flushes=not writable or can_flush(fd, DiskKind.DEVICE),
            aligned=True,
            discard=(physical, 0) if _can_delete(fd) else None,
        )

    def disk_size(self, fd: int) -> int:
        """Files know no ioctl of disks.

        fstat(2) would not tell them apart: for a disk that was destroyed it fails (EBADF).
        """
        try:
            return _ask(fd, DIOCGMEDIASIZE, "q")
        except OperatorError:
            status = _status(fd)
        except HostError as error:
            if error.errno == errno.ENOENT:  # its size is 0
                raise _gone() from None
            raise
        if not stat.S_ISREG(status.st_mode):
            raise _gone()
        return status.st_size

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        """flock(2), as O_EXLOCK and O_SHLOCK of open(2): against programs that ask, as we do.

        Locks go with the descriptor, so that a daemon that died leaves none.
        OperatorError if somebody else has it.
        """
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            who = "uses" if writable else "writes to"
            raise OperatorError(f"another program {who} it", errno.EBUSY) from None
        except OSError:
            pass  # not every file system has locks (EOPNOTSUPP); nothing else is meant by them
        return None

    def peer(self, channel: socket.socket) -> Peer:
        """By struct xucred, which has up to 16 groups (sys/ucred.h, unix(4))."""
        xucred = channel.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
        _, uid, ngroups, *groups = _XUCRED.unpack(xucred.ljust(_XUCRED.size, b"\0"))
        return Peer(uid, frozenset(groups[:ngroups]))

    def most_threads(self) -> int:
        """HostError if the kernel does not say."""
        return sysctl.number("kern.threads.max_threads_per_proc")

    def processors(self) -> frozenset[int]:
        """HostError if the kernel does not say."""
        return frozenset(range(sysctl.number("hw.ncpu")))

    def quotas(self) -> Quotas:
        """By rules of rctl(4), which processes make themselves."""
        return Rules()

    def xen(self) -> Host:
        """The Xen that we are a backend domain of; NoXen, OperatorError, HostError."""
        guest = sysctl.text("kern.vm_guest")
        if guest != "xen":
            raise NoXen(
                f"not on Xen (sysctl kern.vm_guest is {guest}): boot FreeBSD as dom0 of Xen;"
                " --host sim:DIR needs none"
            )
        for path in (GNTDEV, EVTCHN):
            os.close(_open(path, os.O_RDWR | os.O_NONBLOCK))
        host = FreeBSDXen()
        _check_store(host.store_path)
        return host


class FreeBSDXen:
    """Xen under FreeBSD, as the daemon's host."""

    name = "Xen"
    hv = HvKind.XEN
    transports = ("best", "map")  # there is no grant copy (native/hv/freebsd.c)

    @property
    def store_path(self) -> str:
        """Where xenstored listens; its environment variables say otherwise.

        Never /dev/xen/xenstore: what it answers to a watch pyxs does not understand.
        """
        directory = os.environ.get("XENSTORED_RUNDIR", RUN_DIRECTORY)
        return os.environ.get("XENSTORED_PATH", os.path.join(directory, "socket"))

    @property
    def media(self) -> Mapping[str, MediumName]:
        return {"physical-device-path": path_itself}

    @property
    def resources(self) -> Resources:
        return resources(event_channels=EVENT_CHANNELS, threads=PLATFORM.most_threads())

    def check_kinds(self, kinds: Collection[str]) -> None:
        """Refuse what the kernel's own backends do not leave to us; OperatorError, HostError.

        They would be first at every device, and two backends at one ring corrupt the
        guest's data, so that a warning would not do.
        """
        if "vbd" in kinds:
            _check_kernel_backend("xbbd", "vbd", "disks", "serve vbd3 only")
        if "vif" in kinds:
            _check_kernel_backend("xnb", "vif", "cards", "leave vif out")
            _check_taps()

    @property
    def links(self) -> Links:
        return PLATFORM.links

    @property
    def grant_path(self) -> str:
        return ""

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        """Fresh descriptors; what they are bound to is the data path's doing.  HostError."""
        try:
            device = _open(GNTDEV, os.O_RDWR) if grants < 0 else grants
            try:
                return RingDescriptors(device, _open(EVTCHN, os.O_RDWR | os.O_NONBLOCK))
            except OperatorError:
                if grants < 0:
                    os.close(device)
                raise
        except OperatorError as error:
            raise HostError(str(error), error.errno) from None

    def prepare_disk(self, fd: int) -> DiskGeometry:
        return PLATFORM.prepare_disk(fd)

    def disk_size(self, fd: int) -> int:
        return PLATFORM.disk_size(fd)

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        return PLATFORM.lock_disk(fd, writable=writable)


def _check_kernel_backend(driver: str, kind: str, devices: str, instead: str) -> None:
    """OperatorError, with what to do, unless the kernel's driver leaves its devices to us."""
    names = sysctl.leaves(f"dev.{driver}")
    found = (re.match(rf"dev\.{driver}\.(\d+)\.", name) for name in names)
    units = {int(match[1]) for match in found if match}
    advice = f"or {instead} (kinds in the configuration)"
    if units:
        busy = ", ".join(f"{driver}{unit}" for unit in sorted(units))
        raise OperatorError(
            f"the kernel's own backend serves {devices} of kind {kind} ({busy}): shut their"
            f" guests down first, {advice}",
            errno.EBUSY,
        )
    hint = HINT.format(driver=driver)
    if not _is_set(kernel_environment(hint) or ""):
        raise OperatorError(
            f'the kernel\'s own backend would take kind {kind}: put {hint}="1" into'
            f" /boot/loader.conf, and for now run: kenv {hint}=1; {advice}",
            errno.EBUSY,
        )


def _check_taps() -> None:
    """OperatorError, with what to do, unless opening /dev/tap makes one."""
    try:
        sysctl.number(CLONING)
    except HostError:
        raise OperatorError(
            f"cards want a tap(4) each: run kldload if_tuntap, and sysctl {CLONING}=1",
            errno.ENOENT,
        ) from None


def _is_set(value: str) -> bool:
    """As the kernel takes a hint: any number but 0, in C's notation."""
    try:
        return int(value, 0) != 0
    except ValueError:
        return False


def _check_store(path: str) -> None:
    """OperatorError unless somebody like us may speak to xenstored there."""
    if os.access(path, os.R_OK | os.W_OK):
        return
    if os.path.exists(path) or os.geteuid() != 0:
        raise OperatorError(f"{path}: no permission, run it as root", errno.EACCES)
    raise OperatorError(
        f"{path} is missing: is xenstored running?  (service xencommons start)", errno.ENOENT
    )


def _open(path: str, flags: int) -> int:
    """OperatorError with what to do."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        advice = ""
        if error.errno in (errno.ENOENT, errno.ENXIO):
            advice = "; is this a dom0 of Xen, and has its kernel option XENHVM?"
        elif error.errno in (errno.EACCES, errno.EPERM):
            advice = "; run it as root"
        raise OperatorError(
            f"unable to open {path}: {error.strerror}{advice}", error.errno or 0
        ) from None


def _status(fd: int) -> os.stat_result:
    """fstat(2) of an open file or disk; HostError if the disk has been destroyed since."""
    try:
        return os.fstat(fd)
    except OSError:
        raise _gone() from None


def _gone() -> HostError:
    """Of a provider that was destroyed, whatever errno its dead vnode has for that."""
    return HostError("the device is gone", errno.ENXIO)


def _physical_sector(sector_size: int, stripe: int) -> int:
    """The largest power of two that stripes consist of, which need not be powers of two.

    Of an NVMe drive they may be 24 sectors, say, and new Linux guests refuse a disk with such
    a physical sector.
    """
    return max(stripe & -stripe, sector_size)


def _makes_holes(fd: int) -> bool:
    """Whether fspacectl(2) gives space back; where it does not, as on UFS, it writes zeros."""
    try:
        return os.fpathconf(fd, PC_DEALLOC_PRESENT) == 1
    except OSError:  # also a kernel that does not know the name
        return False


def _can_delete(fd: int) -> bool:
    """Whether the provider takes BIO_DELETE (GEOM attribute candelete, an int)."""
    request = bytearray(_ATTRIBUTE.pack(b"GEOM::candelete", 4, 0, b""))
    try:
        fcntl.ioctl(fd, DIOCGATTR, request)
    except OSError:
        return False
    return bool(int.from_bytes(request[72:76], sys.byteorder))


def _ask(fd: int, request: int, form: str) -> int:
    try:
        reply = fcntl.ioctl(fd, request, bytes(struct.calcsize(form)))
    except OSError as error:
        if error.errno in _NO_DISK:
            raise OperatorError("it is neither a regular file nor a disk", errno.EINVAL) from None
        if error.errno == errno.EBADF:
            raise _gone() from None
        raise HostError(f"ioctl {request:#x}: {error.strerror}", error.errno or 0) from None
    return int(struct.unpack(form, reply)[0])


PLATFORM: Final = FreeBSD()
