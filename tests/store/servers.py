"""The XenStore servers that tests run: our embedded one and, where it can be had, a real xenstored.

Each is a process of its own, so it can be killed as a daemon can. Both are driven over their
sockets alone; a guest's requests come in over the guest's socket.
"""

import functools
import multiprocessing
import os
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from tests.real.xenstored.guest import Guest
from tests.store.connection import Connection
from tests.waiting import GIVE_UP
from xbbd_bsd.sim import xenstore
from xbbd_bsd.xenstore.wire import Op

XENSTORED = Path(__file__).parent.parent / "real" / "xenstored"

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["__main__", "xbbd_bsd.sim.xenstore"])


class Server(ABC):
    """A running server in a directory. `socket` is dom0's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "socket")
        self.restart()

    def guest_socket(self, domid: int) -> str:
        """Where to talk as that domain, once it has been introduced."""
        return str(self.directory / f"{domid}.socket")

    def restart(self) -> None:
        """Starts a server that is not running; its store is empty, its domains are unknown."""
        self._start()
        for _ in range(2000):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.socket) == 0:
                    return
            assert not self._ended(0.005), "the server ended at once"
        raise TimeoutError(f"no server at {self.socket}")

    def stop(self) -> None:
        """Ends it. Idempotent."""
        self.kill()

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _ended(self, timeout: float) -> bool: ...

    @abstractmethod
    def kill(self) -> None:
        """Ends it as SIGKILL does; its guests' connections end too."""

    @abstractmethod
    def introduce(self, domid: int) -> None: ...

    @abstractmethod
    def release(self, domid: int) -> None:
        """The domain is destroyed, as the toolstack does it."""


class Embedded(Server):
    """xbbd_bsd.sim.xenstore."""

    def _start(self) -> None:
        self._process = _PROCESSES.Process(target=xenstore.main, args=([str(self.directory)],))
        self._process.start()

    def _ended(self, timeout: float) -> bool:
        return bool(wait([self._process.sentinel], timeout))

    def kill(self) -> None:
        self._process.kill()
        self._process.join(GIVE_UP)

    def introduce(self, domid: int) -> None:
        self._ask(Op.INTRODUCE, domid, 1, 1)

    def release(self, domid: int) -> None:
        self._ask(Op.RELEASE, domid)

    def _ask(self, op: Op, *arguments: int) -> None:
        dom0 = Connection(self.socket)
        dom0.call(op, *arguments)
        dom0.close()


@functools.cache
def xenstored_is_missing() -> str:
    """Why there is no real xenstored, or nothing. Asked once a session: it may fetch packages."""
    try:
        done = subprocess.run(
            ["sh", str(XENSTORED / "run.sh"), "--fetch"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.splitlines() or ["run.sh failed"]
    return lines[-1] if done.returncode else ""


class Xenstored(Server):
    """The C daemon of Xen 4.17, without Xen."""

    def __init__(self, directory: Path) -> None:
        if reason := xenstored_is_missing():
            pytest.skip(f"no real xenstored: {reason}")
        super().__init__(directory)

    def _start(self) -> None:
        self._guests: dict[int, ExitStack] = {}
        command = ["sh", str(XENSTORED / "run.sh"), str(self.directory)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _ended(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(GIVE_UP)
        while self._guests:
            self._guests.popitem()[1].close()

    def introduce(self, domid: int) -> None:
        self._guests[domid] = stack = ExitStack()
        stack.enter_context(Guest(os.fspath(self.directory), domid))

    def release(self, domid: int) -> None:
        self._guests.pop(domid).close()


KINDS: dict[str, Callable[[Path], Server]] = {"embedded": Embedded, "xenstored": Xenstored}


class StoreUnderTest:
    """A server, and connections to it that are closed with it."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self._stack = stack

    def dom0(self) -> Connection:
        return self._connect(self.server.socket)

    def guest(self, domid: int) -> Connection:
        """Introduces the domain, with a directory of its own as the toolstack makes it."""
        self.server.introduce(domid)
        toolstack = self.dom0()
        toolstack.write(f"/local/domain/{domid}")
        toolstack.permit(f"/local/domain/{domid}", f"n{domid}")
        toolstack.close()
        return self._connect(self.server.guest_socket(domid))

    def _connect(self, path: str) -> Connection:
        connection = Connection(path)
        self._stack.callback(connection.close)
        return connection
