"""Disks come and go, at boot and later, by xl and by hand, and keep what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.real.conftest import Guests
from tests.real.service import Service, Toolstack, eventually

XL_DISK = "format=raw,vdev={vdev},access={access},backendtype=phy,target={target}"

# A tree of files that every guest has; find and sort make its sum one of names and bytes.
TREE = "/bin /modules /usr"
TREE_SUM = "find . -type f | sort | xargs sha256sum | sha256sum"


def sha256(path: str | Path) -> str:
    """Of a whole file or device."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def check_same_bytes(guest: DomU, dev: str, path: str | Path) -> None:
    """The guest reads what lies in dom0."""
    _, text = guest.run(f"sync; sha256sum </dev/{dev}", timeout=120, check=True)
    assert text.split()[0] == sha256(path)


SLOW = 240.0  # seconds, for what six disks and their guests do on one processor


@contextmanager
def by_xl(_: Toolstack, guest: DomU, image: Path) -> Iterator[str]:
    """As xl does it, with the hotplug script that Xen ships, which wants a device."""
    with DOM0.disk(image) as device:
        guest.attach(XL_DISK.format(vdev="xvda", access="rw", target=device))
        yield device
        guest.detach("xvda")


@contextmanager
def by_hand(toolstack: Toolstack, guest: DomU, image: Path) -> Iterator[str]:
    """With the nodes of xl 4.19's backendtype=tap."""
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    yield str(image)
    assert toolstack.detach(offer)


Way = Callable[[Toolstack, DomU, Path], AbstractContextManager[str]]


@pytest.mark.parametrize("way", [by_xl, by_hand])
def test_a_file_system_lives_through_detach(
    toolstack: Toolstack, guest: DomU, image: Path, way: Way
) -> None:
    """mkfs, copy a tree in, take the disk away, bring it back: all there, and clean."""
    with way(toolstack, guest, image):
        guest.wait_disk("xvda")
        guest.run(
            "mkfs.ext4 -q /dev/xvda && mount -t ext4 /dev/xvda /mnt"
            f" && cp -a {TREE} /mnt && (cd /mnt && {TREE_SUM} >/tmp/sum) && umount /mnt",
            timeout=180,
            check=True,
        )
        check_same_bytes(guest, "xvda", image)
    sh("e2fsck", "-fn", str(image))
    with way(toolstack, guest, image) as medium:
        guest.wait_disk("xvda")
        guest.run("e2fsck -fn /dev/xvda", timeout=120, check=True)
        guest.run(
            "mount -t ext4 /dev/xvda /mnt && cd /mnt"
            f" && {TREE_SUM} | cmp - /tmp/sum; s=$?; cd /; umount /mnt; exit $s",
            timeout=120,
            check=True,
        )
        check_same_bytes(guest, "xvda", medium)


def test_a_disk_at_boot(service: Service, guests: Guests, loop_device: str) -> None:
    """The root disk of most guests: given at xl create, there when the kernel looks."""
    sh("mke2fs", "-q", "-t", "ext4", loop_device)
    disk = XL_DISK.format(vdev="xvda", access="rw", target=loop_device)
    guest = DomU("boot", [disk])
    try:
        guest.start()
        guest.wait_disk("xvda")
        guest.run(
            "mount -t ext4 /dev/xvda /mnt && cp /bin/busybox /mnt && umount /mnt",
            check=True,
        )
        check_same_bytes(guest, "xvda", loop_device)
        guest.shutdown()
    finally:
        guests.forget("boot")
    sh("e2fsck", "-fn", loop_device)


def test_a_file_by_our_own_hotplug_script(guest: DomU, image: Path, hotplug_script: str) -> None:
    """script=block-xbbd serves files without a loop device in between."""
    guest.attach(f"vdev=xvda,access=rw,backendtype=phy,script={hotplug_script},target={image}")
    guest.wait_disk("xvda")
    guest.run("dd if=/dev/urandom of=/dev/xvda bs=64k count=16 oflag=direct", check=True)
    check_same_bytes(guest, "xvda", image)
    guest.detach("xvda")


def test_read_only(service: Service, toolstack: Toolstack, guest: DomU, image: Path) -> None:
    """The guest sees it, and nothing reaches the file if it tries all the same."""
    assert guest.domid is not None
    before = sha256(image)
    offer = toolstack.attach(guest.domid, image, mode="r")
    guest.wait_disk("xvda")
    assert guest.run("cat /sys/block/xvda/ro")[1].strip() == "1"
    status, _ = guest.run("dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct")
    assert status != 0
    check_same_bytes(guest, "xvda", image)
    assert toolstack.detach(offer)
    assert sha256(image) == before


def test_several_guests_and_disks_at_once(
    service: Service, toolstack: Toolstack, guests: Guests, tmp_path: Path
) -> None:
    """Each finds on its disks what it wrote there, while all of them write."""
    offers = []
    running = []
    for number in (1, 2):
        guest = guests.get(f"g{number}")
        assert guest.domid is not None
        for vdev in ("xvda", "xvdb", "xvdc"):
            path = tmp_path / f"{number}.{vdev}"
            path.write_bytes(bytes(8 << 20))
            offers.append((guest, vdev, path, toolstack.attach(guest.domid, path, vdev)))
            guest.wait_disk(vdev)
        running.append(guest)
    for guest in running:
        guest.send(
            "for d in xvda xvdb xvdc; do (while [ ! -e /tmp/stop ]; do"
            " dd if=/dev/urandom of=/dev/$d bs=128k count=64 oflag=direct 2>/dev/null; done) &"
            " done"
        )
    units = range(len(offers))
    eventually(
        lambda: all(service.counters(unit)["wr_req"] > 200 for unit in units),
        "all disks write",
        SLOW,
    )
    for guest in running:
        guest.run("touch /tmp/stop; while killall -0 dd 2>/dev/null; do usleep 100000; done; true")
        guest.run("rm /tmp/stop")
    for guest, vdev, path, _ in offers:
        check_same_bytes(guest, vdev, path)
    for _, _, _, offer in offers:
        assert toolstack.detach(offer)
    guests.forget("g2")


@pytest.mark.parametrize(
    ("order", "persistent"),
    [
        pytest.param(order, persistent, marks=() if few else pytest.mark.more)
        for order in range(5)
        for persistent in (0, 1)
        for few in [(order, persistent) in ((0, 0), (2, 1), (4, 1))]
    ],
)
def test_rings_of_every_order(
    service: Service, toolstack: Toolstack, guest: DomU, image: Path, order: int, persistent: int
) -> None:
    """As the guest's driver was told when it was loaded."""
    assert guest.domid is not None
    guest.run(
        "rmmod xen_blkfront && insmod /modules/xen-blkfront.ko"
        f" max_ring_page_order={order} feature_persistent={persistent}",
        check=True,
    )
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    ring = service.ring()
    assert (ring.ring_pages, ring.max_requests) == (1 << order, 32 << order)
    guest.run("dd if=/dev/urandom of=/dev/xvda bs=256k count=16 oflag=direct", check=True)
    check_same_bytes(guest, "xvda", image)
    assert toolstack.detach(offer)
    if (order, persistent) == (4, 1):
        guest.run("rmmod xen_blkfront && insmod /modules/xen-blkfront.ko", check=True)


def test_the_driver_is_unbound_and_bound(
    service: Service, toolstack: Toolstack, guest: DomU, image: Path
) -> None:
    """Closed while online, and a frontend that begins anew, as after kexec or pvgrub.

    Linux keeps "Closed" in memory for as long as it knows the device, so bound
    again its driver waits for ever, with any backend.  Nodes written anew make
    it a new device.
    """
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    driver = "/sys/bus/xen/drivers/vbd"
    for _ in range(3):
        guest.run(f"echo vbd-51712 >{driver}/unbind", check=True)
        eventually(lambda: toolstack.node(f"{offer.backend}/state") == "6", "backend Closed")
        assert service.holdings().mappings == 0
        guest.run(f"echo vbd-51712 >{driver}/bind", check=True)
        assert toolstack.node(f"{offer.backend}/state") == "6"
        toolstack.remove_frontend(offer, guest)
        toolstack.offer_again(offer, guest)
        guest.run("dd if=/dev/urandom of=/dev/xvda bs=64k count=4 oflag=direct", check=True)
        check_same_bytes(guest, "xvda", image)
    assert toolstack.detach(offer)
