"""What guest and backend may agree on, in a whole machine: rings, grants, sizes, discards."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import XVDA, Machine, running_machine
from tests.waiting import eventually
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow


def exercise(guest: Guest, words: str) -> dict[str, Any]:
    """Random I/O that must go right."""
    guest.tell(f"exercise {words}")
    result = guest.event("exercised")
    for name in ("errors", "mismatches", "still_mapped", "bad_responses"):
        assert result[name] == 0, (name, result)
    return result


def sha256(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


EVERYTHING = ("--queues", "4", "--max-segments", "64", "--persistent", "--ring-order", "2")


@pytest.mark.parametrize("abi", ["native", "x86_32", in_more("x86_64")])
def test_all_features_at_once(machine: Machine, image: Path, abi: str) -> None:
    guest = machine.connected(image, "--abi", abi, *EVERYTHING)
    machine.log_line(r"connected: 4 rings of 4 pages, \w+ layout, persistent grants")
    result = exercise(
        guest,
        "operations=8000 depth=16 max_sectors=512 flush_every=100 barrier_every=50"
        " discard_every=50 indirect_every=3",
    )
    assert result["model_sha256"] == sha256(image)
    assert min(int(result[n]) for n in ("reads", "writes", "discards", "barriers")) > 0
    state = machine.state()
    for ring in range(4):
        view = state.ring(ring)
        assert (view.connected, view.ring_pages, view.max_request_segments) == (True, 4, 256)
        assert view.grants_persistent > 0
        assert state.counters(ring)["indirect_req"] > 0
    state.close()


@pytest.mark.parametrize(
    ("config", "rings", "segments", "persistent"),
    [
        ("max_queues = 1", 1, 256, True),
        ("max_queues = 2\nmax_persistent_grants = 0", 2, 256, False),
        ("max_indirect_segments = 0", 4, 11, True),
        ('transport = "copy"\nmax_persistent_grants = 16', 4, 256, True),
        ("max_ring_page_order = 0", 4, 256, True),
    ],
)
def test_the_configuration_limits_what_is_offered(
    image: Path, config: str, rings: int, segments: int, persistent: bool
) -> None:
    with running_machine(f"[disk]\n{config}\n") as machine:
        guest = machine.connected(image, *EVERYTHING)
        state = machine.state()
        assert state.rings == max(rings, 1)
        assert [state.ring(n).connected for n in range(rings)] == [True] * rings
        assert state.ring().max_request_segments == segments
        assert state.ring().persistent is persistent
        state.close()
        exercise(guest, "operations=2000 depth=8 max_sectors=88")


def test_a_guest_that_comes_back_with_less(machine: Machine, image: Path) -> None:
    """A boot loader after a kernel, or the other way round: no leftover of the first counts."""
    for options in (EVERYTHING, (), EVERYTHING):
        guest = machine.guest(1, *options)
        machine.attach(DiskOffer(1, XVDA, str(image)))
        guest.event("connected")
        exercise(guest, "operations=1000 depth=8")
        guest.tell("close")
        guest.event("closed")
        eventually(lambda: machine.mapped() == 0, "all grants are given back")
        guest.stop()
        machine.chain.detach(machine.offers.pop())


def test_reconnect_of_one_guest(machine: Machine, image: Path) -> None:
    """The device stays; Closed while online, then Initialising leads to InitWait again."""
    guest = machine.connected(image, *EVERYTHING)
    for _ in range(5):
        result = exercise(guest, "operations=1000 depth=8 discard_every=50")
        assert result["model_sha256"] == sha256(image)
        guest.tell("close")
        guest.event("closed")
        guest.tell("open")
        guest.event("connected")


def test_one_ring_that_lies_ends_them_all(machine: Machine, image: Path) -> None:
    """A disk that answers on some of its rings is none.  XSA-39."""
    guest = machine.connected(image, *EVERYTHING)
    guest.tell("lie")
    guest.event("lied")
    machine.log_line("ring indices are impossible")
    eventually(lambda: machine.node(f"{machine.offers[0].backend}/state") == "6", "Closed")
    eventually(lambda: machine.mapped() == 0, "all rings are given back")


@pytest.fixture
def attentive() -> Iterator[Machine]:
    """A machine whose daemon looks at sizes every second."""
    with running_machine("[disk]\nresize_interval = 1\n") as machine:
        yield machine


def test_growth_and_shrink_reach_the_guest_under_load(attentive: Machine, image: Path) -> None:
    guest = attentive.connected(image, *EVERYTHING)
    backend = attentive.offers[0].backend
    guest.tell(f"exercise seconds=30 depth=16 sectors={1 << 12} flush_every=100")
    guest.event("begun")
    for size in (8 << 20, (6 << 20) + 100, 2 << 20, 16 << 20):
        os.truncate(image, size)
        expected = str(size // 512)

        def told(expected: str = expected) -> bool:
            return attentive.node(f"{backend}/sectors") == expected

        eventually(told, f"{size} bytes")
        assert attentive.node(f"{backend}/state") == "4"
    guest.signal(15)
    result = guest.event("exercised")
    assert result["errors"] == result["mismatches"] == 0


def test_a_larger_disk_is_used_whole(attentive: Machine, image: Path) -> None:
    guest = attentive.connected(image)
    os.truncate(image, 8 << 20)
    guest.tell("size")
    assert guest.event("resized", 20)["sectors"] == 16384
    result = exercise(guest, "operations=2000 first_sector=8192 depth=8")
    assert result["model_sha256"] == hashlib.sha256(image.read_bytes()[4 << 20 :]).hexdigest()


def control(machine: Machine, *words: str) -> str:
    """xbbctl, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host",
         f"sim:{machine.chain.layout.directory}", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_tunables_and_size_on_request(image: Path) -> None:
    """While I/O runs; by the daemon's control socket."""
    with running_machine("[disk]\nresize_interval = 0\n") as machine:
        guest = machine.connected(image)
        guest.tell("exercise seconds=60 flush_every=3 sectors=4096")
        guest.event("begun")
        assert control(machine, "dev.xbbd.0.disable_flush=1") == (
            "dev.xbbd.0.disable_flush: 0 -> 1\n"
        )
        first, second = (int(control(machine, "-n", "dev.xbbd.0.flushes_done")) for _ in range(2))
        asked = int(control(machine, "-n", "dev.xbbd.0.f_req"))
        assert first == second < asked
        os.truncate(image, 8 << 20)
        assert control(machine, "resize", "xbbd0") == "dev.xbbd.0.sectors: 8192 -> 16384\n"
        eventually(lambda: machine.node(f"{machine.offers[0].backend}/sectors") == "16384", "8 MiB")
        assert control(machine, "dev.xbbd.0.abi=1") == (
            "xbbctl: oid 'dev.xbbd.0.abi' is read only\n"
        )
        guest.signal(15)
        assert guest.event("exercised")["mismatches"] == 0


def test_a_disk_that_shrinks_to_nothing(attentive: Machine, image: Path) -> None:
    """It is no disk any more, but whoever truncated it may be about to copy another one in."""
    guest = attentive.connected(image)
    os.truncate(image, 0)
    attentive.log_line("only 0 bytes, less than a sector")
    assert attentive.node(f"{attentive.offers[0].backend}/sectors") == "8192"
    guest.tell("exercise operations=10 read_percent=100 verify=0")
    assert guest.event("exercised")["errors"] == 10
    os.truncate(image, 4 << 20)
    exercise(guest, "operations=1000")


@pytest.mark.parametrize(
    ("config", "enable", "offered"),
    [("", True, "1"), ("", False, "0"), ("[disk]\ndiscard = false", True, "0")],
)
def test_discard_is_offered_unless_somebody_minds(
    image: Path, config: str, enable: bool, offered: str
) -> None:
    with running_machine(config) as machine:
        guest = machine.guest(1)
        offer = DiskOffer(1, XVDA, str(image), discard=enable)
        machine.attach(offer)
        guest.event("connected")
        assert machine.node(f"{offer.backend}/feature-discard") == offered
        present = machine.node(f"{offer.backend}/discard-granularity") is not None
        assert present == (offered == "1")
        guest.tell("exercise operations=10 discard_every=1 verify=0 sectors=4096")
        assert guest.event("exercised")["errors"] == (0 if offered == "1" else 10)


def test_another_medium_under_a_guest_is_refused(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    other = image.with_name("other.img")
    other.write_bytes(bytes(4 << 20))
    path = f"{machine.offers[0].backend}/physical-device-path"
    machine.chain.store.write(path, os.fsencode(other))
    machine.chain.store.write(f"{machine.offers[0].backend}/state", b"4")
    exercise(guest, "operations=100")
    machine.chain.store.write(f"{machine.offers[0].frontend}/state", b"4")
    machine.log_line("physical-device-path names another medium, which is ignored")
    assert other.read_bytes() == bytes(4 << 20)


def test_the_guests_kind_of_disk_is_told(machine: Machine, image: Path) -> None:
    """VDISK_CDROM 1, VDISK_REMOVABLE 2, VDISK_READONLY 4."""
    guest = machine.guest(1)
    machine.attach(DiskOffer(1, XVDA, str(image), mode="r", cdrom=True))
    assert guest.event("connected")["info"] == 7
