"""xbbd against the kernel's blkback and QEMU's qdisk: same guest, same medium, one boot.

    python -m tests.lab bench [--icount 2] -- [--rounds N] [--seconds N] [--stores ram,file]

Backends alternate within a round; figures are medians over the rounds.  Only
ratios within one table mean anything: the machine is emulated.  Prints the
table and leaves every measurement in $RESULTS/bench.json.  Run in dom0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.domu import DomU, scratch, sh, wait_for

BACKENDS = ("xbbd", "blkback", "qdisk")
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
RAM = "/dev/ram0"
CONFIG = '[daemon]\nkinds = ["vbd3"]\n'  # "vbd" is blkback's here


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


def dom0_seconds() -> float:
    """Processor time that dom0, where all three backends run, has used."""
    return float(sh("xl", "list", "0").split()[-1])


def measure(guest: DomU, store: str, backend: str, row: str, number: int, size: int,
            seconds: float) -> Measurement:  # fmt: skip
    """Run one row's fio in the guest."""
    options = (
        f"--filename=/dev/xvda --direct=1 --ioengine=libaio --randrepeat=1 --norandommap"
        f" --size={size - 16}M --time_based --runtime={seconds:g} {ROWS[row][0]}"
    )
    before = dom0_seconds()
    job = guest.fio(options, timeout=seconds * 10 + 120)
    used = dom0_seconds() - before
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    latency = side["clat_ns"]["percentile"]
    return Measurement(
        store,
        backend,
        row,
        number,
        side["iops"],
        side["bw_bytes"] / 1e6,
        latency["50.000000"] / 1e3,
        latency["99.000000"] / 1e3,
        used * 1e6 / side["total_ios"],
    )


def counted() -> dict[str, int]:
    """What xbbd has counted so far, of all its disks together."""
    sums: dict[str, int] = {}
    for line in sh(sys.executable, "-m", "xbbd_bsd.xbbctl", "-e", "dev.xbbd").splitlines():
        name, _, value = line.partition("=")
        leaf = name.rpartition(".")[2]
        if leaf in COUNTERS and name.count(".") == 3:
            sums[leaf] = sums.get(leaf, 0) + int(value)
    return sums


@contextmanager
def daemon() -> Iterator[None]:
    """xbbd for disks of kind vbd3."""
    config, log = Path("/tmp/bench.conf"), Path(os.environ["RESULTS"]) / "xbbd.log"
    config.write_text(CONFIG + os.environ.get("XBBD_CONFIG", ""))
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "xbbd_bsd.daemon", "-d", "-f", str(config)],
            stdout=output,
            stderr=output,
        )
        wait_for("xbbd serves", lambda: "serving" in log.read_text(), 60)
        yield
        child.terminate()
        child.wait(30)


@contextmanager
def attached(guest: DomU, backend: str, medium: str) -> Iterator[None]:
    """The guest with the medium as xvda, by that backend."""
    if backend == "xbbd":
        control = [sys.executable, "-m", "xbbd_bsd.xbbctl"]
        sh(*control, "attach", str(guest.domid), medium, "xvda")
    else:
        kind = "phy" if backend == "blkback" else "qdisk"
        guest.attach(f"format=raw,vdev=xvda,access=rw,backendtype={kind},target={medium}")
    guest.wait_disk("xvda")
    yield
    if backend == "xbbd":
        sh(*control, "detach", str(guest.domid), "xvda")
    else:
        guest.detach("xvda")


def media(store: str, size: int) -> dict[str, str]:
    """The medium for each backend: one RAM disk, or one file and a loop device on it."""
    if store == "ram":
        return dict.fromkeys(BACKENDS, RAM)
    path = scratch() / "disk.img"
    sh("dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={size}", "conv=fsync")
    loop = sh("losetup", "--direct-io=on", "--show", "-f", str(path))
    return {"xbbd": str(path), "blkback": loop, "qdisk": str(path)}


def _ratio(figures: dict[str, float], other: str) -> str:
    return f"{figures['xbbd'] / figures[other]:.2f}" if {"xbbd", other} <= set(figures) else "-"


def table(measurements: Sequence[Measurement]) -> str:
    """Medians, and what xbbd's are to the others'."""
    lines = []
    for store in dict.fromkeys(m.store for m in measurements):
        heads = (f"{backend:>9} {'p50':>7} {'p99':>7} {'cpu':>6}" for backend in BACKENDS)
        lines += ["", f"{f'disk: {store}':27}{''.join(heads)}  /blkback  /qdisk"]
        for row, (_, in_mb) in ROWS.items():
            line, figures = f"{row} {'MB/s' if in_mb else 'IOPS'}".ljust(27), {}
            for backend in BACKENDS:
                key = (store, row, backend)
                runs = [m for m in measurements if (m.store, m.row, m.backend) == key]
                if not runs:
                    line += " " * 32
                    continue
                figures[backend] = statistics.median(m.figure for m in runs)
                p50, p99, cpu = (
                    statistics.median(getattr(m, name) for m in runs)
                    for name in ("p50_us", "p99_us", "cpu_us")
                )
                line += f"{figures[backend]:>9.{int(in_mb)}f} {p50:>7.0f} {p99:>7.0f} {cpu:>6.0f}"
            if figures:
                lines.append(f"{line}{_ratio(figures, 'blkback'):>10}{_ratio(figures, 'qdisk'):>8}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, print the table; exit status."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--size", type=int, default=128, help="MiB of the disk")
    parser.add_argument("--stores", default="ram,file")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--counters", action="store_true", help="what xbbd counted meanwhile")
    options = parser.parse_args(arguments)
    sh("modprobe", "brd", "rd_nr=1", f"rd_size={options.size * 1024}")
    sh("dd", "if=/dev/urandom", f"of={RAM}", "bs=1M", f"count={options.size}")
    sh("modprobe", "xen-blkback")
    # libxl starts a guest's QEMU only at its creation, if a disk asks for it.
    small = scratch() / "small.img"
    sh("truncate", "-s", "1M", str(small))
    guest = DomU("bench", [f"format=raw,vdev=xvdz,access=rw,backendtype=qdisk,target={small}"])
    found: list[Measurement] = []
    with daemon(), guest:
        for store in options.stores.split(","):
            medium = media(store, options.size)
            for number in range(options.rounds):
                for backend in options.backends.split(","):
                    with attached(guest, backend, medium[backend]):
                        for row in (row for row in ROWS if options.rows in row):
                            count = options.counters and backend == "xbbd"
                            before = counted() if count else {}
                            m = measure(
                                guest, store, backend, row, number, options.size, options.seconds
                            )
                            found.append(m)
                            print(
                                f"{store} {number} {backend:8}{row:27}{m.figure:9.1f}", flush=True
                            )
                            if count:
                                after = counted()
                                print({name: after[name] - before[name] for name in after})
    results = Path(os.environ["RESULTS"]) / "bench.json"
    results.write_text(json.dumps([asdict(m) for m in found], indent=1))
    print(table(found))
    print("\nIOPS or MB/s; p50, p99 and dom0's processor time for each I/O in microseconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
