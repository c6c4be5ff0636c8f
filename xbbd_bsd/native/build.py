"""Describes the extension module to cffi: the header, the C files, the flags.

setup.py names this file to setuptools (``cffi_modules``).  The headers of the contract are
read as they stand; the platform's file is picked here and nowhere else.  Run as a
program it lists the C files of this platform.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
# In the order in which they want each other.
CONTRACT = (
    "xbb.h",
    "block/faults.h",
    "block/contract.h",
    "block/servers.h",
    "net/contract.h",
    "front/contract.h",
    "guest/contract.h",
)
# Rooms (HACKING.md): hv and core serve every family, a family is a room of its own,
# front is the guest's side, and guest the process that serves one.
ROOMS: dict[str, tuple[str, ...]] = {
    "hv": ("hv.c", "sim.c", "sim_memory.c"),
    "core": (
        "budget.c",
        "conn.c",
        "doze.c",
        "error.c",
        "grants.c",
        "kick.c",
        "latency.c",
        "mapping.c",
        "persist.c",
        "reclaim.c",
        "rest.c",
        "ring.c",
        "segment.c",
        "shortage.c",
        "thread.c",
        "tick.c",
        "workers.c",
    ),
    "block": (
        "adopt.c",
        "allowance.c",
        "answer.c",
        "away.c",
        "batch.c",
        "blkif.c",
        "carry.c",
        "coalesce.c",
        "data.c",
        "dispatch.c",
        "faults.c",
        "flush.c",
        "hold.c",
        "image.c",
        "intake.c",
        "io.c",
        "libnbd.c",
        "library.c",
        "librbd.c",
        "local.c",
        "medium.c",
        "nbd.c",
        "nbdlink.c",
        "nbdsend.c",
        "open.c",
        "order.c",
        "pages.c",
        "pause.c",
        "policy.c",
        "probes.c",
        "queue.c",
        "rate.c",
        "rbd.c",
        "recover.c",
        "resume.c",
        "settle.c",
        "speed.c",
        "sweep.c",
        "throttle.c",
        "unflushed.c",
    ),
    "net": (
        "adopt.c",
        "headers.c",
        "interface.c",
        "netif.c",
        "offload.c",
        "open.c",
        "pieces.c",
        "queue.c",
        "receive.c",
        "selftest.c",
        "state.c",
        "sums.c",
        "transmit.c",
        "wire.c",
    ),
    "front": (
        "direct.c",
        "exercise.c",
        "front.c",
        "hv_sim.c",
        "hvfront.c",
        "netfront.c",
        "netreceive.c",
        "netrelay.c",
        "netsend.c",
        "relay.c",
        "transfer.c",
    ),
    "guest": (
        "build.c",
        "cards.c",
        "daemon.c",
        "device.c",
        "disks.c",
        "guest.c",
        "kind.c",
        "limits.c",
        "message.c",
        "request.c",
    ),
}
# The files that exist once for each operating system.
LINUX: dict[str, tuple[str, ...]] = {
    "hv": ("linux.c",),
    "core": ("host_linux.c",),
    "block": ("bulk_linux.c", "disk_linux.c"),
    "net": ("link_linux.c",),
    "front": ("hv_linux.c",),
    "guest": ("confine_linux.c", "process_linux.c"),
}
FREEBSD = {
    room: tuple(name.replace("linux", "freebsd") for name in names) for room, names in LINUX.items()
}
# Assertions stay in: a data plane that contradicts itself must stop, not write.
CFLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O2", "-g", "-UNDEBUG")


def sources(platform: str = sys.platform, rooms: Iterable[str] = tuple(ROOMS)) -> list[str]:
    """The C files of some rooms, relative to the project, as setuptools wants them."""
    own = FREEBSD if platform.startswith("freebsd") else LINUX
    root = HERE.parent.parent
    names = [f"{room}/{name}" for room in rooms for name in (*ROOMS[room], *own[room])]
    return [str((HERE / name).relative_to(root)) for name in names]


def build() -> int:
    """A digest of all that the extension is made from, 64 bits."""
    files = sorted(path for path in HERE.rglob("*.[ch]") if not path.name.startswith("_"))
    text = b"\0".join(part for path in files for part in (path.name.encode(), path.read_bytes()))
    return int.from_bytes(hashlib.sha256(text).digest()[:8])


ffibuilder = FFI()
for header in CONTRACT:
    ffibuilder.cdef((HERE / header).read_text())
ffibuilder.set_source(
    "xbbd_bsd.native._xbb",
    '#include "front/front.h"\n#include "guest/guest.h"\n#include "net/net.h"\n'
    '#include "front/netfront.h"',
    sources=sources(),
    include_dirs=[str(HERE.relative_to(HERE.parent.parent))],
    depends=[str(p.relative_to(HERE.parent.parent)) for p in sorted(HERE.rglob("*.h"))],
    extra_compile_args=list(CFLAGS),
    define_macros=[("XBB_BUILD", f"{build()}ULL")],
    libraries=["pthread"],
)

if __name__ == "__main__":
    print(*sources(), sep="\n")
