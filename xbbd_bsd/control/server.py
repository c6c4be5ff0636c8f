"""The daemon's control socket: moves lines, and keeps bad clients from mattering.

A client that sends too much, or nothing, or does not read, loses its connection;
there are never more than MOST of them.  Who may connect is the file system's
business: socket and directory are the daemon's user's.  Runs on the daemon's
loop; what a request means is not known here.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from xbbd_bsd.control.protocol import LIMIT, Request, Value, encode_error, encode_values
from xbbd_bsd.errors import OperatorError, XbbdError

MOST: Final = 32  # connections at once
PATIENCE: Final = 10.0  # seconds for a request to arrive, or a reply to be taken

Perform = Callable[[Request], Mapping[str, Value]]


class ControlServer:
    """A listening socket."""

    def __init__(self, path: str, perform: Perform, loop: asyncio.AbstractEventLoop) -> None:
        """Listen at `path`, in place of what an earlier daemon left; OperatorError."""
        self._path = path
        self._perform = perform
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        with suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            self._server = loop.run_until_complete(
                asyncio.start_unix_server(self._serve, path, limit=LIMIT)
            )
        except OSError as error:
            raise OperatorError(f"control socket {path}: {error}", error.errno or 0) from None
        finally:
            os.umask(mask)

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
            if len(self._tasks) > MOST:
                writer.write(encode_error("too many connections"))
                return
            while line := await self._line(reader):
                writer.write(self._answer(line))
                await asyncio.wait_for(writer.drain(), PATIENCE)
        except (TimeoutError, ValueError, OSError, asyncio.CancelledError):
            pass  # ValueError: a line beyond the limit
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        return line if line.endswith(b"\n") else b""

    def _answer(self, line: bytes) -> bytes:
        try:
            return encode_values(self._perform(Request.decode(line)))
        except XbbdError as error:
            return encode_error(str(error))
