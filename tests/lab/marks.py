"""Rows of a bench between marks that the emulator notices (blocks.c), for a profile.

    python -m tests.lab profile "4k random read, depth 1"
    python -m tests.lab profile "4k write + fsync, depth 1" --store file --backend blkback
    python -m tests.lab profile "TCP, guest to dom0"

Each row runs for a short and for a long while, so that what it takes to begin and end
can be subtracted.  Leaves in $RESULTS which marks are whose (marks.json), and the symbols
of Xen, of dom0's kernel and of our process.  Run in dom0.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab import bench, netbench
from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.lab.subject import configure, daemon

SHORT, LONG = 1, 3  # seconds
LOOPS = 200_000  # system calls of dom0's alone, by which its kernel is known
_NOP, _SEED, _RETURN = b"\x0f\x1f\x84\x00", b"\xed\x5e", b"\xc3"


class Marker:
    """Executes marks, numbered from 0."""

    def __init__(self) -> None:
        """The instruction is written anew for each."""
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=7)
        self._number = 0

    def __call__(self) -> int:
        """One more; its number."""
        number, self._number = self._number, self._number + 1
        # At another place each time: whoever translated it before need not look again.
        at = 16 * number
        self._code[at : at + 9] = _NOP + number.to_bytes(2, "little") + _SEED + _RETURN
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._code, at))
        ctypes.CFUNCTYPE(None)(place)()
        return number


def _keep_symbols(pid: int) -> None:
    results = Path(os.environ["RESULTS"])
    for path in ("/proc/kallsyms", "/proc/xen/xensyms", f"/proc/{pid}/maps"):
        with open(path, "rb") as source, (results / Path(path).name).open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _run(marker: Marker, pid: int, units: Callable[[float], float]) -> list[dict[str, float]]:
    """Short and long; `units` runs so many seconds, and says how much was done."""
    found: list[dict[str, float]] = []
    marker()
    for _ in range(LOOPS):
        os.getppid()
    found.append({"mark": marker(), "units": LOOPS})
    for seconds in (SHORT, LONG):
        marker()
        done = units(seconds)
        found.append({"mark": marker(), "units": done})
    _keep_symbols(pid)
    return found


def _disk(row: str, store: str, backend: str) -> list[dict[str, float]]:
    size = 128
    sh("modprobe", "brd", "rd_nr=1", f"rd_size={size * 1024}")
    sh("dd", "if=/dev/urandom", f"of={bench.RAM}", "bs=1M", f"count={size}")
    sh("modprobe", "xen-blkback")
    configure(bench.KINDS)
    turn = bench.Turn(store, backend, 0)
    medium = bench.media(store, size)[backend]
    with (
        daemon() as child,
        DomU("bench", tsc="native") as guest,
        bench.attached(guest, backend, medium),
    ):

        def units(seconds: float) -> float:
            return bench.measure(guest, turn, row, size, seconds).iops * seconds

        return _run(Marker(), child.pid, units)


def _card(row: str) -> list[dict[str, float]]:
    configure('["vif"]')
    with (
        daemon() as child,
        DOM0.bridge(netbench.BRIDGE, f"{netbench.HERE}/24"),
        DomU("bench", tsc="native") as guest,
        netbench.card(guest) as interface,
    ):

        def units(seconds: float) -> float:
            figure, _ = netbench.stream(guest, interface, row, seconds)
            packets = figure if row.startswith("UDP") else figure * 1e6 / 8 / netbench.WIRE
            return packets * seconds

        return _run(Marker(), child.pid, units)


def main(arguments: Sequence[str] | None = None) -> int:
    """The row that is named; exit status."""
    parser = argparse.ArgumentParser(prog="profile")
    parser.add_argument("row", choices=[*bench.ROWS, *netbench.STREAMS])
    parser.add_argument("--backend", choices=bench.BACKENDS[:2], default=bench.BACKENDS[0])
    parser.add_argument("--store", choices=bench.STORES, default=bench.STORES[0])
    options = parser.parse_args(arguments)
    if options.row in bench.ROWS:
        found = _disk(options.row, options.store, options.backend)
    else:
        found = _card(options.row)
    (Path(os.environ["RESULTS"]) / "marks.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
