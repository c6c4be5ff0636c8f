"""Limits of operations and bytes a second of whole machines: kept, shared, changed, outlived."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.rates import LARGE, MIXED, READS, begin, held, measured, totals, work
from tests.sim.test_operator import tool, xbbctl
from tests.sim.test_reload import written
from tests.sim.test_takeover import PATIENT, start
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import State
from xbbd_bsd.native.rates import Level
from xbbd_bsd.toolstack import DiskOffer, remove

pytestmark = pytest.mark.slow

WHERE = pytest.mark.parametrize("where", ["", in_more(PROCESSES)], ids=["daemon", "process"])
# A busy machine may have nobody run for longer than a burst.
BURST = "burst_ms = 400\n"
NEAR = 0.05


@contextmanager
def at_limits(config: str) -> Iterator[Machine]:
    with running_machine(config) as machine:
        yield machine
        machine.check_nothing_left()
        run = Path(machine.chain.layout.run)
        eventually(lambda: not [*run.glob("guest.*")], "no process listens")
        assert [*run.glob("rates.*")] == []


@contextmanager
def segments(machine: Machine, count: int = 1) -> Iterator[list[State]]:
    states = [machine.state(unit) for unit in range(count)]
    yield states
    for state in states:
        state.close()


def keeps_to(states: Sequence[State], limit: int, *, of_bytes: bool = False) -> list[float]:
    """They come to what they may; the part of it that each had.

    What a machine does not let run for a while is made up for after that, so that of some
    seconds only one has to be right.
    """
    rates: list[float] = []
    while len(rates) < 8:
        rate, parts = measured(states, limit, of_bytes=of_bytes)
        if abs(rate / limit - 1) < NEAR:
            return parts
        rates.append(rate)
    raise AssertionError(f"{rates} a second, not {limit}")


@WHERE
@pytest.mark.parametrize("queues", [1, 4])
def test_operations_a_second(image: Path, where: str, queues: int) -> None:
    with at_limits(f"{where}[disk]\niops_max = 1000\n{BURST}") as machine:
        work(machine, image, READS, "--queues", str(queues))
        with segments(machine) as states:
            keeps_to(states, 1000)
            each = [states[0].counters(ring)["throttled"] for ring in range(queues)]
            assert min(each) > 0


@WHERE
def test_bytes_a_second_of_two_disks_in_a_group(image: Path, tmp_path: Path, where: str) -> None:
    """One has rings and large requests, the other a ring and small ones: both get as much."""
    config = f'{where}[disk]\nlimit_group = "g"\n[group.g]\nbytes_max = "10M"\n{BURST}'
    other = tmp_path / "other.img"
    other.write_bytes(image.read_bytes())
    with at_limits(config) as machine:
        work(machine, image, LARGE, "--queues", "4", domid=1)
        work(machine, other, MIXED, domid=2)
        with segments(machine, 2) as states:
            eventually(lambda: all(held(state) for state in states), "both are held back")
            parts = keeps_to(states, 10 << 20, of_bytes=True)
            assert parts == pytest.approx([0.5, 0.5], rel=0.2)


@WHERE
def test_all_disks_of_a_guest(image: Path, tmp_path: Path, where: str) -> None:
    """And of each guest: another one is not held back by what this one does."""
    section = where or "[guest]\n"
    with at_limits(f"{section}iops_max = 500\n{BURST}") as machine:
        for domid in (1, 2):
            disk = tmp_path / f"{domid}.img"
            disk.write_bytes(image.read_bytes())
            work(machine, disk, READS, domid=domid)
        with segments(machine, 2) as states:
            for state in states:
                keeps_to([state], 500)
            assert states[0].tunables()["iops_max"] == 0


@WHERE
def test_limits_of_guest_and_group_are_changed_while_they_hold(image: Path, where: str) -> None:
    section = where or "[guest]\n"
    groups = '[disk]\nlimit_group = "g"\n[group.g]\niops_max = '
    with at_limits(f"{section}iops_max = 1\n{groups}1\n") as machine:
        work(machine, image, READS)
        with segments(machine) as (state,):
            eventually(lambda: held(state), "it is held back")
            written(machine, f"{section}iops_max = 900\n{BURST}{groups}800\n{BURST}")
            said = xbbctl(machine, "reload")
            assert "guest.iops_max" in said
            assert "group.g" in said
            keeps_to([state], 800)
            written(machine, section)
            xbbctl(machine, "reload")
            before = totals(state)[0]
            eventually(lambda: totals(state)[0] - before > 5000, "nothing holds it back")
            assert state.rates(Level.GROUP)["iops_max"] == 0


def test_an_operator_changes_those_of_a_disk(image: Path) -> None:
    with at_limits("[disk]\niops_max = 1\n") as machine:
        work(machine, image, READS)
        with segments(machine) as (state,):
            eventually(lambda: held(state), "it is held back")
            xbbctl(machine, "dev.xbbd.0.iops_max=700", f"dev.xbbd.0.{BURST.replace(' ', '')}")
            keeps_to([state], 700)
        assert "iops_max: 700 (configured: 1)" in xbbctl(machine, "list", "-v")
        refused = tool(machine, "xbbctl", "dev.xbbd.0.bytes_max=100")
        assert "must be 0, or 4096 to" in refused.stderr
        refused = tool(machine, "xbbctl", "dev.xbbd.0.burst_ms=0")
        assert "must be 10 to 60000" in refused.stderr
        found = xbbctl(machine, "-n", "dev.xbbd.0.throttled", "dev.xbbd.0.ring.0.throttled_ns")
        assert all(int(number) > 0 for number in found.split())


def test_a_group_that_the_toolstack_names(machine: Machine, image: Path) -> None:
    """By a node; one that is in no file is refused in words."""
    machine.guest(1)
    with pytest.raises(HostError, match="node limit-group is 'gold'"):
        machine.attach(DiskOffer(1, XVDA, str(image), limit_group="gold"))
    machine.chain.detach(machine.offers.pop())
    written(machine, f"[group.gold]\niops_max = 600\n{BURST}")
    xbbctl(machine, "reload")
    guest = machine.guest(2)
    machine.attach(DiskOffer(2, XVDA, str(image), limit_group="gold"))
    guest.event("connected")
    begin(guest, READS)
    unit = next(
        int(one["name"].removeprefix("xbbd")) for one in json.loads(xbbctl(machine, "list", "-j"))
    )
    state = machine.state(unit)
    keeps_to([state], 600)
    state.close()
    assert xbbctl(machine, "-n", f"dev.xbbd.{unit}.limit_group") == "gold\n"


@WHERE
def test_limits_go_on_after_a_death(image: Path, where: str) -> None:
    """Of the daemon, and of the process of a guest."""
    section = where or "[guest]\n"
    group = f'[disk]\nlimit_group = "g"\n[group.g]\niops_max = 800\n{BURST}'
    with at_limits(f"{section}iops_max = 5000\n{group}") as machine:
        guest = machine.connected(image, *PATIENT)
        begin(guest, READS)
        with segments(machine) as (state,):
            eventually(lambda: held(state), "it is held back")
            if where:
                pid = int(xbbctl(machine, "-n", "dev.xbbd.0.process"))
                os.kill(pid, signal.SIGKILL)
                eventually(
                    lambda: int(xbbctl(machine, "-n", "dev.xbbd.0.process")) not in (0, pid),
                    "another serves",
                )
            machine.daemon.signal(signal.SIGKILL)
            machine.daemon.wait()
            start(machine)
            before = totals(state)[0]
            eventually(lambda: totals(state)[0] - before > 400, "it goes on", GIVE_UP)
            keeps_to([state], 800)


@WHERE
def test_a_guest_ends_at_a_limit_of_one_a_second(image: Path, where: str) -> None:
    """What it left on its ring waits for nothing; a guest that closes waits for its own."""
    with at_limits(f"{where}[disk]\niops_max = 1\n") as machine:
        guest = work(machine, image, READS)
        with segments(machine) as (state,):
            eventually(lambda: held(state), "it is held back")
            guest.signal(signal.SIGKILL)
            guest.wait()
            remove(machine.chain.store, machine.offers[0])
            eventually(lambda: not machine.segments(), "its disk is closed, not half a minute on")


@WHERE
def test_a_guest_closes_at_a_limit(image: Path, where: str) -> None:
    with at_limits(f"{where}[disk]\niops_max = 50\n") as machine:
        guest = work(machine, image, READS)
        with segments(machine) as (state,):
            eventually(lambda: held(state), "it is held back")
        assert machine.chain.detach(machine.offers[0])
        assert guest.event("exercised")["errors"] == 0


@WHERE
def test_a_guest_closes_at_a_limit_of_one_a_second(image: Path, where: str) -> None:
    """What it has asked for by then is answered at once, not after half a minute."""
    with at_limits(f"{where}[disk]\niops_max = 1\n") as machine:
        guest = work(machine, image, READS)
        with segments(machine) as (state,):
            eventually(lambda: held(state), "it is held back")
        assert machine.chain.detach(machine.offers[0])
        assert guest.event("exercised")["errors"] == 0
