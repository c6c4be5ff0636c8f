"""A daemon, or the process of a guest, that is killed under real guests: they see a pause.

fio compares all that it reads with what it wrote, and ends with status 0 or not.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.domu import DomU, sh
from tests.real.conftest import Guests
from tests.real.service import Service, Toolstack, active_grants, eventually

FIO = (
    "fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw"
    " --bs=4k --size=16M --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based"
    " --runtime=3600 --fsync=64"
)


@pytest.fixture
def by_processes(service: Service) -> Iterator[Service]:
    """The daemon with a process for each guest."""
    service.begin_anew("[guest]\nprocesses = true")
    service.mark()
    yield service
    service.begin_anew("")


def at_work(service: Service, guest: DomU) -> None:
    guest.run("rm -f /tmp/status", check=True)
    guest.send(f"({FIO} >/tmp/fio 2>&1; echo $? >/tmp/status) &")
    progress(service)


def progress(service: Service) -> None:
    """Requests are answered, by whoever serves now."""
    eventually(lambda: bool(service.devices()), "there is a segment")
    before = service.counters()["reqs_completed"]
    eventually(lambda: service.counters()["reqs_completed"] > before + 100, "I/O goes on", 60)


def check_work(guest: DomU) -> None:
    """It is asked to end, and has found nothing wrong."""
    guest.run("killall -INT fio; until [ -e /tmp/status ]; do usleep 100000; done", check=True)
    _, said = guest.run("cat /tmp/status; cat /tmp/fio")
    assert "verify" not in said, said
    assert said.split()[0] in ("0", "128"), said  # 128: as it was asked to end


def process(service: Service) -> int:
    """The process of the guest."""
    found = sh("pgrep", "-f", "^xbbd: guest [^s]").split()
    assert len(found) == 1, found
    return int(found[0])


def test_the_daemon_is_killed_under_load(
    service: Service, toolstack: Toolstack, guests: Guests, image: Path
) -> None:
    guest = guests.get()
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    at_work(service, guest)
    for _ in range(3):
        service.mark()
        assert service.signal(signal.SIGKILL) == -signal.SIGKILL
        service.start()
        service.log_line("taken over: ")
        progress(service)
    check_work(guest)
    assert toolstack.node(f"{offer.backend}/state") == "4"
    assert toolstack.detach(offer)


def test_a_guest_is_destroyed_while_nobody_serves_it(
    service: Service, toolstack: Toolstack, guests: Guests, image: Path
) -> None:
    """Nothing of it is mapped then, so it can die."""
    guest = guests.get("widow")
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    at_work(service, guest)
    assert service.signal(signal.SIGKILL) == -signal.SIGKILL
    guests.forget("widow")
    eventually(lambda: "widow" not in sh("xl", "list") and "(null)" not in sh("xl", "list"), "dead")
    assert not any(active_grants().values())
    service.start()
    toolstack.detach(offer)
    eventually(lambda: not service.devices(), "its segment is swept")


def test_its_process_is_killed_under_load(
    by_processes: Service, toolstack: Toolstack, guests: Guests, image: Path
) -> None:
    guest = guests.get()
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    at_work(by_processes, guest)
    for _ in range(3):
        by_processes.mark()
        pid = process(by_processes)
        os.kill(pid, signal.SIGKILL)
        by_processes.log_line("taken over: ")
        progress(by_processes)
    check_work(guest)
    assert toolstack.detach(offer)


def test_nobody_waits_for_a_daemon(
    by_processes: Service, toolstack: Toolstack, guests: Guests, image: Path
) -> None:
    """It is killed, the guest's process goes on, and the next daemon finds it."""
    guest = guests.get()
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    at_work(by_processes, guest)
    assert by_processes.signal(signal.SIGKILL) == -signal.SIGKILL
    progress(by_processes)
    by_processes.mark()
    by_processes.start()
    by_processes.log_line("in a process that has gone on")
    progress(by_processes)
    check_work(guest)
    assert toolstack.detach(offer)
