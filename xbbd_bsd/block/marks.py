"""Disks that lost something, as by a flush that failed: files that outlive guest and daemon.

What was acknowledged may be lost then, and the kernel, which said so once, takes
it for written: opened again the disk would look sound.  So it stays closed until
an operator has seen to it.  One small file a disk, by its device number or its
inode, so that links and other names of it do not matter.  Control thread.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from errno import EFBIG, EIO, ENODEV, ENXIO
from typing import Final

from xbbd_bsd.block.disk import Disk, Key
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.native import State

_PREFIX: Final = "lost."
_GONE: Final = (ENXIO, ENODEV)  # all of the disk went, which is another matter


def cause_of_loss(errno: int) -> str:
    """How a disk has lost something, by the errno that its segment keeps of that (xbb.h)."""
    if errno == EFBIG:
        return "it was cut off under a write"
    return f"a flush failed ({os.strerror(errno)})"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a failure: the disk's path, the errno, when (since 1970), whose it was."""

    path: str
    errno: int
    time: float
    guest: str

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        whose = f" under guest {self.guest}" if self.guest else ""
        return f"{cause_of_loss(self.errno)} at {when}{whose}"


class MarkedError(OperatorError):
    """A disk that stays closed until the operator says otherwise, which may be soon."""

    @property
    def passes(self) -> bool:
        return True


class Marks:
    """Those that a directory holds."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._unsaved: dict[str, Mark] = {}  # by file name: there was no room for them

    def check(self, disk: Disk) -> None:
        """That an open disk may be used; MarkedError with what to do."""
        mark = self._load(_name(disk.key))
        if mark is not None:
            raise MarkedError(
                f"{mark}, so that what was written before may be lost: check the disk or"
                f" restore it, then run: xbbctl clear {mark.path}",
                EIO,
            )

    def all(self) -> list[Mark]:
        """Every failure that is kept, the oldest first."""
        found = [mark for name in self._names() if (mark := self._load(name)) is not None]
        return sorted(found, key=lambda mark: (mark.time, mark.path))

    def note(self, segment: State) -> Mark | None:
        """Keep the failure that a state segment tells of; what is new, None if there is nothing."""
        number, medium = segment.lost_errno, segment.medium
        if number == 0 or number in _GONE or medium is None:
            return None
        name = _name(medium.key)
        if self._load(name) is not None:
            return None
        mark = Mark(medium.path, number, time.time(), medium.guest)
        try:
            self._save(name, mark)
        except OSError:
            self._unsaved[name] = mark
        return mark

    def take_over(self, path: str) -> Mark | None:
        """As `note`, of the segment of a daemon that is gone; None if it is none at all."""
        try:
            segment = State.open(path)
        except (OSError, HostError):
            return None
        try:
            return self.note(segment)
        finally:
            segment.close()

    def clear(self, path: str, key: Key | None = None) -> bool:
        """Let a disk be opened again that has or had that path, or is that `key`.

        False if none is kept; OperatorError.
        """
        found = {name for name in self._names() if self._load(name, named=path) is not None}
        if key is not None:
            found |= {_name(key)} & self._names()
        for name in found:
            self._unsaved.pop(name, None)
            try:
                os.unlink(os.path.join(self._directory, name))
            except FileNotFoundError:
                pass
            except OSError as error:
                raise OperatorError(f"{name}: {error.strerror}", error.errno or 0) from None
        return bool(found)

    def _names(self) -> set[str]:
        with suppress(OSError):
            names = os.listdir(self._directory)
            return {name for name in names if name.startswith(_PREFIX)} | self._unsaved.keys()
        return set(self._unsaved)

    def _load(self, name: str, named: str | None = None) -> Mark | None:
        """The mark in a file, of `named` only if that is given; a damaged one counts too."""
        if (mark := self._unsaved.get(name)) is None:
            path = os.path.join(self._directory, name)
            try:
                with open(path, "rb") as file:
                    mark = _decode(file.read(1 << 16))
            except FileNotFoundError:
                return None
            except OSError:
                if not os.path.lexists(path):  # it was a descriptor that could not be had
                    return None
                mark = _decode(b"")
        return mark if named is None or mark.path == named else None

    def _save(self, name: str, mark: Mark) -> None:
        """All of it or nothing, and so that it is still there after a crash; OSError."""
        path = os.path.join(self._directory, name)
        draft = os.path.join(self._directory, f".{name}")
        try:
            with open(draft, "wb") as file:
                file.write(json.dumps(asdict(mark)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(draft, path)
        except OSError:
            with suppress(OSError):
                os.unlink(draft)
            raise
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # not every file system has that
                os.fsync(directory)
        finally:
            os.close(directory)


def _name(key: Key) -> str:
    text = ":".join(map(str, key))
    return _PREFIX + hashlib.sha256(text.encode()).hexdigest()[:32]


def _decode(line: bytes) -> Mark:
    try:
        fields = json.loads(line)
        path, guest = str(fields["path"]), str(fields["guest"])
        return Mark(path, int(fields["errno"]), float(fields["time"]), guest)
    except (ValueError, KeyError, TypeError, OverflowError):
        return Mark("PATH", EIO, 0.0, "")
