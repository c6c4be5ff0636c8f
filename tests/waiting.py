"""Waiting for a condition with a limit; tests never just sleep."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

LIMIT = 15.0  # seconds


def eventually(holds: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Wait until ``holds``, looking every few milliseconds."""
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, f"not within {limit:.0f} s: {what}"
        select.select([], [], [], 0.005)
