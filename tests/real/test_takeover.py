"""A daemon, or the process of a guest, that is killed or restarted under real guests.

They see a pause, and nothing that they read is wrong.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.real import work
from tests.real.conftest import Guests
from tests.real.service import Service, active_grants, eventually
from tests.real.test_moves import XL_DISK
from tests.real.work import (
    FILE_SYSTEM,
    FIO,
    RAW,
    Bench,
    begin,
    end_fio,
    goes_on,
    process,
    progress,
)
from tests.waiting import lives
from xbbd_bsd.guests.deaths import MOST, WINDOW

bench = work.bench
EARLIER = Path(__file__).parents[2] / "earlier"  # tests/lab/payload.py
several = pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.more)])


@pytest.fixture
def by_processes(service: Service) -> Iterator[Service]:
    """The daemon with a process for each guest."""
    service.begin_anew("[guest]\nprocesses = true")
    service.mark()
    yield service
    service.begin_anew("")


def wait_until(then: float) -> None:
    eventually(lambda: time.monotonic() > then, "time has passed", 2 * WINDOW)


@several
@pytest.mark.parametrize(
    "job",
    [
        pytest.param(RAW, id="raw"),
        pytest.param(FILE_SYSTEM, id="file system", marks=pytest.mark.more),
    ],
)
def test_the_daemon_is_killed_under_load(
    service: Service, bench: Bench, times: int, job: str
) -> None:
    with bench.guest_at_work(service, job):
        for _ in range(times):
            service.mark()
            assert service.signal(signal.SIGKILL) == -signal.SIGKILL
            service.start()
            service.log_line("taken over: ")
            progress(service)


def test_the_daemon_is_restarted_under_load(service: Service, bench: Bench) -> None:
    """What was taken is answered before it leaves, so that there is nothing to do again."""
    with bench.guest_at_work(service):
        for _ in range(3):
            service.mark()
            assert service.signal(signal.SIGUSR1) == 0
            service.start()
            service.log_line("taken over: 1 ring, 0 requests in flight")
            progress(service)


def test_a_guest_is_destroyed_while_nobody_serves_it(service: Service, bench: Bench) -> None:
    """Nothing of it is mapped then, so it can die."""
    guest, offer = bench.attached("widow")
    begin(service, guest, RAW)
    assert service.signal(signal.SIGKILL) == -signal.SIGKILL
    bench.guests.forget("widow")
    eventually(lambda: "widow" not in sh("xl", "list") and "(null)" not in sh("xl", "list"), "dead")
    assert not any(active_grants().values())
    service.start()
    bench.toolstack.detach(offer)
    eventually(lambda: not service.devices(), "its segment is swept")


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.more)])
def test_its_process_is_killed_under_load(by_processes: Service, bench: Bench, times: int) -> None:
    with bench.guest_at_work(by_processes):
        deaths: list[float] = []
        for _ in range(times):
            if len(deaths) >= MOST - 1:  # one more in that time would be the end
                wait_until(deaths[1 - MOST] + WINDOW)
            by_processes.mark()
            os.kill(process(by_processes), signal.SIGKILL)
            by_processes.log_line("taken over: ")
            deaths.append(time.monotonic())  # later than the daemon has it, never earlier
            progress(by_processes)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGUSR1, id="restarted", marks=pytest.mark.more),
    ],
)
def test_nobody_waits_for_a_daemon(
    by_processes: Service, bench: Bench, number: signal.Signals
) -> None:
    """The guest's process goes on, and the next daemon finds it."""
    with bench.guest_at_work(by_processes):
        before = process(by_processes)
        assert by_processes.signal(number) == (-number if number == signal.SIGKILL else 0)
        progress(by_processes)
        by_processes.mark()
        by_processes.start()
        by_processes.log_line("in a process that has gone on")
        progress(by_processes)
        assert process(by_processes) == before


def test_upgrades_under_load(by_processes: Service, bench: Bench) -> None:
    """To another version, and back, and there again: each serves what the one before had."""
    if not EARLIER.exists():
        pytest.skip("there is no other version")
    with bench.guest_at_work(by_processes) as guest:
        for tree in (EARLIER, None, EARLIER, None):
            before = process(by_processes)
            by_processes.mark()
            assert by_processes.signal(signal.SIGUSR1) == 0
            by_processes.start(tree)
            by_processes.log_line("taken over: 1 ring, 0 requests in flight")
            goes_on(guest)
            eventually(lambda old=before: not lives(old), "the old process has ended")  # type: ignore[misc]


@pytest.fixture
def root_disk() -> Iterator[str]:
    """Room for all that a guest has."""
    image = DOM0.scratch() / "root.img"
    image.touch()
    os.truncate(image, 512 << 20)
    with DOM0.disk(image) as device:
        yield device
    image.unlink()


@pytest.fixture
def rooted(guests: Guests, root_disk: str) -> Iterator[DomU]:
    """A guest that has nothing but our disk, and runs its programs from there."""
    guests.forget("g1")
    guest = DomU("rooted", [XL_DISK.format(root_disk)], root="xvda")
    try:
        yield guest.start(300)
    finally:
        guest.destroy()


READ_ONLY = "until grep -q '/dev/xvda / ext4 ro' /proc/mounts; do usleep 50000; done"
PROGRAMS = "echo 3 >/proc/sys/vm/drop_caches; cat /usr/bin/* /usr/sbin/* /lib*/* | md5sum"


def test_a_guest_whose_root_is_our_disk(service: Service, rooted: DomU, root_disk: str) -> None:
    """Whoever serves it is killed while it works; it misses nothing of what it is made of."""
    _, programs = rooted.run(PROGRAMS, 120, check=True)
    rooted.send(f"(({FIO} --filename=/file) >/tmp/fio 2>&1; echo $? >/tmp/status) &")
    for _ in range(3):
        goes_on(rooted)
        service.mark()
        assert service.signal(signal.SIGKILL) == -signal.SIGKILL
        service.start()
        service.log_line("taken over: ")
        assert rooted.run(PROGRAMS, 120, check=True)[1] == programs
    end_fio(service, rooted)
    rooted.run(f"sync; echo u >/proc/sysrq-trigger; {READ_ONLY}", 60, check=True)
    rooted.shutdown()
    sh("e2fsck", "-fn", root_disk)
