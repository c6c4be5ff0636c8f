"""What FreeBSD's host refuses at the start, and says; its kernel is played here."""

import errno
import fcntl
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from xbbd_bsd.block.disk import open_disk
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import Host, Links, NoXen, freebsd
from xbbd_bsd.host.freebsd import PLATFORM, FreeBSDXen
from xbbd_bsd.native import HvKind

ROOT = Path(__file__).parents[2]

# What the kernel has: type and value.
Kernel = dict[str, tuple[str, object]]
DOM0: Kernel = {
    "kern.vm_guest": ("STRING", "xen"),
    "kern.maxphys": ("ULONG", 1048576),
    "hw.ncpu": ("INT", 4),
}


class Sysctl:
    """As freebsd_sysctl.Sysctl: nothing is an error, and an unknown name has an OID of zeros."""

    kernel: ClassVar[Kernel] = {}

    def __init__(self, name: str | None = None, oid: list[int] | None = None) -> None:
        assert name is not None or oid is not None
        names = list(self.kernel)
        self.oid = oid or ([1, 2 + names.index(name)] if name in names else [0] * 24)
        self.asked = name

    @property
    def name(self) -> str:
        if self.asked is not None:
            return self.asked
        return list(self.kernel)[self.oid[1] - 2] if any(self.oid) else ""

    @property
    def ctl_type(self) -> type:
        if not any(self.oid):
            raise Exception("Invalid ctl_type: 0")
        return type(self.kernel[self.name][0], (), {})

    @property
    def value(self) -> object:
        return self.kernel[self.name][1]

    @property
    def children(self) -> Iterator["Sysctl"]:
        for name in self.kernel:
            if name.startswith(f"{self.name}."):
                yield Sysctl(oid=Sysctl(name).oid)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel's names, to be changed by a test."""
    module = ModuleType("freebsd_sysctl")
    module.Sysctl = Sysctl  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "freebsd_sysctl", module)
    monkeypatch.setattr(Sysctl, "kernel", dict(DOM0))
    return Sysctl.kernel


@pytest.fixture
def dom0(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A dom0 where all is well."""
    for name in ("gntdev", "evtchn", "socket"):
        (tmp_path / name).touch()
    monkeypatch.setattr(freebsd, "GNTDEV", str(tmp_path / "gntdev"))
    monkeypatch.setattr(freebsd, "EVTCHN", str(tmp_path / "evtchn"))
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "socket"))
    kenv(monkeypatch, "1")
    return kernel


def kenv(monkeypatch: pytest.MonkeyPatch, value: str | None, driver: str = "xbbd") -> None:
    """A kernel whose environment has our hint, or has not; C's part is in tests/freebsd."""

    def environment(variable: str) -> str | None:
        assert variable == f"hint.{driver}.0.disabled"
        return value

    monkeypatch.setattr(freebsd, "kernel_environment", environment)


def refusal(*kinds: str) -> str:
    before = os.listdir("/dev/fd")
    with pytest.raises(OperatorError) as raised:
        PLATFORM.xen().check_kinds(kinds)
    assert len(os.listdir("/dev/fd")) == len(before)
    return str(raised.value)


def test_a_dom0_where_all_is_well(dom0: Kernel, tmp_path: Path) -> None:
    host: Host = PLATFORM.xen()
    host.check_kinds(("vbd", "vbd3"))
    assert (host.name, host.hv) == ("Xen", HvKind.XEN)
    assert host.store_path == str(tmp_path / "socket")
    assert "copy" not in host.transports, "hv/freebsd.c has none"
    assert host.media["physical-device-path"](b"zvol/tank/vm") == b"zvol/tank/vm"
    ring = host.open_ring(1, 2)
    assert not os.get_inheritable(ring.grants)
    assert not os.get_inheritable(ring.events)
    assert fcntl.fcntl(ring.grants, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    assert not os.get_blocking(ring.events)  # a read of an evtchn without events waits
    other = host.open_ring(1, 3, ring.grants)
    assert (other.grants, other.events != ring.events) == (ring.grants, True)
    for descriptor in (ring.grants, ring.events, other.events):
        os.close(descriptor)


@pytest.mark.parametrize("guest", ["none", "generic", "bhyve"])
def test_not_on_xen(dom0: Kernel, guest: str) -> None:
    dom0["kern.vm_guest"] = ("STRING", guest)
    assert refusal() == (
        f"not on Xen (sysctl kern.vm_guest is {guest}): boot FreeBSD as dom0 of Xen;"
        " --host sim:DIR needs none"
    )
    with pytest.raises(NoXen):
        PLATFORM.xen()


@pytest.mark.parametrize("device", ["gntdev", "evtchn"])
def test_no_device(dom0: Kernel, tmp_path: Path, device: str) -> None:
    (tmp_path / device).unlink()
    assert refusal() == (
        f"unable to open {tmp_path}/{device}: No such file or directory;"
        " is this a dom0 of Xen, and has its kernel option XENHVM?"
    )
    with pytest.raises(HostError, match=f"unable to open {tmp_path}/{device}: "):
        FreeBSDXen().open_ring(1, 2)
    if device == "evtchn":  # what was lent is not closed
        with open(os.devnull, "rb") as grants:
            with pytest.raises(HostError):
                FreeBSDXen().open_ring(1, 2, grants.fileno())
            assert grants.read() == b""


def test_no_permission(dom0: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as played:
        played.setattr(os, "open", refuse)
        with pytest.raises(OperatorError, match=r"gntdev: Permission denied; run it as root$"):
            PLATFORM.xen()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert refusal() == f"{tmp_path}/socket: no permission, run it as root"


def test_no_store(dom0: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "socket").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert refusal() == (
        f"{tmp_path}/socket is missing: is xenstored running?  (service xencommons start)"
    )


@pytest.mark.parametrize("value", [None, "0", "0x0", "no", ""])
def test_the_kernel_would_take_vbd(
    dom0: Kernel, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Two backends at one ring: refused, and not only mentioned."""
    kenv(monkeypatch, value)
    assert refusal("vbd", "vbd3") == (
        'the kernel\'s own backend would take kind vbd: put hint.xbbd.0.disabled="1" into'
        " /boot/loader.conf, and for now run: kenv hint.xbbd.0.disabled=1;"
        " or serve vbd3 only (kinds in the configuration)"
    )
    PLATFORM.xen().check_kinds(("vbd3",))


@pytest.mark.parametrize("value", [None, "0"])
def test_the_kernel_would_take_vif(
    dom0: Kernel, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    kenv(monkeypatch, value, "xnb")
    assert refusal("vif", "vbd3") == (
        'the kernel\'s own backend would take kind vif: put hint.xnb.0.disabled="1" into'
        " /boot/loader.conf, and for now run: kenv hint.xnb.0.disabled=1;"
        " or leave vif out (kinds in the configuration)"
    )
    kenv(monkeypatch, "1", "xnb")
    dom0["net.link.tap.devfs_cloning"] = ("INT", 1)
    PLATFORM.xen().check_kinds(("vif",))


def test_cards_want_taps(dom0: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kenv(monkeypatch, "1", "xnb")
    advice = (
        "cards want a tap(4) each: run kldload if_tuntap, and sysctl net.link.tap.devfs_cloning=1"
    )
    assert refusal("vif") == advice
    dom0["net.link.tap.devfs_cloning"] = ("INT", 0)
    assert refusal("vif") == advice
    PLATFORM.xen().check_kinds(("vbd3",))


def test_the_kernel_serves_cards_already(dom0: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kenv(monkeypatch, "1", "xnb")
    dom0["dev.xnb"] = ("NODE", 0)
    dom0["dev.xnb.3.unit_test_results"] = ("STRING", "x")
    assert refusal("vif") == (
        "the kernel's own backend serves cards of kind vif (xnb3): shut their guests down"
        " first, or leave vif out (kinds in the configuration)"
    )


def test_interfaces_are_called_as_the_kernels_driver_has_them() -> None:
    assert FreeBSDXen().links == Links("xnb", multi=False, offload="safe", told=False)


@pytest.mark.parametrize("value", ["1", "0x1", " 1"])
def test_the_kernel_leaves_vbd_to_us(
    dom0: Kernel, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    kenv(monkeypatch, value)
    dom0["dev.xbbd"] = ("NODE", 0)
    dom0["dev.xbbd.%parent"] = ("STRING", "")  # stays when the last device has gone
    PLATFORM.xen().check_kinds(("vbd",))


def test_the_kernel_serves_disks_already(dom0: Kernel) -> None:
    """The hint came too late for those, and does not hold where xbbd0 is one of them."""
    dom0["dev.xbbd"] = ("NODE", 0)
    for unit in (0, 12):
        dom0[f"dev.xbbd.{unit}.xenstore_path"] = ("STRING", "x")
        dom0[f"dev.xbbd.{unit}.ring_pages"] = ("UINT", 1)
    assert refusal("vbd") == (
        "the kernel's own backend serves disks of kind vbd (xbbd0, xbbd12): shut their guests"
        " down first, or serve vbd3 only (kinds in the configuration)"
    )


def test_kenv_cannot_be_asked(dom0: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(variable: str) -> str | None:
        raise HostError(f"kenv {variable}: Operation not permitted", errno.EPERM)

    monkeypatch.setattr(freebsd, "kernel_environment", refuse)
    with pytest.raises(HostError, match=r"kenv hint.xbbd.0.disabled: Operation not permitted"):
        PLATFORM.xen().check_kinds(("vbd",))


# The store, whose device knows no watches that pyxs would understand.


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({}, "/var/run/xenstored/socket"),
        ({"XENSTORED_RUNDIR": "/run/x"}, "/run/x/socket"),
        ({"XENSTORED_RUNDIR": "/run/x", "XENSTORED_PATH": "/run/y"}, "/run/y"),
    ],
)
def test_where_the_store_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], path: str
) -> None:
    for name in ("XENSTORED_RUNDIR", "XENSTORED_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert FreeBSDXen().store_path == path


# Locks.


def test_a_disk_is_not_written_by_two(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))

    def opened(flags: int) -> int:
        fd = os.open(path, flags)
        try:
            PLATFORM.lock_disk(fd, writable=flags == os.O_RDWR)
        except OperatorError:
            os.close(fd)
            raise
        return fd

    writer = opened(os.O_RDWR)
    with pytest.raises(OperatorError, match=r"^another program uses it$") as raised:
        opened(os.O_RDWR)
    assert raised.value.errno == errno.EBUSY
    with pytest.raises(OperatorError, match=r"^another program writes to it$"):
        opened(os.O_RDONLY)
    os.close(writer)  # or the death of its process
    readers = [opened(os.O_RDONLY), opened(os.O_RDONLY)]
    with pytest.raises(OperatorError, match="uses it"):
        opened(os.O_RDWR)
    for reader in readers:
        os.close(reader)
    os.close(opened(os.O_RDWR))


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        PLATFORM.lock_disk(file.fileno(), writable=True)


# Files and disks, by what the kernel says of an open one.


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """An open file of 8192 bytes, for reading and writing."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def pathconf(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """A file system that says this of _PC_DEALLOC_PRESENT; negative: an errno."""

    def fpathconf(fd: int, name: int) -> int:
        assert name == 65
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    monkeypatch.setattr(os, "fpathconf", fpathconf)


@pytest.mark.parametrize(
    ("answer", "offered"), [(1, True), (0, False), (-errno.EINVAL, False), (-errno.EBADF, False)]
)
def test_discarding_is_offered_where_it_makes_holes(
    file: int, monkeypatch: pytest.MonkeyPatch, answer: int, offered: bool
) -> None:
    """tmpfs and ZFS do; UFS would write zeros, which costs more than it gives."""
    pathconf(monkeypatch, answer)
    discard = (os.fstat(file).st_blksize, 0) if offered else None
    assert PLATFORM.prepare_disk(file).discard == discard


def test_what_is_only_read_cannot_discard(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pathconf(monkeypatch, 1)
    reader = os.open(f"/dev/fd/{file}", os.O_RDONLY)
    assert PLATFORM.prepare_disk(reader).discard is None
    os.close(reader)


@pytest.mark.parametrize(
    "said", [errno.ENXIO, errno.ENOTTY, errno.EBADF], ids=lambda number: errno.errorcode[number]
)
@pytest.mark.parametrize("ask", [PLATFORM.disk_size, PLATFORM.prepare_disk])
def test_a_disk_that_was_destroyed(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[int], object], said: int
) -> None:
    """The host's fault, by one errno; never an exception that nobody expects.

    After mdconfig -d -o force fstat(2) fails with EBADF, and an ioctl with ENXIO,
    or with what any dead vnode says; so far only the first was seen.
    """

    def refuse(number: int) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    with monkeypatch.context() as played:
        played.setattr(os, "fstat", refuse(errno.EBADF))
        played.setattr(os, "fpathconf", refuse(errno.EBADF))
        played.setattr(fcntl, "ioctl", refuse(said))
        with pytest.raises(HostError) as raised:
            ask(0)
    assert raised.value.errno == errno.ENXIO


def test_an_open_disk_is_not_asked_for_its_kind_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """fstat(2) fails as soon as the disk is destroyed, also between two calls of ours."""
    size = (8 << 30).to_bytes(8, sys.byteorder)
    with monkeypatch.context() as played:
        played.setattr(os, "fstat", None)
        played.setattr(fcntl, "ioctl", lambda fd, request, argument: size)
        assert PLATFORM.disk_size(0) == 8 << 30


@pytest.mark.parametrize(
    ("sector", "stripe", "physical"),
    [
        (512, 0, 512),
        (512, 4096, 4096),
        (4096, 512, 4096),
        (512, 3 << 16, 1 << 16),
        (512, 24 * 4096, 8 * 4096),
        (4096, 6144, 4096),
    ],
)
def test_a_physical_sector_is_a_power_of_two(
    monkeypatch: pytest.MonkeyPatch, sector: int, stripe: int, physical: int
) -> None:
    """GEOM's stripes need not be: of an NVMe drive they are what it likes to write at once.

    A Linux guest of 2025 would refuse the disk (blk_validate_limits()).
    """
    answers = {
        freebsd.DIOCGMEDIASIZE: (8 << 30).to_bytes(8, sys.byteorder),
        freebsd.DIOCGSECTORSIZE: sector.to_bytes(4, sys.byteorder),
        freebsd.DIOCGSTRIPESIZE: stripe.to_bytes(8, sys.byteorder),
    }

    def ioctl(fd: int, request: int, argument: bytes | bytearray) -> bytes | None:
        if request != freebsd.DIOCGATTR:
            return answers[request]
        assert isinstance(argument, bytearray)
        argument[72:76] = (1).to_bytes(4, sys.byteorder)
        return None

    with open(os.devnull) as device, monkeypatch.context() as played:
        played.setattr(fcntl, "ioctl", ioctl)
        found = PLATFORM.prepare_disk(device.fileno())
    assert (found.sector_size, found.physical_sector_size) == (sector, physical)
    assert found.discard == (physical, 0)


def test_a_mounted_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """GEOM lets nobody write to what somebody has exclusively, and says EPERM."""

    def refuse(path: object, flags: int, *more: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OperatorError, match="Operation not permitted") as raised:
        open_disk(b"/dev/ada0p2", read_only=False, prepare=PLATFORM.prepare_disk)
    assert raised.value.errno == errno.EPERM


def test_processor_time_is_limited_where_the_kernel_counts_it(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process may have it sees to itself (process_freebsd.c)."""
    quotas = PLATFORM.quotas()
    quotas.prepare(0)
    for value in (None, 0):
        if value is not None:
            kernel["kern.racct.enable"] = ("U8", value)
        for attempt in (quotas.check, quotas.prepare):
            with pytest.raises(OperatorError, match=r"kern\.racct\.enable=1 in loader\.conf"):
                attempt(50)
    kernel["kern.racct.enable"] = ("U8", 1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    quotas.prepare(50)
    quotas.check(None)
    assert quotas.place(7, 50) is None
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    quotas.check(None)
    with pytest.raises(OperatorError, match="only root"):
        quotas.prepare(50)


def test_old_build_tools_suffice() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "setuptools>=63" in project["build-system"]["requires"]
    assert isinstance(project["project"]["license"], dict)  # text came with setuptools 77
    only_there = [name for name in project["project"]["dependencies"] if "freebsd" in name.lower()]
    assert only_there == ["freebsd-sysctl>=0.0.7; platform_system == 'FreeBSD'"]
