"""Data through the ring of a real guest: fio's own verification, and what a flush is worth."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU
from tests.real.service import Service, Toolstack, eventually
from xbbd_bsd.toolstack import DiskOffer

VERIFY = (
    "fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite"
    " --verify=crc32c --verify_fatal=1 --do_verify=1 --size=24M --randrepeat=0 --fsync=32"
)


@contextmanager
def attached(toolstack: Toolstack, guest: DomU, path: Path | str) -> Iterator[None]:
    """The guest with its disk."""
    assert guest.domid is not None
    offer = toolstack.attach(guest.domid, path)
    try:
        guest.wait_disk("xvda")
        yield
    finally:
        orderly = toolstack.detach(offer)
    assert orderly


def check_fio(guest: DomU, command: str) -> None:
    """fio ends well and says so, having written and verified."""
    status, text = guest.run(f"{command} >/tmp/fio 2>&1; s=$?; cat /tmp/fio; exit $s", timeout=300)
    assert status == 0, text
    assert "err= 0" in text, text
    assert "read:" in text.lower(), text


@pytest.mark.parametrize(
    "size",
    [
        pytest.param("512", marks=pytest.mark.more),
        "4k",
        "11k",
        pytest.param("64k", marks=pytest.mark.more),
        pytest.param("1M", marks=pytest.mark.more),
    ],
)
def test_fio_finds_what_it_wrote(toolstack: Toolstack, guest: DomU, image: Path, size: str) -> None:
    """Random writes of one size after another, 32 at a time, with flushes in between."""
    amount = "--number_ios=2000" if size in ("512", "4k", "11k") else ""
    with attached(toolstack, guest, image):
        check_fio(guest, f"{VERIFY} --bs={size} {amount}")


def test_fio_on_a_block_device(toolstack: Toolstack, guest: DomU, loop_device: str) -> None:
    """Where the daemon's I/O goes past the page cache."""
    with attached(toolstack, guest, loop_device):
        check_fio(guest, f"{VERIFY} --bs=16k")


@pytest.mark.skipif(DOM0.name != "linux", reason="there is no such call")
@pytest.mark.parametrize("persistent", [True, False])
def test_fio_on_a_disk_whose_requests_go_by_one_call(
    service: Service, toolstack: Toolstack, ram_disk: str, persistent: bool
) -> None:
    """As io_uring has it; what is read is what was written, merged or not."""
    with (
        DomU("ram", blkfront={} if persistent else {"feature_persistent": 0}) as guest,
        attached(toolstack, guest, ram_disk),
    ):
        check_fio(guest, f"{VERIFY} --bs=4k --number_ios=3000")
        check_fio(guest, f"{VERIFY.replace('randwrite', 'write')} --bs=128k")
        fds = Path(f"/proc/{service.pid}/fd").iterdir()
        assert any("io_uring" in os.readlink(fd) for fd in fds)


@pytest.mark.skipif(DOM0.name != "linux", reason="looks on by strace(1), in /proc")
def test_flushes_reach_the_file(
    service: Service, toolstack: Toolstack, guest: DomU, image: Path, tmp_path: Path
) -> None:
    """Each fsync in the guest is an fdatasync in dom0, as strace(1) saw it."""
    with attached(toolstack, guest, image):
        trace = tmp_path / "trace"
        tracer = subprocess.Popen(
            ["strace", "-f", "-e", "trace=fdatasync", "-p", str(service.pid), "-o", str(trace)],
            stderr=subprocess.DEVNULL,
        )
        eventually(
            lambda: "TracerPid:\t0\n" not in Path(f"/proc/{service.pid}/status").read_text(),
            "strace looks on",
        )
        before = service.counters()
        guest.run(
            "fio --name=f --filename=/dev/xvda --rw=randwrite --bs=4k --size=8M --number_ios=41"
            " --fsync=1 --end_fsync=0 >/dev/null",
            timeout=120,
            check=True,
        )
        after = service.counters()
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
        asked = after["f_req"] - before["f_req"]
        flushed = after["flushes_done"] - before["flushes_done"]
        assert asked >= 40
        assert 0 < flushed <= asked  # those that wait together are one
        assert trace.read_text().count("fdatasync(") >= flushed


def wait_connected(toolstack: Toolstack, offer: DiskOffer) -> None:
    """Until the guest says so."""
    state = f"{offer.frontend}/state"
    eventually(lambda: toolstack.node(state) == "4", "guest Connected")


def test_attach_latency(toolstack: Toolstack, guest: DomU, image: Path, figures: list[str]) -> None:
    """How long from the nodes to a disk that the guest has; a figure, without a bar."""
    assert guest.domid is not None
    offers, disks = [], []
    for letter in "abcdefghij":  # the guest must not take one for another that just went
        begun = time.monotonic()
        offer = toolstack.attach(guest.domid, image, f"xvd{letter}")
        offers.append(time.monotonic() - begun)
        wait_connected(toolstack, offer)
        disks.append(time.monotonic() - begun)
        assert toolstack.detach(offer)
    offers.sort()
    disks.sort()
    figures.append(
        f"attach latency, median of {len(disks)}: {offers[5] * 1000:.0f} ms until the disk is"
        f" open, {disks[5] * 1000:.0f} ms until the guest is connected"
    )
