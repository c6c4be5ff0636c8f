"""A file system that is soon full, for tests of disks that are on it; needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


class Small:
    """A disk on a file system that has room for 4 MiB, and 16 MiB are wanted."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "disk"

    def make_room(self) -> None:
        """There is enough for all of the disk."""
        subprocess.run(["mount", "-o", f"remount,size={64 * MIB}", self.place], check=True)


@contextmanager
def mounted_at(place: Path) -> Iterator[Small]:
    """A disk of 16 MiB there; skips where it cannot be."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounts a file system: root")
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={4 * MIB}", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        found = Small(place)
        found.path.touch()
        os.truncate(found.path, 16 * MIB)
        yield found
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
