"""A short run of kills.py, with the rings in the daemon and in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import PROCESSES, running_machine
from tests.sim.kills import Kills

pytestmark = pytest.mark.slow

SCALE = int(os.environ.get("XBBD_TEST_SCALE", "1"))
SEED = int(os.environ.get("XBBD_TEST_SEED", "1"))


@pytest.mark.parametrize("here", [in_more(True), False])
def test_a_short_run(tmp_path: Path, *, here: bool) -> None:
    config = "" if here else PROCESSES
    with running_machine(config) as machine:
        kills = Kills(machine, tmp_path, SEED, here=here)
        kills.run(12 * SCALE)
        assert kills.counts["requests"] > 0
        assert kills.counts["daemon"] > 0
        assert here or kills.counts["process"] > 0
