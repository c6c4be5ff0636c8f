"""The regression record: what benches measured in virtual time, by figure and commit.

    figures.tsv      commit  store  row  xbbd  blkback  qdisk  and dom0's us for an I/O of each
    figures-net.tsv  commit  row  xnb  netback  and dom0's us for a packet of each

All are medians; of disks IOPS or MB/s, of cards Mbit/s, datagrams a second or us.  Lines
without dom0's time are of an older series: of a machine whose guest had its TSC emulated, and
which was charged for a copy by the byte.  Theirs and the others' are not to be compared.
Knows nothing of how they were measured.  Run on the host.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "figures.tsv"


@dataclass(frozen=True, slots=True)
class Record:
    """A file of them.

    keys: what a line is told by, after its commit.  results: what a job leaves.
    figure: what counts of a measurement.
    """

    path: Path
    results: str
    keys: tuple[str, ...]
    backends: tuple[str, ...]
    figure: Callable[[dict[str, Any]], float]

    def lines(self, results: str, commit: str) -> list[str]:
        """Its lines for the results of one bench, which are its JSON."""
        found: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]]
        found = defaultdict(lambda: defaultdict(list))
        for run in json.loads(results):
            key = tuple(run[name] for name in self.keys)
            found[key][run["backend"]].append((self.figure(run), run["cpu_us"]))
        return [
            "\t".join([commit, *key, *self._medians(runs, 0), *self._medians(runs, 1)])
            for key, runs in found.items()
        ]

    def _medians(self, runs: dict[str, list[tuple[float, float]]], which: int) -> list[str]:
        return [
            f"{statistics.median(run[which] for run in runs[name]):.1f}" if name in runs else "-"
            for name in self.backends
        ]

    def append(self, results: Path, root: Path) -> None:
        """The results of a bench, under the commit that is checked out."""
        words = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        with self.path.open("a") as file:
            lines = self.lines((results / self.results).read_text(), commit)
            file.write("".join(f"{line}\n" for line in lines))


def _of_a_disk(run: dict[str, Any]) -> float:
    return float(run["mbps"] if run["row"].startswith("128k") else run["iops"])


RECORDS = {
    "bench": Record(
        RECORD, "bench.json", ("store", "row"), ("xbbd", "blkback", "qdisk"), _of_a_disk
    ),
    "bench-net": Record(
        HERE / "figures-net.tsv",
        "bench-net.json",
        ("row",),
        ("xnb", "netback"),
        lambda run: float(run["figure"]),
    ),
}
