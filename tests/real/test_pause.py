"""A store that is full: a real guest's file system sees a pause, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.domu import DomU
from tests.real.service import Service, Toolstack
from tests.real.test_io import attached
from tests.real.test_operator import tool
from tests.waiting import eventually

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB on a file system with room for 16."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={16 * MIB}", "tmpfs", str(place)], check=True
    )
    try:
        path = place / "disk"
        path.touch()
        os.truncate(path, 64 * MIB)
        yield path
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def listed(service: Service) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(tool(service, "xbbctl", "list", "-j"))
    return found[0]


def test_a_full_store_is_a_pause(
    service: Service, toolstack: Toolstack, guest: DomU, small: Path
) -> None:
    with attached(toolstack, guest, small):
        tool(service, "xbbctl", "dev.xbbd.0.on_error=pause")
        guest.run("mkfs.ext4 -q /dev/xvda && mount -t ext4 /dev/xvda /mnt", 120, check=True)
        guest.send("(dd if=/dev/zero of=/mnt/file bs=1M count=32 && sync; echo $? >/tmp/status) &")
        eventually(lambda: listed(service)["paused"] == "error", "it is paused", 120)
        assert "No space left on device" in listed(service)["paused_reason"]
        subprocess.run(["mount", "-o", f"remount,size={128 * MIB}", str(small.parent)], check=True)
        tool(service, "xbbctl", "resume", "xbbd0")
        eventually(
            lambda: guest.run("cat /tmp/status 2>/dev/null")[1].split()[-1:] == ["0"],
            "all is written",
            120,
        )
        _, text = guest.run("dmesg | grep -ci 'i/o error'; umount /mnt", 60)
        assert text.split()[-1] == "0", text
        assert listed(service)["paused"] == ""
    done = subprocess.run(["e2fsck", "-fn", str(small)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
