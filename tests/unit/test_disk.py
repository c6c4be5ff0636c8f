"""Opening disks: what is one, what is not, and what the operator is told."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from xbbd_bsd.block.disk import Disk, open_disk
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host import DiskGeometry, Medium
from xbbd_bsd.host.choice import platform

prepare = platform().prepare_disk


def make(path: Path, size: int) -> bytes:
    with path.open("wb") as file:
        file.truncate(size)
    return os.fsencode(path)


def refusal(name: bytes, *, read_only: bool = True) -> OperatorError:
    before = open_descriptors()
    with pytest.raises(OperatorError) as raised:
        open_disk(name, read_only=read_only, prepare=prepare)
    assert open_descriptors() == before
    return raised.value


def test_a_file(tmp_path: Path) -> None:
    name = make(tmp_path / "disk", 1 << 20)
    disk = open_disk(name, read_only=False, prepare=prepare)
    assert (disk.sectors, disk.read_only) == (2048, False)
    assert replace(disk.geometry, discard=None) == DiskGeometry(Medium.FILE, 1 << 20, 512, 512)
    assert (
        str(disk) == f"file {tmp_path}/disk, 2048 sectors of 512 bytes, sector size 512, writable"
    )
    assert os.pwrite(disk.fd, b"x", 0) == 1
    assert not os.get_inheritable(disk.fd)
    assert os.get_blocking(disk.fd)
    disk.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(disk.fd)


def test_read_only_is_passed_down(tmp_path: Path) -> None:
    disk = open_disk(make(tmp_path / "disk", 512), read_only=True, prepare=prepare)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(disk.fd, b"x", 0)
    disk.close()


def test_a_file_is_never_looked_into(tmp_path: Path) -> None:
    """A guest could write an image format's magic into its raw disk (CVE-2008-2004)."""
    path = tmp_path / "disk"
    path.write_bytes(b"QFI\xfb" + bytes(8188))
    disk = open_disk(os.fsencode(path), read_only=True, prepare=prepare)
    assert disk.sectors == 16
    disk.close()


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (0, "its 0 bytes are less than one sector of 512"),
        (511, "its 511 bytes are less than one sector of 512"),
    ],
)
def test_sizes(tmp_path: Path, size: int, reason: str) -> None:
    error = refusal(make(tmp_path / "disk", size))
    assert str(error) == f"unable to open {tmp_path}/disk: {reason}"
    assert error.errno == errno.EINVAL


def test_what_is_left_of_a_sector_does_not_count(tmp_path: Path) -> None:
    disk = open_disk(make(tmp_path / "disk", 513), read_only=True, prepare=prepare)
    assert (disk.sectors, disk.geometry.size, disk.left_over) == (1, 512, 1)
    disk.close()


def test_missing(tmp_path: Path) -> None:
    error = refusal(os.fsencode(tmp_path / "disk"))
    assert str(error) == f"unable to open {tmp_path}/disk: No such file or directory"
    assert error.errno == errno.ENOENT


@pytest.mark.parametrize("read_only", [True, False])
def test_directory(tmp_path: Path, read_only: bool) -> None:
    error = refusal(os.fsencode(tmp_path), read_only=read_only)
    assert error.errno in (errno.EINVAL, errno.EISDIR)
    assert str(error).startswith(f"unable to open {tmp_path}: ")


@pytest.mark.parametrize(
    ("name", "file_system"),
    [
        (b"/sys/kernel/uevent_seqnum", "sysfs"),
        (b"/sys/kernel/mm/transparent_hugepage/enabled", "sysfs"),
        (b"/proc/version", "proc"),
        (b"/proc/kcore", "proc"),
    ],
)
def test_files_of_the_kernel_are_no_disks(name: bytes, file_system: str) -> None:
    """Regular files by their mode, with sizes that mean nothing: 0, 4096, all of memory."""
    if not os.access(name, os.R_OK):
        pytest.skip("only Linux has it, and not everywhere")
    error = refusal(name)
    if error.errno in (errno.EPERM, errno.EACCES):
        pytest.skip("it may not be opened here")
    assert str(error) == (
        f"unable to open {os.fsdecode(name)}: it is a file of {file_system}, which is no disk"
    )
    assert error.errno == errno.EINVAL


def test_no_permission(tmp_path: Path) -> None:
    """Linux has a file that even root may not open for writing."""
    name = b"/sys/kernel/uevent_seqnum"
    if os.geteuid() != 0:
        name = make(tmp_path / "disk", 512)
        os.chmod(name, 0o400)
    elif not os.path.exists(name):
        pytest.skip("root may open anything here")
    error = refusal(name, read_only=False)
    assert (str(error), error.errno) == (
        f"unable to open {os.fsdecode(name)}: Permission denied",
        errno.EACCES,
    )


def test_a_fifo_does_not_make_us_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    error = refusal(os.fsencode(tmp_path / "fifo"))
    reason = "it is neither a regular file nor a disk"
    assert str(error) == f"unable to open {tmp_path}/fifo: {reason}"


def test_a_character_device_that_is_no_disk() -> None:
    assert "neither a regular file nor a disk" in str(refusal(b"/dev/null"))


def test_names_without_a_leading_slash_are_of_dev() -> None:
    assert str(refusal(b"null")).startswith("unable to open /dev/null: ")
    assert str(refusal(b"no/such")).startswith("unable to open /dev/no/such: ")


@pytest.mark.parametrize("name", [b"", b"/tmp/a\0b"])
def test_names_that_are_none(name: bytes) -> None:
    assert "its name in XenStore is empty or has a NUL" in str(refusal(name))


def test_a_name_is_shown_as_one_line(tmp_path: Path) -> None:
    error = refusal(os.fsencode(tmp_path) + b"/a\nb\xff")
    assert str(error).startswith(f"unable to open {tmp_path}/a\\x0ab\\xff: ")


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (DiskGeometry(Medium.DEVICE, 8192, 520, 520), "its sector size of 520 bytes is no power"),
        (DiskGeometry(Medium.DEVICE, 8192, 256, 256), "its sector size of 256 bytes is no power"),
        (DiskGeometry(Medium.DEVICE, 2048, 4096, 4096), "its 2048 bytes are less than one sector"),
    ],
)
def test_devices_with_odd_measures(tmp_path: Path, geometry: DiskGeometry, reason: str) -> None:
    name = make(tmp_path / "disk", 512)
    with pytest.raises(OperatorError, match=reason):
        open_disk(name, read_only=True, prepare=lambda fd: geometry)


def test_a_4k_device_is_measured_in_512_byte_sectors(tmp_path: Path) -> None:
    geometry = DiskGeometry(Medium.DEVICE, 8192, 4096, 4096)
    disk: Disk = open_disk(
        make(tmp_path / "disk", 512), read_only=True, prepare=lambda fd: geometry
    )
    assert disk.sectors == 16
    disk.close()
