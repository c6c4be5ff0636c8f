"""OpenMetrics for Prometheus, over HTTP on a Unix socket or a loopback address.

The text is made by prometheus_client, which is imported only where metrics are
wanted.  A thread of its own, with a loop of its own, moves the bytes and makes
the text; what it shows is read on the daemon's loop, in one piece and no more
often than once in AGE seconds however many ask.  Clients that are silent, slow
or mad lose their connection; while MOST of them are served, others wait.  Disks
and rings are not known here: a snapshot is what the control socket's verbs say.
"""

import asyncio
import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any, Final

from xbbd_bsd.control.accept import awaited
from xbbd_bsd.control.families import Collector, Snapshot, library
from xbbd_bsd.errors import OperatorError, reason

Address = str | tuple[str, int]
"""The path of a socket, or a loopback address and a port."""

MOST: Final = 32  # connections at once
PATIENCE: Final = 2.0  # seconds for a request to arrive
TAKING: Final = 5.0  # seconds for an answer to be taken, or a snapshot to be made
HEAD: Final = 8192  # bytes of a request
AGE: Final = 3.0  # seconds for which a text does for all: one of 200 disks takes one to make
PAUSE: Final = 1.0  # seconds, when connections cannot be accepted
_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
_log = logging.getLogger("metrics")  # which the daemon's journal takes


class MetricsServer:
    """A listening socket and the thread that serves it."""

    def __init__(
        self,
        address: Address,
        snapshot: Callable[[], Snapshot],
        loop: asyncio.AbstractEventLoop,
        *,
        group: int | None = None,
    ) -> None:
        """Serve from now on; OperatorError if that cannot be, and what to do.

        `snapshot` is called on `loop` and must not wait.  Members of `group` may
        connect to a Unix socket besides the daemon's own user.
        """
        self._library = library()
        self._address = address
        self._snapshot = snapshot
        self._daemon_loop = loop
        self._listener = _listen(address)
        try:
            self.give_to(group)
        except OSError as error:
            self._close_listener()
            raise _refused(address, error) from None
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(MOST)
        self._exchanges: set[asyncio.Task[None]] = set()
        self._texts: dict[str, bytes] = {}
        self._taken: asyncio.Task[Snapshot] | None = None
        self._taken_at = 0.0
        self._main = self._loop.create_task(self._serve())
        self._thread = threading.Thread(target=self._run, name="xbbd metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on, 0 for a Unix socket."""
        name = self._listener.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def give_to(self, group: int | None) -> None:
        """Let members of a group connect, None for nobody but the daemon's user; OSError."""
        if isinstance(self._address, str):
            if group is not None:
                os.chown(self._address, -1, group)
            os.chmod(self._address, 0o600 if group is None else 0o660)

    def close(self) -> None:
        """Stop listening, end every connection and the thread, remove the socket."""
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()
        self._close_listener()

    def _close_listener(self) -> None:
        self._listener.close()
        if isinstance(self._address, str):
            with suppress(FileNotFoundError):
                os.unlink(self._address)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    async def _serve(self) -> None:
        try:
            while True:
                await self._slots.acquire()
                channel = await self._accept()
                task = self._loop.create_task(self._exchange(channel))
                self._exchanges.add(task)
                task.add_done_callback(self._ended)
        finally:
            tasks: list[asyncio.Task[Any]] = [*self._exchanges]
            if self._taken is not None:
                tasks.append(self._taken)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._exchanges.discard(task)
        self._slots.release()

    async def _accept(self) -> socket.socket:
        told = False
        while True:
            try:
                channel, _ = await self._loop.sock_accept(self._listener)
                channel.setblocking(False)
                return channel
            except OSError as error:  # it has gone again, or there are no descriptors left
                if error.errno == errno.ECONNABORTED:
                    continue
                if awaited(self._listener) and not told:
                    told = True
                    _log.warning(
                        "nobody is accepted just now: %s; see hw.xbbd.shortage", error.strerror
                    )
                await asyncio.sleep(PAUSE)

    async def _exchange(self, channel: socket.socket) -> None:
        """One request and its answer."""
        with channel:
            try:
                async with asyncio.timeout(PATIENCE):
                    head = await self._head(channel)
                if not head:
                    return
                answer = await self._answer(head)
                async with asyncio.timeout(TAKING):
                    await self._loop.sock_sendall(channel, answer)
            except (TimeoutError, OSError):
                pass

    async def _head(self, channel: socket.socket) -> bytes:
        """A request up to its empty line; nothing if it has none, or is too long."""
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            data = await self._loop.sock_recv(channel, HEAD)
            head += data
            if not data or len(head) > HEAD:
                return b""
        return head

    async def _answer(self, head: bytes) -> bytes:
        request = _Request(head)
        if request.accept is None:
            return request.answer()
        try:
            content_type, text = await self._text(request.accept)
        except (TimeoutError, RuntimeError):  # the daemon's loop is busy, or has ended
            return request.answer(503, "text/plain", b"the daemon does not answer\n")
        except Exception:
            _log.exception("an answer failed")
            return request.answer(500, "text/plain", b"internal error\n")
        return request.answer(200, content_type, text)

    async def _text(self, accept: str) -> tuple[str, bytes]:
        """In the format that a client likes best."""
        now = self._loop.time()
        failed = self._taken is not None and self._taken.done() and _failed(self._taken)
        if self._taken is None or failed or now - self._taken_at >= AGE:
            self._taken = self._loop.create_task(self._take())
            self._taken_at = now
            self._texts = {}
        texts = self._texts
        snapshot = await asyncio.shield(self._taken)
        # What is not one of the two names goes no further: it would be echoed.
        wanted = _OPENMETRICS if _OPENMETRICS.partition(";")[0] in accept else ""
        encode, content_type = self._library.exposition.choose_encoder(wanted)
        if content_type not in texts:
            texts[content_type] = encode(Collector(snapshot, self._library))
        return content_type, texts[content_type]

    async def _take(self) -> Snapshot:
        """A snapshot, taken on the daemon's loop; TimeoutError, RuntimeError."""
        future: Future[Snapshot] = Future()

        def take() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._snapshot())
                except Exception as error:
                    future.set_exception(error)

        self._daemon_loop.call_soon_threadsafe(take)
        async with asyncio.timeout(TAKING):
            return await asyncio.wrap_future(future)


def _failed(task: "asyncio.Task[Snapshot]") -> bool:
    return task.cancelled() or task.exception() is not None


class _Request(BaseHTTPRequestHandler):
    """A request in memory, and the answer to it; HTTP is the library's."""

    server_version = "xbbd"
    sys_version = ""

    def __init__(self, head: bytes) -> None:
        """Of a head; `accept` is None if there is an answer already."""
        # The base class would read from a socket; there is none here.
        self.rfile = BytesIO(head)
        self.wfile = self._answer = BytesIO()
        self.client_address = ("", 0)
        self.accept: str | None = None
        self.requestline = ""
        self.command = ""
        self.request_version = "HTTP/1.0"
        self.raw_requestline = self.rfile.readline(HEAD + 1)
        if not self.parse_request():
            return
        if self.command not in ("GET", "HEAD"):
            self.send_error(405)
        elif self.path.partition("?")[0] not in ("/", "/metrics"):
            self.send_error(404)
        else:
            self.accept = self.headers.get("Accept", "")

    def answer(self, code: int = 0, content_type: str = "", body: bytes = b"") -> bytes:
        """What to send."""
        if code:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        return self._answer.getvalue()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody wants to know."""


def check(address: Address) -> None:
    """That a MetricsServer could listen there; OperatorError.  Nothing is left of it."""
    try:
        if isinstance(address, str):
            _is_stale(address)
            directory = os.path.dirname(address)
            os.stat(os.path.join(directory, ""))
            if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            _bound(address).close()
    except OSError as error:
        raise OperatorError(reason(error), error.errno or 0) from None


def _listen(address: Address) -> socket.socket:
    """A socket that listens there, in place of one that a dead daemon left; OperatorError."""
    try:
        if isinstance(address, str) and _is_stale(address):
            os.unlink(address)
        listener = _bound(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        raise _refused(address, error) from None
    return listener


def _bound(address: Address) -> socket.socket:
    """A socket of that address; OSError."""
    if isinstance(address, str):
        family: int = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    bound = socket.socket(family)
    mask = os.umask(0o177)
    try:
        if not isinstance(address, str):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


def _is_stale(path: str) -> bool:
    """Whether there is a socket that nobody listens at; OSError if there is anything else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is something else of that name")
    except FileNotFoundError:
        pass  # but the name may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except FileNotFoundError:
        return False
    except BlockingIOError:
        pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _refused(address: Address, error: OSError) -> OperatorError:
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    return OperatorError(f"metrics {where}: {reason(error)}", error.errno or 0)
