"""What the operator's tools say of a real guest, against what the guest's fio says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.domu import DomU
from tests.real.service import Service, Toolstack
from tests.real.test_io import attached

FIO = (
    "--filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --time_based --runtime=12"
    " --randrepeat=0 --group_reporting"
)
TOLERANCE = 0.02


def tool(service: Service, name: str, *words: str) -> str:
    """A command of ours for that daemon, which must go well."""
    done = subprocess.run(
        [sys.executable, "-m", f"xbbd_bsd.{name}", "--state-dir", f"{service.directory}/run",
         *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def totals(service: Service) -> dict[str, Any]:
    """What the guest has asked for since the disk was attached."""
    record: dict[str, Any] = json.loads(tool(service, "xbbstat", "-j", "xbbi0"))
    return record


@pytest.mark.parametrize(
    ("workload", "kinds"),
    [("--rw=randread --bs=4k", ("read",)), ("--rw=randrw --bs=16k", ("read", "write"))],
)
def test_the_tools_agree_with_fio(
    service: Service,
    toolstack: Toolstack,
    guest: DomU,
    image: Path,
    workload: str,
    kinds: tuple[str, ...],
) -> None:
    with attached(toolstack, guest, image):
        before = totals(service)
        job = guest.fio(f"{FIO} {workload}")
        after = totals(service)
        for kind in kinds:
            for ours, theirs in (("operations", "total_ios"), ("bytes", "io_bytes")):
                seen = after[kind][ours] - before[kind][ours]
                assert seen == pytest.approx(job[kind][theirs], rel=TOLERANCE), (kind, ours)
        busiest = max(job[kind]["clat_ns"]["mean"] for kind in kinds) / 1e6
        for kind in kinds:
            # Some of what fio waits for is on its own side of the ring.
            assert 0 < after[kind]["ms_per_operation"] <= busiest * (1 + TOLERANCE)


def test_what_xbbctl_says_of_a_real_disk(
    service: Service, toolstack: Toolstack, guest: DomU, loop_device: str
) -> None:
    with attached(toolstack, guest, loop_device):
        tree = json.loads(tool(service, "xbbctl", "-aj"))
        device = {name.removeprefix("dev.xbbd.0."): value for name, value in tree.items()}
        assert device["guest"] == guest.name
        assert device["vdev"] == "xvda"
        assert (device["path"], device["medium"], device["mode"]) == (loop_device, "device", "w")
        major, minor = (int(part, 16) for part in device["physical_device"].split(":"))
        number = os.stat(loop_device).st_rdev
        assert (major, minor) == (os.major(number), os.minor(number))
        assert device["persistent"] == 1
        assert device["xenbus_connection_state"] == device["xenbus_peer_state"] == "Connected"
        assert tool(service, "xbbctl", "list").splitlines()[1].split()[:3] == [
            "xbbd0", guest.name, "xvda",
        ]  # fmt: skip
        assert "connected: " in tool(service, "xbbctl", "log", "xbbd0")
