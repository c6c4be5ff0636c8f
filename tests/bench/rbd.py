"""What a ring costs before a cluster of Ceph, against librbd alone: `python -m tests.bench.rbd`.

Random operations of 4 KiB, 16 at once, alternately in one run, on a cluster that is made for
it; medians, and that of the ratios of one round each.  Figures for people, no test.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.ceph.cluster import POOL, Cluster, running_cluster
from tests.ceph.conftest import in_memory
from tests.native.images import Image
from tests.native.ring import ring
from xbbd_bsd.native import Progress, RbdImage, Workload

ROOT = Path(__file__).parents[2]
DEPTH, ROUNDS, SIZE, NAME = 16, 11, 64 << 20, "bench"
OPERATIONS = {"read": 20_000, "write": 4_000}


def compile_client(directory: Path) -> Path:
    program = directory / "rbdclient"
    command: list[str | Path] = ["cc", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE"]
    command += [f"-I{ROOT / 'xbbd_bsd' / 'native'}", "-o", program]
    command += [Path(__file__).with_name("rbdclient.c"), "-l:librbd.so.1", "-l:librados.so.2"]
    subprocess.run(command, check=True)
    return program


def through_ring(directory: Path, cluster: Cluster, what: str) -> float:
    image = Image(RbdImage(POOL, NAME, conf=str(cluster.conf)), directory / "disk")
    with ring(directory, size=SIZE, image=image, persistent=352) as r:
        load = Workload(
            seed=1,
            sectors=SIZE // 512,
            depth=DEPTH,
            operations=OPERATIONS[what] // 10,
            read_percent=100 if what == "read" else 0,
            min_sectors=8,
            max_sectors=8,
            align_sectors=8,
        )
        r.front.exercise(load, Progress())  # warm
        load = replace(load, operations=OPERATIONS[what])
        begun = time.monotonic()
        r.front.exercise(load, Progress())
        return OPERATIONS[what] / (time.monotonic() - begun)


def alone(program: Path, cluster: Cluster, what: str) -> float:
    words = [str(cluster.conf), POOL, NAME, str(DEPTH), str(OPERATIONS[what]), what]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="t-", dir=in_memory()) as temporary,
        tempfile.TemporaryDirectory() as results,
        running_cluster(Path(temporary)) as cluster,
    ):
        program = compile_client(Path(results))
        file = Path(results) / "content"
        file.write_bytes(os.urandom(SIZE))
        cluster.rbd("import", "--no-progress", str(file), f"{POOL}/{NAME}")
        print(f"4 KiB random operations on Ceph, {DEPTH} at once, medians of {ROUNDS} rounds")
        for what in OPERATIONS:
            rates: dict[str, list[float]] = {"ring": [], "librbd": []}
            for n in range(ROUNDS):
                directory = Path(results) / f"{what}{n}"
                directory.mkdir()
                rates["ring"].append(through_ring(directory, cluster, what))
                rates["librbd"].append(alone(program, cluster, what))
            bare, through = statistics.median(rates["librbd"]), statistics.median(rates["ring"])
            pairs = zip(rates["ring"], rates["librbd"], strict=True)
            ratios = sorted(ring / librbd for ring, librbd in pairs)
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            print(f"  {what:5} librbd alone     {bare:9.0f}/s")
            print(
                f"  {what:5} through the ring {through:9.0f}/s"
                f"   {statistics.median(ratios):.2f} ({spread})"
            )


if __name__ == "__main__":
    main()
