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
import importlib
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from types import ModuleType
from typing import Any, Final

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.faults import DISK_OPERATIONS, GUEST_KINDS
from xbbd_bsd.oids import DAEMON_ROOT, OPERATIONS, RECORDS, ROOT
from xbbd_bsd.stats import bucket_limit

Address = str | tuple[str, int]
"""The path of a socket, or a loopback address and a port."""

Snapshot = Mapping[str, Mapping[str, Any]]
"""What there is to show: for every device "dev.xbbd.N" what the verb `stat` with
"latency" says of it, and for "hw.xbbd" the leaves of the daemon, without that prefix."""

MOST: Final = 32  # connections at once
PATIENCE: Final = 2.0  # seconds for a request to arrive
TAKING: Final = 5.0  # seconds for an answer to be taken, or a snapshot to be made
HEAD: Final = 8192  # bytes of a request
AGE: Final = 3.0  # seconds for which a text does for all: one of 200 disks takes one to make
PAUSE: Final = 1.0  # seconds, when connections cannot be accepted
LIMITS: Final = tuple((1 << power) - 1 for power in range(14, 34))
"""Upper limits of the histograms' buckets in ns, 16 us to 9 s: limits of the data path's too,
so that every request is counted where it belongs."""

LIMITED: Final = (
    ("event_channels", "event_channels", 1, "max_event_channels", 1),
    ("threads", "threads", 1, "max_threads", 1),
    ("descriptors", "descriptors", 1, "max_descriptors", 1),
    ("buffer_bytes", "buffer_kb", 1 << 10, "max_buffer_mb", 1 << 20),
)
"""What is limited of all disks: its name, the leaves of use and bound, each with its unit."""

NO_ERROR: Final = {"EIO": 0}
"""What an operation has failed with before it ever did."""

_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
_log = logging.getLogger("xbbd")


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
        while True:
            try:
                channel, _ = await self._loop.sock_accept(self._listener)
                channel.setblocking(False)
                return channel
            except OSError as error:  # it has gone again, or there are no descriptors left
                if error.errno != errno.ECONNABORTED:
                    _log.warning("metrics: %s", error.strerror)
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
            _log.exception("metrics: internal error, please report it")
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


class Collector:
    """A snapshot as families of metrics, as prometheus_client's registries want them."""

    def __init__(self, snapshot: Snapshot, prometheus: ModuleType) -> None:
        self._daemon = snapshot.get(DAEMON_ROOT, {})
        self._devices = {
            oid: values for oid, values in snapshot.items() if oid.startswith(f"{ROOT}.")
        }
        self._core = prometheus.metrics_core

    def collect(self) -> Iterator[Any]:
        """Every family."""
        yield from self._of_daemon()
        yield from self._of_disks()
        yield from self._of_records()
        yield from self._errors()
        yield self._latency()

    def _of_daemon(self) -> Iterator[Any]:
        core, daemon = self._core, self._daemon
        build = core.InfoMetricFamily("xbbd_build", "Version of the daemon, and what it serves")
        build.add_metric([], {name: _text(daemon.get(name, "")) for name in ("version", "host")})
        yield build
        for name, text, leaf, unit in (
            ("xbbd_uptime_seconds", "Seconds since the daemon started", "uptime", 1),
            ("xbbd_resident_memory_max_bytes", "Most memory resident so far", "maxrss_kb", 1024),
            ("xbbd_disks", "Disks there are", "devices", 1),
            ("xbbd_mappings", "Mappings of guests' memory, kept or set aside", "mappings", 1),
            ("xbbd_grants", "Grants that stay mapped", "grants", 1),
        ):
            yield core.GaugeMetricFamily(name, text, value=int(daemon.get(leaf, 0)) * unit)
        used = core.GaugeMetricFamily(
            "xbbd_limited_used", "What all disks have taken of it", labels=["resource"]
        )
        most = core.GaugeMetricFamily(
            "xbbd_limited_max", "What all disks together may take", labels=["resource"]
        )
        for name, leaf, unit, limit, limit_unit in LIMITED:
            used.add_metric([name], int(daemon.get(leaf, 0)) * unit)
            most.add_metric([name], int(daemon.get(limit, 0)) * limit_unit)
        yield from (used, most)
        yield core.CounterMetricFamily(
            "xbbd_log_lines_left_out",
            "Log lines that guests caused beyond their rate",
            value=int(daemon.get("lines_left_out", 0)),
        )

    def _of_disks(self) -> Iterator[Any]:
        core = self._core
        info = core.InfoMetricFamily("xbbd_disk", "Whose disk a device is", labels=["device"])
        connected = core.GaugeMetricFamily(
            "xbbd_disk_connected", "Whether a guest is connected", labels=["device"]
        )
        size = core.GaugeMetricFamily("xbbd_disk_size_bytes", "Size of the disk", labels=["device"])
        inflight = core.GaugeMetricFamily(
            "xbbd_disk_inflight_requests", "Requests accepted and not answered", labels=["device"]
        )
        for oid, values in self._devices.items():
            facts = {
                name: _text(values.get(name, "")) for name in ("domid", "guest", "vdev", "path")
            }
            info.add_metric([oid], {"unit": oid.rpartition(".")[2], **facts})
            connected.add_metric([oid], int(values.get("state") == "Connected"))
            if "sectors" in values:
                size.add_metric([oid], values["sectors"] * 512)
                inflight.add_metric([oid], values["inflight"])
        yield from (info, connected, size, inflight)

    def _of_records(self) -> Iterator[Any]:
        """The records of devstat(9): "xbb" as given to the disk, "xbbi" as the guest asked."""
        labels = ["device", "guest", "vdev", "record"]
        kind_labels = [*labels, "operation"]
        counter, gauge = self._core.CounterMetricFamily, self._core.GaugeMetricFamily
        operations = counter("xbbd_disk_operations", "Transactions ended", labels=kind_labels)
        moved = counter("xbbd_disk_bytes", "Bytes of transactions", labels=kind_labels)
        seconds = counter(
            "xbbd_disk_operation_seconds", "Time that transactions took", labels=kind_labels
        )
        ordered = counter("xbbd_disk_ordered_operations", "Barriers ended", labels=labels)
        busy = counter(
            "xbbd_disk_busy_seconds", "Time with anything under way", labels=[*labels, "ring"]
        )
        queue = gauge("xbbd_disk_queue_length", "Transactions under way", labels=labels)
        for oid, values in self._devices.items():
            for record in RECORDS:
                if record not in values:
                    continue
                counts = values[record]
                these = [*_labels(oid, values), record]
                for operation in OPERATIONS:
                    kind = counts[operation]
                    operations.add_metric([*these, operation], kind["operations"])
                    if operation != "flush":
                        moved.add_metric([*these, operation], kind["bytes"])
                    seconds.add_metric([*these, operation], kind["duration_ns"] / 1e9)
                ordered.add_metric(these, counts["tag_ordered"])
                for ring, busy_ns in enumerate(counts["busy_rings_ns"]):
                    busy.add_metric([*these, str(ring)], busy_ns / 1e9)
                queue.add_metric(these, max(0, counts["start_count"] - counts["end_count"]))
        yield from (operations, moved, seconds, ordered, busy, queue)

    def _errors(self) -> Iterator[Any]:
        """Requests that failed: the host's fault, and the guest's.

        Each operation and kind has a metric before there is an error, so that the first is
        an increase.
        """
        counter, labels = self._core.CounterMetricFamily, ["device", "guest", "vdev"]
        disk = counter(
            "xbbd_disk_errors",
            "Requests that the disk failed, the host's fault",
            labels=[*labels, "operation", "errno"],
        )
        guest = counter(
            "xbbd_guest_errors", "Requests refused, the guest's fault", labels=[*labels, "kind"]
        )
        for oid, values in self._devices.items():
            if "disk_errors" not in values:
                continue
            these = _labels(oid, values)
            for operation in DISK_OPERATIONS:
                for name, count in {**NO_ERROR, **values["disk_errors"].get(operation, {})}.items():
                    disk.add_metric([*these, operation, name], count)
            for kind in GUEST_KINDS:
                guest.add_metric([*these, kind], values["xbbi"]["errors"].get(kind, 0))
        yield from (disk, guest)

    def _latency(self) -> Any:
        family = self._core.HistogramMetricFamily(
            "xbbd_disk_latency_seconds",
            "Time from a request's arrival to its answer",
            labels=["device", "guest", "vdev", "operation"],
        )
        for oid, values in self._devices.items():
            for operation, histogram in values.get("latency", {}).items():
                if not histogram:
                    continue  # a third of the text, to say nothing
                buckets = folded({int(bucket): count for bucket, count in histogram.items()})
                total = values["xbbi"][operation]["duration_ns"] / 1e9
                family.add_metric([*_labels(oid, values), operation], buckets, total)
        return family


def folded(histogram: Mapping[int, int]) -> list[tuple[str, int]]:
    """Prometheus's buckets, (limit in seconds, how many up to it), of the data path's."""
    found = []
    seen = 0
    left = sorted(histogram.items())
    for limit in LIMITS:
        while left and bucket_limit(left[0][0]) <= limit:
            seen += left.pop(0)[1]
        found.append((repr(limit / 1e9), seen))
    return [*found, ("+Inf", seen + sum(count for _, count in left))]


def library() -> ModuleType:
    """prometheus_client; OperatorError that says where to get it."""
    try:
        found = importlib.import_module("prometheus_client")
        importlib.import_module("prometheus_client.exposition")
        importlib.import_module("prometheus_client.metrics_core")
    except ImportError:
        raise OperatorError(
            "metrics need the Python package prometheus_client: install FreeBSD's port"
            " net-mgmt/py-prometheus-client, or prometheus-client with pip"
        ) from None
    return found


def _labels(oid: str, values: Mapping[str, Any]) -> list[str]:
    return [oid, _text(values.get("guest", "")), _text(values.get("vdev", ""))]


def _text(value: object) -> str:
    """A label's value: what a path may hold and UTF-8 may not is escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _listen(address: Address) -> socket.socket:
    """A socket that listens there, in place of one that a dead daemon left; OperatorError."""
    if isinstance(address, str):
        family: int = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family)
    mask = os.umask(0o177)
    try:
        if isinstance(address, str):
            _sweep(address)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _refused(address, error) from None
    finally:
        os.umask(mask)
    return listener


def _sweep(path: str) -> None:
    """Remove a socket that nobody listens at; OSError if there is anything else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is something else of that name")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
    else:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _refused(address: Address, error: OSError) -> OperatorError:
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    return OperatorError(f"metrics {where}: {error.strerror or error}", error.errno or 0)
