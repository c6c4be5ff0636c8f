"""A server of NBD that is played, with a disk in memory: one that crashes, lies, or says nothing.

It speaks fixed newstyle and simple replies, and does one request at a time, so that what it
has done is known.  What is written is in its cache until a flush; a crash loses that.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from errno import EIO

HANDSHAKE = struct.Struct(">8s8sH")
OPTION = struct.Struct(">8sII")
REQUEST = struct.Struct(">IHHQQI")
MAGIC, REPLY = 0x25609513, 0x67446698
READ, WRITE, DISC, FLUSH, TRIM = range(5)
FLAGS = 1 | 4 | 32  # has flags, flush, trim
OPT_REPLY = 0x3E889045565A9

Lie = Callable[[bytes, bytes], bytes | None]
"""From a reply's head and data to what is sent instead; None: hang up."""


class Player:
    """The server."""

    def __init__(self, size: int) -> None:
        self.durable = bytearray(size)
        self.cached = bytearray(size)
        self.size = size  # as it says
        self.flags = FLAGS
        self.minimum = 1
        self.silent = False
        self.flush_errno = 0
        self.lie: Lie | None = None
        self.hang_up_after = -1  # bytes that are sent; -1: never
        self.seen: list[int] = []  # commands, of all connections
        self._lock = threading.Lock()
        self._channels: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listens = False

    def start(self) -> None:
        self._listens = True

    def connected(self) -> socket.socket:
        if not self._listens:
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        with self._lock:
            self._channels.append(theirs)
        thread = threading.Thread(target=self._serve, args=(theirs,))
        self._threads.append(thread)
        thread.start()
        return ours

    def crash(self) -> None:
        """All connections end, and what was not flushed is lost."""
        self.cut(loses=True)

    def cut(self, *, loses: bool) -> None:
        """All connections end; nothing that came over them is done any more."""
        with self._lock:
            for channel in self._channels:
                with suppress(OSError):
                    channel.shutdown(socket.SHUT_RDWR)
            self._channels.clear()
            if loses:
                self.cached[:] = self.durable

    def kill(self) -> None:
        self._listens = False
        self.crash()
        for thread in self._threads:
            thread.join()

    def _serve(self, channel: socket.socket) -> None:
        with channel, suppress(OSError, EOFError):
            self._sent = 0
            self._greet(channel)
            while self._serve_one(channel):
                pass

    def _send(self, channel: socket.socket, data: bytes) -> None:
        if 0 <= self.hang_up_after < self._sent + len(data):
            channel.sendall(data[: self.hang_up_after - self._sent])
            raise EOFError
        self._sent += len(data)
        channel.sendall(data)

    def _greet(self, channel: socket.socket) -> None:
        self._send(channel, HANDSHAKE.pack(b"NBDMAGIC", b"IHAVEOPT", 3))
        _take(channel, 4)
        while True:
            _, option, length = OPTION.unpack(_take(channel, OPTION.size))
            _take(channel, length)
            if option != 7:  # NBD_OPT_GO
                self._answer(channel, option, 0x80000001, b"")
                continue
            self._answer(channel, option, 3, struct.pack(">HQH", 0, self.size, self.flags))
            sizes = struct.pack(">HIII", 3, self.minimum, 4096, 1 << 25)
            self._answer(channel, option, 3, sizes)
            self._answer(channel, option, 1, b"")
            return

    def _answer(self, channel: socket.socket, option: int, kind: int, data: bytes) -> None:
        self._send(channel, struct.pack(">QIII", OPT_REPLY, option, kind, len(data)) + data)

    def _serve_one(self, channel: socket.socket) -> bool:
        magic, _, command, handle, offset, length = REQUEST.unpack(_take(channel, REQUEST.size))
        assert magic == MAGIC
        payload = _take(channel, length) if command == WRITE else b""
        with self._lock:
            if channel not in self._channels or command == DISC:
                return False
            self.seen.append(command)
            if self.silent:
                return True
            errno, data = self._do(command, offset, length, payload)
        head = struct.pack(">IIQ", REPLY, errno, handle)
        told = head + data if self.lie is None else self.lie(head, data)
        if told is None:
            return False
        self._send(channel, told)
        return True

    def _do(self, command: int, offset: int, length: int, payload: bytes) -> tuple[int, bytes]:
        if command == READ:
            return 0, bytes(self.cached[offset : offset + length])
        if command == WRITE:
            self.cached[offset : offset + length] = payload
        elif command == TRIM:
            self.cached[offset : offset + length] = bytes(length)
        elif self.flush_errno:
            return self.flush_errno, b""
        else:
            self.durable[:] = self.cached
        return 0, b""


def _take(channel: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        more = channel.recv(length - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def other_handle(head: bytes, data: bytes) -> bytes:
    return head[:8] + bytes(8) + data


def other_magic(head: bytes, data: bytes) -> bytes:
    return bytes(4) + head[4:] + data


def twice(head: bytes, data: bytes) -> bytes:
    return (head + data) * 2


def structured(head: bytes, data: bytes) -> bytes:
    return struct.pack(">IHH", 0x668E33EF, 1, 1) + head[8:] + struct.pack(">I", 0) + data


def hung_up(head: bytes, data: bytes) -> None:
    return None


def half(head: bytes, data: bytes) -> bytes:
    """And then other things."""
    return head + data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2)


LIES: tuple[Lie, ...] = (other_handle, other_magic, twice, structured, hung_up)
FAILS = EIO
