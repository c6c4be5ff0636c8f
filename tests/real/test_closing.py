"""A frontend that refuses to close, as Linux from 2.6.36 to 5.14 does with an open disk.

It writes Closing and goes on with I/O, and reaches Closed with the last user
(blkfront_closing(), blkif_release()).  The frontend is one of our own, in dom0
itself; who asks for the disk is xbbctl, or xl.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.lab.domu import sh
from tests.real.service import LIMIT, Service, Toolstack, command, eventually
from xbbd_bsd.host.linux import LinuxDomain
from xbbd_bsd.native import Abi, Progress, Workload
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.vdev import vdev_number

VDEV = "xvdr"
FRONTEND = f"/local/domain/0/device/vbd/{vdev_number(VDEV)}"
SECTORS = 8192
SLOW = 180.0  # seconds for a tool to start, and to wait for 10 s, beside all that I/O


class Way(Protocol):
    """An operator's tool."""

    kind: str
    detach: tuple[str, ...]

    def attach(self, path: str) -> None:
        """Give dom0 the disk."""


class Xbbctl:
    """Ours."""

    kind = "vbd3"
    detach = (sys.executable, "-m", "xbbd_bsd.xbbctl", "detach", "0", VDEV)

    def attach(self, path: str) -> None:
        sh(sys.executable, "-m", "xbbd_bsd.xbbctl", "attach", "0", path, VDEV)


class Xl:
    """Xen's."""

    kind = "vbd"
    detach = ("xl", "block-detach", "0", VDEV)

    def attach(self, path: str) -> None:
        sh("xl", "block-attach", "0", f"vdev={VDEV},access=rw,backendtype=phy,target={path}")


@contextmanager
def exercised(front: Blkfront, model: bytearray) -> Iterator[tuple[Progress, Future[None]]]:
    """Random I/O against a model in another thread, until the end of the block at most.

    It gives way to the operator's tools: dom0 has one processor.
    """
    progress = Progress()
    load = Workload(seed=12, sectors=SECTORS, depth=16, seconds=600, flush_every=50, model=model)

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        front.front.exercise(load, progress)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield progress, running
        finally:
            progress.stop()


def operations(progress: Progress) -> int:
    """How many are done."""
    return progress.reads + progress.writes


@pytest.mark.parametrize(
    "way", [pytest.param(Xbbctl(), marks=pytest.mark.more), Xl()], ids=["xbbctl", "xl"]
)
def test_a_disk_that_is_in_use_stays(
    service: Service, toolstack: Toolstack, loop_device: str, way: Way
) -> None:
    """Detach fails while it is used, and no request does; it works when the guest lets go."""
    domain = LinuxDomain()
    front = Blkfront(
        domain,
        vdev_number(VDEV),
        store=toolstack.store,
        loop=toolstack.loop,
        abi=Abi.NATIVE,
        depth=16,
    )
    backend = f"/local/domain/0/backend/{way.kind}/0/{vdev_number(VDEV)}"

    def say(state: bytes) -> None:
        toolstack.store.write(f"{FRONTEND}/state", state)

    try:
        way.attach(loop_device)
        front.wait_offer(LIMIT)
        front.connect(LIMIT)
        model = bytearray(SECTORS * 512)
        with exercised(front, model) as (progress, running):
            eventually(lambda: operations(progress) > 100, "I/O is under way")
            with subprocess.Popen(
                way.detach, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as asking:
                eventually(
                    lambda: toolstack.node(f"{backend}/state") == "5", "backend Closing", SLOW
                )
                say(b"5")
                refused, _ = asking.communicate(timeout=SLOW)
            assert asking.returncode != 0, refused
            assert toolstack.node(f"{backend}/state") == "5", refused
            so_far = operations(progress)
            eventually(lambda: operations(progress) > so_far + 1000, "I/O goes on")
            assert not running.done()
            progress.stop()
            running.result(LIMIT)
        assert progress.errors == progress.mismatches == progress.bad_responses == 0
        assert service.counters()["reqs_completed_with_error"] == 0
        say(b"6")
        eventually(lambda: toolstack.node(f"{backend}/state") in ("6", None), "backend Closed")
        assert service.holdings().mappings == 0
        front.withdraw()
        done = command(*way.detach)
        assert done.returncode == 0, done.stdout
        eventually(lambda: not toolstack.disks(), "no disk left")
        assert toolstack.node(FRONTEND) is None
        with Path(loop_device).open("rb") as file:
            assert file.read(SECTORS * 512) == model
    finally:
        front.withdraw()
        if isinstance(way, Xl):
            command(*way.detach, "--force")
        toolstack.remove_all()
        domain.close()
