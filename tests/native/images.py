"""Images in a cluster of Ceph for tests: one that is played, or a real one (`make test-ceph`).

A played one is files in a directory, by a librbd of our own (played.h), which this
process loads before anybody asks for the real one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from xbbd_bsd.native import RbdImage, close_image, load_rbd, open_image

POOL = "xbbd"
# Of a real cluster; "" where it is played.
CONF = os.environ.get("XBBD_TEST_CEPH_CONF", "")
SONAME = "librbd.so.1"
READ, WRITE, FLUSH, ZEROES = range(4)


def build(directory: Path) -> Path:
    """The played library; skips without a compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    library = directory / SONAME
    sources = [Path(__file__).with_name(f"played_{name}.c") for name in ("rados", "rbd", "ops")]
    command: list[str | Path] = [compiler, "-std=gnu11", "-O1", "-g", "-shared", "-fPIC"]
    command += ["-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}", "-o", library, *sources]
    subprocess.run([*command, "-lpthread"], check=True)
    return library


@functools.cache
def library() -> ctypes.CDLL | None:
    """What this process has for librbd: the played one, None for the real one."""
    if CONF:
        load_rbd()
        return None
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        # Whoever wants that name from now on gets this one.
        played = ctypes.CDLL(str(build(Path(directory))))
    load_rbd()
    return played


def fail(kind: int, errno: int) -> None:
    """Have all operations of a kind fail so, negative: be refused, 0: not any more; played."""
    played = library()
    assert played is not None
    played.played_fail(kind, errno)


class Image:
    """An image, and a client that has it open; ``former``: whose lock it takes."""

    def __init__(self, image: RbdImage, file: Path, former: str = "") -> None:
        self.image, self.file, self.former = image, file, former
        self.holder = ""
        self.fd = -1

    @property
    def cluster(self) -> Path:
        """The directory of a played cluster."""
        return Path(self.image.conf).parent

    def open(self, *, read_only: bool = False) -> None:
        found = open_image(self.image, read_only=read_only, former=self.former)
        self.fd, self.holder = found.fd, found.holder

    def close(self) -> None:
        close_image(self.fd)

    def silence(self, *, ends: bool = False) -> None:
        """The cluster does nothing for this client any more, until that ends; played."""
        if ends:
            (self.cluster / "silent").unlink()
        else:
            (self.cluster / "silent").write_text(f"{self.holder}\n")

    def refresh(self) -> None:
        """Have the file be as the image is."""
        if CONF:
            self.file.unlink(missing_ok=True)
            name = f"{self.image.pool}/{self.image.image}"
            rbd("--no-progress", "export", name, str(self.file))


def rbd(*words: str) -> None:
    """As rbd(8) has them, of the real cluster."""
    subprocess.run(["rbd", "-c", CONF, *words], check=True, stdout=subprocess.DEVNULL)


def new_image(directory: Path, file: Path, size: int) -> Image:
    """A fresh image of so many bytes; `file` has its content."""
    library()
    if CONF:
        name = uuid.uuid4().hex
        rbd("create", "--size", f"{size}B", f"{POOL}/{name}")
        return Image(RbdImage(POOL, name, conf=CONF), file)
    cluster = new_cluster(directory)
    os.link(file, cluster / POOL / "disk")
    return Image(RbdImage(POOL, "disk", conf=str(cluster / "ceph.conf")), file)


def new_cluster(directory: Path) -> Path:
    """The directory of a played cluster, without images."""
    cluster = directory / "cluster"
    (cluster / POOL).mkdir(parents=True)
    (cluster / "ceph.conf").touch()
    return cluster
