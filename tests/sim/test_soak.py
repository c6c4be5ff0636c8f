"""The short form of the soak; a failure prints its seed.  See soak.py for the long one."""

from __future__ import annotations

import os
import time

import pytest

from tests.sim.soak import soak


@pytest.mark.slow
def test_random_everything_for_half_a_minute() -> None:
    seed = int(os.environ.get("XBBD_TEST_SEED", time.time()))
    counts = soak(30.0, seed)
    for deed in ("exercise", "kill", "reopen", "resize", "tune", "reads", "writes", "discards"):
        assert counts[deed] > 0, (deed, seed, counts)
