"""Guests that are served by processes of their own: whichever dies, a guest sees a pause."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.test_guest_limits import allowed
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.test_end import sha256, state_of
from tests.sim.test_operator import tool
from tests.sim.test_reload import written
from tests.sim.test_takeover import EACH_OPTIONS, PATIENT, at_work, check_work, kill, start
from tests.waiting import GIVE_UP, eventually, lives
from xbbd_bsd import xbbctl, xbbstat
from xbbd_bsd.sim.chain import Guest

pytestmark = pytest.mark.slow


@pytest.fixture
def machine() -> Iterator[Machine]:
    """As ever, with a process for each guest; of these none may be left either."""
    with running_machine(PROCESSES) as running:
        yield running
        run = running.chain.layout.run
        running.check_nothing_left()
        eventually(lambda: sockets(run) == [], "no process listens")


def sockets(run: str) -> list[str]:
    return [name for name in os.listdir(run) if name.startswith("guest.")]


def process(machine: Machine, capsys: pytest.CaptureFixture[str], unit: int = 0) -> int:
    """The process that serves a disk."""
    capsys.readouterr()
    words = ["--state-dir", machine.chain.layout.run, "-n", f"dev.xbbd.{unit}.process"]
    assert xbbctl.main(words) == 0
    return int(capsys.readouterr().out)


def listed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """What is shown of the only disk."""
    capsys.readouterr()
    assert xbbctl.main(["--state-dir", machine.chain.layout.run, "list", "-vj"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    names = ("process", "process_rss_kb", "process_age", "takeovers")
    return {name: int(found[name]) for name in names}


def kill_process(machine: Machine, capsys: pytest.CaptureFixture[str], unit: int = 0) -> None:
    pid = process(machine, capsys, unit)
    assert pid not in (0, machine.daemon.pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: process(machine, capsys, unit) not in (0, pid), "another process serves")


def shows_progress(guest: Guest) -> None:
    guest.event("progress")
    guest.event("progress")


@EACH_OPTIONS
def test_its_process_is_killed_under_load(
    machine: Machine,
    image: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
) -> None:
    guest = at_work(machine, image, *options)
    for _ in range(3):
        kill_process(machine, capsys)
        shows_progress(guest)
    machine.log_line("the process of guest 1 has ended: ")
    check_work(machine, guest, image)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says on which")
def test_the_next_process_runs_where_the_file_says_by_then(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = at_work(machine, image)
    pid = process(machine, capsys)
    before = allowed(pid)
    written(machine, f'{PROCESSES}cpus = "1023"\n')
    refused = tool(machine, "xbbctl", "reload")
    assert refused.returncode == 1
    assert "there is no processor 1023" in refused.stderr
    written(machine, f'{PROCESSES}cpus = "0"\n')
    assert tool(machine, "xbbctl", "reload").returncode == 0
    assert allowed(pid) == before
    kill_process(machine, capsys)
    shows_progress(guest)
    assert allowed(process(machine, capsys)) == {"0"}
    check_work(machine, guest, image)


def test_what_is_shown_of_its_process(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory and age by the kernel; each time that it was started again is a take-over."""
    guest = at_work(machine, image)
    assert listed(machine, capsys)["takeovers"] == 0
    pids = set()
    for restarts in (1, 2):
        eventually(lambda: listed(machine, capsys)["process_age"] >= 1, "it becomes older")
        before = listed(machine, capsys)
        pids.add(before["process"])
        assert 1000 < before["process_rss_kb"] < 1 << 20
        kill_process(machine, capsys)
        after = listed(machine, capsys)
        assert after["process"] not in pids
        assert after["process_age"] <= before["process_age"]
        assert after["process_rss_kb"] > 1000
        assert after["takeovers"] == restarts
    assert xbbstat.main(["--state-dir", machine.chain.layout.run, "-j", "xbb0"]) == 0
    shown = json.loads(capsys.readouterr().out)["process"]
    assert (shown["pid"], shown["takeovers"]) == (after["process"], after["takeovers"])
    assert shown["rss_kb"] > 1000
    # It outlives a daemon, and goes on becoming older.
    eventually(lambda: listed(machine, capsys)["process_age"] >= 1, "it becomes older")
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    start(machine)
    machine.log_line("taken over: 1 ring, in a process that has gone on")
    last = listed(machine, capsys)
    assert (last["process"], last["takeovers"]) == (after["process"], 2)
    assert last["process_age"] >= 1
    check_work(machine, guest, image)


def test_another_guest_notices_nothing(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = image.with_suffix(".2")
    second.write_bytes(image.read_bytes())
    one = at_work(machine, image)
    other = at_work(machine, second, domid=2)
    before = process(machine, capsys, 1)
    kill_process(machine, capsys, 0)
    assert process(machine, capsys, 1) == before
    check_work(machine, one, image, 0)
    check_work(machine, other, second, 1)


def test_the_daemon_is_killed_and_nobody_waits(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = at_work(machine, image, "--queues", "2")
    before = process(machine, capsys)
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    shows_progress(guest)
    start(machine)
    machine.log_line("taken over: 2 rings, in a process that has gone on")
    assert process(machine, capsys) == before
    shows_progress(guest)
    check_work(machine, guest, image)


def test_both_are_killed(machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = at_work(machine, image)
    pid = process(machine, capsys)
    machine.daemon.signal(signal.SIGSTOP)  # it must not see the first death
    os.kill(pid, signal.SIGKILL)
    kill(machine)
    start(machine)
    machine.log_line("taken over: 1 ring, .*in flight")
    check_work(machine, guest, image)


def test_five_deaths_in_a_minute_are_the_end(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.connected(image, *PATIENT, "--hold")
    for _ in range(4):
        kill_process(machine, capsys)
    os.kill(process(machine, capsys), signal.SIGKILL)
    machine.log_line("cannot be taken over: its process has died 5 times in .*killed by signal 9")
    eventually(lambda: state_of(machine) == "5", "the guest is told")
    error = machine.node(f"/local/domain/0/error/backend/vbd/1/{XVDA}/error")
    assert error is not None
    assert "died 5 times" in error


def test_the_guest_closes_while_there_is_no_daemon(machine: Machine, image: Path) -> None:
    """It is told that all is over once nothing of it is mapped any more."""
    guest = machine.connected(image, *PATIENT)
    machine.daemon.signal(signal.SIGUSR1)
    machine.daemon.wait()
    machine.chain.store.write(f"{machine.offers[0].backend}/state", b"5")
    front = f"/local/domain/1/device/vbd/{XVDA}/state"
    machine.chain.store.write(front, b"6")
    mapped: list[int] = []

    def closed(path: str) -> None:
        if state_of(machine) == "6":
            mapped.append(machine.mapped())

    machine.chain.store.watch(f"{machine.offers[0].backend}/state", closed)
    start(machine)
    eventually(lambda: run_loop(machine) and bool(mapped), "Closed")
    assert mapped[0] == 0
    assert "must connect again" not in machine.log(), "it has lost nothing"
    guest.signal(signal.SIGKILL)


def run_loop(machine: Machine) -> bool:
    machine.chain.loop.call_later(0.01, machine.chain.loop.stop)
    machine.chain.loop.run_forever()
    return True


def test_the_guest_dies_while_there_is_no_daemon(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process has its pages until the next daemon comes, and no longer."""
    guest = at_work(machine, image)
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    guest.signal(signal.SIGKILL)
    guest.wait()
    machine.chain.store.remove(machine.offers.pop().backend)
    start(machine)
    eventually(lambda: not machine.segments(), "its segment is swept")
    eventually(lambda: machine.mapped() == 0, "no grant mapped")


def test_a_segment_that_nobody_can_read(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever served it gives the disk back, and its guest may begin anew."""
    guest = machine.connected(image)
    pid = process(machine, capsys)
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    with open(f"{machine.chain.layout.run}/xbbd.0", "r+b") as segment:
        segment.seek(4)
        segment.write(b"\xff")
    start(machine)
    machine.log_line(r"must connect again \(map state segment .*: Invalid argument\)")
    eventually(lambda: machine.mapped() == 0, "nobody serves it")
    eventually(lambda: not lives(pid), "its process ends")
    guest.signal(signal.SIGKILL)
    guest.wait()
    assert machine.chain.detach(machine.offers.pop())
    machine.connected(image, domid=2)


def test_a_stop_closes_everything(machine: Machine, image: Path) -> None:
    guest = at_work(machine, image, "--persistent")
    machine.daemon.signal(signal.SIGTERM)
    done = guest.event("exercised", GIVE_UP)
    assert (done["errors"], done["mismatches"]) == (0, 0)
    assert done["model_sha256"] == sha256(image)
    assert machine.daemon.wait() == 0
    assert machine.mapped() == 0
    assert machine.segments() == []


def test_a_guest_comes_and_goes(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    for _ in range(3):
        guest.tell("exercise operations=500")
        assert guest.event("exercised")["mismatches"] == 0
        guest.tell("close")
        guest.event("closed")
        guest.tell("open")
        guest.event("connected")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="it is looked up in /proc")
def test_whoever_reads_what_the_daemon_says_does_not_wait_for_guests(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As daemon(8) does, which starts another one once the daemon's output has ended."""
    machine.connected(image)
    pid = process(machine, capsys)
    assert {os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)} == {os.devnull}
