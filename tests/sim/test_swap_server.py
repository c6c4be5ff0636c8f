"""A disk of a server's is exchanged for another one, or takes the place of one.

The server may be well, silent, or gone with all that it was not told to flush: what the guest
was told is written has to be on the new disk, whoever dies meanwhile.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.native.stores import Server, require_nbdkit
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.test_operator import tool, values, xbbctl
from tests.sim.test_pause import paused, resume
from tests.sim.test_store import at_work, connected
from tests.sim.test_swap import MOMENTS, copied, dies_meanwhile, is_noted
from tests.sim.test_takeover import LOAD, PATIENT, check_work
from tests.waiting import eventually, patience
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

BY = {"daemon": "", "process": PROCESSES}
SERVERS = ("db", "other")
# What it is not told to flush is lost with it.
CACHED = ("--filter=cache", "file", "cache=writeback")

# With that: discards pass the cache by.
WRITES = "exercise seconds=600 depth=16 flush_every=50 barrier_every=50"

pytestmark = pytest.mark.slow


@pytest.fixture
def servers(temporary: Path) -> Iterator[dict[str, Server]]:
    """That run once they are told what to serve, by the name of their section."""
    require_nbdkit("cache")
    found = {}
    for name in SERVERS:
        (temporary / name).mkdir()
        found[name] = Server(temporary / name)
    yield found
    for server in found.values():
        server.kill()
    for name in SERVERS:
        shutil.rmtree(temporary / name)


@contextmanager
def machine_with(servers: dict[str, Server], by: str, more: str = "") -> Iterator[Machine]:
    sections = "".join(
        f'[store.{name}]\nuri = "nbd+unix:///?socket={server.socket}"\ntimeout = 5\n'
        for name, server in servers.items()
    )
    with running_machine(BY[by] + more + sections) as made:
        yield made


@pytest.fixture(params=["daemon", in_more("process")])
def machine(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[Machine]:
    with machine_with(servers, request.param) as made:
        yield made


def swapped(machine: Machine, name: str) -> None:
    assert xbbctl(machine, "swap", "xbbd0", name) == ""
    assert values(machine, "dev.xbbd.0.path")["dev.xbbd.0.path"] == name
    assert machine.node(f"{machine.offers[0].backend}/params") == name


def writes(machine: Machine) -> Guest:
    guest = connected(machine, "store:db")
    guest.tell(WRITES)
    guest.event("progress")
    return guest


def pause(machine: Machine) -> None:
    """However long a busy host takes to flush."""
    eventually(lambda: tool(machine, "xbbctl", "pause", "xbbd0").returncode == 0, "paused")


def goes_on(guest: Guest) -> None:
    guest.event("progress")
    guest.event("progress")


def test_from_one_to_the_next(
    machine: Machine, servers: dict[str, Server], image: Path, tmp_path: Path
) -> None:
    """A server's, another's, a file, and a server's again; each paused, copied, and exchanged."""
    disks = [image, tmp_path / "second", tmp_path / "third", tmp_path / "fourth"]
    servers["db"].start(*CACHED, str(image))
    guest = writes(machine)
    for before, disk, name in zip(
        disks, disks[1:], ("store:other", str(disks[2]), "store:db"), strict=False
    ):
        pause(machine)
        assert machine.state().link().unflushed == 0
        shutil.copyfile(before, disk)  # all that was told is flushed
        if name == "store:other":
            servers["other"].start("file", str(disk))
        elif name == "store:db":
            servers["db"].kill()
            servers["db"].start("file", str(disk))
        swapped(machine, name)
        assert paused(machine) == "operator"
        resume(machine)
        goes_on(guest)
    assert not is_noted(machine)
    assert str(servers["db"].socket) not in machine.log()
    check_work(machine, guest, disks[-1])


@pytest.mark.parametrize("to", ["file", "server"])
@pytest.mark.parametrize("first", ["paused", "at once"])
def test_a_server_that_is_gone(
    machine: Machine, servers: dict[str, Server], image: Path, to: str, first: str
) -> None:
    """It has lost what it was not told to flush, and its copy never had that."""
    servers["db"].start(*CACHED, str(image))
    guest = writes(machine)
    guest.event("progress")
    servers["db"].kill()
    machine.log_line("store:db does not answer")
    if first == "paused":
        pause(machine)
    new = copied(image)
    name = str(new)
    if to == "server":
        servers["other"].start("file", str(new))
        name = "store:other"
    swapped(machine, name)
    if first == "paused":
        assert paused(machine) == "operator"
        resume(machine)
    assert paused(machine) == ""
    goes_on(guest)
    check_work(machine, guest, new)


def test_a_server_that_is_silent(machine: Machine, servers: dict[str, Server], image: Path) -> None:
    """It is not waited for, as long as whoever pauses it would."""
    servers["db"].start("file", str(image))
    guest = at_work(machine)
    servers["db"].signal(signal.SIGSTOP)
    new = copied(image)
    begun = time.monotonic()
    swapped(machine, str(new))
    assert time.monotonic() - begun < patience(5)
    goes_on(guest)
    check_work(machine, guest, new)


def test_what_does_not_fit_changes_nothing(
    machine: Machine, servers: dict[str, Server], image: Path, tmp_path: Path
) -> None:
    servers["db"].start("file", str(image))
    guest = at_work(machine)
    other = servers["other"]
    less = tmp_path / "less"
    less.write_bytes(bytes(1 << 20))
    nodes = machine.node(f"{machine.offers[0].backend}/served")

    def refused(name: str, why: str) -> None:
        found = tool(machine, "xbbctl", "swap", "xbbd0", name)
        assert found.returncode == 1
        assert why in found.stderr
        assert "secret" not in found.stderr
        assert paused(machine) == ""

    refused("store:db", "it is the disk that its guest has already")
    refused("store:no", "there is no section [store.no]")
    refused("store:other", "its server cannot be reached")
    refused("nbd://me:secret@host/x", "no user and no password")
    other.start("file", str(less))
    refused("store:other", "it has 2048 sectors of 512 bytes, less than the 8192 before")
    other.kill()
    other.start("-r", "file", str(image))
    refused("store:other", "its server has it read-only")
    other.kill()
    other.start("--filter=blocksize-policy", "file", str(image), "blocksize-minimum=4096")
    refused("store:other", "its sectors are of 4096 bytes")
    other.kill()
    other.start("file", str(image))
    machine.guest(2, *PATIENT)
    machine.attach(DiskOffer(2, XVDA, "store:other"))
    refused("store:other", "it is in use by xbbd1")
    assert machine.node(f"{machine.offers[0].backend}/served") == nodes
    assert "secret" not in machine.log()
    goes_on(guest)
    check_work(machine, guest, image)


def test_a_guest_of_several_rings(
    machine: Machine, servers: dict[str, Server], image: Path
) -> None:
    guest = machine.connected(image, *PATIENT, "--queues", "4")
    guest.tell(LOAD)
    guest.event("progress")
    servers["other"].start("file", str(copied(image)))
    found = tool(machine, "xbbctl", "swap", "xbbd0", "store:other")
    assert "can have one ring, and its guest has 4" in found.stderr
    goes_on(guest)
    check_work(machine, guest, image)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("to", ["file", "server"])
def test_the_daemon_dies_meanwhile(
    machine: Machine, servers: dict[str, Server], image: Path, moment: str, to: str
) -> None:
    """It is the old disk or the new one, by every account; and paused by nobody then."""
    servers["db"].start("file", str(image))
    guest = at_work(machine)
    pause(machine)
    new = copied(image)
    servers["other"].start("file", str(new))
    name = "store:other" if to == "server" else str(new)
    before = dies_meanwhile(machine, name, moment)
    machine.log_line(r"(?s)serving .*serving .*(taken over|gone on)")
    has_new = machine.node(f"{machine.offers[0].backend}/served") != before
    path, disk = (name, new) if has_new else ("store:db", image)
    assert values(machine, "dev.xbbd.0.path")["dev.xbbd.0.path"] == path
    assert machine.node(f"{machine.offers[0].backend}/params") == path
    eventually(lambda: paused(machine) == "operator", "only he pauses it")
    resume(machine)
    goes_on(guest)
    check_work(machine, guest, disk)
