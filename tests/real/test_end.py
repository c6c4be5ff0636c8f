"""Every way in which a disk, a guest or the daemon ends in the middle of something.

No domain may stay behind that cannot die, and nothing of it in the daemon; the
fixture sees to that after each of these.
"""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

from tests.lab.domu import DomU, sh
from tests.real.conftest import Guests
from tests.real.service import Service, Toolstack, command, eventually
from tests.real.test_attach import check_same_bytes

LOAD = (
    "fio --name=load --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32"
    " --rw=randrw --bs=16k --size=32M --time_based --runtime=120 >/tmp/load 2>&1"
)
XL_DISK = "format=raw,vdev=xvda,access=rw,backendtype=phy,target={}"


def loaded(service: Service, guest: DomU) -> None:
    """The guest in the middle of I/O."""
    guest.send(f"{LOAD} &")
    eventually(lambda: service.counters()["reqs_completed"] > 200, "I/O is under way")


def unload(guest: DomU) -> None:
    """End the guest's I/O."""
    guest.run("while killall -9 fio 2>/dev/null; do usleep 100000; done; true")


def test_detach_while_mounted(
    service: Service, toolstack: Toolstack, guests: Guests, loop_device: str
) -> None:
    """Linux lets go of a disk even then (blkfront_closing()), and xl does not wait for ever.

    What the guest had synced is there, and the journal mends the rest.
    """
    guest = guests.get("doomed")
    guest.attach(XL_DISK.format(loop_device))
    guest.wait_disk("xvda")
    guest.run(
        "mkfs.ext4 -q /dev/xvda && mount -t ext4 /dev/xvda /mnt && echo synced >/mnt/file && sync",
        timeout=120,
        check=True,
    )
    guest.send("while :; do dd if=/dev/zero of=/mnt/more bs=64k count=64 2>/dev/null; done &")
    eventually(lambda: service.counters()["wr_req"] > 100, "the guest writes")
    guest.detach("xvda")
    eventually(lambda: not toolstack.disks(), "the disk is gone")
    service.check_idle()
    guests.forget("doomed")
    assert command("e2fsck", "-fy", loop_device).returncode in (0, 1)
    assert sh("debugfs", "-R", "cat file", loop_device).endswith("synced")


def test_destroy_in_the_middle_of_io(service: Service, guests: Guests, loop_device: str) -> None:
    guest = guests.get("doomed")
    guest.attach(XL_DISK.format(loop_device))
    guest.wait_disk("xvda")
    loaded(service, guest)
    sh("xl", "destroy", guest.name)
    guests.forget("doomed")


def test_the_guest_panics(service: Service, guests: Guests, loop_device: str) -> None:
    """on_crash=destroy: Xen tells the toolstack, and nobody tells the daemon."""
    guest = guests.get("doomed")
    guest.attach(XL_DISK.format(loop_device))
    guest.wait_disk("xvda")
    loaded(service, guest)
    guest.send("echo c >/proc/sysrq-trigger")
    eventually(lambda: not guest.alive(), "the panicked guest is gone", 90)
    guests.forget("doomed")


def test_reboot(service: Service, guests: Guests, loop_device: str) -> None:
    """The same disk for the next life of the guest, with what the first one wrote."""
    guest = DomU("phoenix", [XL_DISK.format(loop_device)], on_reboot="restart")
    try:
        guest.start()
        guest.wait_disk("xvda")
        guest.run("echo first life | dd of=/dev/xvda bs=512 conv=sync,fsync", check=True)
        first = guest.domid
        # The console's file is begun anew with the new domain.
        guest.send("sync; reboot -f")
        guest.restarted()
        assert guest.domid != first
        guest.wait_disk("xvda")
        assert "first life" in guest.run("head -c 10 /dev/xvda")[1]
        check_same_bytes(guest, "xvda", loop_device)
        guest.shutdown()
    finally:
        guests.forget("phoenix")


def test_the_daemon_is_asked_to_leave_under_load(
    service: Service, toolstack: Toolstack, guests: Guests, image: Path
) -> None:
    """SIGTERM: the guest sees Closing, what it wrote is in the file, and it can come back."""
    guest = guests.get()
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    guest.run("dd if=/dev/urandom of=/dev/xvda bs=1M count=8 oflag=direct", check=True)
    _, written = guest.run("dd if=/dev/xvda bs=1M count=8 2>/dev/null | sha256sum", check=True)
    guest.send(f"{LOAD.replace('--size=32M', '--offset=16M --size=32M')} &")
    eventually(lambda: service.counters()["reqs_completed"] > 200, "I/O is under way")
    assert service.signal(signal.SIGTERM) == 0, service.log()
    with image.open("rb") as file:
        assert hashlib.sha256(file.read(8 << 20)).hexdigest() == written.split()[0]
    assert toolstack.node(f"{offer.backend}/state") in ("5", "6")
    service.start()
    unload(guest)
    assert toolstack.detach(offer) or toolstack.node(offer.backend) is None


def test_the_daemon_leaves_when_nothing_is_attached(service: Service) -> None:
    assert service.signal(signal.SIGTERM) == 0
    service.start()
