"""Writes initramfs archives (cpio, "newc"), without root and without device nodes on disk.

Knows nothing of what is put in.  Run on the host.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

DIRECTORY, REGULAR, LINK, CHARACTER = 0o040755, 0o100000, 0o120777, 0o020600


class Cpio:
    """An archive that is being written; each name once, parents made as needed."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0
        self._inode = 1
        self._seen: set[str] = set()

    def add(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        """An entry with all there is to it; nothing if the name is there already."""
        name = name.strip("/")
        if name in self._seen:
            return
        parent = os.path.dirname(name)
        if parent and parent not in self._seen:
            self.add(parent, DIRECTORY)
        self._seen.add(name)
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        self._inode += 1
        self._put(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self._put(b"\0" * (-self._written % 4))
        self._put(data)
        self._put(b"\0" * (-self._written % 4))

    def __contains__(self, name: str) -> bool:
        """Whether an entry of that name has been written."""
        return name.strip("/") in self._seen

    def file(self, name: str, path: Path, permissions: int | None = None) -> None:
        """A copy of a file, with its own permissions or these."""
        if permissions is None:
            permissions = path.stat().st_mode & 0o777
        self.add(name, REGULAR | permissions, path.read_bytes())

    def text(self, name: str, text: str, permissions: int = 0o644) -> None:
        """A file with this text."""
        self.add(name, REGULAR | permissions, text.encode())

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self.add(name, LINK, target.encode())

    def close(self) -> None:
        """Write the end of the archive; the stream stays the caller's."""
        self.add("TRAILER!!!", 0)
        self._put(b"\0" * (-self._written % 512))

    def _put(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)
