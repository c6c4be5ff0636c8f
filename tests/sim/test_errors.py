"""A disk that fails under load, and a guest that asks for what it cannot have: all see it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from tests.sim.conftest import Machine, running_machine
from tests.sim.small import MIB, Small
from tests.sim.test_operator import scrape, tool, values, xbbctl
from tests.sim.test_takeover import PATIENT, kill, start
from tests.waiting import eventually, patience

pytestmark = pytest.mark.slow


@pytest.fixture
def full(small: Small) -> Path:
    """A disk of 64 MiB there."""
    os.truncate(small.path, 64 * MIB)
    return small.path


def test_a_full_file_system_is_seen_at_once(full: Path, temporary: Path) -> None:
    pytest.importorskip("prometheus_client")
    with running_machine(f'[daemon]\nmetrics = "{temporary}/m"\n') as machine:
        guest = machine.connected(full)
        guest.tell(f"exercise seconds=600 depth=16 sectors={64 * MIB // 512} read_percent=20")
        while not guest.event("progress")["errors"]:
            continue
        begun = time.monotonic()
        machine.log_line(
            r"xbbd0 \(vbd/1/51712\): write of \d+ bytes at sector \d+ of "
            + re.escape(str(full))
            + r" failed: No space left on device \(ENOSPC\)"
        )
        assert time.monotonic() - begun < patience(2)

        def shown(name: str) -> float:
            """Errors a second."""
            lines = tool(machine, "xbbstat", "-x", "-w", "0.5", "-c", "2", name).stdout.splitlines()
            heading, line = lines[-2:]
            assert heading.split()[-1] == "e/s"
            return float(line.split()[-1])

        assert shown("xbb0") > 0
        assert shown("xbbi0") == 0  # the guest is not to blame
        metrics = re.findall(
            r'^xbbd_disk_errors_total\{.*errno="ENOSPC".*operation="write".*\} (\S+)$',
            scrape(temporary / "m"),
            re.M,
        )
        assert [float(number) > 0 for number in metrics] == [True]
        lines = tool(machine, "xbbstat", "-j").stdout.splitlines()
        disk = next(one for one in map(json.loads, lines) if one["name"] == "xbb0")
        assert disk["errors"]["write"] > 0

        found = values(machine, "dev.xbbd.0.errors")
        assert found["dev.xbbd.0.errors.write"] > 0
        assert found["dev.xbbd.0.errors.read"] == found["dev.xbbd.0.errors.guest.malformed"] == 0
        assert found["dev.xbbd.0.errors.last_errno"] == 28
        assert 0 <= time.time() - found["dev.xbbd.0.errors.last_time"] < patience(60)
        assert "ENOSPC" in xbbctl(machine, "log", "xbbd0")

        # The last ones are told when the guest goes, and the log has few lines for all.
        guest.signal(9)
        guest.wait()
        machine.log_line(r"disconnected")
        told = [int(n) for n in re.findall(r"\(ENOSPC\); (\d+) more in \d+ s", machine.log())]
        lines_of_it = len(re.findall(r"\(ENOSPC\)", machine.log()))
        assert 2 <= lines_of_it <= 5
        failed = values(machine, "dev.xbbd.0.errors")["dev.xbbd.0.errors.write"]
        assert sum(told) + lines_of_it == failed


def test_writes_to_a_read_only_disk_are_the_guests(machine: Machine, image: Path) -> None:
    guest = machine.connected(image, mode="r")
    guest.tell("exercise seconds=600 depth=4 read_percent=50")
    machine.log_line(
        r"write of \d+ bytes at sector \d+ refused, the guest's fault: the disk is read-only"
    )
    found = values(machine, "dev.xbbd.0.errors")
    assert found["dev.xbbd.0.errors.guest.read_only"] > 0
    assert found["dev.xbbd.0.errors.last"] == ""
    assert re.search(r"refused: the disk is read-only$", found["dev.xbbd.0.errors.guest.last"])


def test_the_next_daemon_tells_what_is_new(machine: Machine, image: Path) -> None:
    """And not again what the last one told, which stands in the segment that it takes over."""
    refused = "refused, the guest's fault: the disk is read-only"
    guest = machine.connected(image, *PATIENT, mode="r")
    guest.tell("exercise operations=50 read_percent=0 flush_every=0 barrier_every=0")
    guest.event("exercised")
    machine.log_line(refused)
    kill(machine)
    told = machine.log().count(refused)
    start(machine)
    machine.log_line("taken over: ")
    guest.tell("exercise operations=1 read_percent=0 flush_every=0 barrier_every=0")
    guest.event("exercised")
    machine.log_line(rf"(?s)({refused}.*){{{told + 1}}}")
    assert machine.log().rstrip().endswith(refused)
    assert values(machine, "dev.xbbd.0.errors")["dev.xbbd.0.errors.guest.read_only"] == 51


def test_a_disk_that_shrinks_under_load(image: Path) -> None:
    """Only reads: a write that is under way when it is cut off makes the file grow again."""
    with running_machine("[disk]\nresize_interval = 1\n") as machine:
        guest = machine.connected(image)
        guest.tell("exercise seconds=600 depth=4 read_percent=100")
        guest.event("progress")
        os.truncate(image, 1 * MIB)
        machine.log_line(rf"of {re.escape(str(image))} failed: beyond the end of a disk that has")
        machine.log_line(r"the disk has 2048 sectors")
        before = values(machine, "dev.xbbd.0.errors")

        def goes_on() -> bool:
            now = values(machine, "dev.xbbd.0.errors")
            return bool(now["dev.xbbd.0.errors.read"] > before["dev.xbbd.0.errors.read"])

        eventually(goes_on, "it is the host's fault still")
        assert values(machine, "dev.xbbd.0.errors")["dev.xbbd.0.errors.guest.beyond_end"] == 0
