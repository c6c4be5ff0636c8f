"""``python -m tests.mutants``: make mutants, try them, say which live.  HACKING.md has more."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from tests.mutants import of_c, of_python
from tests.mutants.explained import explained, outdated
from tests.mutants.mutant import Mutant
from tests.mutants.scratch import ROOT, Scratch, TargetError, Verdict
from tests.mutants.targets import TARGETS, Stage, Target

GOAL = 95  # percent that must be killed or explained
HEADERS = (
    "xbb.h",
    "hv/hv.h",
    "core/core.h",
    "core/persist.h",
    "block/faults.h",
    "block/contract.h",
    "block/servers.h",
    "block/verdict.h",
    "block/slots.h",
    "block/batch.h",
    "block/block.h",
    "net/contract.h",
    "net/netif.h",
    "net/offload.h",
    "net/frame.h",
    "net/net.h",
)


@cache
def enums_of(root: Path) -> dict[str, list[str]]:
    """The enumerations of the product in Python."""
    files = sorted((root / "xbbd_bsd").rglob("*.py"))
    return of_python.enums(path.read_text() for path in files)


def mutants_of(target: Target, root: Path = ROOT) -> list[Mutant]:
    """All mutants of a target."""
    source = (root / target.file).read_text()
    if target.is_c:
        headers = [(root / "xbbd_bsd/native" / name).read_text() for name in HEADERS]
        return of_c.mutants(target.file, source, of_c.enums(headers))
    return of_python.mutants(target.file, source, enums_of(root))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--file", action="append", metavar="NAME", help="only this (blkif.c)")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of each file")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--line", type=int, action="append", help="only those of this line")
    parser.add_argument(
        "--stages", type=int, metavar="N", help="only the N quickest of the stages of pytest"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--list", action="store_true", help="show the mutants, try none")
    return parser.parse_args(words)


def chosen(target: Target, wanted: argparse.Namespace) -> list[Mutant]:
    """Those of a target that were asked for, from top to bottom."""
    made = mutants_of(target)
    if wanted.line:
        made = [mutant for mutant in made if mutant.line in wanted.line]
    if wanted.sample is not None and wanted.sample < len(made):
        made = sorted(random.Random(wanted.seed).sample(made, wanted.sample))
    return made


class Run:
    """Copies of the tree, as many as jobs, and what was found out with them."""

    def __init__(self, directory: Path, jobs: int) -> None:
        self.jobs = jobs
        self.free: SimpleQueue[Scratch] = SimpleQueue()
        limits: dict[Stage, float] = {}
        self.all = []
        for number in range(jobs):
            (directory / str(number)).mkdir()
            self.all.append(Scratch(directory / str(number), limits))
            self.free.put(self.all[-1])
        self.explained = explained()

    def judge(self, target: Target, mutant: Mutant) -> Verdict:
        """By whichever copy is free; a survivor is shown.  What is explained is not tried."""
        if any(entry.is_about(mutant) for entry in self.explained):
            return Verdict.EXPLAINED
        scratch = self.free.get()
        try:
            verdict = scratch.judge(target, mutant)
        finally:
            self.free.put(scratch)
        if verdict is Verdict.SURVIVED:
            print(mutant.diff(), flush=True)
        return verdict

    def target(self, target: Target, mutants: list[Mutant]) -> list[Verdict]:
        """All of them, several at once."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            verdicts = list(pool.map(lambda mutant: self.judge(target, mutant), mutants))
            list(pool.map(lambda scratch: scratch.check(target), self.all))
            return verdicts
        finally:
            pool.shutdown(cancel_futures=True)  # interrupted, or a test fails by itself


def score(count: Counter[Verdict]) -> float:
    """Percent killed or explained of those that are different from the product."""
    good = count[Verdict.KILLED] + count[Verdict.EXPLAINED]
    whole = good + count[Verdict.SURVIVED]
    return 100.0 if whole == 0 else 100.0 * good / whole


def row(name: str, count: Counter[Verdict], seconds: float) -> str:
    """A line of the table."""
    numbers = (Verdict.KILLED, Verdict.EXPLAINED, Verdict.SURVIVED)
    made = sum(count[verdict] for verdict in numbers)
    cells = "".join(f"{count[verdict]:>11}" for verdict in numbers)
    return f"{name:<28}{made:>6}{cells}{score(count):>8.1f} %{seconds:>7.0f} s"


def main() -> int:
    """Status 0: enough were killed or explained; 1: not; 2: tests fail without a mutant."""
    wanted = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    targets = [
        replace(target, stages=target.stages[: wanted.stages])
        for target in TARGETS
        if not wanted.file or any(target.file.endswith(name) for name in wanted.file)
    ]
    if wanted.list:
        for target in targets:
            for mutant in chosen(target, wanted):
                print(mutant.diff())
        return 0
    made = [mutant for target in targets for mutant in mutants_of(target)]
    names = {target.file for target in targets}
    stale = outdated([entry for entry in explained() if entry.file in names], made)
    for entry in stale:
        print(f"explained.toml: {entry.file} has no such mutant: {entry.line} -> {entry.becomes}")
    if stale:
        return 2
    total: Counter[Verdict] = Counter()
    print(f"{'':<28}{'made':>6}{'killed':>11}{'explained':>11}{'survived':>11}")
    began = time.monotonic()
    with TemporaryDirectory(prefix="xbbm") as directory:
        run = Run(Path(directory), wanted.jobs)
        for target in targets:
            begun = time.monotonic()
            try:
                verdicts = run.target(target, chosen(target, wanted))
            except TargetError as error:
                print(error, file=sys.stderr)
                return 2
            count = Counter(verdicts)
            total += count
            name = target.file.removeprefix("xbbd_bsd/")
            print(row(name, count, time.monotonic() - begun), flush=True)
    print(row("all", total, time.monotonic() - began))
    return 0 if score(total) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
