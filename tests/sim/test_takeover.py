"""A daemon that dies under its guests, and the next one that goes on: a pause, and no more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.test_end import sha256, state_of
from tests.sim.test_operator import xbbctl
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.native import State
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow

PATIENT = ("--patience", f"{GIVE_UP:.0f}")
LOAD = "exercise seconds=600 depth=16 flush_every=50 barrier_every=50 discard_every=50"


def kill(machine: Machine) -> None:
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    eventually(lambda: machine.mapped() == 0, "whoever served is gone")  # its process, too


def start(machine: Machine) -> None:
    """The next daemon, as daemon(8) starts it."""
    machine.daemon = machine.chain.start_daemon()


def at_work(machine: Machine, image: Path, *options: str, domid: int = 1) -> Guest:
    guest = machine.connected(image, *PATIENT, *options, domid=domid)
    guest.tell(LOAD)
    guest.event("begun")
    guest.event("progress")
    return guest


def check_work(machine: Machine, guest: Guest, image: Path, number: int = 0) -> None:
    """It ends when it is asked to, and nothing was wrong with any answer."""
    assert machine.chain.detach(machine.offers[number])
    done = guest.event("exercised", GIVE_UP)
    wrong = ("errors", "mismatches", "bad_responses", "still_mapped")
    assert {name: done[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert done["model_sha256"] == sha256(image)


OPTIONS = {
    "plain": (),
    "rings": ("--queues", "4"),
    "persistent": ("--persistent", "--ring-order", "2", "--depth", "100"),
    "indirect": ("--max-segments", "64", "--abi", "x86_32"),
}


EACH_OPTIONS = pytest.mark.parametrize(
    "options",
    [OPTIONS[name] if name in ("plain", "rings") else in_more(OPTIONS[name]) for name in OPTIONS],
    ids=OPTIONS,
)


@EACH_OPTIONS
def test_the_daemon_is_killed_under_load(
    machine: Machine, image: Path, options: tuple[str, ...]
) -> None:
    guest = at_work(machine, image, *options)
    for n in (1, 2, 3):
        kill(machine)
        start(machine)
        machine.log_line(rf"(?s)(taken over.*){{{n}}}")
        guest.event("progress")
        assert state_of(machine) == "4"
        guest.event("progress")
    assert xbbctl(machine, "-n", "dev.xbbd.0.takeovers") == "3\n"
    assert int(xbbctl(machine, "-n", "dev.xbbd.0.takeover_longest_ms")) > 0
    check_work(machine, guest, image)


def test_guests_keep_their_numbers(machine: Machine, image: Path) -> None:
    """Each has the disk that it had, and a new one none of theirs."""
    images = [image, image.with_suffix(".2")]
    images[1].write_bytes(os.urandom(1 << 20))
    machine.connected(images[0], *PATIENT, domid=1)
    second = machine.connected(images[1], *PATIENT, domid=2)
    assert machine.chain.detach(machine.offers.pop(0))
    eventually(lambda: machine.segments() == ["xbbd.1"], "one left")
    kill(machine)
    start(machine)
    machine.log_line(rf"xbbd1 \(vbd/2/{XVDA}\): taken over: 1 ring, 0 requests in flight\n")
    third = image.with_suffix(".3")
    third.write_bytes(bytes(1 << 20))
    machine.connected(third, domid=3)
    machine.log_line(rf"xbbd0 \(vbd/3/{XVDA}\): connected")
    second.tell("exercise operations=500")
    assert second.event("exercised")["mismatches"] == 0


def test_what_guest_and_configuration_say_now_does_not_matter(
    machine: Machine, image: Path
) -> None:
    guest = at_work(machine, image, "--queues", "2")
    kill(machine)
    Path(machine.chain.config_file).write_text(
        "[daemon]\nmax_threads = 4\nmax_disks_per_guest = 1\n[disk]\nmax_queues = 1\n"
        "max_indirect_segments = 0\nmax_persistent_grants = 0\ndiscard = false\nshared = true\n"
    )
    front = f"/local/domain/1/device/vbd/{XVDA}"
    for name in ("event-channel", "ring-ref", "protocol", "multi-queue-num-queues"):
        machine.chain.store.write(f"{front}/{name}", b"nonsense")
    start(machine)
    machine.log_line("taken over: 2 rings")
    check_work(machine, guest, image)


def test_the_guest_dies_while_nobody_serves(machine: Machine, image: Path) -> None:
    guest = at_work(machine, image)
    kill(machine)
    guest.signal(signal.SIGKILL)
    guest.wait()
    eventually(lambda: machine.node("/local/domain/1") is None, "no zombie")
    machine.chain.store.remove(machine.offers.pop().backend)
    start(machine)
    eventually(lambda: not machine.segments(), "its segment is swept")
    assert "taken over" not in machine.log()


def test_the_toolstack_detaches_while_nobody_serves(machine: Machine, image: Path) -> None:
    """The guest is asked to close, and what it has in flight is done before it does."""
    guest = at_work(machine, image)
    kill(machine)
    machine.chain.store.write(f"{machine.offers[0].backend}/online", b"0")
    machine.chain.store.write(f"{machine.offers[0].backend}/state", b"5")
    guest.event("backend closing")
    start(machine)
    done = guest.event("exercised", GIVE_UP)
    assert (done["errors"], done["mismatches"]) == (0, 0)
    assert done["model_sha256"] == sha256(image)
    guest.event("closed")


def test_another_disk_of_that_name_is_not_served(machine: Machine, image: Path) -> None:
    machine.connected(image, *PATIENT, "--hold")
    kill(machine)
    image.rename(image.with_suffix(".old"))
    image.write_bytes(bytes(4 << 20))
    start(machine)
    machine.log_line("cannot be taken over: .*it is another disk by now")
    eventually(lambda: state_of(machine) == "5", "the guest is told")
    error = machine.node(f"/local/domain/0/error/backend/vbd/1/{XVDA}/error")
    assert error is not None
    assert "another disk" in error


def test_a_segment_of_another_version_is_an_obstacle_that_is_said(
    machine: Machine, image: Path
) -> None:
    machine.connected(image, *PATIENT, "--hold")
    kill(machine)
    with open(machine.chain.layout.state_segment(0), "r+b") as file:
        file.seek(4)
        file.write(b"\xff")
    start(machine)
    machine.log_line("xbbd.0: left by an earlier daemon, and of no use: .*Invalid argument")
    machine.log_line("connected by an earlier daemon that is gone")
    eventually(lambda: state_of(machine) == "5", "the guest is told")


def test_a_lost_disk_is_not_taken_over(machine: Machine, image: Path) -> None:
    """A flush of the dead failed, which its guest must hear."""
    machine.connected(image, *PATIENT, "--hold")
    segment = machine.state()
    kill(machine)
    segment.lose(5)
    segment.close()
    start(machine)
    machine.log_line(r"the guest must connect again \(writes may be lost: a flush failed")
    assert "taken over" not in machine.log()
    eventually(lambda: state_of(machine) == "5", "the guest is told")


def test_whoever_still_holds_the_segment_is_waited_for(machine: Machine, image: Path) -> None:
    """As a thread that hangs in its disk: nobody does its work a second time."""
    guest = at_work(machine, image)
    kill(machine)
    held = State.take_over(machine.chain.layout.state_segment(0))
    start(machine)
    machine.log_line("has not ended")
    assert "taken over" not in machine.log()
    assert state_of(machine) == "4"
    held.close()
    machine.log_line("taken over")
    check_work(machine, guest, image)


def test_the_daemon_stops_after_it_took_over(image: Path) -> None:
    with running_machine() as machine:
        guest = at_work(machine, image)
        kill(machine)
        start(machine)
        machine.log_line("taken over")
        machine.daemon.signal(signal.SIGTERM)
        done = guest.event("exercised", GIVE_UP)
        assert (done["errors"], done["mismatches"]) == (0, 0)
        assert done["model_sha256"] == sha256(image)
        assert machine.daemon.wait() == 0
        assert machine.segments() == []


def test_it_is_stopped_before_it_could(machine: Machine, image: Path) -> None:
    """A fresh guest at the same number is none of the dead one's."""
    guest = at_work(machine, image)
    offer: DiskOffer = machine.offers[0]
    kill(machine)
    guest.signal(signal.SIGKILL)
    guest.wait()
    eventually(lambda: machine.node("/local/domain/1") is None, "the guest is gone")
    machine.chain.store.remove(offer.backend)
    machine.offers.clear()
    machine.guests.remove(guest)
    again = machine.guest(1)
    start(machine)
    machine.attach(offer)
    machine.offers.append(offer)
    again.event("connected")
    again.tell("exercise operations=500")
    assert again.event("exercised")["mismatches"] == 0
    assert "taken over" not in machine.log()
