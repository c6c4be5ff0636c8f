"""A daemon that is asked to leave guests at work, and the next one: nothing is done twice."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.sim.conftest import PROCESSES, Machine, running_machine
from tests.sim.silent_disks import StoppedServer, missing
from tests.sim.test_end import state_of
from tests.sim.test_operator import xbbctl
from tests.sim.test_takeover import EACH_OPTIONS, PATIENT, at_work, check_work, start
from tests.waiting import at_rest, patience
from xbbd_bsd.sim.chain import Guest

pytestmark = pytest.mark.slow


def leave(machine: Machine) -> None:
    """As `service xbbd restart` has it do."""
    machine.daemon.signal(signal.SIGUSR1)
    assert machine.daemon.wait() == 0


def reads(guest: Guest) -> int:
    """What it has read by now; it says so once in a while."""
    guest.event("progress")
    return int(str(guest.event("progress")["reads"]))


@EACH_OPTIONS
def test_guests_stay_at_work(machine: Machine, image: Path, options: tuple[str, ...]) -> None:
    """All that was taken is answered before it ends, so that there is nothing to do again."""
    guest = at_work(machine, image, *options)
    for n in (1, 2, 3):
        leave(machine)
        assert machine.mapped() == 0
        assert machine.segments() == ["xbbd.0"]
        state = machine.state()
        assert all(state.inflight(ring) == [] for ring in state.served)
        state.close()
        assert state_of(machine) == "4"
        start(machine)
        machine.log_line(rf"(?s)(taken over: \d rings?, 0 requests in flight\n.*){{{n}}}")
        reads(guest)
        assert state_of(machine) == "4"
    machine.log_line(r"SIGUSR1: leaving, 1 devices? stays? at work")
    machine.log_line("left, for the next one to go on")
    assert xbbctl(machine, "-n", "dev.xbbd.0.takeovers") == "3\n"
    check_work(machine, guest, image)


def test_their_processes_serve_on(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_machine(PROCESSES) as machine:
        guest = at_work(machine, image)
        before = xbbctl(machine, "-n", "dev.xbbd.0.process")
        leave(machine)
        reads(guest)
        start(machine)
        machine.log_line("taken over: 1 ring, in a process that has gone on")
        assert xbbctl(machine, "-n", "dev.xbbd.0.process") == before
        check_work(machine, guest, image)


def test_processes_are_not_wanted_any_more(image: Path) -> None:
    """Those that there are serve on, and it is said; after a stop there are none."""
    with running_machine(PROCESSES) as machine:
        guest = at_work(machine, image)
        leave(machine)
        Path(machine.chain.config_file).write_text("")
        start(machine)
        machine.log_line("guest.processes is false, but there are processes at work")
        machine.log_line("taken over: 1 ring, in a process that has gone on")
        check_work(machine, guest, image)
        assert machine.daemon.stop() == 0
        start(machine)
        machine.log_line(r"(?s)(serving vbd.*){3}")
        machine.base = at_rest(machine.daemon.pid, machine.holds)
        machine.connected(image, domid=2)
        assert xbbctl(machine, "-n", "dev.xbbd.0.process") == f"{machine.daemon.pid}\n"


@pytest.mark.skipif(missing() != "", reason=missing())
@pytest.mark.parametrize("hurried", [False, True], ids=["in time", "hurried"])
def test_a_disk_that_hangs_keeps_nobody(
    machine: Machine, image: Path, tmp_path: Path, hurried: bool
) -> None:
    """It leaves all the same; the other guest goes on, and later the one that waits as well."""
    with closing(StoppedServer(tmp_path)) as server:
        silent = machine.connected(server.file, *PATIENT, domid=2)
        silent.tell("exercise seconds=3600 depth=8 sectors=16384")
        silent.event("progress")
        guest = at_work(machine, image)
        server.stop()
        machine.log_line("xbbd0 .* hangs: ")
        begun = time.monotonic()
        machine.daemon.signal(signal.SIGUSR1)
        if hurried:
            machine.log_line("leaving")
            machine.daemon.signal(signal.SIGTERM)
        machine.log_line("the next one has to do again what xbbd0 .* have not answered")
        assert time.monotonic() - begun < patience(2 if hurried else 10)
        leaves = machine.daemon  # it ends when its last call does, and is in nobody's way
        start(machine)
        reads(guest)
        machine.log_line("xbbd0 .* has not ended")
        server.go_on()
        assert leaves.wait() == 0
        reads(silent)
        check_work(machine, guest, image, 1)


def test_it_is_told_twice(machine: Machine, image: Path) -> None:
    guest = at_work(machine, image)
    machine.daemon.signal(signal.SIGUSR1)
    machine.daemon.signal(signal.SIGUSR1)
    assert machine.daemon.wait() == 0
    start(machine)
    check_work(machine, guest, image)


def test_one_that_stops_does_not_leave(image: Path) -> None:
    """Guests have been asked to close by then."""
    with running_machine() as machine:
        guest = machine.connected(image, "--hold")
        machine.daemon.signal(signal.SIGTERM)
        machine.log_line("SIGTERM: leaving")
        machine.daemon.signal(signal.SIGUSR1)
        guest.event("backend closing")
        machine.daemon.wait()
        assert machine.segments() == []
        assert state_of(machine) != "4"
