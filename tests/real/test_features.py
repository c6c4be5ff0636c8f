"""What Linux's blkfront can negotiate, each with fio's verification of what came out.

The guest's driver is loaded anew with other parameters, as an administrator of
the guest would do it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.real.conftest import Guests
from tests.real.service import Service, Toolstack, eventually
from tests.real.test_attach import check_same_bytes
from tests.real.test_io import VERIFY, attached, check_fio
from tests.real.work import ENDED, INTERRUPT
from xbbd_bsd.native import State

holes = pytest.mark.skipif(
    not DOM0.makes_holes(Path(tempfile.gettempdir())),
    reason="discarding is not offered in files of UFS: set TMPDIR to a place on ZFS or tmpfs",
)

PLAIN = "rmmod xen_blkfront && insmod /modules/xen-blkfront.ko"


def state(service: Service, unit: int = 0) -> State:
    """The state segment of a device; the caller closes it."""
    return State.open(str(service.directory / "run" / f"xbbd.{unit}"))


@contextmanager
def driver(guest: DomU, parameters: str) -> Iterator[None]:
    """The guest's driver with these parameters, and as it was afterwards."""
    guest.run(f"{PLAIN} {parameters}", check=True)
    yield
    guest.run(PLAIN, check=True)


def limit(guest: DomU, name: str) -> int:
    """A limit of the guest's block queue."""
    return int(guest.run(f"cat /sys/block/xvda/queue/{name}", check=True)[1])


@pytest.mark.parametrize(
    ("asked", "got", "persistent"),
    [
        pytest.param(32, 32, 1, marks=pytest.mark.more),
        (256, 256, 0),
        pytest.param(256, 256, 1, marks=pytest.mark.more),
        (1000, 256, 1),
    ],
)
def test_indirect_segments(
    service: Service,
    toolstack: Toolstack,
    guest: DomU,
    image: Path,
    asked: int,
    got: int,
    persistent: int,
) -> None:
    """The guest gets what it asks for, up to 256 segments: requests of a megabyte."""
    options = f"max_indirect_segments={asked} feature_persistent={persistent}"
    with driver(guest, options), attached(toolstack, guest, image):
        assert limit(guest, "max_segments") == got
        assert service.ring().persistent is bool(persistent)
        check_fio(guest, f"{VERIFY} --bs=1M")
        counters = service.counters()
        assert counters["indirect_req"] > 20
        assert counters["reqs_completed_with_error"] == 0
        assert (service.ring().grants_persistent > 0) is bool(persistent)
        if persistent:
            # Two at a time, whose pages are fewer than a ring keeps.  With all of a ring's 32
            # there are eight times as many, and how many a guest has out at a larger depth
            # is the schedulers' affair.
            check_fio(guest, f"{VERIFY} --bs=1M --iodepth=2")
            after = service.counters()
            misses = after["persistent_misses"] - counters["persistent_misses"]
            assert after["persistent_hits"] - counters["persistent_hits"] > misses
        check_same_bytes(guest, "xvda", image)


def test_largest_rings_with_indirect_requests(
    service: Service, toolstack: Toolstack, guest: DomU, image: Path
) -> None:
    """512 requests of 32 segments: of more the guest's memory would not hold the pages."""
    with driver(guest, "max_ring_page_order=4"), attached(toolstack, guest, image):
        assert (service.ring().ring_pages, service.ring().max_requests) == (16, 512)
        check_fio(guest, f"{VERIFY} --bs=128k")
        assert service.counters()["indirect_req"] > 20
        check_same_bytes(guest, "xvda", image)


def test_two_queues(service: Service, toolstack: Toolstack, guests: Guests, image: Path) -> None:
    """A guest with two processors takes a ring for each."""
    guests.forget("g1")
    guest = DomU("smp", vcpus=2)
    try:
        guest.start()
        with attached(toolstack, guest, image):
            segment = state(service)
            assert [segment.ring(n).connected for n in range(3)] == [True, True, False]
            assert service.base is not None
            held = service.holdings().descriptors - service.base.descriptors
            # Segment, file, grants, what wakes us; a channel and a kick a ring; and that by which
            # all rings doze, once any has.
            assert held in (8, 9)
            check_fio(guest, f"{VERIFY} --bs=16k --numjobs=2 --size=8M --offset_increment=8M")
            served = [segment.counters(n)["reqs_completed"] for n in range(2)]
            segment.close()
            assert min(served) > 0, served
            check_same_bytes(guest, "xvda", image)
    finally:
        guests.forget("smp")


@holes
def test_discard(service: Service, toolstack: Toolstack, guest: DomU, image: Path) -> None:
    """blkdiscard(8) in the guest makes a hole in the file."""
    with attached(toolstack, guest, image):
        assert limit(guest, "discard_granularity") > 0
        guest.run("dd if=/dev/urandom of=/dev/xvda bs=1M count=16 oflag=direct", check=True)
        full = image.stat().st_blocks
        guest.run("blkdiscard -o 1048576 -l 8388608 /dev/xvda", check=True)
        eventually(lambda: image.stat().st_blocks <= full - (8 << 11), "a hole of 8 MiB")
        assert image.read_bytes()[1 << 20 : 9 << 20] == bytes(8 << 20)
        assert service.counters()["ds_sect"] == 8 << 11
        check_same_bytes(guest, "xvda", image)


@holes
def test_discards_of_a_file_system(toolstack: Toolstack, guest: DomU, image: Path) -> None:
    with attached(toolstack, guest, image):
        guest.run(
            "mkfs.ext4 -q /dev/xvda && mount -t ext4 -o discard /dev/xvda /mnt"
            " && cp -a /bin /mnt/1 && sync && rm -r /mnt/1 && cp -a /bin /mnt/2 && umount /mnt"
            " && e2fsck -fn /dev/xvda",
            timeout=180,
            check=True,
        )
        check_same_bytes(guest, "xvda", image)
    sh("e2fsck", "-fn", str(image))


def test_resize_is_seen_by_the_guest(
    service: Service, toolstack: Toolstack, guest: DomU, image: Path
) -> None:
    """Growth and shrink under load; the guest's kernel says the new size by itself."""
    with attached(toolstack, guest, image):
        guest.run(
            "(fio --name=l --filename=/dev/xvda --rw=randrw --bs=4k --size=16M --direct=1"
            " --time_based --runtime=120 >/tmp/load 2>&1; echo $? >/tmp/status) &",
            check=True,
        )
        for size in (128, 32, 96):
            os.truncate(image, size << 20)
            guest.run(
                f"until [ $(cat /sys/block/xvda/size) = {size << 11} ]; do usleep 100000; done",
                timeout=60,
                check=True,
            )
        guest.run(f"{INTERRUPT}; {ENDED}", timeout=130, check=True)
        assert "err= 0" in guest.run("cat /tmp/load; rm /tmp/status /tmp/load")[1]
        check_fio(guest, f"{VERIFY} --bs=16k --offset=64M --size=24M")
        check_same_bytes(guest, "xvda", image)
        assert service.counters()["reqs_completed_with_error"] == 0


@pytest.fixture
def large_sectors(image: Path) -> Iterator[str]:
    """The image as a disk with sectors of 4096 bytes."""
    with DOM0.disk(image, 4096) as device:
        yield device


def test_sectors_of_4096_bytes(
    service: Service, toolstack: Toolstack, guest: DomU, large_sectors: str
) -> None:
    with attached(toolstack, guest, large_sectors):
        assert limit(guest, "logical_block_size") == 4096
        assert int(guest.run("cat /sys/block/xvda/size", check=True)[1]) == 64 << 11
        check_fio(guest, f"{VERIFY} --bs=4k --number_ios=2000")
        check_fio(guest, f"{VERIFY} --bs=64k")
        assert service.counters()["io_read_modify_write"] == 0
        check_same_bytes(guest, "xvda", large_sectors)


def test_sectors_of_4096_bytes_presented_as_512(
    service: Service, toolstack: Toolstack, guest: DomU, large_sectors: str
) -> None:
    service.configure("sector_size = 512")
    try:
        with attached(toolstack, guest, large_sectors):
            assert limit(guest, "logical_block_size") == 512
            assert limit(guest, "physical_block_size") == 4096
            check_fio(guest, f"{VERIFY} --bs=512 --number_ios=2000")
            check_fio(guest, f"{VERIFY} --bs=11k --number_ios=500")
            assert service.counters()["io_read_modify_write"] > 0
            check_same_bytes(guest, "xvda", large_sectors)
    finally:
        service.configure("")


def test_verified_again_after_the_driver_came_back(
    toolstack: Toolstack, guest: DomU, image: Path
) -> None:
    """Written by one driver, verified by the next, which negotiates something else."""
    job = f"{VERIFY} --bs=16k --randrepeat=1 --randseed=7"
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, image)
    guest.wait_disk("xvda")
    check_fio(guest, job)
    guest.run("echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind", check=True)
    eventually(lambda: toolstack.node(f"{offer.backend}/state") == "6", "Closed")
    toolstack.remove_frontend(offer, guest)
    # Loaded with a disk present that does not connect, the driver would wait for it.
    guest.run(f"{PLAIN} feature_persistent=0 max_indirect_segments=11", check=True)
    toolstack.offer_again(offer, guest)
    check_fio(guest, f"{job} --verify_only")
    check_same_bytes(guest, "xvda", image)
    assert toolstack.detach(offer)
    guest.run(PLAIN, check=True)
