"""A XenStore client that speaks packets, for tests that care for them; and what such tests say."""

import socket
from collections.abc import Callable

import pytest

from tests.waiting import GIVE_UP
from xbbd_bsd.xenstore.wire import Error, Op, Packet, Parser, join


class Refused(Exception):
    """The server answered with an ERROR packet."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.name)
        self.error = error


class Connection:
    """A blocking client that speaks packets; what it expects comes within GIVE_UP, or it raises."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)  # xenstored's backlog of 1 refuses who would not wait
        self.socket.settimeout(GIVE_UP)
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


def refused(error: Error, call: Callable[..., object], *arguments: object, tx: int = 0) -> None:
    with pytest.raises(Refused) as caught:
        call(*arguments, tx=tx) if tx else call(*arguments)
    assert caught.value.error is error


def permitted(call: Callable[[int], object], most: int) -> int:
    """How often it works, up to `most` times, before ENOSPC or E2BIG."""
    for number in range(most):
        try:
            call(number)
        except Refused as refusal:
            if refusal.error not in (Error.ENOSPC, Error.E2BIG):
                raise
            return number
    return most


def watching(connection: Connection, *paths: str) -> None:
    """Watches each path with itself as the token, and forgets the first events."""
    for path in paths:
        connection.watch(path, path)
    connection.events()
