"""Builds the images of the lab from Debian's packages, and keeps them in a cache.

Incremental: a second build with nothing changed takes no time.  One build at a
time, under a lock.  It knows nothing of what will run.  Run on the host, as
root (mmdebstrap, chroot).
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.initramfs import (
    DOM0_MODULES,
    DOMU_MODULES,
    DOMU_PROGRAMS,
    inside,
    write_dom0,
    write_domu,
)

SUITE = os.environ.get("XENLAB_SUITE", "bookworm")
MIRROR = os.environ.get("XENLAB_MIRROR", "")  # empty: mmdebstrap's default
XEN = os.environ.get("XENLAB_XEN", "4.17")
HYPERVISOR = f"xen-hypervisor-{XEN}-amd64"
PACKAGES = (
    f"xen-utils-{XEN}",
    *["xen-utils-common", "xenstore-utils", "qemu-system-xen", "qemu-utils"],
    *["python3", "python3-cffi-backend", "python3-pytest"],
    *[
        "fio",
        "e2fsprogs",
        "kmod",
        "iproute2",
        "iputils-ping",
        "iperf3",
        "ethtool",
        "tcpdump",
        "procps",
        "util-linux",
        "mount",
        "busybox-static",
        "strace",
    ],
    *os.environ.get("XENLAB_PACKAGES", "").split(),
)
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "dpkg-deb": "dpkg",
}
# Kernel modules that a host without hardware does not miss: two thirds of the image.
PRUNED = (
    *["sound", "drivers/gpu", "drivers/media", "drivers/net/ethernet", "drivers/net/wireless"],
    *["drivers/infiniband", "drivers/staging", "drivers/usb", "drivers/iio", "drivers/hwmon"],
    *["drivers/scsi", "drivers/isdn", "drivers/input", "drivers/mtd", "drivers/comedi"],
)
EXCLUDED = (
    *["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/lib/ipxe"],
    *["usr/share/seabios", "var/lib/apt", "var/cache/apt", "boot", "debs"],
)
GUEST = Path(__file__).parent / "guest"
VERSION = "1"  # to be changed with the build itself


class LabError(Exception):
    """The lab cannot be had; the text says what to do."""


def cache() -> Path:
    """Where images, packages and results lie: XENLAB_CACHE, else below the user's cache."""
    given = os.environ.get("XENLAB_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenlab"


@dataclass(frozen=True, slots=True)
class Images:
    """The files that a boot needs, and the tree that they were made from."""

    xen: Path
    kernel: Path
    initrd: Path
    root: Path
    tree: Path


def say(text: str) -> None:
    """For people, beside what a job prints."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def key_of(*parts: object) -> str:
    """A name for what was made of these."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def install_tools() -> None:
    """See to it that the programs which build and boot are there; LabError if they cannot be."""
    packages = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not packages:
        return
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"missing: {names} (as root on Debian: apt-get install {names})")
    say(f"installing {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *words], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"apt-get {' '.join(words)} failed:\n{done.stderr.strip()}")


def build(*, force: bool = False) -> Images:
    """Make what is missing or out of date; LabError, BadTree."""
    install_tools()
    home = cache()
    (home / "img").mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(home, force)


def _build(home: Path, force: bool) -> Images:
    begun = time.monotonic()
    tree, key = _tree(home, force)
    images = home / "img"
    modules = next((tree / "usr/lib/modules").iterdir())
    made = (tree / "lab/vmlinux", images / "xen", images / "vmlinux")
    if not all(path.exists() for path in made):
        _boot_files(tree, modules, images)
    scripts = {path.name: path.read_bytes() for path in sorted(GUEST.iterdir())}
    guest_key = key_of(key, VERSION, DOMU_MODULES, DOMU_PROGRAMS, scripts["domu-init"])
    _make(
        tree / "lab/domu.cpio",
        guest_key,
        lambda path: _write(path, lambda out: write_domu(out, tree, modules, scripts["domu-init"])),
    )
    _make(
        images / "root.sqfs",
        key_of(guest_key, EXCLUDED, PRUNED),
        lambda path: _squash(tree, path),
    )
    _make(
        images / "initrd.cpio",
        key_of(key, VERSION, DOM0_MODULES, *scripts.values()),
        lambda path: _write(path, lambda out: write_dom0(out, tree, modules, scripts)),
    )
    (images / "info.json").write_text(
        json.dumps({"kernel": modules.name, "suite": SUITE, "xen": XEN}) + "\n"
    )
    if time.monotonic() - begun > 2:
        say(f"images are ready in {images} ({time.monotonic() - begun:.0f} s)")
    return Images(
        images / "xen", images / "vmlinux", images / "initrd.cpio", images / "root.sqfs", tree
    )


def _tree(home: Path, force: bool) -> tuple[Path, str]:
    """dom0's packages unpacked, and the key of what they are."""
    key = key_of(VERSION, SUITE, MIRROR, PACKAGES, HYPERVISOR)
    tree = home / f"tree-{key}"
    if tree.is_dir() and not force:
        return tree, key
    if os.geteuid() != 0:
        raise LabError("building the images needs root (mmdebstrap, chroot)")
    for old in home.glob("tree-*"):  # what a build that was cut off left is named so too
        shutil.rmtree(old)
    packages = home / "debs"
    packages.mkdir(exist_ok=True)
    part = home / f"tree-{key}.part"
    # The kernel and Xen are unpacked, not installed: no initramfs, no boot loader.
    fetch = (
        'mkdir "$1/debs" && cd "$1/debs" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && '
        "kernel=$(apt-cache depends linux-image-amd64 |"
        ' sed -n "s/.*Depends: \\(linux-image-[0-9].*\\)/\\1/p" | head -n1) &&'
        f' apt-get download "$kernel" {HYPERVISOR}'
    )
    command = [
        "mmdebstrap",
        "--variant=essential",
        "--include=" + ",".join(PACKAGES),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Retries "3"',
        "--skip=download/empty",  # keep the packages for the next build
        "--skip=essential/unlink",
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in {packages} /var/cache/apt/archives/",
        f"--customize-hook=sync-out /var/cache/apt/archives {packages}",
        f"--customize-hook={fetch}",
        *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("doc", "man", "locale", "info")),
        SUITE,
        str(part),
        *([MIRROR] if MIRROR else []),
    ]
    say(f"building the dom0 tree with mmdebstrap ({SUITE}), about two minutes")
    log = home / "build.log"
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"mmdebstrap failed, see {log}:\n{log.read_text()[-1000:]}")
    shutil.rmtree(packages / "partial", ignore_errors=True)
    for package in (part / "debs").glob("*.deb"):
        # dpkg-deb -x would replace the link /lib by a directory.
        unpack = f"dpkg-deb --fsys-tarfile {package} | tar -x --keep-directory-symlink -C {part}"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)
        package.unlink()
    part.rename(tree)
    return tree, key


def _boot_files(tree: Path, modules: Path, images: Path) -> None:
    """Xen and the kernel as QEMU and xl want them, and fewer modules."""
    for directory in PRUNED:
        shutil.rmtree(modules / "kernel" / directory, ignore_errors=True)
    subprocess.run(["chroot", str(tree), "/sbin/depmod", modules.name], check=True)
    xen = next((tree / "boot").glob("xen-*.gz"))
    (images / "xen").write_bytes(gzip.decompress(xen.read_bytes()))
    kernel = inner_kernel((tree / f"boot/vmlinuz-{modules.name}").read_bytes())
    (images / "vmlinux").write_bytes(kernel)
    (tree / "lab").mkdir(exist_ok=True)
    part = tree / "lab/vmlinux.part"
    part.write_bytes(kernel)
    part.rename(tree / "lab/vmlinux")


def inner_kernel(image: bytes) -> bytes:
    """The ELF kernel inside an xz-compressed bzImage, which saves unpacking it under emulation.

    The image itself if it is packed otherwise.  Offsets are those of the
    kernel's boot protocol (setup_sects, payload_offset, payload_length).
    """
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[(image[0x1F1] + 1) * 512 + offset :][:length]
    if payload[:6] != b"\xfd7zXZ\0":
        return image
    kernel = lzma.LZMADecompressor().decompress(payload)
    return kernel if kernel[:4] == b"\x7fELF" else image


def _write(path: Path, write: Callable[..., None]) -> None:
    with path.open("wb") as out:
        write(out)


def _squash(tree: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    subprocess.run(
        ["mksquashfs", str(tree), str(path), "-comp", "lz4", "-noappend", "-quiet",
         "-no-progress", "-e", *EXCLUDED],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _make(path: Path, key: str, make: Callable[[Path], None]) -> None:
    """Make a file unless it was made of the same before."""
    stamp = path.with_name(f".{path.name}.stamp")
    if path.exists() and stamp.exists() and stamp.read_text() == key:
        return
    say(f"making {path.name}")
    stamp.unlink(missing_ok=True)
    make(path)
    stamp.write_text(key)


def libc_version(tree: Path) -> tuple[int, int]:
    """The version of dom0's C library."""
    text = inside(tree, "/lib/x86_64-linux-gnu/libc.so.6").read_bytes()
    found = re.search(rb"GNU C Library .*? version (\d+)\.(\d+)", text)
    if found is None:
        raise LabError(f"{tree}: no version in libc.so.6")
    return int(found[1]), int(found[2])
