"""Linux's way to limit the processor time of processes: control groups, version 2.

Each guest's process is in a group of its own, ``guest.DOMID``, below the one that the
daemon was started in.  A group that hands a controller on to others below it has no
process itself, so that the daemon goes into such a group too (_OURS), with its server and
whoever else of ours is there; one in which somebody else is, as the shell that it was
started by, is refused.  In the root, where everybody is, nobody is moved: there the
guests' groups are below one of our name.  Who the guests are is not known here.  Any
thread.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from errno import EBUSY
from pathlib import Path
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError, shown

_OURS: Final = "xbbd-daemon"
_IN_ROOT: Final = "xbbd"
_PERIOD: Final = 100_000  # microseconds; the kernel's own default
_TRIES: Final = 10  # others may be started where we were
_GUEST: Final = re.compile(r"guest\.[0-9]+")
_TITLE: Final = b"xbbd: guest"  # of the server and of guests' processes (forkserver.py)


class Place:
    """The group of a process that is to be started (native.processes.Place)."""

    def __init__(self, groups: "Cgroups", path: Path) -> None:
        """OSError."""
        self._groups = groups
        self._path = path
        self._fd = os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Whoever writes 0 to it is there."""
        return self._fd

    def close(self) -> None:
        """Whoever is to be there has got the descriptor."""
        os.close(self._fd)

    def remove(self) -> None:
        """Nobody is there any more."""
        self._groups.leave(self._path)


class Cgroups:
    """Those of this daemon (host.Quotas)."""

    def __init__(self, mount: str | None, proc: str = "/proc") -> None:
        """`mount`: where all groups are, as mounted_at() has it."""
        self._mount = Path(mount) if mount is not None else None
        self._proc = Path(proc)
        self._lock = threading.Lock()
        self._used: set[Path] = set()

    def check(self, pid: int | None) -> None:
        """As Quotas has it.  Nothing is changed."""
        mount = self._root()
        group = mount if pid is None else self._home(pid)
        if "cpu" not in _words(mount / "cgroup.controllers"):
            raise OperatorError("control groups of version 2 have no controller cpu here")
        if "cpu" not in _words(group / "cgroup.controllers"):
            raise OperatorError(
                f"control group {self._name(group)} has no controller cpu;"
                " systemd gives it by Delegate=cpu"
            )
        if pid is not None and not self._is_root(group):
            self._refuse_others(group, pid)
        if pid == os.getpid() and not os.access(group / "cgroup.subtree_control", os.W_OK):
            raise OperatorError(f"control group {self._name(group)} may not be changed by us")

    def prepare(self, percent: int) -> None:
        """As Quotas has it."""
        if percent == 0:
            with suppress(OSError, OperatorError), self._lock:
                self._sweep(self._below(self._home(os.getpid())))
            return
        self.check(os.getpid())
        try:
            with self._lock:
                self._sweep(self._hand_on())
        except OSError as error:
            raise _failed(error) from None

    def place(self, domid: int, percent: int) -> Place | None:
        """As Quotas has it."""
        if percent == 0:
            return None
        try:
            self.check(os.getpid())
            with self._lock:
                groups = self._hand_on()
                self._sweep(groups)
                path = groups / f"guest.{domid}"
                _make(path)
                _put(path / "cpu.max", f"{percent * _PERIOD // 100} {_PERIOD}")
                place = Place(self, path)
                self._used.add(path)
                return place
        except OSError as error:
            raise _failed(error) from None
        except OperatorError as error:
            raise HostError(f"no limit of processor time: {error}") from None

    def leave(self, path: Path) -> None:
        """A group is not used any more; one that has a process all the same stays."""
        with self._lock:
            self._used.discard(path)
            with suppress(OSError):
                _remove(path)

    def _root(self) -> Path:
        if self._mount is None:
            raise OperatorError("no control groups of version 2 (cgroup2) are mounted")
        return self._mount

    def _home(self, pid: int) -> Path:
        """The group that a daemon was started in, wherever it is now; OperatorError."""
        mount = self._root()
        try:
            text = (self._proc / str(pid) / "cgroup").read_text()
        except OSError as error:
            raise OperatorError(f"process {pid}: no control group: {error.strerror}") from None
        found = re.search(r"^0::(/.*)$", text, re.M)
        if found is None or found[1].startswith("/..") or found[1].endswith(" (deleted)"):
            raise OperatorError(f"process {pid} is in no control group that is seen here")
        path = mount / found[1].lstrip("/")
        return path.parent if path.name == _OURS else path

    def _refuse_others(self, group: Path, daemon: int) -> None:
        """Those in it must be ours: all that are there will be moved."""
        own = self._command(str(daemon))
        for pid in _words(group / "cgroup.procs"):
            command = self._command(pid)
            if command not in (own, b"") and not command.startswith(_TITLE):
                name = command.split(b"\0")[0].decode(errors="replace")
                raise OperatorError(
                    f"control group {self._name(group)} is not for xbbd alone:"
                    f" process {pid} ({shown(name)}) is in it"
                )

    def _command(self, pid: str) -> bytes:
        """As it was started; nothing of one that has ended."""
        try:
            return (self._proc / pid / "cmdline").read_bytes()
        except OSError:
            return b""

    def _name(self, group: Path) -> str:
        return str(Path("/") / group.relative_to(self._root()))

    def _is_root(self, group: Path) -> bool:
        """The system's: the one of a container is called so too, and has a type."""
        return group == self._mount and not (group / "cgroup.type").exists()

    def _below(self, home: Path) -> Path:
        """Where the groups of guests are."""
        return home / _IN_ROOT if self._is_root(home) else home

    def _hand_on(self) -> Path:
        """Have the controller in groups of guests, which are below what is returned."""
        home = self._home(os.getpid())
        groups = self._below(home)
        if groups != home:
            _enable(home)
            _make(groups)
            _enable(groups)
            return groups
        for left in reversed(range(_TRIES)):
            try:
                _enable(groups)
                break
            except OSError as error:
                if error.errno != EBUSY or left == 0:
                    raise
                self._move_all(groups)
        return groups

    def _move_all(self, group: Path) -> None:
        """Whoever was started where we were, as the parent that waits for us to serve."""
        _make(group / _OURS)
        for pid in _words(group / "cgroup.procs"):
            with suppress(ProcessLookupError):  # it has just ended
                _put(group / _OURS / "cgroup.procs", pid)

    def _sweep(self, groups: Path) -> None:
        """Take away what is left of processes that an earlier daemon had, or that we lost."""
        if groups.name != _IN_ROOT and not (groups / _OURS).is_dir():
            return  # what is there is somebody else's
        for path in _guests(groups):
            if path not in self._used:
                with suppress(OSError):  # EBUSY: it serves
                    _remove(path)


def mounted_at(mounts: str = "/proc/self/mountinfo") -> str | None:
    """Where control groups of version 2 are, all of them; None if they are nowhere."""
    with suppress(OSError), open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields = before.split()
            if after.startswith("cgroup2 ") and len(fields) > 4 and fields[3] == "/":
                return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
    return None


# What is done to groups, each in one system call that may fail.


def _enable(group: Path) -> None:
    if "cpu" not in _words(group / "cgroup.subtree_control"):
        _put(group / "cgroup.subtree_control", "+cpu")


def _make(group: Path) -> None:
    group.mkdir(exist_ok=True)


def _remove(group: Path) -> None:
    group.rmdir()


def _put(file: Path, text: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = str(file)
        raise
    finally:
        os.close(fd)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except FileNotFoundError:
        return []


def _guests(groups: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (path for path in groups.iterdir() if _GUEST.fullmatch(path.name))


def _failed(error: OSError) -> HostError:
    where = f"{error.filename}: " if error.filename else ""
    return HostError(f"no limit of processor time: {where}{error.strerror}", error.errno or 0)
