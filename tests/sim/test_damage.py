"""A state segment that somebody cuts off: one disk ends with a reason, nobody else notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sim.conftest import Machine
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import State

pytestmark = pytest.mark.slow


def test_one_disk_ends_and_is_served_again(machine: Machine, image: Path, tmp_path: Path) -> None:
    other_image = tmp_path / "other.img"
    other_image.write_bytes(bytes(4 << 20))
    guest = machine.connected(image, "--queues", "2")
    other = machine.connected(other_image, domid=2)
    os.truncate(machine.chain.layout.state_segment(0), 4096)
    guest.tell("exercise operations=400 depth=8 flush_every=5")
    with pytest.raises(HostError, match="Broken pipe"):  # the backend goes away under it
        guest.event("exercised")
    guest.event("closed")
    machine.log_line(r"vbd/1/51712.*somebody has cut off the file of its state segment")

    other.tell("exercise operations=200 flush_every=5")
    assert other.event("exercised")["errors"] == 0

    guest.tell("open")
    guest.event("connected")
    guest.tell("exercise operations=200 flush_every=5")
    assert guest.event("exercised")["errors"] == 0
    segment = State.open(machine.chain.layout.state_segment(0))
    assert segment.counters()["reqs_completed"] > 200
    segment.close()
