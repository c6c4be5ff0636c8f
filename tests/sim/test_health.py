"""`xbbctl health` on whole machines: each thing that it knows, as an operator meets it."""

from __future__ import annotations

import mmap
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.soak import FAULTS, build_faulty_disk
from tests.sim.test_limits import configure, copy_of
from tests.sim.test_operator import tool, xbbctl
from tests.waiting import eventually
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.errors import HostError
from xbbd_bsd.host import control_path
from xbbd_bsd.toolstack import DiskOffer, remove

pytestmark = pytest.mark.slow

GONE, FULL, SILENT = 2, 3, 4  # accidents of one disk


class Faults:
    """What happens to the disks of the daemon (faulty_disk.c)."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def set(self, *, flushes: int = 0, victim: Path | None = None, accident: int = 0) -> None:
        """So many flushes fail, in the life of a daemon; a disk has an accident, None for none."""
        inode = victim.stat().st_ino & 0xFFFFFFFF if victim is not None else 0
        self._bytes[: FAULTS.size] = FAULTS.pack(*[0] * 6, flushes, inode, accident)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """From now on daemons have such disks."""
    faults = Faults(tmp_path / "faults")
    monkeypatch.setenv("XBBD_FAULTS", str(tmp_path / "faults"))
    monkeypatch.setenv("LD_PRELOAD", str(build_faulty_disk(tmp_path)))
    return faults


def findings(machine: Machine, name: str = "", age: float = 10.0) -> list[dict[str, Any]]:
    """What is found, but for notices."""
    request = Request(Verb.HEALTH, name, str(age))
    found = ask(control_path(machine.chain.layout.run), request)
    return [
        finding for below in found.values() for finding in below if finding["severity"] != "notice"
    ]


def kinds(machine: Machine, name: str = "", age: float = 10.0) -> set[str]:
    return {finding["kind"] for finding in findings(machine, name, age)}


def the_finding(machine: Machine, kind: str, age: float = 10.0) -> dict[str, Any]:
    """Wait for one of that kind; xbbctl tells it, and ends with the status of ill health."""
    eventually(lambda: kind in kinds(machine, age=age), f"a finding of kind {kind}")
    done = tool(machine, "xbbctl", "health", "--age", str(age))
    assert (done.returncode, done.stderr) == (1, "")
    found = next(found for found in findings(machine, age=age) if found["kind"] == kind)
    # Seconds and counts may have grown in between.
    said, told = (re.sub(r"\d+", "#", text) for text in (found["what"], done.stdout))
    assert said in told
    return found


def is_well(machine: Machine) -> None:
    eventually(lambda: not kinds(machine), "all is well")


def test_all_is_well(machine: Machine, image: Path) -> None:
    assert xbbctl(machine, "health") == "no devices\n"
    guest = machine.connected(image, mode="r")
    assert xbbctl(machine, "health") == "all is well: 1 disk\n"
    assert xbbctl(machine, "health", "xbbd0") == "all is well: 1 disk\n"
    guest.tell("exercise operations=200 read_percent=50")  # writes that are refused
    assert guest.event("exercised")["errors"] > 0
    assert xbbctl(machine, "health") == "all is well: 1 disk\n"
    assert tool(machine, "xbbctl", "health", "xbbd7").returncode == 2


def test_a_daemon_that_is_not_there(machine: Machine) -> None:
    assert machine.daemon.stop() == 0, machine.log()
    done = tool(machine, "xbbctl", "health")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is it running?" in done.stderr


@contextmanager
def silent(faults: Faults, image: Path) -> Iterator[Machine]:
    """A machine with a guest whose disk does not answer; afterwards it does."""
    with running_machine() as machine:
        guest = machine.connected(image)
        faults.set(victim=image, accident=SILENT)
        guest.tell("exercise operations=2 depth=2 verify=0")
        yield machine
        faults.set()
        assert guest.event("exercised")["errors"] == 0
        is_well(machine)


def test_requests_that_take_long(faults: Faults, image: Path) -> None:
    with silent(faults, image) as machine:
        eventually(lambda: kinds(machine, age=0.2) == {"slow"}, "they take long")
        (found,) = findings(machine, "dev.xbbd.0", 0.2)
        assert found["subject"].startswith("xbbd0 (")


def test_a_disk_that_does_not_answer(faults: Faults, image: Path) -> None:
    with silent(faults, image) as machine:
        found = the_finding(machine, "hung", 0.2)
        assert found["what"].startswith(f"{image} has not answered for ")
        assert kinds(machine, age=0.2) == {"hung"}, "that they are slow says no more"


def test_a_flush_that_failed(faults: Faults, image: Path) -> None:
    """Also of a disk that has no device any more, until somebody has seen to it."""
    with running_machine() as machine:
        guest = machine.connected(image)
        faults.set(flushes=1)
        guest.tell("exercise operations=400 depth=8 flush_every=5 read_percent=20")
        with pytest.raises(HostError, match="Broken pipe"):
            guest.event("exercised")
        found = the_finding(machine, "lost")
        assert found["subject"] == str(image)
        assert "a flush failed (Input/output error)" in found["what"]
        assert found["action"].endswith(f"xbbctl clear {image}")
        assert kinds(machine, "dev.xbbd.0") >= {"lost"}
        assert "closed" not in kinds(machine)
        guest.event("closed")
        guest.tell("open")
        machine.log_line(r"unable to open .*a flush failed \(Input/output error\) at")
        assert "held_back" not in kinds(machine)
        remove(machine.chain.store, machine.offers.pop())
        eventually(lambda: not machine.segments(), "the device is gone")
        assert "lost" in kinds(machine)
        xbbctl(machine, "clear", str(image))
        assert xbbctl(machine, "health") == "no devices\n"


def test_a_limit_and_who_waits_for_it(machine: Machine, image: Path) -> None:
    configure(machine, "[daemon]\nmax_event_channels = 1\nmax_guest_share = 100\n")
    machine.connected(image)
    assert kinds(machine) == set(), "all is taken, and in nobody's way"
    guest = machine.guest(2)
    machine.attach(DiskOffer(2, XVDA, str(copy_of(image, "second.img"))))
    found = the_finding(machine, "limit")
    assert "1 of 1 event channels" in found["what"]
    assert "max_event_channels" in found["action"]
    waiting = the_finding(machine, "held_back")
    assert waiting["subject"].startswith("xbbd1 (")
    assert "max_event_channels" in waiting["what"]
    remove(machine.chain.store, machine.offers[0])
    guest.event("connected")
    is_well(machine)


def test_a_disk_that_is_gone(faults: Faults, image: Path) -> None:
    with running_machine() as machine:
        guest = machine.connected(image)
        faults.set(victim=image, accident=GONE)
        guest.tell("exercise operations=100 depth=4 verify=0")
        found = the_finding(machine, "closed")
        assert found["what"] == "it is closed: the disk is gone: No such device or address"
        faults.set()


def test_a_guest_that_breaks_the_rules_is_its_own_affair(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    guest.tell("lie")
    machine.log_line("connection failed")
    assert xbbctl(machine, "health") == "all is well: 1 disk\n"
    out = xbbctl(machine, "health", "-v")
    assert "notice: xbbd0" in out
    assert "it is closed: " in out


def test_a_store_that_is_lost(machine: Machine) -> None:
    pid = int(Path(machine.chain.layout.store_pid).read_text())
    machine.chain.store.close()
    machine.chain.machine.signal(signal.SIGSTOP)  # who would start another one at once
    os.kill(pid, signal.SIGKILL)
    found = the_finding(machine, "store")
    assert found["when"] is not None
    machine.chain.machine.signal(signal.SIGCONT)
    is_well(machine)


@pytest.mark.parametrize("deed", ["delete", "replace", "truncate"])
def test_a_path_under_a_guest(image: Path, deed: str) -> None:
    with running_machine("[disk]\nresize_interval = 1\n") as machine:
        machine.connected(image)
        kept = image.with_name("kept")
        kept.hardlink_to(image)
        if deed == "truncate":
            os.truncate(image, 2 << 20)
        else:
            image.unlink()
        if deed == "replace":
            image.write_bytes(bytes(4 << 20))
        found = the_finding(machine, "path")
        said = {"delete": "leads nowhere", "replace": "is another file", "truncate": "was cut off"}
        assert f"{image} {said[deed]}" in found["what"]
        if deed == "truncate":
            xbbctl(machine, "resize", "xbbd0")
        else:
            kept.replace(image)
        is_well(machine)


def test_a_configuration_that_was_refused(machine: Machine) -> None:
    Path(machine.chain.config_file).write_text("[disk]\nworkers = 1000\n")
    machine.daemon.signal(signal.SIGHUP)
    found = the_finding(machine, "configuration")
    assert "workers" in found["what"]
    configure(machine, "")
    is_well(machine)


def test_errors_until_somebody_has_seen_to_them(faults: Faults, image: Path) -> None:
    """The counters go on counting, and a guest that starts again changes nothing."""
    with running_machine() as machine:
        guest = machine.connected(image)
        faults.set(victim=image, accident=FULL)
        guest.tell("exercise operations=100 verify=0 read_percent=0")
        assert guest.event("exercised")["errors"] > 0
        found = the_finding(machine, "errors")
        assert found["subject"].startswith("xbbd0 (")
        assert os.strerror(ENOSPC) in found["what"]
        assert found["action"].endswith("xbbctl clear xbbd0")
        before = xbbctl(machine, "-n", "dev.xbbd.0.errors.write")
        xbbctl(machine, "clear", "xbbd0")
        assert kinds(machine) == set()
        assert xbbctl(machine, "-n", "dev.xbbd.0.errors.write") == before
        assert tool(machine, "xbbctl", "clear", "xbbd0").returncode == 1
        guest.tell("exercise operations=10 verify=0 read_percent=0")
        guest.event("exercised")
        assert the_finding(machine, "errors")["what"].startswith("10 writes failed")
        remove(machine.chain.store, machine.offers.pop())
        eventually(lambda: not machine.segments(), "the device is gone")
        assert the_finding(machine, "errors")["subject"] == str(image)
        faults.set()
        xbbctl(machine, "clear", str(image))
        is_well(machine)
