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

Perform = Callable[[Request], Iterator[Values]]


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
        self._tasks: set[asyncio.Task[None]] = set()
        with suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            self._server = loop.run_until_complete(
                asyncio.start_unix_server(self._serve, path, limit=LIMIT)
            )
            self.give_to(group)
        except OSError as error:
            raise OperatorError(f"control socket {path}: {error}", error.errno or 0) from None
        finally:
            os.umask(mask)

    def give_to(self, group: int | None) -> None:
        """Let members of a group connect, None for nobody but the daemon's user; OSError."""
        if group is not None:
            os.chown(self._path, -1, group)
        os.chmod(self._path, 0o600 if group is None else 0o660)

    def close(self) -> None:
        """Stop listening, end every connection, remove the socket."""
        self._server.close()
        if tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(tasks))
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            rights = self._rights(writer.get_extra_info("socket"))
            if rights is Rights.NONE:
                writer.write(encode_error(OperatorError("Permission denied", errno.EACCES)))
                return
            if len(self._tasks) > (MOST if rights is Rights.WRITE else MOST - RESERVED):
                writer.write(encode_error(OperatorError("too many connections", errno.EAGAIN)))
                return
            while line := await self._line(reader):
                await self._answer(line, rights, writer)
                await asyncio.wait_for(writer.drain(), PATIENCE)
        except (TimeoutError, ValueError, OSError, asyncio.CancelledError):
            pass  # ValueError: a line beyond the limit
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        return line if line.endswith(b"\n") else b""

    async def _answer(self, line: bytes, rights: Rights, writer: asyncio.StreamWriter) -> None:
        try:
            request = Request.decode(line)
            if request.verb.writes and rights < Rights.WRITE:
                what = request.name if request.value is None else f"{request.name}={request.value}"
                raise OperatorError(f"{what}: Operation not permitted", errno.EPERM)
            for values in self._perform(request):
                writer.write(encode_values(values))
                await asyncio.wait_for(writer.drain(), PATIENCE)
                await asyncio.sleep(0)
            writer.write(encode_end())
        except XbbdError as error:
            writer.write(encode_error(OperatorError(str(error), error.errno or 0)))
