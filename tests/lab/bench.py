"""xbbd against the kernel's blkback and QEMU's qdisk: same guest, same medium, one boot.

    python -m tests.lab bench [--icount 2] -- [--rounds N] [--seconds N] [--stores ram,file]
    python -m tests.lab bench --icount 2 -- --variant 'copy:transport = "copy"' --rows 128k

Backends alternate within a round; figures are medians over the rounds.  A variant is one
more of them: xbbd with other settings for the disk.  Only ratios within one table mean
anything: the machine is emulated.  Prints the table and leaves every measurement in
$RESULTS/bench.json.  Run in dom0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.lab.subject import CONTROL, configure, counted, daemon, dom0_seconds, read_again

OTHERS = ("blkback", "qdisk")
BACKENDS = ("xbbd", *OTHERS)
STORES = ("ram", "file")
# What tells whose work it was, and how often somebody slept.
COUNTERS = (
    *("reqs_received", "total_dispatch", "io_inline", "io_handed_over", "grants_mapped_total"),
    *("grants_copied_total", "persistent_misses", "notifies_received", "notifies_sent"),
    "ring_sleeps",
)
# What fio is told, and whether the figure is MB/s rather than IOPS.
ROWS = {
    "4k random read, depth 1": ("--rw=randread --bs=4k --iodepth=1", False),
    "4k random read, depth 32": ("--rw=randread --bs=4k --iodepth=32", False),
    "4k random write, depth 32": ("--rw=randwrite --bs=4k --iodepth=32", False),
    "128k read, depth 8": ("--rw=read --bs=128k --iodepth=8", True),
    "128k write, depth 8": ("--rw=write --bs=128k --iodepth=8", True),
    "4k write + fsync, depth 1": ("--rw=randwrite --bs=4k --iodepth=1 --fsync=1", False),
}
HEADS = "".join(f"{head:>{width}}" for head, width in (
    ("", 7), ("p50", 8), ("p99", 8), ("cpu", 7), ("/blkback", 10), ("/qdisk", 10)))  # fmt: skip
RAM = "/dev/ram0"
KINDS = '["vbd3"]'  # "vbd" is blkback's here


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of fio; times in microseconds, `cpu_us` of dom0's processor for each I/O."""

    store: str
    backend: str
    row: str
    round: int
    iops: float
    mbps: float
    p50_us: float
    p99_us: float
    cpu_us: float

    @property
    def figure(self) -> float:
        """What counts in its row."""
        return self.mbps if ROWS[self.row][1] else self.iops


@dataclass(frozen=True, slots=True)
class Turn:
    """Of a backend, on a store, in a round."""

    store: str
    backend: str
    round: int

    @property
    def ours(self) -> bool:
        """Whether it is xbbd's, as it comes or a variant."""
        return self.backend not in OTHERS


def measure(guest: DomU, turn: Turn, row: str, size: int, seconds: float) -> Measurement:
    """Run one row's fio in the guest."""
    options = (
        f"--filename=/dev/xvda --direct=1 --ioengine=libaio --randrepeat=1 --norandommap"
        f" --size={size - 16}M --time_based --runtime={seconds:g} {ROWS[row][0]}"
    )
    sh("sync")  # what a row before this one left in dom0's cache is not this one's to write
    before = dom0_seconds()
    job = guest.fio(options, timeout=seconds * 10 + 120)
    used = dom0_seconds() - before
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    latency = side["clat_ns"]["percentile"]
    return Measurement(
        turn.store,
        turn.backend,
        row,
        turn.round,
        side["iops"],
        side["bw_bytes"] / 1e6,
        latency["50.000000"] / 1e3,
        latency["99.000000"] / 1e3,
        used * 1e6 / side["total_ios"],
    )


@contextmanager
def attached(guest: DomU, backend: str, medium: str) -> Iterator[None]:
    """The guest with the medium as xvda, by that backend."""
    ours = backend not in OTHERS
    if ours:
        sh(*CONTROL, "attach", str(guest.domid), medium, "xvda")
    else:
        kind = "phy" if backend == "blkback" else "qdisk"
        guest.attach(f"format=raw,vdev=xvda,access=rw,backendtype={kind},target={medium}")
    guest.wait_disk("xvda")
    yield
    if ours:
        sh(*CONTROL, "detach", str(guest.domid), "xvda")
    else:
        guest.detach("xvda")


def media(store: str, size: int) -> dict[str, str]:
    """The medium for each backend: one RAM disk, or one file and a loop device on it."""
    if store == "ram":
        return dict.fromkeys(BACKENDS, RAM)
    path = DOM0.scratch() / "disk.img"
    sh("dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={size}", "conv=fsync")
    loop = sh("losetup", "--direct-io=on", "--show", "-f", str(path))
    return {"xbbd": str(path), "blkback": loop, "qdisk": str(path)}


def variants(words: Sequence[str]) -> dict[str, str]:
    """Of "NAME:KEY = VALUE;KEY = VALUE" each: what the section of disks is to say, by name."""
    pairs = (word.partition(":") for word in words)
    return {
        name: "[disk]\n" + "".join(f"{line.strip()}\n" for line in settings.split(";"))
        for name, _, settings in pairs
    }


def _ratio(figure: float, figures: dict[str, float], other: str) -> str:
    return f"{figure / figures[other]:.2f}" if other in figures else "-"


def table(measurements: Sequence[Measurement]) -> str:
    """Medians, and what xbbd's and its variants' are to the others'."""
    lines = []
    for store in dict.fromkeys(m.store for m in measurements):
        for row, (_, in_mb) in ROWS.items():
            of_row = [m for m in measurements if (m.store, m.row) == (store, row)]
            if not of_row:
                continue
            lines += ["", f"{store}: {row}, {'MB/s' if in_mb else 'IOPS'}".ljust(45) + HEADS]
            figures = {
                backend: statistics.median(m.figure for m in of_row if m.backend == backend)
                for backend in dict.fromkeys(m.backend for m in of_row)
            }
            for backend, figure in figures.items():
                p50, p99, cpu = (
                    statistics.median(getattr(m, name) for m in of_row if m.backend == backend)
                    for name in ("p50_us", "p99_us", "cpu_us")
                )
                ratios = (_ratio(figure, figures, other) for other in ("blkback", "qdisk"))
                lines.append(
                    f"  {backend:41}{figure:>9.{int(in_mb)}f}{p50:>8.0f}{p99:>8.0f}{cpu:>7.0f}"
                    + "".join(f"{ratio:>10}" for ratio in ratios)
                )
    return "\n".join(lines)


def _turn(guest: DomU, turn: Turn, options: argparse.Namespace) -> list[Measurement]:
    """All rows with one backend."""
    found = []
    for row in (row for row in ROWS if options.rows in row):
        watched = options.counters and turn.ours
        before = counted("xbbd", COUNTERS) if watched else {}
        m = measure(guest, turn, row, options.size, options.seconds)
        found.append(m)
        print(f"{m.store} {m.round} {m.backend:12}{row:27}{m.figure:9.1f}", flush=True)
        if watched:
            after = counted("xbbd", COUNTERS)
            print({name: after[name] - before[name] for name in after}, flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, print the table; exit status."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--size", type=int, default=128, help="MiB of the disk")
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME:SETTINGS", help="one more backend"
    )
    parser.add_argument("--counters", action="store_true", help="what xbbd counted meanwhile")
    options = parser.parse_args(arguments)
    sh("modprobe", "brd", "rd_nr=1", f"rd_size={options.size * 1024}")
    sh("dd", "if=/dev/urandom", f"of={RAM}", "bs=1M", f"count={options.size}")
    sh("modprobe", "xen-blkback")
    # libxl starts a guest's QEMU only at its creation, if a disk asks for it.
    small = DOM0.scratch() / "small.img"
    sh("truncate", "-s", "1M", str(small))
    qdisk = f"format=raw,vdev=xvdz,access=rw,backendtype=qdisk,target={small}"
    guest = DomU("bench", [qdisk], tsc="native")
    found: list[Measurement] = []
    settings = {"xbbd": ""} | variants(options.variant)
    names = [*options.backends.split(","), *(name for name in settings if name != "xbbd")]
    configure(KINDS)
    with daemon() as child, guest:
        for store in options.stores.split(","):
            medium = media(store, options.size)
            for turn in (Turn(store, n, r) for r in range(options.rounds) for n in names):
                if turn.ours and len(settings) > 1:
                    configure(KINDS, settings[turn.backend])
                    read_again(child)
                with attached(guest, turn.backend, medium.get(turn.backend, medium["xbbd"])):
                    found += _turn(guest, turn, options)
    results = Path(os.environ["RESULTS"]) / "bench.json"
    results.write_text(json.dumps([asdict(m) for m in found], indent=1))
    print(table(found))
    print("\nIOPS or MB/s; p50, p99 and dom0's processor time for each I/O in microseconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
