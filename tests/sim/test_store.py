"""Guests with disks that a server has: it goes, comes back, lies; and so do who serves them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.native.stores import Server, require_nbdkit
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.test_operator import xbbctl
from tests.sim.test_takeover import LOAD, PATIENT, check_work, start
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer, remove

pytestmark = pytest.mark.slow


@pytest.fixture
def server(temporary: Path, image: Path) -> Iterator[Server]:
    """Of the image, as export "db"."""
    require_nbdkit()
    made = Server(temporary, *serves(image))
    made.start()
    yield made
    made.kill()
    made.socket.unlink()


def serves(image: Path) -> tuple[str, ...]:
    return ("-e", "db", "file", str(image))


def section(server: Server, more: str = "") -> str:
    return f'[store.db]\nuri = "nbd+unix:///db?socket={server.socket}"\n{more}'


@pytest.fixture(params=["", in_more(PROCESSES)], ids=["daemon", "processes"])
def machine(request: pytest.FixtureRequest, server: Server) -> Iterator[Machine]:
    with running_machine(request.param + section(server, "timeout = 5\n")) as made:
        yield made


def connected(machine: Machine, name: str = "store:db") -> Guest:
    guest = machine.guest(1, *PATIENT)
    machine.attach(DiskOffer(1, XVDA, name))
    guest.event("connected")
    return guest


def at_work(machine: Machine) -> Guest:
    guest = connected(machine)
    guest.tell(LOAD)
    guest.event("begun")
    guest.event("progress")
    return guest


def test_the_server_is_killed_under_load(machine: Machine, server: Server, image: Path) -> None:
    guest = at_work(machine)
    for n in (1, 2):
        server.kill()
        machine.log_line(rf"(?s)(store:db does not answer.*){{{n}}}")
        server.start()
        machine.log_line(rf"(?s)(store:db answers again.*){{{n}}}")
        guest.event("progress")
    assert xbbctl(machine, "-n", "dev.xbbd.0.reconnects") == "2\n"
    assert str(server.socket) not in machine.log()
    check_work(machine, guest, image)


def test_a_server_that_comes_back_smaller_is_refused(
    machine: Machine, server: Server, image: Path
) -> None:
    guest = at_work(machine)
    server.kill()
    size = image.stat().st_size
    smaller = image.with_suffix(".smaller")
    smaller.write_bytes(image.read_bytes()[: size // 2])
    server.start(*serves(smaller))
    machine.log_line(f"it has {size // 1024} sectors, and had {size // 512}")
    server.kill()
    server.start("-r", *serves(image))
    machine.log_line("it is read-only now")
    server.kill()
    server.start(*serves(image))
    machine.log_line("store:db answers again")
    check_work(machine, guest, image)


def test_the_daemon_is_killed_under_load(machine: Machine, server: Server, image: Path) -> None:
    guest = at_work(machine)
    kill_daemon(machine)
    start(machine)
    machine.log_line("taken over|gone on")
    guest.event("progress")
    guest.event("progress")
    check_work(machine, guest, image)


def kill_daemon(machine: Machine) -> None:
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()


def test_the_daemon_is_killed_while_the_server_is_gone(
    machine: Machine, server: Server, image: Path
) -> None:
    guest = at_work(machine)
    server.kill()
    machine.log_line("store:db does not answer")
    kill_daemon(machine)
    start(machine)
    server.start()
    machine.log_line("taken over|gone on")
    guest.event("progress")
    guest.event("progress")
    check_work(machine, guest, image)


def test_the_process_of_a_guest_is_killed(server: Server, image: Path) -> None:
    with running_machine(PROCESSES + section(server)) as machine:
        guest = at_work(machine)
        os.kill(int(xbbctl(machine, "-n", "dev.xbbd.0.process")), signal.SIGKILL)
        machine.log_line("taken over")
        guest.event("progress")
        guest.event("progress")
        check_work(machine, guest, image)


def test_a_server_that_is_gone_keeps_nobody_for_long(machine: Machine, server: Server) -> None:
    guest = at_work(machine)
    server.kill()
    machine.log_line("store:db does not answer")
    machine.chain.detach(machine.offers[0])
    done = guest.event("exercised", GIVE_UP)
    assert done["bad_responses"] == 0


def test_names_that_cannot_be_had(machine: Machine, server: Server, image: Path) -> None:
    socket = server.socket
    machine.guest(1)
    for name, reason in (
        ("store:no", r"store:no: there is no section \[store.no\]"),
        ("nbd://me:secret@host/x", "no user and no password"),
        ("nbd://host:0x/x", "is no URI"),
        (f"nbd+unix:///db?socket={socket}.no", "cannot be reached"),
    ):
        with pytest.raises(HostError, match=reason) as failed:
            machine.attach(DiskOffer(1, XVDA, name))
        assert "secret" not in str(failed.value)
        remove(machine.chain.store, machine.offers.pop())
    assert "secret" not in machine.log()


def test_tls_is_for_a_proxy_where_guests_have_processes(server: Server) -> None:
    config = '[store.db]\nuri = "nbds://127.0.0.1:1/db"\npsk_file = "/nowhere"\n'
    with running_machine(PROCESSES + config) as machine:
        machine.guest(1)
        with pytest.raises(HostError, match="TLS wants keys"):
            machine.attach(DiskOffer(1, XVDA, "store:db"))
        remove(machine.chain.store, machine.offers.pop())


def test_another_guest_cannot_have_it(machine: Machine, server: Server) -> None:
    connected(machine)
    machine.guest(2)
    with pytest.raises(HostError, match="in use"):
        machine.attach(DiskOffer(2, XVDA, f"nbd+unix:///db?socket={server.socket}"))
    eventually(lambda: "in use" in machine.log(), "it is said")


def test_another_format_by_qemus_daemon(temporary: Path, tmp_path: Path) -> None:
    """As the manual has it: a parser of what guests write is somebody else's process."""
    require_nbdkit()
    for program in ("qemu-storage-daemon", "qemu-img"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    disk, path = tmp_path / "disk.qcow2", temporary / "q.sock"
    subprocess.run(["qemu-img", "create", "-qf", "qcow2", str(disk), "4M"], check=True)
    serving = subprocess.Popen(
        [
            "qemu-storage-daemon",
            *("--blockdev", f"file,node-name=file,filename={disk}"),
            *("--blockdev", "qcow2,node-name=db,file=file"),
            *("--nbd-server", f"addr.type=unix,addr.path={path}"),
            *("--export", "nbd,id=db,node-name=db,writable=on"),
        ]
    )
    try:
        eventually(path.exists, "it listens")
        with running_machine(f'[store.db]\nuri = "nbd+unix:///db?socket={path}"\n') as machine:
            guest = connected(machine)
            # Without discards: what it leaves there is for qcow2 to say.
            guest.tell("exercise seconds=600 depth=16 flush_every=50 barrier_every=50")
            guest.event("progress")
            assert machine.chain.detach(machine.offers[0])
            done = guest.event("exercised", GIVE_UP)
            assert (done["errors"], done["mismatches"]) == (0, 0)
    finally:
        serving.kill()
        serving.wait()
        path.unlink()
    subprocess.run(["qemu-img", "check", "-q", str(disk)], check=True)
