"""A segment that is damaged between a daemon's death and the next start, at random.

The next daemon adopts its guest or refuses in words, and adopts the guests of other disks.
XBBD_TEST_SCALE makes more rounds, XBBD_TEST_SEED other ones.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, running_machine
from tests.sim.test_end import state_of
from tests.sim.test_takeover import PATIENT, kill, start
from tests.waiting import eventually

pytestmark = pytest.mark.slow

SEED = os.environ.get("XBBD_TEST_SEED", "1")
ROUNDS = max(1, round(3 * float(os.environ.get("XBBD_TEST_SCALE", "1"))))


def damage(path: Path, draw: random.Random) -> None:
    """A few bytes, or a run of them, mostly where the words about disk and rings are."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        for _ in range(draw.choice((1, 5, 50))):
            file.seek(draw.randrange(draw.choice((8192, size))))
            file.write(draw.randbytes(draw.choice((1, 4, 64))))
    os.truncate(path, draw.choice((size, size, size, draw.randrange(size))))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_it_is_adopted_or_refused_in_words(image: Path, number: int) -> None:
    draw = random.Random(f"{SEED}/{number}")
    other = image.with_suffix(".2")
    other.write_bytes(bytes(1 << 20))
    with running_machine() as machine:
        machine.connected(image, *PATIENT, domid=1)
        second = machine.connected(other, *PATIENT, domid=2)
        kill(machine)
        damage(Path(machine.chain.layout.state_segment(0)), draw)
        start(machine)
        machine.log_line(rf"xbbd1 \(vbd/2/{XVDA}\): taken over")
        second.tell("exercise operations=100")
        assert second.event("exercised")["mismatches"] == 0

        def judged() -> bool:
            refused = state_of(machine) in ("5", "6")
            return refused or f"(vbd/1/{XVDA}): taken over" in machine.log()

        eventually(judged, "the damaged one is adopted or refused")
        assert "internal error" not in machine.log()
