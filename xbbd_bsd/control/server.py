"""The daemon's control socket: moves lines, and keeps bad clients from mattering.

A client that sends too much, or nothing, or does not read, loses its connection;
there are never more than MOST of them, and some are kept for those who may
write.  Between two parts of an answer the loop does its other work.  Runs on the
daemon's loop; what a request means is not known here.
"""

import asyncio
import errno
import os
import socket
import traceback
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from xbbd_bsd.control.accept import Listener
from xbbd_bsd.control.protocol import (
    DENIED,
    LIMIT,
    Awaited,
    Part,
    Request,
    Verb,
    encode_end,
    encode_error,
    encode_values,
)
from xbbd_bsd.errors import OperatorError, XbbdError, in_words
from xbbd_bsd.events import Defect, Event, NotAccepted

MOST: Final = 32  # connections at once
RESERVED: Final = 8  # of these, for those who may write
FOLLOWERS: Final = 16  # of these, that follow the log
FOLLOWERS_RESERVED: Final = 4  # of those, for who may write
PATIENCE: Final = 10.0  # seconds for a request to arrive, or a part of a reply to be taken
PATIENCE_WITH_LAST: Final = 0.25  # the same where others wait for the last descriptor
TURN: Final = 0.002  # seconds of answering, until the loop has its turn
MOMENT: Final = 0.01  # seconds until an answer that has to wait is asked for again

_BACKLOG: Final = 100  # clients that wait to be accepted

Perform = Callable[[Request], Iterator[Part]]
"""Answers a request in parts."""


class Rights(IntEnum):
    """What a client may do."""

    NONE = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who a client is, as the kernel says: what it may do, and its name in words."""

    rights: Rights
    who: str = ""


class ControlServer:
    """A listening socket."""

    def __init__(
        self,
        path: str,
        perform: Perform,
        loop: asyncio.AbstractEventLoop,
        *,
        visitor: Callable[[socket.socket], Visitor],
        group: int | None = None,
        journal: Callable[[Event], None] = lambda _: None,
        verbs: Collection[str] = (),
    ) -> None:
        """Listen at `path`, in place of what an earlier daemon left; OperatorError.

        `visitor` says who a connection is from; members of `group` may connect
        besides the daemon's own user.  `verbs`: those of families.
        """
        self._path = path
        self._perform = perform
        self._loop = loop
        self._visitor = visitor
        self._journal = journal
        self.verbs = verbs
        self._clients: set[_Client] = set()
        self._coming: set[asyncio.Task[None]] = set()
        try:
            self._listener = Listener(_listen(path), loop, self._serve, self._refused)
        except OSError as error:
            raise self._unable(error) from None
        try:
            self.give_to(group)
        except OSError as error:
            self.close()
            raise self._unable(error) from None

    def _unable(self, error: OSError) -> OperatorError:
        return OperatorError(f"control socket {self._path}: {error.strerror}", error.errno or 0)

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
        self._listener.close()
        for task in self._coming:
            task.cancel()
        for client in list(self._clients):
            client.abort()
        while self._clients or self._coming:
            self._loop.run_until_complete(asyncio.sleep(0))
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _refused(self, error: OSError) -> None:
        self._journal(NotAccepted("the control socket", str(error.strerror)))

    def _serve(self, channel: socket.socket, last: bool) -> None:
        """`last`: it has the last descriptor there was, and only who may write gets that."""
        task = self._loop.create_task(self._begin(channel, last))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _begin(self, channel: socket.socket, last: bool) -> None:
        def client() -> _Client:
            return _Client(self, self._clients, self._listener.gone if last else None)

        try:
            await self._loop.connect_accepted_socket(client, channel)
        except (OSError, asyncio.CancelledError):
            channel.close()
            if last:
                self._listener.gone()

    # Of clients.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def admit(self, channel: socket.socket, last: bool) -> Visitor:
        """What a new client may do; OperatorError if it has to go."""
        visitor = self._visitor(channel)
        if visitor.rights is Rights.NONE:
            raise OperatorError(DENIED, errno.EACCES)
        writes = visitor.rights is Rights.WRITE
        if len(self._clients) > (MOST if writes else MOST - RESERVED):
            raise OperatorError("too many connections", errno.EAGAIN)
        if last and not writes:
            raise OperatorError(
                "the daemon is out of file descriptors, and keeps the last one for root",
                errno.EMFILE,
            )
        return visitor

    def perform(self, request: Request, rights: Rights) -> Iterator[Part]:
        """The answer to a request of who has these rights; OperatorError."""
        followers = sum(client.follows for client in self._clients)
        most = FOLLOWERS if rights is Rights.WRITE else FOLLOWERS - FOLLOWERS_RESERVED
        if request.verb is Verb.EVENTS and followers > most:
            raise OperatorError("too many follow the log already", errno.EAGAIN)
        yield from self._perform(request)

    def defect(self) -> None:
        """Have it in the log that an answer ended in an error that is none of ours."""
        trace = traceback.format_exc().strip().replace("\n", " | ")
        self._journal(Defect("control socket", trace))


def _listen(path: str) -> socket.socket:
    """A socket for the daemon's own user, in place of what is there; OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


class _Client(asyncio.Protocol):
    """A connection: one request after the other, each answered in parts."""

    def __init__(
        self,
        server: ControlServer,
        clients: "set[_Client]",
        gone: Callable[[], None] | None,
    ) -> None:
        """It is one of `clients` as long as there is a connection.

        `gone` is to be called when there is none any more: it has the spare descriptor.
        """
        self._server = server
        self._loop = server.loop
        self._clients = clients
        self._gone = gone
        self.follows = False  # the log: it waits for ever, and says nothing any more
        self._visitor = Visitor(Rights.NONE)
        self._unread = bytearray()
        self._answer: Generator[Part, None, None] | None = None
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
            channel = transport.get_extra_info("socket")
            self._visitor = self._server.admit(channel, self._gone is not None)
        except (OperatorError, OSError) as error:
            transport.write(encode_error(OperatorError(in_words(error), error.errno or 0)))
            transport.close()
            return
        self._progress()
        self._expire()

    def connection_lost(self, _: Exception | None) -> None:
        self._clients.discard(self)
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()
        if self._gone is not None:
            self._loop.call_soon(self._gone)  # it is closed by then

    def data_received(self, data: bytes) -> None:
        if self.follows:
            self.abort()
            return
        self._unread += data
        if len(self._unread) > LIMIT:
            self._transport.pause_reading()  # until there is no whole line left
        if self._turn is None and self._answer is None and not self._full:
            self._next()

    def eof_received(self) -> bool:
        self._ended = True
        if self.follows:
            return False
        return self._answer is not None or b"\n" in self._unread  # it may want its answers

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._progress()
        if self._turn is None:
            self._go_on()

    # Ours.

    @property
    def rights(self) -> Rights:
        """What it may do."""
        return self._visitor.rights

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    def _progress(self) -> None:
        patience = PATIENCE if self._gone is None else PATIENCE_WITH_LAST
        self._deadline = self._loop.time() + patience

    def _expire(self) -> None:
        """One timer a connection, however often its deadline moves."""
        if self.follows:  # costs no more than its feed, however long it takes
            self._progress()
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

    def _performed(self, line: bytes) -> Generator[Part, None, None]:
        request = Request.decode(line, self._server.verbs)
        if request.verb.writes and self.rights < Rights.WRITE:
            what = request.name or request.verb.value
            what += "" if request.value is None else f"={request.value}"
            raise OperatorError(f"{what}: Operation not permitted: only root may", errno.EPERM)
        if request.verb is Verb.EVENTS and self._gone is not None:
            raise OperatorError("the daemon is out of file descriptors", errno.EMFILE)
        self.follows = request.verb is Verb.EVENTS
        try:
            yield from self._server.perform(replace(request, who=self._visitor.who), self.rights)
        finally:
            self.follows = False

    def _step(self) -> None:
        """Answer for a while, then let the loop do other work."""
        until = self._loop.time() + TURN
        lines: list[bytes] = []
        again: float | None = 0.0  # seconds until there may be more; None: we are woken
        while self._answer is not None and (not lines or self._loop.time() < until):
            part = self._part(self._answer)
            if isinstance(part, bytes):
                lines.append(part)
                continue
            again = MOMENT
            if part is not None:
                again = None
                part.when_there(self._woken)
            break
        self._transport.write(b"".join(lines))
        self._progress()
        if self._turn is None and again is not None:
            self._turn = self._loop.call_later(again, self._go_on)

    def _woken(self) -> None:
        """What an answer waited for is there."""
        if self._turn is None and self._answer is not None:
            self._turn = self._loop.call_soon(self._go_on)

    def _part(self, answer: Generator[Part, None, None]) -> bytes | Awaited | None:
        """The next line of an answer, its end included; or what it waits for."""
        try:
            part = next(answer)
            return encode_values(part) if isinstance(part, Mapping) else part
        except StopIteration:
            line = encode_end()
        except XbbdError as error:
            line = encode_error(error)
        except Exception:
            self._server.defect()
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
