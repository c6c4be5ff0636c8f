"""What ring and backend cost: the same random reads with them and without.

`make bench`.  4 KiB random reads of a file in RAM, by a guest through the ring
and by preadv(2) directly, alternately, several rounds in one run; medians.  The
guest looks for responses for a while before it sleeps, as one that has nothing
else to do.  Processor time of the backend is that of the daemon's process, less
what it takes to attach and detach without any I/O.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbbd_bsd.errors import XbbdError, in_words
from xbbd_bsd.native import Progress, Workload, direct_reads
from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.stats import percentile
from xbbd_bsd.toolstack import DiskOffer

DOMID, XVDA = 1, 51712
DISK_BYTES = 64 << 20
PAGE_SECTORS = 8
GUEST_POLLS_US = 100


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement: operations a second, latency and processor time in nanoseconds."""

    iops: float
    p50: float
    p99: float
    guest_cpu: float
    backend_cpu: float

    @property
    def cpu(self) -> float:
        """Of all concerned, per operation."""
        return self.guest_cpu + self.backend_cpu


def _figures(counts: Mapping[str, Any], backend_cpu_s: float) -> Figures:
    reads = max(counts["reads"], 1)
    return Figures(
        iops=reads / (counts["elapsed_ns"] / 1e9),
        p50=counts["latency_us"]["p50"] * 1000,
        p99=counts["latency_us"]["p99"] * 1000,
        guest_cpu=counts["cpu_ns"] / reads,
        backend_cpu=max(backend_cpu_s, 0.0) * 1e9 / reads,
    )


def through_ring(chain: Chain, path: str, depth: int, seconds: float, seed: int) -> dict[str, Any]:
    """One measurement with a daemon and a guest of its own; no I/O with 0 seconds."""
    daemon = chain.start_daemon()
    guest = chain.start_guest(DOMID, XVDA, "--depth", str(depth))
    offer = DiskOffer(DOMID, XVDA, path)
    chain.attach(offer)
    guest.event("connected")
    counts: dict[str, Any] = {}
    if seconds > 0:
        guest.tell(
            f"exercise verify=0 seconds={seconds} depth={depth} seed={seed} read_percent=100"
            f" min_sectors={PAGE_SECTORS} max_sectors={PAGE_SECTORS}"
            f" align_sectors={PAGE_SECTORS} poll_us={GUEST_POLLS_US}"
        )
        counts = guest.event("exercised", limit=seconds + 20)
    guest.tell("close")
    guest.event("closed")
    chain.detach(offer)
    guest.end_input()
    guest.wait()
    daemon.stop()
    assert daemon.usage is not None
    return {**counts, "backend_cpu_s": daemon.usage.ru_utime + daemon.usage.ru_stime}


def direct(fd: int, threads: int, seconds: float, seed: int) -> Figures:
    """The yardstick."""
    progress = Progress()
    load = Workload(
        seed=seed, sectors=DISK_BYTES // 512, depth=threads, seconds=seconds, read_percent=100,
        min_sectors=PAGE_SECTORS, max_sectors=PAGE_SECTORS, align_sectors=PAGE_SECTORS,
    )  # fmt: skip
    direct_reads(fd, load, progress)
    latency = {f"p{p}": percentile(progress.latency, p) / 1000 for p in (50, 99)}
    names = ("reads", "elapsed_ns", "cpu_ns")
    counts = {name: getattr(progress, name) for name in names}
    return _figures({**counts, "latency_us": latency}, 0.0)


def _median(rounds: Sequence[Figures], name: str) -> float:
    return float(statistics.median(getattr(figures, name) for figures in rounds))


def _row(label: str, rounds: Sequence[Figures], ratio: str) -> None:
    print(
        f"  {label:<34}{_median(rounds, 'iops'):>9.0f}{_median(rounds, 'p50') / 1e3:>9.1f}"
        f"{_median(rounds, 'p99') / 1e3:>9.1f}{_median(rounds, 'cpu'):>9.0f}"
        f"{_median(rounds, 'guest_cpu'):>9.0f}{_median(rounds, 'backend_cpu'):>9.0f}  {ratio}"
    )


def compare(chain: Chain, path: str, depth: int, rounds: int, seconds: float) -> None:
    """One depth: rounds of ring, and of preadv with one thread and with a thread a request."""
    threads = sorted({1, depth})
    ring: list[Figures] = []
    plain: dict[int, list[Figures]] = {n: [] for n in threads}
    fd = os.open(path, os.O_RDONLY)
    try:
        for seed in range(rounds):
            idle = through_ring(chain, path, depth, 0, seed)["backend_cpu_s"]
            counts = through_ring(chain, path, depth, seconds, seed)
            ring.append(_figures(counts, counts["backend_cpu_s"] - idle))
            for n in threads:
                plain[n].append(direct(fd, n, seconds, seed))
    finally:
        os.close(fd)
    print(f"\n4 KiB random reads, {depth} in flight, medians of {rounds} rounds of {seconds:.1f} s")
    print(
        f"  {'':<34}{'IOPS':>9}{'p50 us':>9}{'p99 us':>9}{'cpu ns':>9}{'guest':>9}{'backend':>9}"
        "  ring/preadv"
    )
    _row("ring and backend", ring, "")
    for n in threads:
        ratio = _median(ring, "iops") / _median(plain[n], "iops")
        _row(f"preadv, {n} thread{'s' if n > 1 else ''}", plain[n], f"{ratio:.2f}")


def main(rounds: int, seconds: float) -> int:
    """The command `bench`; its exit status."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    try:
        with tempfile.NamedTemporaryFile(dir=memory) as disk, Chain() as chain:
            disk.write(os.urandom(DISK_BYTES))
            disk.flush()
            where = "RAM" if memory else tempfile.gettempdir()
            print(f"Disk: a file of {DISK_BYTES >> 20} MiB in {where}; {os.cpu_count()} processors")
            for depth in (1, 32):
                compare(chain, disk.name, depth, rounds, seconds)
    except KeyboardInterrupt:
        return 130
    except (XbbdError, OSError) as error:
        print(f"bench: {in_words(error)}", file=sys.stderr)
        return 1
    return 0
