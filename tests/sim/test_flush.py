"""A flush that fails, in a whole machine: the disk stays closed until an operator says otherwise.

The disk's first flush fails and all others succeed, as a kernel has it.
"""

from __future__ import annotations

import mmap
import os
import signal
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.soak import FAULTS, build_faulty_disk
from tests.waiting import eventually
from xbbd_bsd import xbbctl
from xbbd_bsd.errors import HostError
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow


class Faults:
    """What happens to the disks of the daemon."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def fail_flushes(self, count: int) -> None:
        """So many, from the start of a daemon on."""
        self._bytes[: FAULTS.size] = FAULTS.pack(*[0] * 6, count, 0, 0)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """From now on daemons have such disks."""
    faults = Faults(tmp_path / "faults")
    monkeypatch.setenv("XBBD_FAULTS", str(tmp_path / "faults"))
    monkeypatch.setenv("LD_PRELOAD", str(build_faulty_disk(tmp_path)))
    return faults


def marks(machine: Machine) -> list[str]:
    names = os.listdir(machine.chain.layout.run)
    return [name for name in names if name.startswith("lost.")]


def clear(machine: Machine, disk: str) -> int:
    return xbbctl.main(["--state-dir", machine.chain.layout.run, "clear", disk])


def fail_a_flush(machine: Machine, faults: Faults, image: Path) -> None:
    """A guest with two rings, whose disk's first flush fails."""
    guest = machine.connected(image, "--queues", "2")
    faults.fail_flushes(1)
    guest.tell("exercise operations=400 depth=8 flush_every=5 read_percent=20")
    with pytest.raises(HostError, match="Broken pipe"):  # the backend goes away under it
        guest.event("exercised")
    guest.event("closed")
    machine.log_line(f"writes to {image} may be lost, a flush failed .*xbbctl clear {image}")
    state = machine.state()
    assert state.lost_errno == 5
    state.close()
    assert len(marks(machine)) == 1


def test_a_guest_that_comes_back_waits_for_the_operator(faults: Faults, image: Path) -> None:
    with running_machine() as machine:
        fail_a_flush(machine, faults, image)
        (guest,) = machine.guests
        guest.tell("open")
        machine.log_line(r"unable to open .*a flush failed \(Input/output error\) at")
        assert machine.node(f"/local/domain/0/backend/vbd/1/{XVDA}/online") == "1"
        assert clear(machine, "xbbd0") == 0
        guest.event("connected")
        machine.log_line("may be opened again")
        guest.tell("exercise operations=200 flush_every=5")
        assert guest.event("exercised")["errors"] == 0
        assert marks(machine) == []
        assert clear(machine, str(image)) == 1


@pytest.mark.parametrize("died_at_once", [False, True])
def test_the_next_daemon_keeps_the_disk_closed(
    faults: Faults, image: Path, died_at_once: bool
) -> None:
    with running_machine() as machine:
        fail_a_flush(machine, faults, image)
        machine.daemon.signal(signal.SIGKILL)
        machine.daemon.child.wait()
        if died_at_once:  # before it came to that
            (name,) = marks(machine)
            os.unlink(os.path.join(machine.chain.layout.run, name))
        faults.fail_flushes(0)
        machine.daemon = machine.chain.start_daemon()
        eventually(lambda: len(marks(machine)) == 1, "the mark is there")
        machine.guest(2)
        offer = DiskOffer(2, XVDA, str(image))
        with pytest.raises(HostError, match=f"a flush failed .*xbbctl clear {image}"):
            machine.attach(offer)
        assert clear(machine, str(image)) == 0
        machine.connected(image, domid=3)
