"""A listening Unix socket that lets an operator in where descriptors have run out.

One descriptor is kept open for nothing else: when accept(2) has none left it is given
up for one client, and taken back when that has gone.  asyncio's own servers answer
with a traceback and a second's silence there.  Who the clients are is not known here.
Runs on the daemon's loop.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from errno import EMFILE, ENFILE
from typing import Final

PAUSE: Final = 0.1  # seconds until it is tried again, where there is nobody to wait for
_AT_ONCE: Final = 16  # clients, until the loop has its turn


class Listener:
    """Accepts until it is closed."""

    def __init__(
        self,
        listening: socket.socket,
        loop: asyncio.AbstractEventLoop,
        serve: Callable[[socket.socket, bool], None],
        refused: Callable[[OSError], None],
    ) -> None:
        """`listening` does so already, and is ours now.

        `serve` takes each client, and whether the spare descriptor was given up for it:
        then `gone` is to be called when it is closed.  `refused` hears why one is not
        accepted, once until one is again.  OSError if there is no spare descriptor.
        """
        self._socket = listening
        self._loop = loop
        self._serve = serve
        self._refused = refused
        self._spare: int | None = _take()
        self._told = False
        self._timer: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._timer = None
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Accept nobody any more.  Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def gone(self) -> None:
        """The client that has the spare descriptor is closed."""
        if self._socket.fileno() >= 0:
            self._restore()

    def _restore(self) -> None:
        """Have a spare one again, as soon as there is one to be had.

        That is before anybody is accepted: a client that has just left frees one a moment
        before `gone` is called.
        """
        if self._spare is None:
            with suppress(OSError):
                self._spare = _take()

    def _readable(self) -> None:
        self._restore()
        for _ in range(_AT_ONCE):
            try:
                channel, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if not awaited(self._socket):
                    return
                if not self._told:
                    self._told = True
                    self._refused(error)
                if not (error.errno in (EMFILE, ENFILE) and self._lend()):
                    self._pause()
                return
            self._told = False
            self._serve(channel, False)

    def _lend(self) -> bool:
        """Give up the spare descriptor for the client that waits; False if there is none."""
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        try:
            channel, _ = self._socket.accept()
        except OSError:  # it has gone, or somebody was quicker
            self._restore()
            return False
        self._serve(channel, True)
        return True

    def _pause(self) -> None:
        """The socket stays readable, and the loop has other work."""
        self._loop.remove_reader(self._socket)
        self._timer = self._loop.call_later(PAUSE, self._listen)


def awaited(listening: socket.socket) -> bool:
    """Whether a client waits to be accepted.

    accept(2) does not say: it wants a descriptor before it looks.
    """
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


def shortage() -> str:
    """What the process is out of just now, of that which every client needs; "" if nothing."""
    try:
        os.close(_take())
    except OSError as error:
        if error.errno == EMFILE:
            return "file descriptors of the process (limits -n, ulimit -n)"
        if error.errno == ENFILE:
            return "open files of the host (kern.maxfiles, fs.file-max)"
    return ""


def _take() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
