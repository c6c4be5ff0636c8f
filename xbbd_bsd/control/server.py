"""The daemon's control socket: moves lines, and keeps bad clients from mattering.

A client that sends too much, or nothing, or does not read, loses its connection;
there are never more than MOST of them, and some are kept for those who may
write.  Between two parts of an answer the loop does its other work.  Runs on the
daemon's loop; what a request means is not known here.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Final

from xbbd_bsd.control.protocol import (
    LIMIT,
    Request,
    Values,
    encode_end,
    encode_error,
    encode_values,
)
from xbbd_bsd.errors import OperatorError, XbbdError

MOST: Final = 32  # connections at once
RESERVED: Final = 8  # of these, for those who may write
PATIENCE: Final = 10.0  # seconds for a request to arrive, or a part of a reply to be taken
TURN: Final = 0.002  # seconds of answering, until the loop has its turn
MOMENT: Final = 0.01  # seconds until an answer that has to wait is asked for again

_log = logging.getLogger("xbbd")

Perform = Callable[[Request], Iterator[Values | None]]
"""Answers a request in parts; None: there is nothing yet, ask again in a moment."""


class Rights(IntEnum):
    """What a client may do."""

    NONE = 0
    READ = 1
    WRITE = 2


class ControlServer:
    """A listening socket."""

    def __init__(
        self,
        path: str,
        perform: Perform,
        loop: asyncio.AbstractEventLoop,
        *,
        rights: Callable[[socket.socket], Rights],
        group: int | None = None,
    ) -> None:
        """Listen at `path`, in place of what an earlier daemon left; OperatorError.

        `rights` says who a connection is from; members of `group` may connect
        besides the daemon's own user.
        """
        self._path = path
        self._perform = perform
        self._loop = loop
        self._rights = rights
        self._clients: set[_Client] = set()
        with suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            self._server = loop.run_until_complete(loop.create_unix_server(self._accept, path))
        except OSError as error:
            raise self._unable(error) from None
        finally:
            os.umask(mask)
        try:
            self.give_to(group)
        except OSError as error:
            self.close()
            raise self._unable(error) from None

    def _unable(self, error: OSError) -> OperatorError:
        return OperatorError(f"control socket {self._path}: {error}", error.errno or 0)

    def give_to(self, group: int | None) -> None:
        """Let members of a group connect, None for nobody but the daemon's user; OSError.

        Who is connected and may only read has to connect again.
        """
        if group is not None:
            os.chown(self._path, -1, group)
        os.chmod(self._path, 0o600 if group is None else 0o660)
        for client in list(self._clients):
            if client.rights < Rights.WRITE:
                client.abort()

    def close(self) -> None:
        """Stop listening, end every connection, remove the socket."""
        self._server.close()
        for client in list(self._clients):
            client.abort()
        while self._clients:
            self._loop.run_until_complete(asyncio.sleep(0))
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _accept(self) -> "_Client":
        return _Client(self._loop, self._perform, self._admit, self._clients)

    def _admit(self, channel: socket.socket) -> Rights:
        """What a new client may do; OperatorError if it has to go."""
        rights = self._rights(channel)
        if rights is Rights.NONE:
            raise OperatorError("Permission denied", errno.EACCES)
        if len(self._clients) > (MOST if rights is Rights.WRITE else MOST - RESERVED):
            raise OperatorError("too many connections", errno.EAGAIN)
        return rights


class _Client(asyncio.Protocol):
    """A connection: one request after the other, each answered in parts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        perform: Perform,
        admit: Callable[[socket.socket], Rights],
        clients: "set[_Client]",
    ) -> None:
        """It is one of `clients` as long as there is a connection."""
        self._loop = loop
        self._perform = perform
        self._admit = admit
        self._clients = clients
        self.rights = Rights.NONE
        self._unread = bytearray()
        self._answer: Iterator[Values | None] | None = None
        self._full = False  # what was written is not taken yet
        self._ended = False  # the client sends no more
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._clients.add(self)
        try:
            self.rights = self._admit(transport.get_extra_info("socket"))
        except (OperatorError, OSError) as error:
            transport.write(encode_error(OperatorError(str(error), error.errno or 0)))
            transport.close()
            return
        self._progress()
        self._expire()

    def connection_lost(self, _: Exception | None) -> None:
        self._clients.discard(self)
        self._answer = None
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > LIMIT:
            self._transport.pause_reading()  # until there is no whole line left
        if self._turn is None and self._answer is None and not self._full:
            self._next()

    def eof_received(self) -> bool:
        self._ended = True
        return self._answer is not None or b"\n" in self._unread  # it may want its answers

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._progress()
        if self._turn is None:
            self._go_on()

    # Ours.

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    def _progress(self) -> None:
        self._deadline = self._loop.time() + PATIENCE

    def _expire(self) -> None:
        """One timer a connection, however often its deadline moves."""
        if self._loop.time() >= self._deadline:
            self.abort()
        else:
            self._timer = self._loop.call_at(self._deadline, self._expire)

    def _next(self) -> None:
        """Begin with the next request, if it is there."""
        end = self._unread.find(b"\n", 0, LIMIT)
        if end >= 0:
            line = bytes(self._unread[: end + 1])
            del self._unread[: end + 1]
            self._answer = self._performed(line)
            self._step()
        elif len(self._unread) >= LIMIT or self._ended:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _performed(self, line: bytes) -> Iterator[Values | None]:
        request = Request.decode(line)
        if request.verb.writes and self.rights < Rights.WRITE:
            what = request.name or request.verb.value
            what += "" if request.value is None else f"={request.value}"
            raise OperatorError(f"{what}: Operation not permitted", errno.EPERM)
        yield from self._perform(request)

    def _step(self) -> None:
        """Answer for a while, then let the loop do other work."""
        until = self._loop.time() + TURN
        lines: list[bytes] = []
        waits = False
        while self._answer is not None and not waits and (not lines or self._loop.time() < until):
            line = self._part(self._answer)
            waits = line is None
            lines += [] if line is None else [line]
        self._transport.write(b"".join(lines))
        self._progress()
        if self._turn is None:
            pause = MOMENT if waits else 0.0
            self._turn = self._loop.call_later(pause, self._go_on)

    def _part(self, answer: Iterator[Values | None]) -> bytes | None:
        """The next line of an answer, its end included; None if it is not there yet."""
        try:
            values = next(answer)
            return None if values is None else encode_values(values)
        except StopIteration:
            line = encode_end()
        except XbbdError as error:
            line = encode_error(error)
        except Exception:
            _log.exception("control socket: internal error, please report it")
            line = encode_error(OperatorError("internal error, see the daemon's log"))
        self._answer = None
        return line

    def _go_on(self) -> None:
        """Never more than one of these is planned for a connection."""
        self._turn = None
        if self._transport.is_closing() or self._full:
            return  # until resume_writing, if it is full
        if self._answer is not None:
            self._step()
        else:
            self._next()
