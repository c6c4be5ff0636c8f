"""A guest that is saved and restored, and one that is handed over to a copy of itself.

To the daemon both are a new domain, with the disk of an old one that is the same
virtual machine.  Xen refuses to log the dirty pages of a PV guest in the lab, so
that `xl migrate` does not work there; what it does to disks at the end of a local
migration is done step by step: the copy is made, with its disk, while the
original still has it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU
from tests.real.conftest import Guests
from tests.real.service import Service, Toolstack, eventually
from tests.real.test_attach import check_same_bytes
from tests.real.test_io import VERIFY
from xbbd_bsd.errors import HostError

XL_DISK = "format=raw,vdev=xvda,access=rw,backendtype=phy,target={}"

# One run of fio after another, each of which reads what it wrote, until one fails or
# /tmp/stop is there; how many were good.
WRITING = (
    "rm -f /tmp/stop /tmp/status; n=0; while [ ! -e /tmp/stop ] &&"
    f" {VERIFY} --bs=16k --number_ios=400 >/tmp/fio 2>&1; do n=$((n+1)); echo $n >/tmp/runs; done;"
    " [ -e /tmp/stop ]; echo $? >/tmp/status"
)


@pytest.fixture
def traveller(guests: Guests, loop_device: str) -> Iterator[DomU]:
    """A guest of its own, with a disk that it writes and verifies without end."""
    guests.forget("g1")  # room for a copy
    guest = DomU("traveller", [XL_DISK.format(loop_device)])
    try:
        guest.start()
        guest.wait_disk("xvda")
        guest.run("echo 0 >/tmp/runs", check=True)
        guest.run(f"({WRITING}) &", check=True)
        eventually(lambda: runs(guest) > 0, "it writes and verifies", 180)
        yield guest
    finally:
        guests.forget("traveller")
        guests.forget("copy")


@pytest.fixture
def image_of_memory() -> Iterator[Path]:
    """Where a guest is saved; it would not fit into dom0's memory."""
    path = DOM0.scratch() / "saved"
    yield path
    path.unlink(missing_ok=True)


def runs(guest: DomU) -> int:
    """How many runs of fio were good; none may have failed."""
    status, text = guest.run("cat /tmp/runs; ! [ -e /tmp/status ] || { cat /tmp/fio; false; }")
    assert status == 0, text
    return int(text.split()[0])


def check_end(service: Service, guest: DomU, loop_device: str) -> None:
    """It writes and verifies for some more time, stops without an error, and all is there."""
    before = runs(guest)
    eventually(lambda: runs(guest) > before + 1, "it goes on, and verifies", 180)
    guest.run(
        "touch /tmp/stop; until [ -e /tmp/status ]; do usleep 100000; done", timeout=180, check=True
    )
    _, text = guest.run("cat /tmp/status /tmp/fio", check=True)
    assert text.startswith("0"), text
    assert "err= 0" in text, text
    check_same_bytes(guest, "xvda", loop_device)
    counters = [service.counters(int(name[5:])) for name in service.devices()]
    assert [each["reqs_completed_with_error"] for each in counters] == [0]


def test_saved_and_restored(
    service: Service,
    toolstack: Toolstack,
    traveller: DomU,
    loop_device: str,
    image_of_memory: Path,
) -> None:
    """In the middle of I/O: under its new domid it has its disk again, and misses nothing."""
    before = traveller.domid
    traveller.save(image_of_memory)
    assert toolstack.disks() == []
    service.check_idle()
    traveller.restore(image_of_memory)
    assert traveller.domid != before
    assert toolstack.disks() == [f"vbd/{traveller.domid}/51712"]
    check_end(service, traveller, loop_device)
    traveller.shutdown()


def test_saved_while_nobody_serves(
    service: Service,
    toolstack: Toolstack,
    traveller: DomU,
    loop_device: str,
    image_of_memory: Path,
) -> None:
    """Its requests in flight go with its memory: who serves it next has not got them."""
    assert service.signal(signal.SIGKILL) == -signal.SIGKILL
    traveller.save(image_of_memory)
    service.start()
    eventually(lambda: not service.devices(), "what was left of it is swept")
    traveller.restore(image_of_memory)
    assert toolstack.disks() == [f"vbd/{traveller.domid}/51712"]
    check_end(service, traveller, loop_device)
    traveller.shutdown()


def test_handed_over_to_a_copy(
    service: Service,
    toolstack: Toolstack,
    traveller: DomU,
    loop_device: str,
    image_of_memory: Path,
) -> None:
    """The copy gets the disk though the paused original holds it, and goes on with its I/O.

    Another virtual machine does not get it.
    """
    good = runs(traveller)
    traveller.save(image_of_memory, leave="-p")
    copy = traveller.copy("copy")
    copy.restore(image_of_memory, paused=True)
    both = {f"vbd/{each.domid}/51712" for each in (traveller, copy)}
    assert set(toolstack.disks()) == both
    with pytest.raises(HostError, match="in use"):
        toolstack.attach(0, loop_device, "xvds")
    traveller.destroy()
    rest = [f"vbd/{copy.domid}/51712"]
    eventually(lambda: toolstack.disks() == rest, "the original's disk is gone")
    copy.unpause()
    assert runs(copy) >= good
    check_end(service, copy, loop_device)
    copy.shutdown()
