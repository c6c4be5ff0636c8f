"""What the lab reads from Debian's tree: links, ELF files, dependencies of modules."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from tests.lab.cpio import Cpio
from tests.lab.initramfs import BadTree, add_program, inside, modules_with_dependencies, needed

linux_amd64 = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="reads this machine's own programs, as those of 64-bit Linux",
)


def test_links_lead_within_the_tree(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/real").write_text("")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/absolute").symlink_to("/lib/real")
    (tmp_path / "usr/lib/relative").symlink_to("../../lib/absolute")
    real = tmp_path / "usr/lib/real"
    for path in ("/lib/real", "/lib/absolute", "/usr/lib/relative"):
        assert inside(tmp_path, path) == real
    assert not inside(tmp_path, "/lib/missing").exists()


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadTree, match="too many links"):
        inside(tmp_path, "/loop")


@linux_amd64
def test_needs_of_a_shell() -> None:
    interpreter, libraries = needed(Path("/bin/sh"))
    assert interpreter is not None
    assert interpreter.startswith("/lib")
    assert "libc.so.6" in libraries


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)])
def test_needs_of_what_is_no_64_bit_program(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    assert needed(path) == (None, [])


@linux_amd64
def test_a_program_with_its_libraries() -> None:
    archive = Cpio(io.BytesIO())
    add_program(archive, Path("/"), "/bin/sh")
    interpreter, _ = needed(Path("/bin/sh"))
    assert interpreter is not None
    assert "/bin/sh" in archive
    assert interpreter in archive


def test_a_program_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadTree, match="/bin/none"):
        add_program(Cpio(io.BytesIO()), tmp_path, "/bin/none")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """The two files of a kernel that say which modules there are."""
    (tmp_path / "modules.dep").write_text(
        "kernel/fs/ext4.ko: kernel/fs/jbd2.ko kernel/lib/crc16.ko\n"
        "kernel/fs/jbd2.ko:\nkernel/lib/crc16.ko:\nkernel/drivers/xen-blkfront.ko.xz:\n"
    )
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio-pci.ko\n")
    return tmp_path


def test_dependencies_come_first(modules: Path) -> None:
    names = ("virtio_pci", "ext4", "xen_blkfront")
    assert modules_with_dependencies(modules, names) == [
        "kernel/lib/crc16.ko",
        "kernel/fs/jbd2.ko",
        "kernel/fs/ext4.ko",
        "kernel/drivers/xen-blkfront.ko.xz",
    ]


def test_a_module_that_is_missing(modules: Path) -> None:
    with pytest.raises(BadTree, match="squashfs"):
        modules_with_dependencies(modules, ("squashfs",))
