"""Describes the extension module to cffi: the header, the C files, the flags.

setup.py names this file to setuptools (``cffi_modules``).  The headers of the contract are
read as they stand; the platform's file is picked here and nowhere else.  Run as a
program it lists the C files of this platform.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
CONTRACT = ("faults.h", "xbb.h")  # in the order in which they want each other
COMMON = (
    "batch.c",
    "blkif.c",
    "budget.c",
    "coalesce.c",
    "data.c",
    "devstat.c",
    "direct.c",
    "exercise.c",
    "faults.c",
    "flush.c",
    "front.c",
    "front_transfer.c",
    "grants.c",
    "hv.c",
    "hv_sim.c",
    "hvfront_sim.c",
    "idle.c",
    "intake.c",
    "mapping.c",
    "open.c",
    "order.c",
    "persist.c",
    "probes.c",
    "queue.c",
    "reclaim.c",
    "ring.c",
    "shortage.c",
    "sim_memory.c",
    "state.c",
    "thread.c",
    "workers.c",
)
# Assertions stay in: a data plane that contradicts itself must stop, not write.
CFLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O2", "-g", "-UNDEBUG")


def platform_sources(platform: str = sys.platform) -> tuple[str, ...]:
    """The files that exist once for each operating system."""
    if platform.startswith("freebsd"):
        return ("disk_freebsd.c", "host_freebsd.c", "hv_freebsd.c")
    return ("disk_linux.c", "host_linux.c", "hv_linux.c", "hvfront_linux.c")


def sources(platform: str = sys.platform) -> list[str]:
    """All C files, relative to the project, as setuptools wants them."""
    root = HERE.parent.parent
    return [str((HERE / name).relative_to(root)) for name in (*COMMON, *platform_sources(platform))]


ffibuilder = FFI()
for header in CONTRACT:
    ffibuilder.cdef((HERE / header).read_text())
ffibuilder.set_source(
    "xbbd_bsd.native._xbb",
    '#include "internal.h"',
    sources=sources(),
    include_dirs=[str(HERE.relative_to(HERE.parent.parent))],
    depends=[str(p.relative_to(HERE.parent.parent)) for p in sorted(HERE.glob("*.h"))],
    extra_compile_args=list(CFLAGS),
    libraries=["pthread"],
)

if __name__ == "__main__":
    print(*sources(), sep="\n")
