"""Measuring disks on both systems; ioctl(2) is played where there is no such system or disk."""

import errno
import fcntl
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import DiskGeometry, Medium, NoXen, Platform, files, freebsd, linux
from xbbd_bsd.host.freebsd import PLATFORM as FREEBSD
from xbbd_bsd.host.linux import PLATFORM as LINUX
from xbbd_bsd.host.linux import (
    can_erase,
    device_of_number,
    discard_limits,
    has_write_cache,
    is_removable,
    makes_holes,
)
from xbbd_bsd.native import DiskKind, can_flush, kernel_environment, pseudo_file_system
from xbbd_bsd.native import can_punch as linux_can_punch
from xbbd_bsd.native._xbb import ffi, lib

Play = Callable[[int, dict[int, bytes | int]], None]

FLUSH = 0  # as if it were an ioctl, on either system

# Answers of an 8 GiB disk of 512-byte sectors on 4096-byte ones.
LINUX_DISK: dict[int, bytes | int] = {
    0x80081272: struct.pack("Q", 8 << 30),
    0x1268: struct.pack("i", 512),
    0x127B: struct.pack("I", 4096),
    FLUSH: b"",
}
FREEBSD_DISK: dict[int, bytes | int] = {
    0x40086481: struct.pack("q", 8 << 30),
    0x40046480: struct.pack("I", 512),
    0x4008648B: struct.pack("q", 4096),
    FLUSH: b"",
}
DISK = DiskGeometry(Medium.DEVICE, 8 << 30, 512, 4096)


def candelete(value: int) -> bytes:
    """FreeBSD's answer to GEOM::candelete: struct diocgattr_arg."""
    head = struct.pack("@64si4x", b"GEOM::candelete", 4)
    return (head + struct.pack("i", value)).ljust(328, b"\0")


# Flags that were set (0 stands for a question), and ioctls that were called.
SET: list[int] = []
CALLED: list[int] = []


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Every descriptor is of this type, and ioctl gives these answers: bytes, or an errno."""

    def play(file_type: int, answers: dict[int, bytes | int]) -> None:
        def ioctl(fd: int, request: int, argument: bytes | int) -> bytes:
            CALLED.append(request)
            answer = answers.get(request, errno.ENOTTY)
            if isinstance(answer, int):
                raise OSError(answer, os.strerror(answer))
            if answer == b"":  # it takes no argument, or one that is a number
                return b""
            assert not isinstance(argument, int)
            assert len(argument) == len(answer)
            if isinstance(argument, bytearray):
                argument[:] = answer
            return answer

        def set_flags(fd: int, call: int, flags: int = 0) -> int:
            SET.append(flags)
            return os.O_RDWR

        def flush(fd: int, kind: DiskKind) -> bool:
            assert kind is DiskKind.DEVICE
            answer = answers.get(FLUSH, errno.ENOTTY)
            if answer == errno.EIO:
                raise HostError("flush: Input/output error", answer)
            return answer == b""

        status = os.stat_result((file_type | 0o600, *[0] * 9), {"st_rdev": 0})
        monkeypatch.setattr(os, "fstat", lambda fd: status)
        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        monkeypatch.setattr(fcntl, "fcntl", set_flags)
        monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
        for module in (linux, freebsd):
            monkeypatch.setattr(module, "can_flush", flush)

    return play


@pytest.mark.parametrize("platform", [LINUX, FREEBSD])
def test_files_have_sectors_of_512_bytes(platform: Platform, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1000))
    with path.open("rb") as file:
        geometry = platform.prepare_disk(file.fileno())
    assert geometry == DiskGeometry(Medium.FILE, 1000, 512, 512)


@pytest.mark.parametrize("platform", [LINUX, FREEBSD])
@pytest.mark.parametrize("name", ["procfs", None])
def test_files_that_are_the_kernel_s_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: Platform, name: str | None
) -> None:
    """FreeBSD is asked in tests/freebsd/test_rules.c."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(1000))
    monkeypatch.setattr(files, "pseudo_file_system", lambda fd: name)
    with path.open("rb") as file:
        if name is None:
            assert platform.prepare_disk(file.fileno()).size == 1000
        else:
            with pytest.raises(OperatorError, match=r"^it is a file of procfs, which is no disk$"):
                platform.prepare_disk(file.fileno())


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux names them")
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/proc/self/status", "proc"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "sysfs"),
        ("/proc/self/ns/mnt", "nsfs"),
        ("/dev/pts/ptmx", "devpts"),
        (__file__, None),
    ],
)
def test_the_kernel_s_own_files_on_linux(path: str, name: str | None) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    except OSError as error:
        pytest.skip(f"{path}: {error.strerror}")
    try:
        assert pseudo_file_system(fd) == name
    finally:
        os.close(fd)


def test_the_file_system_of_what_is_not_open() -> None:
    with pytest.raises(HostError, match="look at its file system: Bad file descriptor"):
        pseudo_file_system(-1)


@pytest.mark.skipif(sys.platform != "linux", reason="FreeBSD has one")
def test_linux_has_no_kernel_environment() -> None:
    with pytest.raises(HostError, match=r"^kenv hint.x: Function not implemented$") as raised:
        kernel_environment("hint.x")
    assert raised.value.errno == errno.ENOSYS


@pytest.mark.parametrize(("sector_size", "aligned"), [(512, False), (4096, True)])
def test_a_disk_on_linux(play: Play, sector_size: int, aligned: bool) -> None:
    """I/O goes past the page cache; of larger sectors the guest's memory cannot be asked."""
    play(stat.S_IFBLK, {**LINUX_DISK, 0x1268: struct.pack("i", sector_size)})
    SET.clear()
    assert LINUX.prepare_disk(0) == replace(DISK, sector_size=sector_size, aligned=aligned)
    assert os.O_RDWR | os.O_DIRECT in SET
    assert SET[-1] == os.O_RDWR | os.O_DIRECT | os.O_NOATIME


@pytest.mark.parametrize("answer", [errno.ENOTTY, errno.EACCES, b""])
def test_what_linux_has_cached_of_a_disk_is_forgotten(play: Play, answer: bytes | int) -> None:
    """BLKFLSBUF, before the first transfer past the cache; not every driver knows it."""
    CALLED.clear()
    play(stat.S_IFBLK, {**LINUX_DISK, 0x1261: answer})
    assert LINUX.prepare_disk(0) == DISK
    assert 0x1261 in CALLED


@pytest.mark.parametrize(
    ("answer", "discard"),
    [
        (errno.ENOTTY, None),
        (candelete(0), None),
        (candelete(1), (4096, 0)),
    ],
)
def test_a_disk_on_freebsd(
    play: Play, answer: bytes | int, discard: tuple[int, int] | None
) -> None:
    """physio(9) takes one piece of memory at a time."""
    play(stat.S_IFCHR, {**FREEBSD_DISK, 0xC148648E: answer})
    assert FREEBSD.prepare_disk(0) == replace(DISK, aligned=True, discard=discard)


@pytest.mark.parametrize("platform", [LINUX, FREEBSD])
def test_the_size_of_an_open_disk(play: Play, platform: Platform, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1000))
    with path.open("rb") as file:
        assert platform.disk_size(file.fileno()) == 1000
    if platform is LINUX:
        play(stat.S_IFBLK, LINUX_DISK)
    else:
        play(stat.S_IFCHR, FREEBSD_DISK)
    assert platform.disk_size(0) == 8 << 30


def test_a_file_can_discard_if_it_may_be_written(tmp_path: Path) -> None:
    """FreeBSD is asked in test_host_freebsd.py."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file:
        discard = LINUX.prepare_disk(file.fileno()).discard
    assert discard is not None
    assert discard[0] >= 512
    assert path.stat().st_size == 8192


def test_a_disk_that_cannot_flush(play: Play) -> None:
    """By which errno, tests/c/test_flush.c and tests/freebsd/test_rules.c know."""
    play(stat.S_IFBLK, {**LINUX_DISK, FLUSH: errno.ENOTTY})
    assert LINUX.prepare_disk(0) == replace(DISK, flushes=False)
    play(stat.S_IFCHR, {**FREEBSD_DISK, FLUSH: errno.ENOTTY})
    assert FREEBSD.prepare_disk(0) == replace(DISK, aligned=True, flushes=False)


def test_a_disk_that_fails_to_flush_is_not_served(play: Play) -> None:
    play(stat.S_IFBLK, {**LINUX_DISK, FLUSH: errno.EIO})
    with pytest.raises(HostError, match="Input/output error"):
        LINUX.prepare_disk(0)
    play(stat.S_IFCHR, {**FREEBSD_DISK, FLUSH: errno.EIO})
    with pytest.raises(HostError, match="Input/output error"):
        FREEBSD.prepare_disk(0)


@pytest.mark.skipif(sys.platform.startswith("freebsd"), reason="a pipe is no disk there either")
def test_what_can_be_flushed(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        assert can_flush(file.fileno(), DiskKind.FILE)
    reader, writer = os.pipe()
    assert not can_flush(writer, DiskKind.FILE)
    os.close(reader)
    os.close(writer)
    with pytest.raises(HostError, match=r"^flush: Bad file descriptor$"):
        can_flush(-1, DiskKind.FILE)


@pytest.mark.skipif(sys.platform != "linux", reason="O_TMPFILE")
def test_holes_are_tried_in_a_file_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever byte of the guest's file it were, it might be data by then."""
    tried: list[tuple[int, int]] = []

    def can_punch(fd: int) -> bool:
        status = os.fstat(fd)
        tried.append((status.st_ino, status.st_nlink))
        return linux_can_punch(fd)

    monkeypatch.setattr("xbbd_bsd.host.linux.can_punch", can_punch)
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 8192)
    with path.open("r+b") as file:
        assert LINUX.prepare_disk(file.fileno()).discard is not None
        assert not makes_holes(file.fileno(), "/nowhere/fd")
        path.unlink()
        assert makes_holes(file.fileno())
        inode = os.fstat(file.fileno()).st_ino
        assert file.read() == b"x" * 8192
    assert len(tried) == 2
    assert all(number != inode and names == 0 for number, names in tried)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"queue/discard_max_bytes": "0"}, None),
        ({}, None),
        ({"queue/discard_max_bytes": "4096", "queue/discard_granularity": "512"}, (512, 0)),
        (
            {
                "queue/discard_max_bytes": "4096",
                "queue/discard_granularity": "4096",
                "discard_alignment": "1024",
            },
            (4096, 1024),
        ),
    ],
)
def test_discard_limits_of_linux(
    tmp_path: Path, limits: dict[str, str], expected: tuple[int, int] | None
) -> None:
    (tmp_path / "8:1/queue").mkdir(parents=True)
    for name, value in limits.items():
        (tmp_path / "8:1" / name).write_text(value + "\n")
    assert discard_limits(os.makedev(8, 1), str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("place", "text", "removable"),
    [
        ("8:1/removable", "1\n", True),
        ("8:1/removable", "0\n", False),
        ("removable", "1\n", True),  # of the disk whose partition it is
        ("other", "1\n", False),
    ],
)
def test_removable_media_of_linux(tmp_path: Path, place: str, text: str, removable: bool) -> None:
    (tmp_path / "8:1").mkdir()
    (tmp_path / place).write_text(text)
    assert is_removable(os.makedev(8, 1), str(tmp_path)) == removable


@pytest.mark.parametrize(
    ("answer", "cdrom"), [(b"", True), (errno.ENOTTY, False), (errno.EINVAL, False)]
)
def test_cd_drives_of_linux(play: Play, answer: bytes | int, cdrom: bool) -> None:
    play(stat.S_IFBLK, {**LINUX_DISK, 0x5331: answer})
    assert LINUX.prepare_disk(0).cdrom == cdrom


@pytest.mark.parametrize(
    ("answer", "release", "can"),
    [
        (errno.EINVAL, "5.19.0", True),
        (errno.EINVAL, "6.1.0-13-amd64", True),
        (errno.EINVAL, "10.0", True),
        (errno.EINVAL, "5.18.19", False),  # it says so of any device that discards
        (errno.EINVAL, "4.19", False),
        (errno.EINVAL, "strange", False),
        (errno.EOPNOTSUPP, "6.1.0", False),
        (errno.ENOTTY, "6.1.0", False),
        (errno.EBADF, "6.1.0", False),
    ],
)
def test_who_can_erase(play: Play, answer: int, release: str, can: bool) -> None:
    play(stat.S_IFBLK, {0x127D: answer})
    assert can_erase(0, release) is can


@pytest.mark.skipif(sys.platform != "linux", reason="a kernel is asked")
def test_an_erasing_disk_of_linux(play: Play) -> None:
    play(stat.S_IFBLK, {**LINUX_DISK, 0x127D: errno.EINVAL})
    assert LINUX.prepare_disk(0).discard_secure == can_erase(0)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("losetup") is None, reason="needs root and losetup"
)
def test_a_real_device_that_cannot_erase_is_not_asked_in_vain(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * (1 << 20))
    made = subprocess.run(
        ["losetup", "--find", "--show", path], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(made.stderr)
    device = made.stdout.strip()
    try:
        fd = os.open(device, os.O_RDWR)
        try:
            geometry = LINUX.prepare_disk(fd)
        finally:
            os.close(fd)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert geometry.discard is not None
    assert not geometry.discard_secure
    assert (geometry.cdrom, geometry.removable) == (False, False)
    assert path.read_bytes() == b"x" * (1 << 20)


@pytest.mark.parametrize("stripe", [errno.ENOTTY, errno.EINVAL, bytes(8)])
def test_freebsd_need_not_know_the_physical_sector(play: Play, stripe: bytes | int) -> None:
    play(stat.S_IFCHR, {**FREEBSD_DISK, 0x4008648B: stripe})
    assert FREEBSD.prepare_disk(0).physical_sector_size == 512


@pytest.mark.parametrize(
    ("platform", "file_type"),
    [
        (LINUX, stat.S_IFCHR),
        (LINUX, stat.S_IFDIR),
        (FREEBSD, stat.S_IFBLK),
        (FREEBSD, stat.S_IFCHR),
    ],
)
def test_what_is_no_disk(play: Play, platform: Platform, file_type: int) -> None:
    play(file_type, {})
    with pytest.raises(OperatorError, match="neither a regular file nor a disk"):
        platform.prepare_disk(0)


@pytest.mark.parametrize(
    ("platform", "file_type", "request_number"),
    [(LINUX, stat.S_IFBLK, 0x80081272), (FREEBSD, stat.S_IFCHR, 0x40086481)],
)
def test_a_disk_that_is_broken(
    play: Play, platform: Platform, file_type: int, request_number: int
) -> None:
    play(file_type, {request_number: errno.ENXIO})
    with pytest.raises(HostError, match=f"ioctl {request_number:#x}: ") as raised:
        platform.prepare_disk(0)
    assert raised.value.errno == errno.ENXIO


@pytest.mark.skipif(not os.path.isdir("/sys/dev/block"), reason="not Linux, or no sysfs")
def test_a_linux_device_by_its_numbers() -> None:
    """As /etc/xen/scripts/block writes them: hex."""
    found = False
    for name in os.listdir("/sys/dev/block"):
        major, minor = map(int, name.split(":"))
        try:
            path = device_of_number(f"{major:x}:{minor:x}".encode())
        except OperatorError:
            continue  # in a container not every device has a node
        assert os.stat(path).st_rdev == os.makedev(major, minor)
        found = True
    assert found or not any(stat.S_ISBLK(os.stat(f"/dev/{n}").st_mode) for n in os.listdir("/dev"))


@pytest.mark.parametrize("value", [b"", b"7", b"7:", b"7:0:0", b"x:0", b"7:g", b"/dev/loop0"])
def test_numbers_that_are_none(value: bytes) -> None:
    with pytest.raises(OperatorError, match="not MAJOR:MINOR in hex"):
        device_of_number(value)


def test_a_number_without_a_device() -> None:
    with pytest.raises(OperatorError, match="there is no block device 4094:5") as raised:
        device_of_number(b"ffe:5")
    assert raised.value.errno == errno.ENXIO


@pytest.mark.parametrize(
    ("place", "text", "cache"),
    [
        ("8:1/queue", "write through\n", False),
        ("queue", "write through\n", False),  # that of a partition's disk
        ("8:1/queue", "write back\n", True),
        ("8:1/queue", "", True),
        ("nowhere", "write through\n", True),
    ],
)
def test_a_write_cache_is_there_until_linux_denies_it(
    tmp_path: Path, place: str, text: str, cache: bool
) -> None:
    (tmp_path / "8:1").mkdir()
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "write_cache").write_text(text)
    assert has_write_cache(os.makedev(8, 1), str(tmp_path)) == cache


def test_linux_without_xen_and_linux_without_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one has nobody to serve, the other is to be mended."""
    monkeypatch.setattr(linux, "GNTDEV", str(tmp_path / "gntdev"))
    hypervisor = tmp_path / "type"
    assert not linux.on_xen(str(hypervisor))
    hypervisor.write_text("kvm\n")
    assert not linux.on_xen(str(hypervisor))
    hypervisor.write_text("xen\n")
    assert linux.on_xen(str(hypervisor))
    for xen in (False, True):
        monkeypatch.setattr(linux, "on_xen", lambda answer=xen: answer)
        with pytest.raises(OperatorError, match="modprobe xen-gntdev") as raised:
            LINUX.xen()
        assert isinstance(raised.value, NoXen) != xen


def pressure() -> int | None:
    """Microseconds that somebody waited for a processor; a kernel may not count that."""
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return None
    return int(text.split()[4].removeprefix("total="))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no other system says it")
def test_how_long_others_waited_for_a_processor() -> None:
    found = ffi.new("uint64_t *")
    first, result, last = pressure(), lib.xbb_host_waited(found), pressure()
    if first is None or last is None:
        assert result < 0
    else:
        assert result == 0
        assert first * 1000 <= found[0] <= last * 1000
