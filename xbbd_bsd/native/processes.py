"""The processes of guests as the daemon has them: asked for, told of, killed.

They are forked from a server (forkserver.py) that this makes, by a spawn that copies
nothing.  What one says is link.py's; which there have to be is not known here.
Nothing here waits, but for `wait`.  Control thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, EPIPE
from pathlib import Path
from typing import Any, Final, Protocol

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import _xbb, packets
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import HvKind

_CHANNEL: Final = 3  # forkserver.py
_SERVER: Final = Path(__file__).with_name("forkserver.py")
# Threads of a ring allocate nothing at work, so that one heap does for all of them:
# glibc's way to say so, and FreeBSD's.
_ONE_HEAP: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_CONF": "narenas:1"}


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a guest's process is left.

    `uid`, `gid`: the user to become, None to stay; `descriptors`: most that it may have;
    `address_space`: bytes; 0 for either: no limit of its own.  `cpus`: the processors that
    it may run on, none for all.  `cpu_percent`: the time that it may have, of one of them,
    0 for any; some systems want it to be in a `Place` for that.  `confined`: the operating
    system lets it do what a ring needs and no more.
    """

    uid: int | None = None
    gid: int | None = None
    descriptors: int = 0
    address_space: int = 0
    cpus: frozenset[int] = frozenset()
    cpu_percent: int = 0
    confined: bool = True


class Place(Protocol):
    """Where a process goes before it does anything else, and where nobody else is."""

    def fileno(self) -> int:
        """A file that it writes 0 to."""

    def close(self) -> None:
        """Close that file; it has been given to the process, or never will be."""

    def remove(self) -> None:
        """The process has ended, or there is none; or nobody will tell us when it does."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process that was asked for: `errno` is 0 and `pid` its number, or why there is none."""

    serial: int
    pid: int
    errno: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process has ended; `status` is waitpid(2)'s."""

    pid: int
    status: int


def how_it_ended(status: int) -> str:
    """The end of a process, in words."""
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"left with status {os.waitstatus_to_exitcode(status)}"


class Processes:
    """The server, and what it says."""

    def __init__(self) -> None:
        """Start it; OSError if that cannot be."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self.pid = _spawn(theirs.fileno())
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        self._channel = ours
        self._serial = 0
        self._asked: dict[int, Place] = {}  # by serial
        self._placed: dict[int, Place] = {}  # by process
        self._reaped = False

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._channel.fileno()

    def start(
        self,
        name: str,
        listener: socket.socket,
        *,
        hv: HvKind,
        idle_seconds: int,
        grant_path: str = "",
        confinement: Confinement | None = None,
        place: Place | None = None,
    ) -> int:
        """Ask for the process of a guest; what comes of it is told by `news`, with this number.

        It listens on `listener`, which stays the caller's.  `grant_path`: the grant device,
        where only who has opened it may map.  `place` is ours from now on, and is removed
        when the process has ended, if we are told of that.  HostError.
        """
        left = confinement or Confinement()
        stay = lib.XBB_GUEST_STAY
        self._serial += 1
        try:
            self._send(
                {
                    "type": lib.XBB_SERVER_START,
                    "serial": self._serial,
                    "name": _cut(name, lib.XBB_GUEST_NAME),
                    "grant_path": _path(grant_path),
                    "params": {
                        "listen_fd": -1,
                        "grant_fd": -1,
                        "hv": hv,
                        "daemon_uid": os.geteuid(),
                        "uid": stay if left.uid is None else left.uid,
                        "gid": stay if left.gid is None else left.gid,
                        "confined": left.confined,
                        "descriptors": left.descriptors,
                        "address_space": left.address_space,
                        "cpus": _bits(left.cpus),
                        "cpu_percent": left.cpu_percent,
                        "idle_seconds": idle_seconds,
                    },
                },
                [listener.fileno(), *([] if place is None else [place.fileno()])],
            )
        except HostError:
            if place is not None:
                place.close()
                place.remove()
            raise
        if place is not None:
            place.close()
            self._asked[self._serial] = place
        return self._serial

    def kill(self, pid: int) -> None:
        """End a process of ours at once, if it has not ended; HostError."""
        self._send({"type": lib.XBB_SERVER_KILL, "pid": pid}, [])

    def news(self) -> list[Started | Ended]:
        """What has happened since; HostError if the server has gone, and with it all news."""
        found: list[Started | Ended] = []
        while True:
            try:
                data = self._channel.recv(ffi.sizeof("struct xbb_server_report") + 1)
            except BlockingIOError:
                return found
            except OSError as error:
                raise HostError(f"the server of processes: {error.strerror}", EPIPE) from None
            if len(data) != ffi.sizeof("struct xbb_server_report"):
                if found:
                    return found  # the next call says that it has gone
                raise HostError("the server of the guests' processes has gone", EPIPE)
            report = ffi.from_buffer("struct xbb_server_report *", data)
            if report.type == lib.XBB_SERVER_STARTED:
                found.append(Started(report.serial, report.pid, report.errnum))
            elif report.type == lib.XBB_SERVER_ENDED:
                found.append(Ended(report.pid, report.status))
            else:
                continue
            self._take(found[-1])

    def wait(self, limit: float) -> None:
        """Until there is news, or for `limit` seconds; no longer if another thread closes it.

        By poll, as select cannot name descriptors from 1024 on.
        """
        poll = select.poll()
        with suppress(ValueError):  # closed already
            poll.register(self._channel, select.POLLIN)
            poll.poll(limit * 1000)

    def close(self) -> None:
        """Let the server go; processes stay, and so do places that have one."""
        self._channel.close()
        for places in (self._asked, self._placed):
            while places:
                places.popitem()[1].remove()

    def reap(self) -> bool:
        """After `close`: whether the server has ended, and nothing is left of it."""
        if not self._reaped:
            try:
                self._reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                self._reaped = True
        return self._reaped

    def _take(self, item: Started | Ended) -> None:
        """Remove the place of a process that has ended."""
        if isinstance(item, Ended):
            place = self._placed.pop(item.pid, None)
        else:
            place = self._asked.pop(item.serial, None)
            if place is not None and not item.errno:
                self._placed[item.pid] = place
                return
        if place is not None:
            place.remove()

    def _send(self, fields: dict[str, Any], descriptors: list[int]) -> None:
        request = ffi.new("struct xbb_server_request *", fields)
        try:
            packets.send(self._channel, bytes(ffi.buffer(request)), descriptors)
        except BlockingIOError:
            raise HostError("the server of the guests' processes is busy", EAGAIN) from None
        except BrokenPipeError:  # there will be another one, once this has gone
            raise HostError("the server of the guests' processes is about to end", EAGAIN) from None
        except OSError as error:
            text = f"the server of the guests' processes: {error.strerror}"
            raise HostError(text, error.errno or EPIPE) from None


def _spawn(channel: int) -> int:
    backend = sys.modules["_cffi_backend"].__file__ or ""
    command = [sys.executable, "-I", "-S", str(_SERVER)]
    command += [str(Path(file).parent) for file in (_xbb.__file__, backend)]
    # By a number that is surely another one: copied onto itself it would be closed.
    passed = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, _CHANNEL + 1)
    try:
        return os.posix_spawn(
            sys.executable,
            command,
            {**os.environ, **_ONE_HEAP},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, passed, _CHANNEL),
            ],
        )
    finally:
        os.close(passed)


def _cut(name: str, size: int) -> bytes:
    """A name for ps(1): printable, and cut to fit with its NUL."""
    plain = "".join(c if c.isprintable() and c.isascii() else "?" for c in name)
    return plain.encode()[: size - 1]


def _bits(cpus: frozenset[int]) -> list[int]:
    if not all(0 <= cpu < lib.XBB_GUEST_CPUS for cpu in cpus):
        raise HostError(f"processors are 0 to {lib.XBB_GUEST_CPUS - 1}", EINVAL)
    words = [0] * lib.XBB_GUEST_CPU_WORDS
    for cpu in cpus:
        words[cpu // 64] |= 1 << cpu % 64
    return words


def _path(path: str) -> bytes:
    encoded = os.fsencode(path)
    if len(encoded) >= lib.XBB_GUEST_PATH:
        raise HostError(f"{path}: too long for a device's path", EINVAL)
    return encoded
