"""A disk that is exchanged for another one under a guest which goes on, and notices nothing.

What the guest's model says has to be on the new disk; the old one stays as it was copied.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.small import Small
from tests.sim.test_end import sha256
from tests.sim.test_operator import tool, values, xbbctl
from tests.sim.test_pause import PAUSE, paused, resume, wait_paused
from tests.sim.test_takeover import PATIENT, at_work, check_work, start
from tests.waiting import GIVE_UP, eventually, lives
from xbbd_bsd.block.passport import NOTE
from xbbd_bsd.toolstack import DiskOffer

MIB = 1 << 20

pytestmark = pytest.mark.slow


@pytest.fixture(params=["", in_more(PROCESSES)], ids=["daemon", "process"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """One whose disks pause, served by the daemon or by a process."""
    with running_machine(request.param + PAUSE) as running:
        yield running


def swap(machine: Machine, path: Path) -> None:
    assert xbbctl(machine, "swap", "xbbd0", str(path)) == ""


def copied(image: Path, size: int = 0) -> Path:
    """Another disk with the same on it."""
    new = image.with_name("another")
    shutil.copyfile(image, new)
    if size:
        os.truncate(new, size)
    return new


def opened(machine: Machine) -> list[str]:
    """Files that whoever serves the disk, and the daemon, have open."""
    pids = {machine.daemon.pid, int(values(machine, "dev.xbbd.0.process")["dev.xbbd.0.process"])}
    found = []
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


@pytest.mark.parametrize("rings", [1, 4])
def test_a_copy_under_load(machine: Machine, image: Path, rings: int) -> None:
    """Paused, copied, exchanged, and still paused until it is resumed; all says the new one."""
    guest = at_work(machine, image, "--queues", str(rings))
    xbbctl(machine, "pause", "xbbd0")
    before = sha256(image)
    new = copied(image)
    swap(machine, new)
    assert paused(machine) == "operator"
    machine.log_line(rf"xbbd0 \(vbd/1/{XVDA}\): {image} is exchanged for {new} by root ")
    machine.log_line(rf"taken over: {rings} rings?, with another disk")
    assert values(machine, "dev.xbbd.0.takeovers")["dev.xbbd.0.takeovers"] == 0
    assert str(new) in xbbctl(machine, "list")
    for node in ("params", "physical-device-path"):
        assert machine.node(f"{machine.offers[0].backend}/{node}") == str(new)
    if os.path.isdir("/proc/self/fd"):
        eventually(lambda: str(image) not in opened(machine), "the old one is closed")
        assert str(new) in opened(machine)
    resume(machine)
    guest.event("progress")
    guest.event("progress")
    assert sha256(image) == before
    check_work(machine, guest, new)
    assert NOTE not in "".join(os.listdir(machine.chain.layout.run))


def test_one_that_is_not_paused(machine: Machine, image: Path) -> None:
    """It goes on at once; a disk that is larger is told as when it has grown."""
    guest = machine.connected(image, *PATIENT)
    new = copied(image, 8 * MIB)
    swap(machine, new)
    assert paused(machine) == ""
    sectors = f"{machine.offers[0].backend}/sectors"
    assert machine.node(sectors) == str(8 * MIB // 512)
    assert values(machine, "dev.xbbd.0.sectors")["dev.xbbd.0.sectors"] == 8 * MIB // 512
    guest.tell("exercise operations=500")
    done = guest.event("exercised")
    assert (done["errors"], done["mismatches"]) == (0, 0)
    third = new.with_name("third")
    shutil.copyfile(new, third)
    swap(machine, third)
    guest.tell("exercise operations=500")
    assert guest.event("exercised")["mismatches"] == 0


def test_a_full_disk_gives_way_to_a_larger_one(
    machine: Machine, small: Small, tmp_path: Path
) -> None:
    """What had failed is done on that, and no request fails."""
    guest = at_work(machine, small.path, "--queues", "4")
    wait_paused(machine)
    new = tmp_path / "roomy"
    shutil.copyfile(small.path, new)
    swap(machine, new)
    assert paused(machine) == ""
    guest.event("progress")
    guest.event("progress")
    check_work(machine, guest, new)


def refusals(image: Path) -> Iterator[tuple[Path, str]]:
    """What is no disk for a guest that has `image`, and why."""
    place = image.parent
    yield image, "it is the disk that its guest has already"
    link = place / "link"
    link.symlink_to(image)
    yield link, "it is the disk that its guest has already"
    yield place / "nowhere", "No such file or directory"
    yield place, "Is a directory"
    less = place / "less"
    less.write_bytes(bytes(MIB))
    yield less, "does not fit: it has 2048 sectors of 512 bytes, less than the 8192 before"
    if os.path.exists("/dev/null"):
        yield Path("/dev/null"), "unable to open"


@pytest.mark.parametrize("by_operator", [False, True], ids=["running", "paused"])
def test_what_does_not_fit_changes_nothing(
    machine: Machine, image: Path, by_operator: bool
) -> None:
    guest = at_work(machine, image)
    other = image.with_name("other")
    other.write_bytes(bytes(8 * MIB))
    machine.guest(2, *PATIENT)
    machine.attach(DiskOffer(2, XVDA, str(other)))
    if by_operator:
        xbbctl(machine, "pause", "xbbd0")
    nodes = machine.node(f"{machine.offers[0].backend}/served")
    for path, why in (*refusals(image), (other, "it is in use by xbbd1")):
        refused = tool(machine, "xbbctl", "swap", "xbbd0", str(path))
        assert refused.returncode == 1
        assert why in refused.stderr
        assert paused(machine) == ("operator" if by_operator else "")
    assert machine.node(f"{machine.offers[0].backend}/served") == nodes
    assert str(image) in xbbctl(machine, "list")
    if by_operator:
        resume(machine)
    guest.event("progress")
    check_work(machine, guest, image)


def test_one_without_a_guest(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    machine.chain.store.write(f"{machine.offers[0].frontend}/state", b"6")
    eventually(lambda: machine.node(f"{machine.offers[0].backend}/state") == "6", "Closed")
    refused = tool(machine, "xbbctl", "swap", "xbbd0", str(copied(image)))
    assert refused.returncode == 1
    assert "no guest is connected" in refused.stderr
    guest.signal(signal.SIGKILL)
    guest.wait()


def test_whoever_goes_on_has_the_new_one(machine: Machine, image: Path) -> None:
    """After the death of all that served, and after a restart."""
    guest = at_work(machine, image, "--queues", "2")
    xbbctl(machine, "pause", "xbbd0")
    before, new = sha256(image), copied(image)
    swap(machine, new)
    pid = int(values(machine, "dev.xbbd.0.process")["dev.xbbd.0.process"])
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    start(machine)
    machine.log_line(r"(?s)serving .*serving .*taken over: ")
    assert str(new) in xbbctl(machine, "list")
    assert paused(machine) == "operator"
    resume(machine)
    guest.event("progress")
    if pid != machine.daemon.pid and lives(pid):
        os.kill(pid, signal.SIGKILL)
        guest.event("progress")
    machine.daemon.signal(signal.SIGUSR1)
    assert machine.daemon.wait() == 0
    start(machine)
    machine.log_line(r"(?s)(serving .*){3}taken over: ")
    guest.event("progress")
    guest.event("progress")
    assert sha256(image) == before
    check_work(machine, guest, new)


def is_noted(machine: Machine) -> bool:
    return any(name.endswith(NOTE) for name in os.listdir(machine.chain.layout.run))


MOMENTS: dict[str, Callable[[Machine, str | None], bool]] = {
    "noted": lambda machine, served: is_noted(machine),
    "written": lambda machine, served: (
        served != machine.node(f"{machine.offers[0].backend}/served")
    ),
}


def dies_meanwhile(machine: Machine, name: str, moment: str) -> str | None:
    """The daemon, at a moment of an exchange for `name`; another goes on.

    Gives what said before that which disk it was.
    """
    before = machine.node(f"{machine.offers[0].backend}/served")
    command = subprocess.Popen(
        [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host",
         f"sim:{machine.chain.layout.directory}", "swap", "xbbd0", name],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + GIVE_UP
    while not MOMENTS[moment](machine, before) and command.poll() is None:
        assert time.monotonic() < end
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    command.wait()
    start(machine)
    return before


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_daemon_dies_meanwhile(machine: Machine, image: Path, moment: str) -> None:
    """It is the old disk or the new one, by every account, and not one request is lost."""
    guest = at_work(machine, image, "--queues", "2")
    xbbctl(machine, "pause", "xbbd0")
    new = copied(image)
    before = dies_meanwhile(machine, str(new), moment)
    machine.log_line(r"(?s)serving .*serving .*taken over: ")
    has_new = machine.node(f"{machine.offers[0].backend}/served") != before
    path = new if has_new else image
    assert values(machine, "dev.xbbd.0.path")["dev.xbbd.0.path"] == str(path)
    assert machine.node(f"{machine.offers[0].backend}/params") == str(path)
    assert not is_noted(machine)
    eventually(lambda: paused(machine) == "operator", "only he pauses it")
    resume(machine)
    guest.event("progress")
    guest.event("progress")
    check_work(machine, guest, path)


def test_the_process_dies_meanwhile(image: Path) -> None:
    """Before it has done what it was told: a refusal, and the next one has the old disk."""
    with running_machine(PROCESSES + PAUSE) as machine:
        guest = at_work(machine, image)
        pid = int(values(machine, "dev.xbbd.0.process")["dev.xbbd.0.process"])
        os.kill(pid, signal.SIGSTOP)
        command = subprocess.Popen(
            [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host",
             f"sim:{machine.chain.layout.directory}", "swap", "xbbd0", str(copied(image))],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        eventually(lambda: paused(machine) == "swap", "it is about to be exchanged")
        os.kill(pid, signal.SIGKILL)
        _, said = command.communicate(timeout=GIVE_UP)
        assert command.returncode == 1
        assert "whoever served it has ended meanwhile" in said
        machine.log_line("taken over: 1 ring")
        assert str(image) in xbbctl(machine, "list")
        eventually(lambda: paused(machine) == "", "it goes on")
        guest.event("progress")
        guest.event("progress")
        check_work(machine, guest, image)
