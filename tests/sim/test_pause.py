"""A disk that fails, or that an operator wants to be let alone: its guest waits, and goes on.

The file system is really full, and room is really made; who serves the guest may be the
daemon, or the guest's own process, and may end meanwhile in whatever way it likes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.small import Small
from tests.sim.test_operator import scrape, tool, values, xbbctl
from tests.sim.test_takeover import LOAD, PATIENT, at_work, check_work, kill, start
from tests.waiting import eventually, patience
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

PAUSE = '[disk]\non_error = "pause"\nresize_interval = 1\n'

pytestmark = pytest.mark.slow


def value(machine: Machine, name: str) -> int | str:
    found: int | str = values(machine, name)[name]
    return found


def paused(machine: Machine, unit: int = 0) -> str:
    return str(value(machine, f"dev.xbbd.{unit}.paused"))


def wait_paused(machine: Machine, by: str = "error") -> None:
    eventually(lambda: paused(machine) == by, f"paused by {by}")


def resume(machine: Machine) -> None:
    assert xbbctl(machine, "resume", "xbbd0") == ""


def all_back(machine: Machine) -> None:
    """What was under way when it was paused has come back: it cannot pause it once more."""
    eventually(lambda: tool(machine, "xbbctl", "pause", "xbbd0").returncode == 0, "paused")
    assert paused(machine) == "both"


def silent(machine: Machine) -> None:
    """Nothing is begun, and nothing is answered, once what was under way has come back."""
    names = ("reqs_completed", "total_dispatch", "reqs_received")

    def counts() -> list[object]:
        found = values(machine, "dev.xbbd.0")
        return [found[f"dev.xbbd.0.{name}"] for name in names]

    def rests() -> bool:
        before = counts()
        return all(counts() == before for _ in range(5))

    eventually(rests, "it is silent")


@pytest.fixture(params=["", in_more(PROCESSES)], ids=["daemon", "process"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """One whose disks pause, served by the daemon or by a process."""
    with running_machine(request.param + PAUSE) as running:
        yield running


def test_a_full_disk_is_a_pause(machine: Machine, small: Small) -> None:
    """And nothing else: not one request fails, and all that was written is there."""
    guest = at_work(machine, small.path, "--queues", "4")
    wait_paused(machine)
    machine.log_line(
        r"xbbd0 \(vbd/1/51712\): paused, its guest waits: write of \d+ bytes at sector \d+ of "
        + re.escape(str(small.path))
        + r" failed: No space left on device \(ENOSPC\)"
    )
    silent(machine)
    found = values(machine, "dev.xbbd.0")
    assert 0 <= time.time() - int(str(found["dev.xbbd.0.paused_since"])) < patience(60)
    assert "No space left on device" in str(found["dev.xbbd.0.paused_reason"])
    assert found["dev.xbbd.0.io_held"] != 0
    assert found["dev.xbbd.0.errors.write"] == found["dev.xbbd.0.hung_seconds"] == 0
    line = xbbctl(machine, "list").splitlines()[1]
    assert "Connected, paused (error)" in line
    assert "ENOSPC" in line
    (row,) = json.loads(xbbctl(machine, "list", "-j"))
    assert row["paused"] == "error"
    health = tool(machine, "xbbctl", "health")
    assert health.returncode == 1
    assert "it is paused, and its guest waits: write of" in health.stdout
    assert f"make room where {small.path} is, then run: xbbctl resume xbbd0" in health.stdout
    assert "paused (error)" in tool(machine, "xbbstat", "-x", "xbb0").stdout
    # Too early: it is the same again.
    resume(machine)
    wait_paused(machine)
    all_back(machine)
    small.make_room()
    resume(machine)
    assert paused(machine) == ""
    machine.log_line(r"xbbd0 \(vbd/1/51712\): resumed by root .* after \d+ s")
    guest.event("progress")
    guest.event("progress")
    assert tool(machine, "xbbctl", "health").returncode == 0
    check_work(machine, guest, small.path)


def test_metrics_tell_it(small: Small, temporary: Path) -> None:
    pytest.importorskip("prometheus_client")
    with running_machine(f'[daemon]\nmetrics = "{temporary}/m"\n{PAUSE}') as machine:
        at_work(machine, small.path)
        wait_paused(machine)
        found = dict(
            re.findall(r'^xbbd_disk_paused\{by="(\w+)",device="[^"]*"\} (\S+)$',
                       scrape(temporary / "m"), re.M)
        )  # fmt: skip
        assert {name: float(number) for name, number in found.items()} == {
            "operator": 0,
            "error": 1,
        }


@pytest.mark.parametrize("by_operator", [False, True], ids=["error", "operator"])
def test_whoever_serves_it_dies_meanwhile(
    machine: Machine, small: Small, by_operator: bool
) -> None:
    """The next one finds it paused, and nothing of it is forgotten."""
    by = "operator" if by_operator else "error"
    if by_operator:
        small.make_room()
    guest = at_work(machine, small.path)
    if by_operator:
        xbbctl(machine, "pause", "xbbd0")
    wait_paused(machine, by)
    kill_server(machine)
    wait_paused(machine, by)
    silent(machine)
    small.make_room()
    resume(machine)
    guest.event("progress")
    guest.event("progress")
    check_work(machine, guest, small.path)


def kill_server(machine: Machine) -> None:
    """The daemon, if it serves, and else the guest's process, and then the daemon."""
    pid = int(str(value(machine, "dev.xbbd.0.process")))
    before = int(str(value(machine, "dev.xbbd.0.takeovers")))
    if pid != machine.daemon.pid:
        os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: value(machine, "dev.xbbd.0.takeovers") == before + 1, "another process serves"
        )
        machine.daemon.signal(signal.SIGKILL)
        machine.daemon.wait()
    else:
        kill(machine)
    start(machine)
    machine.log_line(r"(?s)serving .*serving .*taken over: ")


def test_a_restart(machine: Machine, small: Small) -> None:
    """SIGUSR1 takes no longer for a disk that is paused, and leaves it so."""
    guest = at_work(machine, small.path)
    wait_paused(machine)
    begun = time.monotonic()
    machine.daemon.signal(signal.SIGUSR1)
    assert machine.daemon.wait() == 0
    assert time.monotonic() - begun < patience(5)
    start(machine)
    machine.log_line("taken over: ")
    wait_paused(machine)
    machine.log_line("paused, its guest waits: write of")
    small.make_room()
    resume(machine)
    guest.event("progress")
    check_work(machine, guest, small.path)


def test_the_operators_pause(machine: Machine, image: Path) -> None:
    guest = at_work(machine, image, "--queues", "4")
    assert xbbctl(machine, "pause", "xbbd0") == ""
    assert paused(machine) == "operator"
    silent(machine)
    assert value(machine, "dev.xbbd.0.paused_reason") == "an operator has paused it"
    assert "Connected, paused (operator)" in xbbctl(machine, "list")
    health = tool(machine, "xbbctl", "health")
    assert health.returncode == 1
    assert "run: xbbctl resume xbbd0" in health.stdout
    assert xbbctl(machine, "pause", "xbbd0") == ""  # it is what was wanted
    resume(machine)
    machine.log_line("paused by root ")
    guest.event("progress")
    refused = tool(machine, "xbbctl", "resume", "xbbd0")
    assert refused.returncode == 1
    assert "is not paused" in refused.stderr
    for _ in range(5):
        xbbctl(machine, "pause", "xbbd0")
        resume(machine)
    guest.event("progress")
    check_work(machine, guest, image)


def end_by_guest(machine: Machine, guest: Guest) -> None:
    """The guest is destroyed."""
    guest.signal(signal.SIGKILL)
    guest.wait()


def end_by_closing(machine: Machine, guest: Guest) -> None:
    """The guest lets go of it, whatever it has outstanding."""
    machine.chain.store.write(f"{machine.offers[0].frontend}/state", b"6")
    eventually(lambda: machine.node(f"{machine.offers[0].backend}/state") == "6", "Closed")


def end_by_force(machine: Machine, guest: Guest) -> None:
    """Its nodes go."""
    tool(machine, "xbbctl", "detach", "--force", "--limit", "1", "1", "xvda")


def end_by_sigterm(machine: Machine, guest: Guest) -> None:
    """The daemon is told to leave."""
    assert machine.daemon.stop() == 0


ENDS = (end_by_guest, end_by_closing, end_by_force, end_by_sigterm)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.removeprefix("end_by_"))
@pytest.mark.parametrize("by_operator", [False, True], ids=["error", "operator"])
def test_it_ends_while_it_is_paused(
    machine: Machine, small: Small, by_operator: bool, end: Callable[[Machine, Guest], None]
) -> None:
    """In bounded time, and nothing is left; what waited gets an error."""
    if by_operator:
        small.make_room()
    guest = at_work(machine, small.path)
    if by_operator:
        xbbctl(machine, "pause", "xbbd0")
    else:
        wait_paused(machine)
    begun = time.monotonic()
    end(machine, guest)
    if end is not end_by_sigterm:
        eventually(lambda: machine.mapped() == 0, "all is given back")
    assert time.monotonic() - begun < patience(15)


def test_a_polite_detach_is_refused(machine: Machine, image: Path) -> None:
    """A guest with requests outstanding keeps it; then it goes on as if nobody had asked."""
    guest = at_work(machine, image)
    xbbctl(machine, "pause", "xbbd0")
    refused = tool(machine, "xbbctl", "detach", "--limit", "1", "1", "xvda")
    assert refused.returncode == 1
    assert "keeps it" in refused.stderr
    assert paused(machine) == "operator"
    resume(machine)
    check_work(machine, guest, image)


def test_an_errors_pause_ends_with_its_guest(machine: Machine, small: Small) -> None:
    """What an operator wants stays: who connects again waits for him, and for nothing else."""
    guest = at_work(machine, small.path)
    wait_paused(machine)
    guest.signal(signal.SIGKILL)
    guest.wait()
    eventually(lambda: paused(machine) == "", "it is not paused")


def test_one_disk_is_no_other(machine: Machine, small: Small, image: Path) -> None:
    at_work(machine, small.path)
    other = machine.guest(2, *PATIENT)
    machine.attach(DiskOffer(2, XVDA, str(image)))
    other.event("connected")
    wait_paused(machine)
    other.tell(LOAD)
    other.event("progress")
    assert paused(machine, 1) == ""
    small.make_room()
    resume(machine)


def test_what_is_wanted_may_change(machine: Machine, small: Small) -> None:
    """While it runs, by name, and by a word; what is none is refused."""
    guest = at_work(machine, small.path)
    wait_paused(machine)
    assert xbbctl(machine, "dev.xbbd.0.on_error=report") == (
        "dev.xbbd.0.on_error: pause -> report\n"
    )
    machine.log_line("on_error: pause -> report, set by root")
    resume(machine)
    machine.log_line(r"failed: No space left on device \(ENOSPC\)")
    assert paused(machine) == ""
    refused = tool(machine, "xbbctl", "dev.xbbd.0.on_full=ignore")
    assert refused.returncode == 1
    assert "must be one of report, retry, pause, stop, auto" in refused.stderr
    assert xbbctl(machine, "-t", "dev.xbbd.0.on_full") == "dev.xbbd.0.on_full: string\n"
    guest.signal(signal.SIGKILL)
    guest.wait()


def test_stop_closes_it(small: Small) -> None:
    """Its guest has requests that nobody takes any more, and is not waited for."""
    with running_machine('[disk]\non_full = "stop"\n') as machine:
        guest = at_work(machine, small.path)
        machine.log_line("the disk has failed, and is to stop then: No space left on device")
        state = f"{machine.offers[0].backend}/state"
        eventually(lambda: machine.node(state) == "5", "Closing")
        guest.signal(signal.SIGKILL)
        eventually(lambda: machine.node(state) == "6", "Closed")


def test_a_disk_says_it_itself(small: Small) -> None:
    """By a node that the toolstack writes, or by xbbctl attach."""
    with running_machine() as machine:
        guest = machine.guest(1)
        offer = DiskOffer(1, XVDA, str(small.path), on_full="pause")
        machine.attach(offer)
        guest.event("connected")
        assert machine.node(f"{offer.backend}/on-full") == "pause"
        guest.tell(LOAD)
        wait_paused(machine)
        small.make_room()
        resume(machine)
        guest.event("progress")
