"""Whole machines whose guests' disks are served by processes of their own."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.sim.conftest import Machine, running_machine
from tests.sim.test_end import state_of
from tests.sim.test_takeover import OPTIONS, at_work, check_work, start
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds processes in /proc"),
]


@pytest.fixture
def machine() -> Iterator[Machine]:
    """As the one of all tests; the processes of its guests end with it."""
    with running_machine("[daemon]\nguest_processes = true\n") as running:
        yield running
        for domid in range(1, 4):
            for pid in processes(running, domid):
                os.kill(pid, signal.SIGKILL)


def processes(machine: Machine, domid: int) -> list[int]:
    """Those of a guest: what runs under such a name and has its domain open."""
    domain = machine.chain.layout.domain(domid)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if not path.read_bytes().startswith(b"xbbd: guest"):
                continue
            opened = [os.readlink(fd) for fd in path.with_name("fd").iterdir()]
            if any(name == domain or name.startswith(f"{domain}/") for name in opened):
                found.append(int(path.parent.name))
    return found


def process(machine: Machine, domid: int = 1) -> int:
    (pid,) = processes(machine, domid)
    return pid


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_its_process_is_killed_under_load(
    machine: Machine, image: Path, options: tuple[str, ...]
) -> None:
    """A pause, and no more: another one is started, which adopts the rings."""
    guest = at_work(machine, image, *options)
    for n in (1, 2, 3):
        pid = process(machine)
        os.kill(pid, signal.SIGKILL)
        machine.log_line(rf"(?s)(taken over.*){{{n}}}")
        guest.event("progress")
        assert state_of(machine) == "4"
        guest.event("progress")
        assert process(machine) != pid
    check_work(machine, guest, image)


def test_the_daemon_is_killed_and_the_guest_does_not_notice(machine: Machine, image: Path) -> None:
    guest = at_work(machine, image, "--queues", "2")
    pid = process(machine)
    for n in (1, 2):
        machine.daemon.signal(signal.SIGKILL)
        machine.daemon.wait()
        guest.event("progress")
        guest.event("progress")  # while there is none
        start(machine)
        machine.log_line(rf"(?s)(in a process that has gone on.*){{{n}}}")
        guest.event("progress")
    assert process(machine) == pid
    segment = machine.state()
    assert segment.takeovers.count == 0
    segment.close()
    check_work(machine, guest, image)


def test_both_are_killed_at_once(machine: Machine, image: Path) -> None:
    guest = at_work(machine, image)
    pid = process(machine)
    machine.daemon.signal(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    machine.daemon.wait()
    start(machine)
    machine.log_line("taken over: 1 ring")
    guest.event("progress")
    guest.event("progress")
    check_work(machine, guest, image)


def test_a_guest_has_one_of_its_own_that_ends_with_it(machine: Machine, image: Path) -> None:
    other = image.with_suffix(".2")
    other.write_bytes(os.urandom(1 << 20))
    first = machine.connected(image, domid=1)
    second = machine.connected(other, domid=2)
    assert process(machine, 1) != process(machine, 2)
    for guest in (first, second):
        guest.tell("exercise operations=300")
        assert guest.event("exercised")["mismatches"] == 0
    pid = process(machine, 1)
    assert machine.chain.detach(machine.offers.pop(0))
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "its process ends")
    second.tell("exercise operations=300")
    assert second.event("exercised")["mismatches"] == 0


def test_one_that_dies_again_and_again_is_given_up(machine: Machine, image: Path) -> None:
    at_work(machine, image)
    for n in range(1, 6):
        eventually(lambda: len(processes(machine, 1)) == 1, "it is served")
        os.kill(process(machine), signal.SIGKILL)
        if n < 5:
            machine.log_line(rf"(?s)(taken over.*){{{n}}}")
    machine.log_line(r"its process has died 5 times in \d+ s, at last killed by signal 9")
    eventually(lambda: state_of(machine) in ("5", "6"), "the disk is closed")
    assert re.search("Traceback", machine.log()) is None
