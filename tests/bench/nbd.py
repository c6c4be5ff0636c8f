"""What a ring costs before a server of NBD, against libnbd alone: `python -m tests.bench.nbd`.

Random reads of 4 KiB, 16 at once, alternately in one run; medians, of which only the ratio
says something.  Figures for people, no test.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.native.ring import ring
from tests.native.stores import Server
from xbbd_bsd.native import Progress, Workload

ROOT = Path(__file__).parents[2]
DEPTH, OPERATIONS, ROUNDS, SIZE = 16, 30_000, 7, 64 << 20


def compile_client(directory: Path) -> Path:
    program = directory / "nbdclient"
    source = Path(__file__).with_name("nbdclient.c")
    include = f"-I{ROOT / 'xbbd_bsd' / 'native'}"
    command: list[str | Path] = [
        "cc",
        "-O2",
        "-Wall",
        "-Wextra",
        include,
        "-o",
        program,
        source,
        "-l:libnbd.so.0",
    ]
    subprocess.run(command, check=True)
    return program


def through_ring(directory: Path) -> float:
    with ring(directory, size=SIZE, store="nbd", ring_pages=1, persistent=352) as r:
        load = Workload(
            seed=1,
            sectors=SIZE // 512,
            depth=DEPTH,
            operations=OPERATIONS,
            read_percent=100,
            min_sectors=8,
            max_sectors=8,
            align_sectors=8,
        )
        r.front.exercise(load, Progress())  # connected, and warm
        begun = time.monotonic()
        r.front.exercise(load, Progress())
        return OPERATIONS / (time.monotonic() - begun)


def alone(directory: Path, program: Path) -> float:
    disk = directory / "disk"
    disk.touch()
    disk.write_bytes(b"")
    with disk.open("r+b") as file:
        file.truncate(SIZE)
    server = Server(directory, "file", str(disk))
    server.start()
    try:
        words: list[str | Path] = [program, str(server.socket), str(DEPTH), str(OPERATIONS)]
        found = 0.0
        for _ in range(2):  # the first one warms
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found = float(done.stdout)
        return found
    finally:
        server.kill()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        program = compile_client(Path(temporary))
        rates: dict[str, list[float]] = {"ring": [], "libnbd": []}
        for n in range(ROUNDS):
            for name in rates:
                directory = Path(temporary) / f"{name}{n}"
                directory.mkdir()
                found = through_ring(directory) if name == "ring" else alone(directory, program)
                rates[name].append(found)
    ring_rate, bare = (statistics.median(rates[name]) for name in ("ring", "libnbd"))
    print(f"4 KiB random reads by NBD, {DEPTH} at once, medians of {ROUNDS} rounds")
    print(f"  libnbd alone       {bare:9.0f}/s")
    print(f"  through the ring   {ring_rate:9.0f}/s   {ring_rate / bare:.2f}")


if __name__ == "__main__":
    main()
