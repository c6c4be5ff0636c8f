"""The regression record: what `bench` measured in virtual time, a line for each figure and commit.

    commit  store  row  xbbd  blkback  qdisk  (IOPS or MB/s, medians)

Knows nothing of how they were measured.  Run on the host.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path

RECORD = Path(__file__).with_name("figures.tsv")
BACKENDS = ("xbbd", "blkback", "qdisk")


def lines(results: str, commit: str) -> list[str]:
    """The record's lines for the results of one bench, which are its JSON."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in json.loads(results):
        figure = run["mbps"] if run["row"].startswith("128k") else run["iops"]
        found[run["store"], run["row"]][run["backend"]].append(figure)
    return [
        "\t".join(
            [commit, store, row]
            + [f"{statistics.median(runs[b]):.1f}" if b in runs else "-" for b in BACKENDS]
        )
        for (store, row), runs in found.items()
    ]


def record(results: Path, root: Path) -> None:
    """Append the results of a bench to the record, under the commit that is checked out."""
    words = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    with RECORD.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines(results.read_text(), commit)))
