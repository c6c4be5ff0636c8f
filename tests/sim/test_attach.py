"""Attach, in a whole machine: what the nodes say, what goes wrong and how it is mended."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import XVDA, Machine
from tests.waiting import eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Abi
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["vbd", "vbd3"])
def test_nodes_of_an_attached_disk(machine: Machine, image: Path, kind: str) -> None:
    guest = machine.guest(3)
    offer = DiskOffer(3, XVDA, str(image), kind=kind)
    machine.attach(offer)
    connected = guest.event("connected")
    assert (connected["sectors"], connected["sector_size"], connected["info"]) == (8192, 512, 0)
    nodes = {
        "state": "4",
        "hotplug-status": "connected",
        "feature-barrier": "1",
        "feature-flush-cache": "1",
        "max-ring-page-order": "4",
        "sectors": "8192",
        "sector-size": "512",
        "info": "0",
        "hotplug-error": None,
    }
    for name, value in nodes.items():
        assert machine.node(f"{offer.backend}/{name}") == value, name


@pytest.mark.parametrize("order", [0, in_more(2), 4])
@pytest.mark.parametrize("abi", [abi.name.lower() for abi in Abi])
def test_copy_out_and_exercise(machine: Machine, image: Path, abi: str, order: int) -> None:
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    guest = machine.connected(image, "--abi", abi, "--ring-order", str(order), "--depth", "64")
    guest.tell(f"copy {image}.out")
    assert guest.event("copied")["sha256"] == before
    guest.tell("exercise operations=4000 depth=32 flush_every=100 barrier_every=50")
    result = guest.event("exercised")
    for name in ("errors", "mismatches", "still_mapped", "bad_responses"):
        assert result[name] == 0, name
    assert result["model_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    state = machine.state()
    assert state.ring().abi == Abi[abi.upper()]
    assert state.ring().ring_pages == 1 << order
    state.close()


def test_read_only_disk(machine: Machine, image: Path) -> None:
    """XSA-142, XSA-266: the guest is told, and refused if it tries."""
    before = image.read_bytes()
    guest = machine.guest(1)
    machine.attach(DiskOffer(1, XVDA, str(image), mode="r"))
    assert guest.event("connected")["info"] == 4
    guest.tell("exercise operations=100 read_percent=0")
    assert guest.event("exercised")["errors"] == 100
    assert image.read_bytes() == before


def test_many_guests_and_numbers(machine: Machine, tmp_path: Path) -> None:
    guests = []
    for domid in (1, 2, 3, 4):
        image = tmp_path / f"{domid}.img"
        image.write_bytes(bytes([domid]) * (1 << 20))
        guests.append(machine.connected(image, domid=domid))
    assert sorted(machine.segments()) == ["xbbd.0", "xbbd.1", "xbbd.2", "xbbd.3"]
    for guest in guests:
        guest.tell("exercise operations=2000")
    for guest in guests:
        assert guest.event("exercised")["mismatches"] == 0
    guests[1].stop()
    machine.chain.detach(machine.offers[1])
    eventually(lambda: "xbbd.1" not in machine.segments(), "unit 1 is free")
    machine.guest(9)
    machine.attach(DiskOffer(9, XVDA, str(tmp_path / "2.img"), mode="r"))
    assert "xbbd.1" in machine.segments()


def bad_images(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    small = tmp_path / "small.img"
    small.write_bytes(bytes(100))
    return {
        "missing": (tmp_path / "missing.img", "No such file"),
        "directory": (tmp_path, "director|neither"),
        "small": (small, "512|sector"),
        "forbidden": (Path("/sys/kernel/uevent_seqnum"), "denied"),
    }


@pytest.mark.parametrize("what", ["missing", "directory", "small", "forbidden"])
def test_bad_image(machine: Machine, tmp_path: Path, image: Path, what: str) -> None:
    """The kernel driver's error state, one log line, and everybody else goes on."""
    other = machine.connected(image, domid=2)
    path, reason = bad_images(tmp_path)[what]
    if what == "forbidden" and not path.exists():
        pytest.skip("only Linux has a file that even root may not open for writing")
    machine.guest(1)
    offer = DiskOffer(1, XVDA, str(path))
    with pytest.raises(HostError, match=reason):
        machine.attach(offer)
    eventually(lambda: machine.node(f"{offer.backend}/state") in ("5", "6"), "state Closing")
    assert machine.node(f"{offer.backend}/hotplug-status") == "error"
    assert machine.node(f"{offer.backend}/online") == "0"
    error = machine.node(f"/local/domain/0/error/backend/vbd/1/{XVDA}/error")
    assert error is not None
    assert error.split()[0].isdigit()
    assert machine.log().count("(vbd/1/51712): attach failed: ") == 1
    other.tell("exercise operations=500")
    assert other.event("exercised")["mismatches"] == 0


def test_a_size_that_is_no_multiple_of_a_sector(machine: Machine, tmp_path: Path) -> None:
    odd = tmp_path / "odd.img"
    odd.write_bytes(bytes(1000))
    guest = machine.guest(1)
    machine.attach(DiskOffer(1, XVDA, str(odd)))
    assert guest.event("connected")["sectors"] == 1
    machine.log_line("the last 488 bytes, less than a sector of 512, are not served")


def test_mended_and_offered_again(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "late.img"
    first = machine.guest(1)
    offer = DiskOffer(1, XVDA, str(path))
    with pytest.raises(HostError, match="No such file"):
        machine.attach(offer)
    assert machine.chain.detach(offer)
    first.stop()
    path.write_bytes(bytes(1 << 20))
    second = machine.guest(1)
    machine.attach(offer)
    assert second.event("connected")["sectors"] == 2048
    assert machine.node(f"{offer.backend}/hotplug-error") is None


def test_a_path_without_slash_is_a_device(machine: Machine) -> None:
    machine.guest(1)
    with pytest.raises(HostError, match="/dev/no-such-disk"):
        machine.attach(DiskOffer(1, XVDA, "no-such-disk"))


def test_a_second_daemon_leaves(machine: Machine) -> None:
    second = machine.chain.start_daemon()
    assert second.wait() == 1
    assert f"already running, pid {machine.daemon.pid}" in Path(second.log).read_text()


def test_the_commands_attach_and_detach(machine: Machine, image: Path) -> None:
    """A refused disk leaves the guest waiting for the next offer."""

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        host = f"sim:{machine.chain.layout.directory}"
        return subprocess.run(
            [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host", host, *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    guest = machine.guest(1)
    refused = command("attach", "1", f"{image}.missing", "xvda")
    assert refused.returncode == 1
    assert "No such file" in refused.stderr
    assert machine.chain.store.get("backend/vbd3/1/51712/state") is None
    assert command("attach", "1", str(image), "xvda").returncode == 0
    guest.event("connected")
    again = command("attach", "1", str(image), "51712", "--kind", "vbd")
    assert (again.returncode, "has a disk xvda already" in again.stderr) == (1, True)
    assert command("detach", "1", "xvda").returncode == 0
    guest.event("closed")
    for words, reason in (
        (("detach", "1", "xvda"), "has no disk xvda"),
        (("attach", "9", str(image), "xvda"), "no domain 9"),
        (("attach", "1", str(image), "sdq"), "no virtual disk"),
    ):
        wrong = command(*words)
        assert (wrong.returncode, reason in wrong.stderr) == (1, True), wrong.stderr
