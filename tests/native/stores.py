"""Servers of disks for tests, and who connects rings to them, as the daemon does."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import LinkState, NbdExport, Queue, State, load_nbd


def require_nbdkit(*filters: str) -> None:
    """Skip unless libnbd and nbdkit are there, and these filters of it."""
    try:
        load_nbd()
    except HostError as error:
        pytest.skip(str(error))
    if shutil.which("nbdkit") is None:
        pytest.skip("nbdkit is not installed")
    for name in filters:
        tried = subprocess.run(
            ["nbdkit", f"--filter={name}", "null", "--dump-plugin"], capture_output=True
        )
        if tried.returncode:
            pytest.skip(f"nbdkit has no filter {name}")


class Serves(Protocol):
    """What has a disk."""

    def start(self) -> None:
        """Listen."""

    def kill(self) -> None:
        """Be gone."""

    def connected(self) -> socket.socket:
        """A connection to it; OSError."""


class Server:
    """nbdkit with a file, or whatever it is told to serve, at a socket of Unix.

    One of old (1.32) asserts if a connection ends while it answers: then it is started again.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        """`arguments`: of nbdkit, beside the socket."""
        self.socket = directory / "nbd.sock"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # of the process, and of who looks after it
        self._watches: list[threading.Thread] = []

    def start(self, *arguments: str) -> None:
        """`arguments`: others from now on, if there are any."""
        self._arguments = arguments or self._arguments
        with self._lock:
            self._launch()
        eventually(self.socket.exists, "nbdkit listens")

    def _launch(self) -> None:
        process = self._run()
        watch = threading.Thread(target=self._look_after, args=(process,))
        self._watches.append(watch)
        watch.start()

    def _run(self) -> subprocess.Popen[bytes]:
        with suppress(FileNotFoundError):
            self.socket.unlink()
        self._process = subprocess.Popen(
            ["nbdkit", "-f", "-U", str(self.socket), *self._arguments],
            stdin=subprocess.DEVNULL,
        )
        return self._process

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        """It stays with what it has begun: that ends with its parent, which is a thread."""
        while process.wait() == -signal.SIGABRT:
            with self._lock:
                if self._process is not process:
                    return
                process = self._run()

    def signal(self, number: int) -> None:
        """To its process."""
        with self._lock:
            assert self._process is not None
            self._process.send_signal(number)

    def kill(self) -> None:
        """At once, as by a fault of it."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(GIVE_UP)
        while self._watches:
            self._watches.pop().join()

    def connected(self) -> socket.socket:
        """A connection to it; OSError."""
        channel = socket.socket(socket.AF_UNIX)
        try:
            channel.connect(str(self.socket))
        except OSError:
            channel.close()
            raise
        return channel


class Connector:
    """Gives a ring the connections that it wants, as long as they can be had."""

    def __init__(
        self,
        queue: Queue,
        state: State,
        connect: Callable[[], socket.socket],
        export: NbdExport = NbdExport(""),  # noqa: B008
    ) -> None:
        self.given = 0
        self.connect = connect
        self._queue, self._state, self._export = queue, state, export
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._main)
        self._thread.start()

    def _main(self) -> None:
        since = -1
        while not self._end.wait(0.002):
            link = self._state.link()
            if link.state is not LinkState.WANTED or link.since_ns == since:
                continue
            with suppress(OSError):
                channel = self.connect()
                since = link.since_ns
                self._queue.connect(channel.detach(), self._export)
                self.given += 1

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@contextmanager
def served(directory: Path, arguments: Sequence[str]) -> Iterator[Server]:
    """A server that runs; it is killed in the end."""
    server = Server(directory, *arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()
