"""Every way in which a connection ends: by the guest, the toolstack, the daemon, a crash.

No acknowledged write may be lost, nothing may hang, and the fixture sees to it
that nothing is left.
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine
from tests.waiting import eventually
from xbbd_bsd import toolstack
from xbbd_bsd.errors import HostError
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow

LOAD = "exercise seconds=60 depth=32 flush_every=100 barrier_every=100"


def sha256(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


def state_of(machine: Machine, domid: int = 1) -> str | None:
    return machine.node(f"/local/domain/0/backend/vbd/{domid}/{XVDA}/state")


def loaded(machine: Machine, image: Path, *options: str, domid: int = 1) -> Guest:
    """A guest in the middle of an exercise."""
    guest = machine.connected(image, *options, domid=domid)
    guest.tell(LOAD)
    guest.event("begun")
    guest.event("progress")
    return guest


def test_a_guest_that_refuses_to_close_goes_on_with_io(machine: Machine, image: Path) -> None:
    """As Linux from 2.6.36 to 5.14 with a mounted disk: Closing, and I/O as before."""
    guest = machine.connected(image, "--refuse")
    guest.tell("exercise seconds=3 depth=8 flush_every=50")
    guest.event("begun")
    (offer,) = machine.offers
    chain = machine.chain
    assert not toolstack.detach(chain.store, chain.loop, offer, 1.0)
    guest.event("refused to close")
    assert state_of(machine) == "5"
    done = guest.event("exercised")
    assert (done["errors"], done["mismatches"]) == (0, 0)
    # And anew, with our state still Closing.
    guest.tell("exercise operations=2000 depth=8 flush_every=50")
    done = guest.event("exercised")
    assert (done["errors"], done["mismatches"]) == (0, 0)
    assert done["model_sha256"] == sha256(image)
    assert machine.node(f"{offer.backend}/online") == "1"
    guest.tell("release")
    guest.event("closed")
    assert chain.detach(offer)


def test_the_guest_closes_and_comes_back(machine: Machine, image: Path) -> None:
    """A driver that is unloaded and loaded: Closed, then InitWait and Connected again."""
    guest = machine.connected(image)
    for _ in range(3):
        guest.tell("exercise operations=500")
        assert guest.event("exercised")["mismatches"] == 0
        guest.tell("close")
        guest.event("closed")
        eventually(lambda: state_of(machine) == "6", "backend Closed")
        assert machine.mapped() == 0
        guest.tell("open")
        guest.event("connected")
    state = machine.state()
    assert state.counters()["reqs_received"] >= 1500
    state.close()


def test_the_toolstack_detaches_under_load(machine: Machine, image: Path) -> None:
    guest = loaded(machine, image)
    assert machine.chain.detach(machine.offers[0])
    result = guest.event("exercised")
    assert result["mismatches"] == result["errors"] == 0
    assert result["model_sha256"] == sha256(image)


def test_the_nodes_vanish_under_load(machine: Machine, image: Path) -> None:
    """A forced removal: the guest does not agree, the daemon gives back all the same."""
    guest = loaded(machine, image, "--hold")
    machine.chain.store.remove(machine.offers[0].backend)
    eventually(lambda: machine.mapped() == 0, "no grant mapped")
    guest.signal(signal.SIGKILL)
    guest.wait()


def test_one_ring_lies_and_the_others_go_on(machine: Machine, image: Path) -> None:
    """A guest that breaks its ring loses its disk, and nobody else notices."""
    second = image.with_suffix(".2")
    second.write_bytes(image.read_bytes())
    other = loaded(machine, second, domid=2)
    liar = machine.connected(image)
    liar.tell("lie")
    liar.event("lied")
    machine.log_line("xbbd1 .*ring indices are impossible")
    liar.event("closed")
    other.event("progress")
    assert machine.chain.detach(machine.offers[0])
    result = other.event("exercised")
    assert result["mismatches"] == result["errors"] == 0


def test_the_guest_is_killed_under_load(machine: Machine, image: Path) -> None:
    guest = loaded(machine, image)
    other = machine.guest(2)
    second = image.with_suffix(".2")
    second.write_bytes(bytes(1 << 20))
    machine.attach(DiskOffer(2, XVDA, str(second)))
    other.event("connected")
    guest.signal(signal.SIGKILL)
    guest.wait()
    eventually(lambda: machine.node("/local/domain/1") is None, "the domain is gone")
    eventually(lambda: state_of(machine) in ("5", "6"), "the backend noticed")
    other.tell("exercise operations=500")
    assert other.event("exercised")["mismatches"] == 0


def test_sigterm_under_load(machine: Machine, image: Path) -> None:
    """Guests see Closing; whatever was acknowledged is on the disk."""
    guest = loaded(machine, image)
    machine.daemon.signal(signal.SIGTERM)
    guest.event("backend closing")
    result = guest.event("exercised")
    assert result["mismatches"] == result["errors"] == 0
    assert result["model_sha256"] == sha256(image)
    guest.event("closed")
    assert machine.daemon.wait() == 0
    assert machine.segments() == []


def test_sigterm_with_a_guest_that_holds_on(machine: Machine, image: Path) -> None:
    """After its time the ring is drained whatever the guest says; twice is hurry."""
    guest = loaded(machine, image, "--hold")
    machine.daemon.signal(signal.SIGTERM)
    guest.event("backend closing")
    machine.daemon.signal(signal.SIGTERM)
    assert machine.daemon.wait() == 0
    eventually(lambda: machine.mapped() == 0, "no grant mapped")
    with pytest.raises(HostError, match="pipe"):
        guest.event("exercised")


def test_the_daemon_is_killed_under_a_guest_without_patience(machine: Machine, image: Path) -> None:
    """One that takes a backend that goes for dead; it may connect anew later."""
    guest = loaded(machine, image)
    machine.daemon.signal(signal.SIGKILL)
    machine.daemon.wait()
    with pytest.raises(HostError, match="pipe"):
        guest.event("exercised")
    assert machine.mapped() == 0
    guest.tell("close")
    machine.daemon = machine.chain.start_daemon()
    guest.event("closed")
    guest.tell("open")
    guest.event("connected")
    guest.tell("exercise operations=500")
    assert guest.event("exercised")["mismatches"] == 0


def test_the_store_dies_under_load(machine: Machine, image: Path) -> None:
    """I/O goes on without a store; one that comes back empty has no devices."""
    guest = loaded(machine, image, "--hold")
    pid = int(Path(machine.chain.layout.store_pid).read_text())
    guest.event("progress")
    machine.chain.store.close()  # it would only wait for the new one
    os.kill(pid, signal.SIGKILL)
    machine.log_line("XenStore|store")
    eventually(lambda: not machine.segments(), "the device is forgotten")
    assert machine.mapped() == 0
    assert machine.daemon.child.poll() is None
    machine.offers.clear()
    guest.signal(signal.SIGKILL)
    guest.wait()


def test_reload_changes_tunables_of_running_disks(machine: Machine, image: Path) -> None:
    machine.connected(image)
    state = machine.state()
    assert state.tunables()["flush_interval"] == 0
    with open(machine.chain.config_file, "w") as file:
        file.write("[disk]\nflush_interval = 7\n")
    machine.daemon.signal(signal.SIGHUP)
    eventually(lambda: state.tunables()["flush_interval"] == 7, "the tunable changed")
    with open(machine.chain.config_file, "w") as file:
        file.write("[disk]\nflush_interval = maybe\n")
    machine.daemon.signal(signal.SIGHUP)
    machine.log_line(r"xbbd\.conf:2: ")
    assert state.tunables()["flush_interval"] == 7
    state.close()


def test_fifty_cycles(machine: Machine, image: Path) -> None:
    """Attach and detach until something would have piled up."""
    guest = machine.connected(image)
    (offer,) = machine.offers
    for _ in range(50):
        assert machine.chain.detach(offer)
        guest.event("closed")
        guest.tell("open")
        machine.chain.attach(offer)
        guest.event("connected")


def test_io_goes_on_while_the_store_is_silent(machine: Machine, image: Path) -> None:
    guest = loaded(machine, image)
    pid = int(Path(machine.chain.layout.store_pid).read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        before = guest.event("progress")["reads"]
        guest.event("progress")
        assert guest.event("progress")["reads"] > before
    finally:
        os.kill(pid, signal.SIGCONT)
    assert machine.chain.detach(machine.offers[0])
    result = guest.event("exercised")
    assert result["errors"] == result["mismatches"] == 0
    assert result["model_sha256"] == sha256(image)


@pytest.mark.parametrize("victim", ["store", "guest", "daemon"])
def test_what_was_acknowledged_is_there(machine: Machine, image: Path, victim: str) -> None:
    """Whoever dies a moment after the last answer, no answered write is lost."""
    guest = machine.connected(image, "--hold")
    guest.tell("exercise operations=3000 depth=32 read_percent=0")
    model = guest.event("exercised")["model_sha256"]
    if victim == "store":
        machine.chain.store.close()
        os.kill(int(Path(machine.chain.layout.store_pid).read_text()), signal.SIGKILL)
        machine.offers.clear()
        eventually(lambda: not machine.segments(), "the device is forgotten")
    elif victim == "guest":
        guest.signal(signal.SIGKILL)
        guest.wait()
        eventually(lambda: machine.mapped() == 0, "no grant mapped")
    else:
        machine.daemon.signal(signal.SIGKILL)
        machine.daemon.wait()
        machine.daemon = machine.chain.start_daemon()
        machine.log_line("taken over")
    assert sha256(image) == model
