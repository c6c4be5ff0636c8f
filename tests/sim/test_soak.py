"""The short form of the soak; a failure prints its seed.  See soak.py for the long one."""

from __future__ import annotations

import os
import time

import pytest

from tests.sim.soak import soak

DEEDS = ("exercise", "kill", "reopen", "resize", "tune")


@pytest.mark.slow
def test_random_everything_for_half_a_minute() -> None:
    """And longer where a seed, or a busy machine, has not come to each of these by then."""
    seed = int(os.environ.get("XBBD_TEST_SEED", time.time()))
    counts = soak(30.0, seed, DEEDS)
    for work in ("reads", "writes", "discards"):
        assert counts[work] > 0, (work, seed, counts)
