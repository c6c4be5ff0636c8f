"""A disk that does not answer stops nobody but its own guest: real ones that hang."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.silent_disks import FrozenFileSystem, StoppedServer, missing
from tests.waiting import eventually, patience
from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.host import control_path
from xbbd_bsd.toolstack import DiskOffer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() != "", reason=missing())]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with running_machine("[disk]\nresize_interval = 1\n") as machine:
        yield machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoppedServer]:
    with closing(StoppedServer(tmp_path)) as server:
        yield server


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[FrozenFileSystem]:
    with closing(FrozenFileSystem(tmp_path)) as frozen:
        yield frozen


def ask(machine: Machine, verb: Verb, name: str = "") -> dict[str, object]:
    """What the daemon says, and that it says so at once."""
    begun = time.monotonic()
    with Connection(control_path(machine.chain.layout.run)) as connection:
        found = dict(connection.whole(Request(verb, name)))
    assert time.monotonic() - begun < patience(0.5)
    return found


def check_others(machine: Machine, directory: Path) -> None:
    """Another guest's disk comes, works and goes."""
    image = directory / "other"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    guest = machine.connected(image, domid=9)
    guest.tell("exercise operations=500 depth=8 flush_every=20")
    result = guest.event("exercised")
    assert result["errors"] == result["mismatches"] == 0
    assert machine.chain.detach(machine.offers[-1])
    guest.event("closed")
    guest.stop()


def silent(machine: Machine, unit: int = 0) -> int:
    return int(str(ask(machine, Verb.GET, f"dev.xbbd.{unit}.hung_seconds").popitem()[1]))


def test_a_server_that_hangs_under_a_guest(
    machine: Machine, server: StoppedServer, tmp_path: Path
) -> None:
    guest = machine.connected(server.file)
    guest.tell("exercise seconds=3600 depth=8 sectors=16384")
    guest.event("progress")
    server.stop()
    machine.log_line(r"xbbd0 .* hangs: ")
    eventually(lambda: silent(machine) >= 5, "it is seen")
    check_others(machine, tmp_path)
    # Its own guest dies, and the toolstack takes it away by force.
    guest.signal(9)
    guest.wait()
    check_others(machine, tmp_path)
    assert ask(machine, Verb.GET, "dev.xbbd.0.path") != {}
    server.go_on()
    eventually(lambda: machine.mapped() == 0, "its requests end")
    machine.log_line("goes on: ")


def test_a_server_that_hangs_while_a_disk_is_opened(
    machine: Machine, server: StoppedServer, tmp_path: Path
) -> None:
    server.stop()
    guest = machine.guest(1)
    machine.offers.append(DiskOffer(1, XVDA, str(server.file), kind="vbd3"))  # xbbctl's
    host = f"sim:{machine.chain.layout.directory}"
    words = [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host", host, "attach", "--limit", "600"]
    with subprocess.Popen([*words, "1", str(server.file), "xvda"]) as attach:
        try:
            machine.log_line("hangs: opening the disk")
            assert silent(machine) >= 5
            check_others(machine, tmp_path)
        finally:
            server.go_on()
        assert attach.wait(patience(60)) == 0
    guest.event("connected")
    assert silent(machine) == 0


def test_a_frozen_file_system(machine: Machine, frozen: FrozenFileSystem, tmp_path: Path) -> None:
    guest = machine.connected(frozen.file)
    guest.tell("exercise seconds=3600 depth=8 sectors=16384")
    guest.event("progress")
    frozen.freeze()
    machine.log_line("hangs: ")
    check_others(machine, tmp_path)
    frozen.thaw()
    machine.log_line("goes on: ")
    eventually(lambda: silent(machine) == 0, "all is well")
    before = guest.event("progress")["reads"]
    eventually(lambda: int(str(guest.event("progress")["reads"])) > int(str(before)), "it goes on")


def test_the_daemon_leaves_all_the_same(machine: Machine, server: StoppedServer) -> None:
    guest = machine.connected(server.file)
    guest.tell("exercise seconds=3600 depth=8 sectors=16384")
    guest.event("progress")
    server.stop()
    machine.log_line("hangs: ")
    begun = time.monotonic()
    machine.daemon.signal(15)
    machine.log_line("giving up on xbbd0")
    assert time.monotonic() - begun < patience(12)
    server.go_on()
    assert machine.daemon.wait() == 1
