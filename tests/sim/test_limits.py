"""Limits over all disks in a whole machine: who meets one hears it, others notice nothing."""

from __future__ import annotations

import re
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine
from tests.sim.test_operator import values, xbbctl
from xbbd_bsd.control.server import MOST
from xbbd_bsd.errors import HostError
from xbbd_bsd.host import control_path
from xbbd_bsd.limits import RESERVED_DESCRIPTORS
from xbbd_bsd.toolstack import DiskOffer, remove

pytestmark = pytest.mark.slow

XVDB = XVDA + 16


def configure(machine: Machine, text: str) -> None:
    """Have the running daemon go by another configuration."""
    Path(machine.chain.config_file).write_text(text)
    machine.daemon.signal(signal.SIGHUP)
    machine.log_line("configuration read again")


def copy_of(image: Path, name: str) -> Path:
    """Another disk."""
    copy = image.with_name(name)
    copy.write_bytes(b"")
    with copy.open("r+b") as file:
        file.truncate(1 << 20)
    return copy


def test_a_guest_with_too_many_disks(machine: Machine, image: Path) -> None:
    configure(machine, "[daemon]\nmax_disks_per_guest = 1\n")
    machine.connected(image)
    second = copy_of(image, "second.img")
    with pytest.raises(HostError, match=r"may have 1, .*max_disks_per_guest in \[daemon\]"):
        machine.attach(DiskOffer(1, XVDB, str(second)))
    machine.log_line(r"attach failed: guest 1 has 1 disks.* max_disks_per_guest")
    third = copy_of(image, "third.img")
    machine.connected(third, domid=2)
    assert values(machine)["hw.xbbd.max_disks_per_guest"] == 1


def test_a_guest_waits_for_what_another_gives_back(machine: Machine, image: Path) -> None:
    configure(machine, "[daemon]\nmax_event_channels = 1\nmax_guest_share = 100\n")
    machine.connected(image)
    assert values(machine)["hw.xbbd.event_channels"] == 1
    guest = machine.guest(2)
    machine.attach(DiskOffer(2, XVDA, str(copy_of(image, "second.img"))))
    machine.log_line(r"waits: all guests' devices have 1 event channels of 1.*max_event_channels")
    machine.log_line(r"limit reached, 1 of 1 event channels")
    assert re.search("max_event_channels", xbbctl(machine, "dev.xbbd.1.held_back"))
    remove(machine.chain.store, machine.offers[0])
    guest.event("connected")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process: Linux")
def test_a_daemon_with_few_descriptors_still_answers(machine: Machine, image: Path) -> None:
    """It says what is short; operators and the store have descriptors of their own."""
    few = RESERVED_DESCRIPTORS + 8
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(machine.daemon.pid, resource.RLIMIT_NOFILE, (few, hard))
    configure(machine, "[daemon]\nmax_guest_share = 100\n")
    assert values(machine)["hw.xbbd.max_descriptors"] == 8
    guest = machine.guest(1)
    machine.attach(DiskOffer(1, XVDA, str(image)))
    machine.log_line(r"waits: .* file descriptors of 8, and \d more.*see max_descriptors")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(MOST - 1)]
    for client in clients:
        client.connect(control_path(machine.chain.layout.run))
    assert "xvda" in xbbctl(machine, "list")
    for client in clients:
        client.close()
    resource.prlimit(machine.daemon.pid, resource.RLIMIT_NOFILE, (few + 100, hard))
    machine.daemon.signal(signal.SIGHUP)
    guest.event("connected")
