"""attach and detach by many hands at once, on a machine that has other things to do.

Short forms; XBBD_TEST_ROUNDS makes them as long as is wanted (100 and more).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd import xbbctl
from xbbd_bsd.ctl import disks
from xbbd_bsd.errors import XbbdError
from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.xenstore.client import Store

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("XBBD_TEST_ROUNDS", "10"))


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Other programs, which want all of the processor."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def attaching(machine: Machine, disk: DiskOffer, start: threading.Barrier) -> str:
    """One hand of two: what it says, "" for yes."""
    loop = asyncio.new_event_loop()
    store = Store(machine.chain.layout.store_socket(0), loop=loop)
    store.connect()
    try:
        start.wait()
        disks.attach_disk(store, loop, disk, GIVE_UP)
        return ""
    except XbbdError as error:
        return str(error)
    finally:
        store.close()
        loop.close()


def both(machine: Machine, *disks: DiskOffer) -> list[str]:
    """Attach them at once, each by a hand of its own."""
    start = threading.Barrier(len(disks))
    said = [""] * len(disks)

    def hand(number: int) -> None:
        said[number] = attaching(machine, disks[number], start)

    threads = [threading.Thread(target=hand, args=(number,)) for number in range(len(disks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@pytest.mark.parametrize("kinds", [("vbd3", "vbd3"), ("vbd3", "vbd")])
def test_two_attaches_at_once(
    machine: Machine, image: Path, tmp_path: Path, kinds: tuple[str, str]
) -> None:
    """One yes, one no, each time, and the disk of the yes is served."""
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    disks = [
        DiskOffer(1, XVDA, str(path), kind=kind)
        for path, kind in zip((image, other), kinds, strict=True)
    ]
    guest = machine.guest(1)
    for _ in range(ROUNDS):
        said = both(machine, *disks)
        assert sorted(bool(text) for text in said) == [False, True], said
        assert "has a disk xvda already" in "".join(said)
        won = disks[said.index("")]
        assert guest.event("connected")["sectors"] == os.path.getsize(won.path) // 512
        guest.tell("exercise operations=20")
        assert guest.event("exercised")["mismatches"] == 0
        assert machine.chain.detach(won)
        guest.event("closed")
        guest.tell("open")


def test_a_bad_attach_and_a_good_one_at_once(machine: Machine, image: Path) -> None:
    """The failure removes nothing of the other's, whoever was first."""
    good = DiskOffer(1, XVDA, str(image), kind="vbd3")
    bad = DiskOffer(1, XVDA, f"{image}.missing", kind="vbd3")
    guest = machine.guest(1)
    for _ in range(ROUNDS):
        said = both(machine, bad, good)
        assert said[0], "a disk that is not there was attached"
        if said[1]:
            assert "has a disk xvda already" in said[1]
            assert "No such file" in said[0]
            assert both(machine, good) == [""]
        guest.event("connected")
        assert machine.chain.detach(good)
        guest.event("closed")
        guest.tell("open")


def test_attach_and_detach_on_a_busy_machine(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command is answered right, and its guest has the disk, or has not."""
    host = ("--host", f"sim:{machine.chain.layout.directory}")
    limit = ("--limit", str(GIVE_UP))
    guest = machine.guest(1)
    with busy_loops(4):
        for turn in range(ROUNDS):
            status = xbbctl.main([*host, "attach", *limit, "1", str(image), "xvda"])
            assert (status, capsys.readouterr().err) == (0, "")
            guest.event("connected", GIVE_UP)
            words = ("xbbd0",) if turn % 2 else ("1", "xvda")
            status = xbbctl.main([*host, "detach", *limit, *words])
            assert (status, capsys.readouterr().err) == (0, "")
            guest.event("closed", GIVE_UP)
            guest.tell("open")
    assert machine.chain.store.list("/local/domain/0/backend") == ["vbd3"]
    assert machine.chain.store.list("/local/domain/0/backend/vbd3") == []


@pytest.mark.parametrize("manner", ["--hold", "--refuse"])
def test_a_guest_keeps_the_disk_that_it_holds(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str], manner: str
) -> None:
    """Whether it says so or says nothing; then the same command takes it back."""
    guest = machine.guest(1, manner)
    disk = DiskOffer(1, XVDA, str(image), kind="vbd3")
    machine.attach(disk)
    guest.event("connected")

    def detach(*options: str) -> tuple[int, str]:
        host = f"sim:{machine.chain.layout.directory}"
        status = xbbctl.main(["--host", host, "detach", *options, "1", "xvda"])
        return status, capsys.readouterr().err

    status, said = detach("--limit", "3")
    assert status == 1
    assert "domain 1 holds xvda, and keeps it" in said
    assert machine.node(f"{disk.backend}/online") == "1"
    if manner == "--hold":
        assert machine.node(f"{disk.backend}/state") == "4"
        guest.tell("exercise operations=50")
        assert guest.event("exercised")["errors"] == 0
        status, said = detach("--limit", "1", "--force")
        assert (status, "its nodes are removed" in said) == (1, True)
        assert machine.node(f"{disk.backend}/frontend") is None
    else:
        guest.event("refused to close")
        guest.tell("release")
        guest.event("closed")
        assert detach("--limit", str(GIVE_UP)) == (0, "")


def test_what_a_guest_leaves_is_taken_back(
    machine: Machine, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It crashed, and no toolstack came to clean up: by its unit, as it is listed."""
    machine.connected(image)
    disk = machine.offers[0]
    machine.guests.pop().signal(signal.SIGKILL)
    eventually(lambda: machine.node(f"/local/domain/{disk.domid}") is None, "the guest is gone")
    host = ("--host", f"sim:{machine.chain.layout.directory}")
    assert xbbctl.main([*host, "detach", "0"]) == 1
    assert "write the disk or card too, or xbbd0" in capsys.readouterr().err
    if machine.node(f"{disk.backend}/frontend") is not None:
        words = ("xbbd0",) if machine.segments() else ("1", "xvda")
        status = xbbctl.main([*host, "-j", "detach", "--limit", str(GIVE_UP), *words])
        printed = capsys.readouterr()
        assert (status, printed.err) == (0, "")
        assert json.loads(printed.out)["backend"] == disk.backend
    assert machine.node(f"{disk.backend}/frontend") is None
    eventually(lambda: not machine.segments(), "xbbd0 is gone")


NAME = b"d\xff\x1b[2J\n.img"
SHOWN = r"d\xff\x1b[2J\x0a.img"


def command(machine: Machine, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """As a shell starts it: arguments are octets."""
    host = f"sim:{machine.chain.layout.directory}"
    return subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host", host, *words],
        capture_output=True,
        timeout=GIVE_UP,
        check=False,
    )


def test_a_name_is_octets(tmp_path: Path) -> None:
    """From the command line to the disk, its [[override]], and what is shown of it."""
    path = os.fsencode(tmp_path) + b"/" + NAME
    Path(os.fsdecode(path)).write_bytes(bytes(1 << 20))
    config = f"[[override]]\npath = '*/{SHOWN}'\nflush_interval = 7\n"
    with running_machine(config) as machine:
        guest = machine.guest(1)
        missing = command(machine, "attach", "1", path + b".missing", "xvda")
        assert missing.returncode == 1
        reason = f"unable to open {tmp_path}/{SHOWN}.missing: No such file or directory"
        assert missing.stderr.decode() == f"xbbctl: {reason}\n"
        assert machine.chain.store.list("/local/domain/0/backend/vbd3") == []
        assert machine.node("/local/domain/1/device/vbd/51712/backend") is None
        done = command(machine, "attach", "--limit", "30", "1", path, "xvda")
        assert (done.returncode, done.stderr) == (0, b"")
        disk = DiskOffer(1, XVDA, os.fsdecode(path), kind="vbd3")
        machine.offers.append(disk)
        guest.event("connected")
        assert machine.chain.store.get(f"{disk.backend}/params") == b"aio:" + path
        (row,) = json.loads(command(machine, "list", "-j").stdout)
        assert os.fsencode(row["path"]) == path
        for words in (("list",), ("log", "xbbd0"), ("dev.xbbd.0.path",)):
            text = command(machine, *words).stdout.decode()
            assert f"/{SHOWN}" in text
            assert text.replace("\n", "").isprintable()
        assert command(machine, "-n", "dev.xbbd.0.flush_interval").stdout == b"7\n"
        assert f"file {tmp_path}/{SHOWN}, " in machine.log()
        assert command(machine, "detach", "1", "xvda").returncode == 0
        guest.event("closed")
