"""Disks that do not answer: a file server that is stopped, a file system that is frozen.

Real ones of Linux, for which this must be root and have FUSE and loop devices; `missing` says
what is not there.  Holds no test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.waiting import eventually


def missing() -> str:
    """What of this machine is not there, "" if all is."""
    if os.geteuid() != 0:
        return "not root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(path):
            return f"no {path}"
    for program in ("nbdfuse", "nbdkit", "fsfreeze", "mount", "umount", "mkfs.ext4", "fusermount3"):
        if shutil.which(program) is None:
            return f"no {program}"
    return ""


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class StoppedServer:
    """A file on a server of its own: nbdfuse before nbdkit, in memory."""

    def __init__(self, directory: Path, mib: int = 16) -> None:
        self.file = directory / "served"
        self.file.touch()
        pid = directory / "pid"
        nbdkit = ["nbdkit", "--exit-with-parent", "memory", f"{mib}M"]
        words = ["nbdfuse", "-P", str(pid), str(self.file), "[", *nbdkit, "]"]
        self._process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        eventually(pid.exists, "nbdfuse serves")

    def stop(self) -> None:
        """From now on it does not answer."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        with suppress(subprocess.CalledProcessError):
            run("fusermount3", "-u", "-z", self.file)
        self._process.kill()
        self._process.wait()


class FrozenFileSystem:
    """A file system in a file, with a file for a disk."""

    def __init__(self, directory: Path, mib: int = 64) -> None:
        image, self._mount = directory / "file-system", directory / "mounted"
        self._mount.mkdir()
        with image.open("wb") as file:
            file.truncate(mib << 20)
        run("mkfs.ext4", "-q", "-F", image)
        run("mount", "-o", "loop", image, self._mount)
        self.frozen = False
        self.file = self._mount / "disk"
        self.file.write_bytes(bytes(mib << 18))

    def freeze(self) -> None:
        """From now on whoever would change it waits."""
        run("fsfreeze", "-f", self._mount)
        self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            run("fsfreeze", "-u", self._mount)
            self.frozen = False

    def close(self) -> None:
        self.thaw()
        run("umount", "-l", self._mount)
