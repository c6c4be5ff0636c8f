"""Disk images for the demonstration: a real ext4 file system where mke2fs is at hand.

Where it is not, deterministic bytes, which prove the same but look like less.
Knows files and two foreign programs; nothing of rings.
"""

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

from xbbd_bsd.errors import HostError

_SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/sbin", "/usr/sbin", "/usr/local/sbin"))


@dataclass(frozen=True, slots=True)
class Image:
    """An image: a file system (or plain bytes) in front, a scratch area behind it.

    Sizes in bytes.  `files` is how many are in the file system, 0 for none.
    """

    path: str
    fs_bytes: int
    scratch_bytes: int
    files: int

    @property
    def size(self) -> int:
        """The whole disk."""
        return self.fs_bytes + self.scratch_bytes

    def sha256(self, size: int) -> str:
        """Of the first `size` bytes."""
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while size > 0 and (data := file.read(min(1 << 20, size))):
                digest.update(data)
                size -= len(data)
        return digest.hexdigest()

    def check(self) -> str | None:
        """What e2fsck has to say against the file system; None if nothing."""
        if not self.files:
            return None
        tool = shutil.which("e2fsck", path=_SBIN) or "e2fsck"
        done = subprocess.run([tool, "-fn", self.path], capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else done.stdout + done.stderr


def make(path: str, fs_bytes: int = 48 << 20, scratch_bytes: int = 16 << 20) -> Image:
    """Make an image at `path`; OSError, or HostError if mke2fs fails."""
    tool = shutil.which("mke2fs", path=_SBIN)
    files = 0
    if tool is None:
        source = random.Random(0)
        with open(path, "wb") as file:
            for _ in range(fs_bytes >> 20):
                file.write(source.randbytes(1 << 20))
    else:
        with tempfile.TemporaryDirectory() as tree:
            files = _grow(tree, fs_bytes // 2)
            done = subprocess.run(
                [tool, "-q", "-t", "ext4", "-F", "-d", tree, path, f"{fs_bytes >> 10}k"],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise HostError(f"{tool} cannot make {path}: {done.stderr.strip()}")
    os.truncate(path, fs_bytes + scratch_bytes)
    return Image(path, fs_bytes, scratch_bytes, files)


def _grow(tree: str, size: int) -> int:
    """Fill a directory with files of many sizes, `size` bytes in all; how many."""
    source = random.Random(1)
    files = 0
    while size > 0:
        count = min(size, source.choice((100, 5_000, 70_000, 900_000)))
        directory = os.path.join(tree, f"dir{files % 7}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"file{files}"), "wb") as file:
            file.write(source.randbytes(count))
        size -= count
        files += 1
    return files
