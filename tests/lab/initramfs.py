"""What goes into the initramfs of dom0 and of a guest: programs with the libraries
they need, kernel modules with those they depend on, and the first process.

Works on an unpacked Debian tree and runs nothing of it.  Run on the host.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from tests.lab.cpio import CHARACTER, Cpio

# Loaded in this order by dom0's first process, and put into a guest's /modules.
DOM0_MODULES = ("virtio_pci", "virtio_blk", "squashfs", "overlay")
DOMU_MODULES = ("ext4", "crc32c_generic", "xen_blkfront", "xen_netfront", "8021q")
DOMU_PROGRAMS = (
    "/usr/bin/fio",
    "/sbin/mkfs.ext4",
    "/sbin/e2fsck",
    "/usr/sbin/blkdiscard",
    "/usr/bin/iperf3",
    "/usr/sbin/ethtool",
    "/usr/bin/xenstore-read",
    "/usr/bin/xenstore-write",
    "/usr/bin/xenstore-ls",
)
LIBRARIES = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/ceph",
    "/lib64",
    "/usr/lib64",
    "/usr/lib",
)


class BadTree(Exception):
    """The tree lacks what an image needs."""


def inside(tree: Path, path: str) -> Path:
    """The real file behind an absolute path of the tree, whose links lead within it."""
    for _ in range(20):
        current, parts = Path("/"), Path(path).parts[1:]
        for i, part in enumerate(parts):
            step = current / part
            real = tree / str(step).lstrip("/")
            if real.is_symlink():
                target = os.readlink(real)
                base = Path(target) if target.startswith("/") else current / target
                path = os.path.normpath(base.joinpath(*parts[i + 1 :]))
                break
            current = step
        else:
            return tree / str(current).lstrip("/")
    raise BadTree(f"too many links: {path}")


def needed(path: Path) -> tuple[str | None, list[str]]:
    """Interpreter and libraries that a 64-bit little-endian ELF file asks for; of others none."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return None, []
    table, size, count = (
        *struct.unpack_from("<Q", data, 32),
        *struct.unpack_from("<HH", data, 54),
    )
    interpreter, loads, dynamic = None, [], b""
    for i in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + i * size)
        if kind == 1:  # PT_LOAD
            loads.append((address, offset, length))
        elif kind == 2:  # PT_DYNAMIC
            dynamic = data[offset : offset + length]
        elif kind == 3:  # PT_INTERP
            interpreter = data[offset : offset + length].rstrip(b"\0").decode()
    entries = list(struct.iter_unpack("<QQ", dynamic[: len(dynamic) // 16 * 16]))
    names = [value for tag, value in entries if tag == 1]  # DT_NEEDED
    if not names:
        return interpreter, []
    strings = next(value for tag, value in entries if tag == 5)  # DT_STRTAB
    base = next(
        offset + strings - address
        for address, offset, length in loads
        if address <= strings < address + length
    )
    return interpreter, [
        data[base + name : data.index(b"\0", base + name)].decode() for name in names
    ]


def add_program(archive: Cpio, tree: Path, program: str) -> None:
    """A program with everything that it needs; BadTree if the tree has not got it."""
    todo = [program]
    while todo:
        path = todo.pop()
        real = inside(tree, path)
        if not real.is_file():
            raise BadTree(f"{program}: {path} is missing")
        archive.file(path, real, 0o755)
        interpreter, libraries = needed(real)
        if interpreter:
            todo.append(interpreter)
        for library in libraries:
            places = [f"{place}/{library}" for place in LIBRARIES]
            found = next((p for p in places if inside(tree, p).is_file()), None)
            if found is None:
                raise BadTree(f"{path}: library {library} not found")
            if found.strip("/") not in archive:
                todo.append(found)


def modules_with_dependencies(directory: Path, names: tuple[str, ...]) -> list[str]:
    """Paths of modules below their directory, dependencies first; none for what is built in."""
    depends: dict[str, list[str]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        module, _, rest = line.partition(":")
        depends[module] = rest.split()
    by_name = {Path(m).name.split(".ko")[0].replace("-", "_"): m for m in depends}
    built_in = (directory / "modules.builtin").read_text().replace("-", "_")
    order: list[str] = []

    def want(module: str) -> None:
        for dependency in reversed(depends[module]):
            want(dependency)
        if module not in order:
            order.append(module)

    for name in names:
        if name in by_name:
            want(by_name[name])
        elif f"/{name}.ko" not in built_in:
            raise BadTree(f"kernel module {name} not found")
    return order


def _begin(out: BinaryIO, tree: Path, modules: Path, names: tuple[str, ...]) -> Cpio:
    archive = Cpio(out)
    archive.add("dev/console", CHARACTER, device=(5, 1))
    archive.file("bin/busybox", inside(tree, "/bin/busybox"))
    archive.link("bin/sh", "busybox")
    order = modules_with_dependencies(modules, names)
    for module in order:
        archive.file(f"modules/{Path(module).name}", modules / module)
    archive.text("modules/order", "".join(f"{Path(module).name}\n" for module in order))
    return archive


def write_domu(out: BinaryIO, tree: Path, modules: Path, init: bytes) -> None:
    """A guest's: its whole system."""
    archive = _begin(out, tree, modules, DOMU_MODULES)
    archive.add("init", 0o100755, init)
    for program in DOMU_PROGRAMS:
        add_program(archive, tree, program)
    archive.close()


def write_dom0(out: BinaryIO, tree: Path, modules: Path, scripts: dict[str, bytes]) -> None:
    """dom0's: as much as it takes to mount the rest.  `scripts`: the first processes."""
    archive = _begin(out, tree, modules, DOM0_MODULES)
    for name, data in scripts.items():
        archive.add("init" if name == "initrd-init" else f"lab/{name}", 0o100755, data)
    archive.close()
