"""What top(1) calls the threads: which disk, which ring, which worker."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tests.native.ring import ring
from tests.waiting import eventually
from xbbd_bsd.errands import Outcome, Threads
from xbbd_bsd.native import Op, name_thread

TASKS = Path("/proc/self/task")

pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="no /proc/self/task")


def names() -> set[str]:
    return {(TASKS / task / "comm").read_text().strip() for task in os.listdir(TASKS)}


def test_rings_and_workers(tmp_path: Path) -> None:
    with ring(tmp_path, unit=3) as r:
        eventually(lambda: "xbbd3 ring0" in names(), "the ring's thread")
        # Nobody knows yet whether flushes are quick: a worker has the first one.
        r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0, None)
        eventually(lambda: "xbbd3 io0.1" in names(), "a worker")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("xbbd12345678 opening", "xbbd12345678 op"),  # what fits; refused if it were longer
        ("xbbd1 o", "xbbd1 o"),
    ],
)
def test_what_does_not_fit_is_cut_off(given: str, shown: str) -> None:
    seen: list[set[str]] = []

    def main() -> None:
        name_thread(given)
        seen.append(names())

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert shown in seen[0]


def test_errands() -> None:
    loop = asyncio.new_event_loop()
    found: list[set[str]] = []

    def then(outcome: Outcome) -> None:
        found.append(outcome.get())
        loop.stop()

    Threads(loop, name_thread)("measuring the disk", names, then, "xbbd7")
    loop.run_forever()
    loop.close()
    assert "xbbd7 measuring" in found[0]
