"""A server that answers as the test says, to show the client what no sound server does; and the
owner of an asyncio loop who waits for conditions. The server has a thread of its own, since the
client's calls hold up the test's.
"""

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol

from xbbd_bsd.xenstore.client import Store

HEADER = struct.Struct("=IIII")  # type, req_id, tx_id, length
READ, WATCH, TRANSACTION_START, TRANSACTION_END, WATCH_EVENT, ERROR = 2, 4, 6, 7, 15, 16
Request = tuple[int, int, int, bytes]  # the same, the payload in place of its length
Script = Callable[[Request], bytes | None]


class Serve(Protocol):
    def __call__(self, script: "Script") -> "ScriptedServer": ...


class Connect(Protocol):
    """Opens a Store with these options, connected."""

    def __call__(self, **options: Any) -> Store: ...


def packet(op: int, payload: bytes, req_id: int = 0, tx_id: int = 0) -> bytes:
    return HEADER.pack(op, req_id, tx_id, len(payload)) + payload


def answer(request: Request, payload: bytes = b"OK\0") -> bytes:
    op, req_id, tx_id, _ = request
    return packet(op, payload, req_id, tx_id)


class ScriptedServer:
    """Serves one client after the other; `script` gives a request's answer, None to hang up."""

    def __init__(self, path: str, script: Script) -> None:
        self.path = path
        self.requests: list[Request] = []
        self._script = script
        self._stopping = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(5)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client, client.makefile("rb") as stream:
                self._client = client
                if self._stopping:
                    return
                with suppress(OSError):
                    self._talk(client, stream.read)

    def _talk(self, client: socket.socket, read: Callable[[int], bytes]) -> None:
        while len(header := read(HEADER.size)) == HEADER.size:
            op, req_id, tx_id, size = HEADER.unpack(header)
            request = (op, req_id, tx_id, read(size))
            self.requests.append(request)
            reply = self._script(request)
            if reply is None:
                return
            client.sendall(reply)

    def hang_up(self) -> None:
        """Ends the connection of the present client."""
        if self._client is not None:
            with suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Ends the server and removes its socket. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self.hang_up()
        with socket.socket(socket.AF_UNIX) as last:  # wakes accept() on every system
            last.connect(self.path)
            self._thread.join(5)
        self._listener.close()
        os.unlink(self.path)
        assert not self._thread.is_alive()


@contextmanager
def serving(path: str) -> Iterator[Serve]:
    """Starts servers on `path`, one after the other was stopped."""
    with ExitStack() as stack:

        def serve(script: Script) -> ScriptedServer:
            server = ScriptedServer(path, script)
            stack.callback(server.stop)
            return server

        yield serve


@contextmanager
def silent_listener(path: str, backlog: int = 5) -> Iterator[socket.socket]:
    """A server that accepts no connection and so never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(backlog)
        yield listener


class Driver:
    """Runs a loop until something has happened, which only what `note` returned can bring about."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.failures: list[dict[str, Any]] = []
        self._check: Callable[[], object] = lambda: None
        loop.set_exception_handler(lambda _, context: self.failures.append(context))

    def note(self, log: list[Any]) -> Callable[..., None]:
        """A callback that appends what it is called with: its arguments, or the only one."""

        def callback(*arguments: Any) -> None:
            log.append(arguments[0] if len(arguments) == 1 else arguments)
            self._check()

        return callback

    def until(self, condition: Callable[[], object], limit: float = 5.0) -> None:
        """Raises TimeoutError when the condition does not come true within `limit` seconds."""
        reached = self.loop.create_future()

        def check() -> None:
            if not reached.done() and condition():
                reached.set_result(None)

        self._check = check
        check()
        self.loop.run_until_complete(asyncio.wait_for(reached, limit))

    def settle(self) -> None:
        """Lets the loop do what it can do at once, several rounds of it."""

        async def rounds() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rounds())


@contextmanager
def driving() -> Iterator[Driver]:
    """A loop with its driver; what reached the loop's exception handler must have been taken."""
    loop = asyncio.new_event_loop()
    driver = Driver(loop)
    yield driver
    loop.close()
    assert driver.failures == []


@contextmanager
def connecting(path: str, driver: Driver) -> Iterator[Connect]:
    """Opens Stores and closes them in the end."""
    with ExitStack() as stack:

        def connect(**options: Any) -> Store:
            store = Store(path, loop=driver.loop, **options)
            stack.callback(store.close)
            store.connect()
            return store

        yield connect
