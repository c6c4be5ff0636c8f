"""pyxs 0.4.1 made fit for a daemon; the only file that touches pyxs and its private parts.

pyxs carries the packets (its `PacketConnection`) and knows the operations (its `Client`). Replaced
here are the Unix socket below them and the router between them: pyxs's router is a thread that dies
with the server and leaves its callers waiting for ever. Ours has no thread: the caller reads until
its reply is there, with a limit of time, and hands watch events met on the way to `on_event`.

This file knows neither the event loop nor what a watch means. All of it runs on one thread, the
control thread, so there is nothing to lock.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pyxs._internal import Packet as PyxsPacket
from pyxs.client import Client as PyxsClient
from pyxs.connection import UnixSocketConnection
from pyxs.exceptions import ConnectionError as PyxsConnectionError
from pyxs.exceptions import InvalidPayload, PyXSError

from xbbd_bsd.xenstore import wire
from xbbd_bsd.xenstore.wire import HEADER, PAYLOAD_MAX, Op, Parser, join, split

__all__ = ["Client", "Connection", "Lost", "PyXSError", "Reply", "Router", "errno_of"]

REQUEST_IDS: Final = 1 << 32  # req_id is a uint32_t; pyxs counts to sys.maxsize
LISTINGS: Final = 20  # attempts at a directory that keeps changing
REFUSED_WAIT: Final = 0.2  # seconds a refused connection is tried again
CONNECT_PAUSE: Final = 0.005  # seconds between two attempts to connect
AT_ONCE: Final = 32  # requests before their replies are taken, of 4 KiB at most
READ_SIZE: Final = 65536  # bytes taken from the socket at once


class Lost(PyxsConnectionError):  # type: ignore[misc]
    """The connection is of no more use; `errno` and `text` say why."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.errno = number
        self.text = text


def errno_of(error: Exception) -> int:
    """The error number that says the same as an exception of pyxs."""
    if isinstance(error, InvalidPayload):
        return errno.E2BIG
    if isinstance(error, ValueError):  # pyxs refuses a path or a permission by itself
        return errno.EINVAL
    number = error.args[0]
    return number if isinstance(number, int) else errno.EIO


class Packet(PyxsPacket):  # type: ignore[misc]
    """A packet to send, of any operation: pyxs refuses those it does not know."""

    __slots__ = ()

    def __new__(cls, op: int, payload: bytes, rq_id: int, tx_id: int = 0) -> "Packet":
        if len(payload) > PAYLOAD_MAX:
            raise InvalidPayload(f"{len(payload)} bytes")
        packet: Packet = super(PyxsPacket, cls).__new__(
            cls, op, rq_id, tx_id, len(payload), payload
        )
        return packet


class Transport:
    """A non-blocking Unix socket whose waits end at `deadline` (time.monotonic seconds).

    It raises `Lost`, never OSError: upon some of those pyxs would close the descriptor while the
    loop still watches it. It waits with poll, as select cannot name descriptors from 1024 on. It
    closes the socket even when the server has gone: pyxs fails in shutdown() then and keeps it.
    """

    def __init__(self, path: str, wait: float) -> None:
        self.deadline = time.monotonic() + wait
        self._socket = self._connect(path, time.monotonic() + min(wait, REFUSED_WAIT))
        self._polls: dict[int, select.poll] = {}  # by event

    def _connect(self, path: str, refused_until: float) -> socket.socket:
        """Connects. A server with a full backlog is tried again: Linux says EAGAIN then, FreeBSD
        ECONNREFUSED, which may also mean that nobody listens."""
        until = {errno.EAGAIN: self.deadline, errno.ECONNREFUSED: refused_until}
        while True:
            try:
                return self._attempt(path)
            except OSError as error:
                number = error.errno or errno.ENAMETOOLONG  # Python itself refuses a long path
                if time.monotonic() + CONNECT_PAUSE >= until.get(number, 0.0):
                    text = f"cannot connect to {path}: {os.strerror(number)}"
                    raise Lost(number, text) from None
            time.sleep(CONNECT_PAUSE)

    @staticmethod
    def _attempt(path: str) -> socket.socket:
        new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            new.setblocking(False)
            new.connect(path)
        except BaseException:
            new.close()
            raise
        return new

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Sends all of `data`; raises Lost when that takes longer than the deadline allows."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self.wait(select.POLLOUT)
            except OSError as error:
                raise self._lost(error) from None

    def recv(self, size: int) -> bytes:
        """At most `size` bytes of what has arrived, which may be none. Raises Lost at the end."""
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._lost(error) from None
        if not data:
            raise Lost(errno.ECONNRESET, "the server closed the connection")
        return data

    def wait(self, event: int) -> None:
        """Waits until poll reports `event`. Raises Lost (ETIMEDOUT) at the deadline."""
        if (poll := self._polls.get(event)) is None:
            poll = self._polls[event] = select.poll()
            poll.register(self._socket, event)
        left = self.deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise Lost(errno.ETIMEDOUT, "the server did not answer within the time limit")

    def close(self) -> None:
        self._socket.close()

    @staticmethod
    def _lost(error: OSError) -> Lost:
        number = error.errno or errno.EIO
        return Lost(number, f"the connection failed: {os.strerror(number)}")


class Connection(UnixSocketConnection):  # type: ignore[misc]
    """pyxs's packet connection over our transport: reading never waits for the rest of a packet."""

    transport: Transport | None

    def __init__(self, path: str, *, wait: float) -> None:
        """`path` is the server's socket. Connecting takes up to `wait` seconds, 0: one attempt."""
        super().__init__(path)
        self._wait = wait
        self._parser = Parser()

    def create_transport(self) -> Transport:
        return Transport(self.path, self._wait)

    def send(self, *packets: Packet) -> None:
        """Sends packets in one go, headers and payloads: pyxs makes two of each.  Raises Lost."""
        assert self.transport is not None
        octets = (HEADER.pack(p.op, p.rq_id, p.tx_id, p.size) + p.payload for p in packets)
        self.transport.send(b"".join(octets))

    def recv(self) -> list[wire.Packet]:
        """The packets that are complete with what the socket holds now. Raises Lost."""
        assert self.transport is not None
        packets = self._parser.feed(self.transport.recv(READ_SIZE))
        if self._parser.broken:
            raise Lost(errno.EPROTO, f"the server sent a packet over {PAYLOAD_MAX} bytes")
        return packets


@dataclass
class Reply:
    """The answer to one request; `packet` is None until it has arrived."""

    packet: wire.Packet | None = None


class Router:
    """Takes the place of pyxs's Router: joins replies to requests and passes events on.

    A router serves one connection and ends with it: after Lost, close the connection.
    """

    def __init__(
        self, connection: Connection, timeout: float, on_event: Callable[[str, bytes], None]
    ) -> None:
        """`timeout` limits each request together with its reply, in seconds.

        `on_event` gets path and token. It is called in the middle of a request, so it may only
        put the event aside.
        """
        self.connection = connection
        self.next_id = 0
        self._timeout = timeout
        self._on_event = on_event
        self._replies: dict[int, Reply] = {}
        self._whole = True

    def send(self, op: int, payload: bytes, tx_id: int = 0) -> Reply:
        """Sends a request under a fresh id. Raises Lost, or InvalidPayload beyond 4096 bytes."""
        return self.send_all([(op, payload)], tx_id)[0]

    def send_all(self, requests: Sequence[tuple[int, bytes]], tx_id: int = 0) -> list[Reply]:
        """The same of several, to be answered one after the other. Of InvalidPayload none is sent.

        The limit of time is for all of them together.
        """
        packets = []
        for op, payload in requests:
            packets.append(Packet(op, payload, self.next_id, tx_id))
            self.next_id = (self.next_id + 1) % REQUEST_IDS
        self._transport().deadline = time.monotonic() + self._timeout
        replies = [self._replies.setdefault(packet.rq_id, Reply()) for packet in packets]
        self._whole = False
        self.connection.send(*packets)
        self._whole = True
        return replies

    def wait(self, reply: Reply) -> wire.Packet:
        """Reads until the reply is there. Raises Lost."""
        while reply.packet is None:
            self._transport().wait(select.POLLIN)
            self.pump()
        return reply.packet

    def pump(self) -> None:
        """Takes in what has arrived: to be called when the connection is readable. Raises Lost.

        A reply nobody waits for and an event without form are dropped: the stream is sound.
        """
        self._transport()
        for packet in self.connection.recv():
            if packet.type == Op.WATCH_EVENT:
                arguments, _ = split(packet.payload, 2)
                if len(arguments) == 2:
                    self._on_event(arguments[0].decode("ascii", "replace"), arguments[1])
            elif (reply := self._replies.pop(packet.req_id, None)) is not None:
                reply.packet = packet

    def _transport(self) -> Transport:
        transport: Transport | None = self.connection.transport
        if transport is None or not self._whole:
            # Not whole: sending was interrupted, and nothing can follow half a packet.
            raise Lost(errno.ENOTCONN, "the connection is closed")
        return transport


def _refusal(op: int, packet: wire.Packet) -> PyXSError | None:
    """What a reply says against its request. Raises Lost if it belongs to another."""
    if packet.type == Op.ERROR:
        name = packet.payload.rstrip(b"\0").decode("ascii", "replace")
        number = getattr(errno, name, None)
        return PyXSError(number if isinstance(number, int) else errno.EIO, name)
    if packet.type != op:
        raise Lost(errno.EPROTO, f"the server answered operation {op} with {packet.type}")
    return None


class Client(PyxsClient):  # type: ignore[misc]
    """pyxs's operations over our router. One Client is one transaction, or none.

    pyxs refuses to send empty values and octets outside 0x20-0x7f, and strips the NULs off the
    end of what it reads.
    """

    router: Router

    def __init__(self, router: Router) -> None:
        super().__init__(router=router)

    def call(self, op: int, payload: bytes) -> bytes:
        """The payload of the reply, untouched. Raises PyXSError(errno, name) if refused, Lost."""
        packet = self.router.wait(self.router.send(op, payload, self.tx_id))
        refusal = _refusal(op, packet)
        if refusal is not None:
            raise refusal
        return packet.payload

    def calls(self, requests: Sequence[tuple[int, bytes]]) -> list[bytes | PyXSError]:
        """The same of several at once, in their order: payloads, or why one was refused.

        A server has them one after the other, and others' requests may come between. Raises Lost.
        """
        found: list[bytes | PyXSError] = []
        for start in range(0, len(requests), AT_ONCE):
            some = requests[start : start + AT_ONCE]
            replies = self.router.send_all(some, self.tx_id)
            for (op, _), reply in zip(some, replies, strict=True):
                packet = self.router.wait(reply)
                found.append(_refusal(op, packet) or packet.payload)
        return found

    def read(self, path: bytes) -> bytes:
        """A node's value. pyxs asks for the working directory to see whether a path is one."""
        return self.call(Op.READ, join(path))

    def execute_command(self, op: int, *args: bytes) -> bytes:
        """What pyxs builds its operations on; a value that was read keeps its NULs."""
        payload = self.call(op, b"".join(args))
        return payload if op == Op.READ else payload.rstrip(b"\0")

    def names(self, path: bytes) -> list[bytes]:
        """The names below `path`, in as many parts as it takes.

        A list over 4096 bytes is refused with E2BIG and must be read with DIRECTORY_PART: its reply
        is the directory's generation, NUL, and names each ended by NUL; an empty name ends the
        last part. If the generation changes on the way the names do not belong together.
        """
        try:
            names: list[bytes] = self.list(path)
            return names
        except PyXSError as error:
            if error.args[0] != errno.E2BIG:
                raise
        for _ in range(LISTINGS):
            if (whole := self._parts(path)) is not None:
                return whole
        raise PyXSError(errno.EAGAIN, "EAGAIN")

    def _parts(self, path: bytes) -> list[bytes] | None:
        first, names = None, b""
        while not (names == b"\0" or names.endswith(b"\0\0")):
            request = join(path, str(len(names)).encode())
            generation, _, part = self.call(Op.DIRECTORY_PART, request).partition(b"\0")
            first = first or generation
            if generation != first:
                return None
            if not part.endswith(b"\0"):
                raise PyXSError(errno.EIO, "EIO")
            names += part
        return names.rstrip(b"\0").split(b"\0") if names != b"\0" else []
