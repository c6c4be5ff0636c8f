"""Waiting for a condition with a limit; tests never just sleep.

A limit is what an idle machine would need many times over.  On a busy one
everything takes longer, so limits grow with the load.  Where a call takes one
number and waits by itself, for a child's end or an answer, it is GIVE_UP: so much
that no load explains it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LIMIT = 15.0  # seconds
GIVE_UP = 180.0  # seconds


def patience(seconds: float) -> float:
    """A limit for this machine as busy as it is now; on an idle one, `seconds`."""
    crowding = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds * max(1.0, 2 * crowding)


def eventually(holds: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Wait until ``holds``, looking every few milliseconds."""
    begun = time.monotonic()
    while not holds():
        waited = time.monotonic() - begun
        assert waited < patience(limit), f"not within {waited:.0f} s: {what}"
        select.select([], [], [], 0.005)


def lives(pid: int) -> bool:
    """Whether there is such a process, or what nobody has waited for yet of one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _sleeps(pid: int) -> str:
    """How often a process has gone to sleep, if it sleeps now; "" if it works."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return "nobody knows"
    lines = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
    asleep = lines["State"].split()[0] == "S"
    return lines["voluntary_ctxt_switches"].strip() if asleep else ""


def at_rest(pid: int, read: Callable[[], T]) -> T:
    """What is read of a process while it waits for work: later it may have something for a moment.

    Where the system does not tell whether it waits, it is read at once.
    """
    found: list[T] = []

    def waits() -> bool:
        before = _sleeps(pid)
        found[:] = [read()]
        return before != "" and before == _sleeps(pid)

    eventually(waits, f"process {pid} waits for work")
    return found[0]
