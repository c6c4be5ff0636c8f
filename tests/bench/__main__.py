"""What a ring costs on a disk that takes no time: `make bench-null`.

Processor time of the ring's thread, which says how many requests a second one processor is
good for, the least of some rounds; and, where valgrind is, its instructions a request, which
do not depend on what else the machine does: those of a long run less those of a short one.
For counting the thread does not look around before it sleeps, which goes by the clock,
except in the row that shows what it costs.  Figures for people, no test.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xbbd_bsd.native.build import CFLAGS, sources

ROOT = Path(__file__).parents[2]
TESTS_C = ROOT / "tests" / "c"
FILES = (Path(__file__).with_name("null.c"), TESTS_C / "check.c", TESTS_C / "device.c")
WAYS = ("map", "copy", "kept", "kept-copied")
DEPTHS = (1, 8, 12, 32)
SECTORS_4K, SECTORS_128K = 8, 256
LOOK_US = 50
SLOW_US = 100


@dataclass(frozen=True, slots=True)
class Case:
    """What one run of the program does."""

    way: str
    depth: int
    sectors: int = SECTORS_4K
    read_percent: int = 100
    look_us: int = LOOK_US
    slow_us: int = 0

    def words(self, operations: int) -> list[str]:
        """Its arguments."""
        numbers = (self.depth, operations, self.sectors, self.read_percent)
        return [self.way, *map(str, (*numbers, self.look_us, self.slow_us))]


COUNTED = (
    ("map, 32 in flight", Case("map", 32, look_us=0)),
    ("copy, 32 in flight", Case("copy", 32, look_us=0)),
    ("kept, 32 in flight", Case("kept", 32, look_us=0)),
    ("kept-copied, 32 in flight", Case("kept-copied", 32, look_us=0)),
    ("kept-copied, 32 writes in flight", Case("kept-copied", 32, read_percent=0, look_us=0)),
    ("kept-copied, 1 in flight, looks around", Case("kept-copied", 1)),
    ("kept-copied, 8 of 128 KiB", Case("kept-copied", 8, SECTORS_128K, look_us=0)),
    ("map, 8 of 128 KiB", Case("map", 8, SECTORS_128K, look_us=0)),
    *(
        (f"map, a slow disk, {depth} in flight", Case("map", depth, look_us=0, slow_us=SLOW_US))
        for depth in (32, 256, 1024)
    ),
)


def compile_program(directory: Path) -> Path:
    """With the flags of the product."""
    program = directory / "null"
    includes = [f"-I{ROOT / 'xbbd_bsd' / 'native'}", f"-I{TESTS_C}"]
    files = [*FILES, *(ROOT / name for name in sources())]
    compiler = os.environ.get("CC", "cc")
    command: list[str | Path] = [compiler, *CFLAGS, *includes, "-o", program, *files]
    subprocess.run([*command, "-Wl,--wrap=xbb_hv_lookup", "-lpthread"], check=True)
    return program


def run(program: Path, case: Case, operations: int) -> tuple[float, float, float]:
    """Nanoseconds of the ring's thread, of time, and sleeps: all a request."""
    done = subprocess.run(
        [program, *case.words(operations)], check=True, capture_output=True, text=True
    )
    cpu, wall, sleeps = (int(word) / operations for word in done.stdout.split())
    return cpu, wall, sleeps


def instructions(program: Path, case: Case, operations: int, directory: Path) -> int:
    """Of the ring's thread in one run."""
    out = directory / "callgrind.out"
    words = ["--tool=callgrind", "--toggle-collect=xbb_queue_main", f"--callgrind-out-file={out}"]
    command: list[str | Path] = ["valgrind", *words, program, *case.words(operations)]
    subprocess.run(command, check=True, capture_output=True)
    found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M)
    assert found is not None
    return int(found[1])


def show_times(program: Path, way: str, rounds: int, operations: int) -> None:
    """How many requests a second one processor is good for."""
    print(f"4 KiB random reads, data by {way}    ns a request  requests/s of a processor  sleeps")
    for depth in DEPTHS:
        case = Case(way, depth)
        best = min(run(program, case, operations) for _ in range(rounds))
        rate = 1e9 / best[0]
        print(f"  {depth:>4} in flight {best[0]:>36.0f} {rate:>26.0f} {best[2]:>7.3f}")


def show_instructions(program: Path, operations: int, directory: Path) -> None:
    """Or that there is no way to count them."""
    if shutil.which("valgrind") is None:
        print("instructions a request: not counted, valgrind is not here")
        return
    print("instructions a request, of the ring's thread")
    for label, case in COUNTED:
        n = operations if case.sectors == SECTORS_4K else operations // 4
        short, long = (instructions(program, case, k * n, directory) for k in (1, 3))
        print(f"  {label:<40}{(long - short) / (2 * n):>10.0f}", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--way", choices=WAYS, default="kept-copied", help="for the times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=200000, help="of a round")
    parser.add_argument("--counted", type=int, default=20000, help="of the shorter run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xbb-null.") as name:
        directory = Path(name)
        program = compile_program(directory)
        show_times(program, args.way, args.rounds, args.operations)
        show_instructions(program, args.counted, directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
