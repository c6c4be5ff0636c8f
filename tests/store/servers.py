"""The XenStore servers that tests run: our embedded one and, where it can be had, a real xenstored.

Each is a process of its own, so it can be killed as a daemon can. Both are driven over their
sockets alone; a guest's requests come in over the guest's socket.
"""

import functools
import multiprocessing
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from xbbd_bsd.sim import xenstore
from xbbd_bsd.xenstore.wire import Error, Op, Packet, Parser, join

XENSTORED = Path(__file__).parent.parent / "real" / "xenstored"
sys.path.append(str(XENSTORED))
from guest import Guest  # noqa: E402

LIMIT = 10.0  # seconds for what takes milliseconds

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["__main__", "xbbd_bsd.sim.xenstore"])


class Refused(Exception):
    """The server answered with an ERROR packet."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.name)
        self.error = error


class Connection:
    """A blocking client that speaks packets; what it expects comes within LIMIT, or it raises."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)  # xenstored's backlog of 1 refuses who would not wait
        self.socket.settimeout(LIMIT)
        self._parser = Parser()
        self._packets: list[Packet] = []
        self._events: list[Packet] = []
        self._req_id = 0

    def close(self) -> None:
        self.socket.close()

    def send(self, op: int, payload: bytes = b"\0", tx: int = 0) -> int:
        """Sends a request and returns its id."""
        self._req_id += 1
        self.socket.sendall(Packet(op, self._req_id, tx, payload).encode())
        return self._req_id

    def receive(self) -> Packet:
        """The next packet of any kind; raises EOFError when the server has hung up."""
        while not self._packets:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._packets = self._parser.feed(data)
        return self._packets.pop(0)

    def reply(self, req_id: int, op: int, tx: int = 0) -> bytes:
        """The payload that answers a request; raises Refused. Events are kept for `events`."""
        while (packet := self.receive()).type == Op.WATCH_EVENT:
            assert (packet.req_id, packet.tx_id) == (0, 0)
            self._events.append(packet)
        assert (packet.req_id, packet.tx_id) == (req_id, tx)
        if packet.type == Op.ERROR:
            raise Refused(Error[packet.payload.removesuffix(b"\0").decode()])
        assert packet.type == op
        return packet.payload

    def ask(self, op: int, payload: bytes = b"\0", tx: int = 0) -> bytes:
        return self.reply(self.send(op, payload, tx), op, tx)

    def call(self, op: int, *arguments: object, tx: int = 0) -> bytes:
        return self.ask(op, join(*(str(argument).encode() for argument in arguments)), tx)

    def read(self, path: str, tx: int = 0) -> bytes:
        return self.call(Op.READ, path, tx=tx)

    def write(self, path: str, value: bytes = b"", tx: int = 0) -> None:
        assert self.ask(Op.WRITE, join(path.encode()) + value, tx) == b"OK\0"

    def remove(self, path: str, tx: int = 0) -> None:
        assert self.call(Op.RM, path, tx=tx) == b"OK\0"

    def names(self, path: str, tx: int = 0) -> list[str]:
        names = self.call(Op.DIRECTORY, path, tx=tx).decode()
        assert not names or names.endswith("\0")
        return sorted(names.split("\0")[:-1])

    def permissions(self, path: str, tx: int = 0) -> list[str]:
        return self.call(Op.GET_PERMS, path, tx=tx).decode().split("\0")[:-1]

    def permit(self, path: str, *permissions: str, tx: int = 0) -> None:
        assert self.call(Op.SET_PERMS, path, *permissions, tx=tx) == b"OK\0"

    def watch(self, path: str, token: str = "t") -> None:
        assert self.call(Op.WATCH, path, token) == b"OK\0"

    def begin(self) -> int:
        number = self.call(Op.TRANSACTION_START, "")
        assert number.endswith(b"\0")
        return int(number[:-1])

    def end(self, tx: int, keep: bool = True) -> None:
        assert self.call(Op.TRANSACTION_END, "T" if keep else "F", tx=tx) == b"OK\0"

    def events(self) -> list[tuple[str, str]]:
        """(path, token) of each event that the server has sent by now."""
        self.call(Op.GET_DOMAIN_PATH, 0)  # what was sent before this answer has come by now
        taken, self._events = self._events, []
        pairs = []
        for packet in taken:
            path, token, end = packet.payload.decode().split("\0")
            assert end == ""
            pairs.append((path, token))
        return pairs

    def event(self) -> tuple[str, str]:
        """The next event, waiting for it."""
        packet = self._events.pop(0) if self._events else self.receive()
        assert packet.type == Op.WATCH_EVENT
        path, token, _ = packet.payload.decode().split("\0")
        return path, token


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
        self._process.join(LIMIT)

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
        self._process.wait(LIMIT)
        while self._guests:
            self._guests.popitem()[1].close()

    def introduce(self, domid: int) -> None:
        self._guests[domid] = stack = ExitStack()
        stack.enter_context(Guest(os.fspath(self.directory), domid))

    def release(self, domid: int) -> None:
        self._guests.pop(domid).close()


KINDS: dict[str, Callable[[Path], Server]] = {"embedded": Embedded, "xenstored": Xenstored}
