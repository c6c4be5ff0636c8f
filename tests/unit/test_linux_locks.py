"""Locks of files against the real QEMU, claims of devices, and what loop devices are made of."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xbbd_bsd.block.disk import open_disk
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host.linux import PLATFORM
from xbbd_bsd.host.linux_locks import claim_device, lock_file, loop_backing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's own")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    return path


def qemu_io(image: Path, *options: str) -> str:
    """What qemu-io says of opening and reading an image; "" if all is well."""
    program = shutil.which("qemu-io")
    if program is None:
        pytest.skip("needs qemu-io (qemu-utils)")
    command = [program, "-f", "raw", *options, "-c", "quit", str(image)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    ("writable", "options", "refusal"),
    [
        (True, [], '"write" lock'),
        (True, ["-r"], ""),  # it lets others write
        (False, [], '"write" lock'),
        (False, ["-r"], ""),
    ],
)
def test_qemu_notices_us(image: Path, writable: bool, options: list[str], refusal: str) -> None:
    assert qemu_io(image, *options) == ""
    fd = os.open(image, os.O_RDWR if writable else os.O_RDONLY)
    lock_file(fd, writable=writable)
    said = qemu_io(image, *options)
    assert refusal in said
    assert bool(said) == bool(refusal)
    os.close(fd)
    assert qemu_io(image, *options) == ""


@pytest.mark.parametrize("writable", [True, False])
def test_we_notice_qemu(image: Path, writable: bool) -> None:
    program = shutil.which("qemu-io")
    if program is None:
        pytest.skip("needs qemu-io (qemu-utils)")
    fd = os.open(image, os.O_RDWR if writable else os.O_RDONLY)
    with subprocess.Popen(
        [program, "-f", "raw", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        qemu.stdin.write(b"length\n")
        qemu.stdin.flush()
        assert b"1 MiB" in qemu.stdout.readline()
        with pytest.raises(OperatorError, match=r"^another program (uses|writes to) it$") as raised:
            lock_file(fd, writable=writable)
        assert raised.value.errno == errno.EBUSY
        qemu.stdin.close()
    assert qemu_io(image) == ""  # none of ours is left
    lock_file(fd, writable=writable)
    os.close(fd)


def test_where_there_are_no_locks(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, call: int, argument: bytes) -> bytes:
        raise OSError(errno.ENOLCK, "No locks available")

    with image.open("r+b") as file, monkeypatch.context() as played:
        played.setattr(fcntl, "fcntl", refuse)
        lock_file(file.fileno(), writable=True)


def test_a_claim_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        assert flags & os.O_EXCL
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as played:
        played.setattr(os, "open", refuse)
        with pytest.raises(OperatorError, match="it is mounted on this host"):
            claim_device(3)


@pytest.mark.parametrize(
    ("info", "backing"), [((5, 6, 0), ("file", 5, 6)), ((5, 6, 2049), ("device", 2049, 0))]
)
def test_what_a_loop_device_is_made_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    info: tuple[int, int, int],
    backing: tuple[str, int, int],
) -> None:
    (tmp_path / "loop0" / "loop0p1").mkdir(parents=True)
    (tmp_path / "7:0").symlink_to("loop0")
    (tmp_path / "259:0").symlink_to("loop0/loop0p1")

    def status(fd: int, request: int, argument: bytes) -> bytes:
        assert (request, len(argument)) == (0x4C05, 232)
        return struct.pack("@QQQ208x", *info)

    monkeypatch.setattr(fcntl, "ioctl", status)
    assert loop_backing(3, os.makedev(7, 0), str(tmp_path)) == backing
    assert loop_backing(3, os.makedev(259, 0), str(tmp_path)) is None
    assert loop_backing(3, os.makedev(8, 0), str(tmp_path)) is None


@pytest.fixture
def loop(image: Path) -> Iterator[str]:
    """A real loop device on the image."""
    if shutil.which("losetup") is None:
        pytest.skip("needs losetup")
    made = subprocess.run(
        ["losetup", "-f", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"losetup: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=False)


def test_a_loop_device_and_its_file_are_one_disk(loop: str, image: Path) -> None:
    device, file = (
        open_disk(os.fsencode(path), read_only=False, prepare=PLATFORM.prepare_disk)
        for path in (loop, image)
    )
    assert device.key == file.key
    assert (device.device, file.device) == (f"7:{int(loop[9:]):x}", "")
    claim = PLATFORM.lock_disk(device.fd, writable=True)
    assert claim is not None
    with pytest.raises(OperatorError, match="mounted on this host"):
        PLATFORM.lock_disk(device.fd, writable=True)
    os.close(claim)
    device.close()
    file.close()
