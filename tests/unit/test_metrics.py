"""The metrics endpoint: what the text says, and clients good, slow, silent and mad."""

import asyncio
import errno
import gc
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from tests.descriptors import no_descriptors
from tests.waiting import eventually
from xbbd_bsd.control import metrics as module
from xbbd_bsd.control.accept import awaited
from xbbd_bsd.control.families import Snapshot
from xbbd_bsd.control.metrics import Address, MetricsServer
from xbbd_bsd.errors import OperatorError

GIB = 1 << 30
KIND = {"operations": 0, "bytes": 0, "duration_ns": 0}
RECORD = {
    "start_count": 12,
    "end_count": 10,
    "flush": {"operations": 1, "bytes": 0, "duration_ns": 20_000_000},
    "read": {"operations": 6, "bytes": 24576, "duration_ns": 3_000_000},
    "write": {"operations": 3, "bytes": 12288, "duration_ns": 1_500_000},
    "discard": KIND,
    "tag_simple": 9,
    "tag_ordered": 1,
    "busy_ns": 2_500_000_000,
    "busy_rings_ns": [2_500_000_000, 7_000_000_000],
}
REFUSED = {"read_only": 5, "beyond_end": 6, "grants": 0, "malformed": 0}
DEVICE: Mapping[str, Any] = {
    "names": ["xbb0", "xbbi0"],
    "domid": 3,
    "guest": "vm",
    "vdev": "xvda",
    "path": "/tank/vm.img",
    "state": "Connected",
    "now_ns": 100,
    "sectors": 2 * GIB // 512,
    "inflight": 2,
    "throttled": 12,
    "throttled_ns": 2_500_000_000,
    "takeovers": 3,
    "takeover_longest_ms": 1250,
    "process": 4711,
    "process_rss_kb": 6000,
    "process_age": 86400,
    "xbb": RECORD,
    "xbbi": {**RECORD, "errors": REFUSED},
    "disk_errors": {"write": {"ENOSPC": 311, "EIO": 2}, "read": {"other": 1}},
    "latency": {"flush": {}, "read": {"50": 2, "90": 4}, "write": {"319": 3}, "discard": {}},
}
DAEMON = {
    "version": "1.2",
    "host": "xen",
    "uptime": 77,
    "devices": 3,
    "maxrss_kb": 1000,
    "store_connected": 1,
    "lines_left_out": 4,
    "mappings": 300,
    "grants": 200,
    "health": {"error": 2, "warning": 0},
}
SNAPSHOT: Snapshot = {
    "hw.xbbd": DAEMON,
    "dev.xbbd.0": DEVICE,
    "dev.xbbd.1": {"names": ["xbb1", "xbbi1"], "domid": 4, "state": "InitWait"},
    "dev.other.0": {"domid": 4, "state": "Connected", "inflight": 9, "sectors": 8},
}
WHO = {"device": "dev.xbbd.0", "guest": "vm", "vdev": "xvda"}


class Daemon:
    """A control loop on a thread of its own, and the endpoint."""

    def __init__(self, address: Address, **options: Any) -> None:
        self.snapshot: Callable[[], Snapshot] = lambda: SNAPSHOT
        self.asked = 0
        self.asked_by: threading.Thread | None = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        try:
            self.server = MetricsServer(address, self.take, self.loop, **options)
        except BaseException:
            self._end()
            raise
        self.address = address if isinstance(address, str) else (address[0], self.server.port)

    def take(self) -> Snapshot:
        self.asked += 1
        self.asked_by = threading.current_thread()
        return self.snapshot()

    def connect(self) -> socket.socket:
        family: int = socket.AF_UNIX
        if not isinstance(self.address, str):
            family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        channel = socket.socket(family)
        channel.settimeout(15)
        channel.connect(self.address)
        return channel

    def get(self, accept: str = "", path: str = "/metrics", method: str = "GET") -> tuple[str, str]:
        """Head and body of an answer."""
        with self.connect() as channel:
            channel.sendall(f"{method} {path} HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
            head, _, body = everything(channel).decode().partition("\r\n\r\n")
            return head, body

    def close(self) -> None:
        self.server.close()
        self._end()

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def everything(channel: socket.socket) -> bytes:
    found = b""
    while data := channel.recv(65536):
        found += data
    return found


def held() -> tuple[int, int]:
    """Threads, and descriptors where the platform tells."""
    gc.collect()  # what earlier tests have left in circles
    there = os.path.isdir("/proc/self/fd")
    return threading.active_count(), len(os.listdir("/proc/self/fd")) if there else 0


@pytest.fixture
def daemon(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    before = held()
    running = Daemon(str(short_path / "metrics"))
    yield running
    running.close()
    assert not os.path.exists(str(short_path / "metrics"))
    assert held() == before


def samples(text: str, parse: Callable[[str], Any]) -> dict[tuple[str, frozenset[Any]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(
    found: Mapping[tuple[str, frozenset[Any]], float], name: str, **labels: str
) -> float | None:
    return found.get((name, frozenset(labels.items())))


FORMATS = [
    ("application/openmetrics-text; version=1.0.0", openmetrics),
    ("text/plain", plain),
    ("", plain),
]


@pytest.mark.parametrize(("accept", "parse"), FORMATS)
def test_what_is_said(daemon: Daemon, accept: str, parse: Callable[[str], Any]) -> None:
    head, body = daemon.get(accept)
    assert head.startswith("HTTP/1.0 200 ")
    found = samples(body, parse)
    assert value(found, "xbbd_build_info", version="1.2", host="xen") == 1
    assert value(found, "xbbd_uptime_seconds") == 77
    assert value(found, "xbbd_disks") == 2
    assert value(found, "xbbd_resident_memory_max_bytes") == 1024000
    assert value(found, "xbbd_store_connected") == 1
    assert value(found, "xbbd_mappings") == 300
    assert value(found, "xbbd_grants") == 200
    assert value(found, "xbbd_log_lines_left_out_total") == 4
    assert value(found, "xbbd_health", severity="error") == 2
    assert value(found, "xbbd_health", severity="warning") == 0
    facts = {"unit": "0", "domid": "3", "guest": "vm", "vdev": "xvda", "path": "/tank/vm.img"}
    assert value(found, "xbbd_disk_info", device="dev.xbbd.0", **facts) == 1
    assert value(found, "xbbd_disk_connected", device="dev.xbbd.0") == 1
    assert value(found, "xbbd_disk_size_bytes", device="dev.xbbd.0") == 2 * GIB
    assert value(found, "xbbd_disk_inflight_requests", device="dev.xbbd.0") == 2
    assert value(found, "xbbd_disk_throttled_total", device="dev.xbbd.0") == 12
    assert value(found, "xbbd_disk_throttled_seconds_total", device="dev.xbbd.0") == 2.5
    assert value(found, "xbbd_disk_takeovers_total", device="dev.xbbd.0") == 3
    assert value(found, "xbbd_disk_takeover_longest_seconds", device="dev.xbbd.0") == 1.25
    memory, age = "xbbd_disk_process_resident_memory_bytes", "xbbd_disk_process_age_seconds"
    assert value(found, memory, device="dev.xbbd.0") == 6000 * 1024
    assert value(found, age, device="dev.xbbd.0") == 86400
    assert value(found, memory, device="dev.xbbd.1") is None, "nobody serves it"
    for record in ("xbb", "xbbi"):
        who = {**WHO, "record": record}
        for name, amount in (
            ("xbbd_disk_operations_total", 6),
            ("xbbd_disk_bytes_total", 24576),
            ("xbbd_disk_operation_seconds_total", 0.003),
        ):
            assert value(found, name, **who, operation="read") == amount
        assert value(found, "xbbd_disk_ordered_operations_total", **who) == 1
        assert value(found, "xbbd_disk_busy_seconds_total", ring="0", **who) == 2.5
        assert value(found, "xbbd_disk_busy_seconds_total", ring="1", **who) == 7.0
        assert value(found, "xbbd_disk_queue_length", **who) == 2
    assert value(found, "xbbd_disk_latency_seconds_count", **WHO, operation="read") == 6
    assert value(found, "xbbd_disk_latency_seconds_sum", **WHO, operation="read") == 0.003
    assert value(found, "xbbd_disk_latency_seconds_count", **WHO, operation="flush") is None


def test_a_disk_that_was_never_open_has_no_size(daemon: Daemon) -> None:
    daemon.snapshot = lambda: {**SNAPSHOT, "dev.xbbd.0": {**DEVICE, "sectors": 0}}
    found = samples(daemon.get()[1], plain)
    assert value(found, "xbbd_disk_size_bytes", device="dev.xbbd.0") is None
    assert value(found, "xbbd_disk_inflight_requests", device="dev.xbbd.0") == 2


def test_errors_are_told_by_blame(daemon: Daemon) -> None:
    """Each operation has a number before it ever failed, so that the first is an increase."""
    for accept, parse in FORMATS:
        found = samples(daemon.get(accept)[1], parse)
        disk = {
            (dict(labels)["operation"], dict(labels)["errno"]): number
            for (name, labels), number in found.items()
            if name == "xbbd_disk_errors_total"
        }
        assert disk == {
            ("write", "ENOSPC"): 311,
            ("write", "EIO"): 2,
            ("read", "other"): 1,
            **dict.fromkeys((("read", "EIO"), ("flush", "EIO"), ("discard", "EIO")), 0),
        }
        for kind, number in REFUSED.items():
            assert value(found, "xbbd_guest_errors_total", **WHO, kind=kind) == number


def test_a_device_without_a_state_segment_is_there_and_has_no_numbers(daemon: Daemon) -> None:
    found = samples(daemon.get()[1], plain)
    assert value(found, "xbbd_disk_connected", device="dev.xbbd.1") == 0
    assert not [
        name
        for name, labels in found
        if ("device", "dev.xbbd.1") in labels
        and name not in ("xbbd_disk_connected", "xbbd_disk_info")
    ]


def test_names_follow_the_conventions(daemon: Daemon) -> None:
    body = daemon.get(FORMATS[0][0])[1]
    assert "_created" not in body
    assert body.endswith("# EOF\n")
    families = list(openmetrics(body))  # type: ignore[no-untyped-call]
    for family in families:
        assert family.name.startswith("xbbd_")
        assert family.documentation
        assert not family.name.endswith(("_ms", "_ns", "_kb"))


def test_what_a_name_may_hold_does_not_break_the_text(daemon: Daemon) -> None:
    odd = 'a"b\\c\nd\udcff}'
    daemon.snapshot = lambda: {"hw.xbbd": DAEMON, "dev.xbbd.0": {**DEVICE, "guest": odd}}
    for accept, parse in FORMATS:
        found = samples(daemon.get(accept)[1], parse)
        guests = {dict(labels)["guest"] for _, labels in found if ("record", "xbb") in labels}
        assert guests == {'a"b\\c\nd\\udcff}'}


def test_the_snapshot_is_taken_on_the_daemons_thread_and_shared(daemon: Daemon) -> None:
    for _ in range(5):
        daemon.get()
    assert daemon.asked_by is daemon.thread
    assert daemon.asked < 5


def test_a_snapshot_is_not_kept_for_long(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGE", 0.0)
    daemon.get()
    daemon.snapshot = lambda: {"hw.xbbd": {**DAEMON, "uptime": 78}}
    assert value(samples(daemon.get()[1], plain), "xbbd_uptime_seconds") == 78


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/", 200), ("GET", "/metrics?x=1", 200), ("HEAD", "/metrics", 200),
     ("GET", "/other", 404), ("POST", "/metrics", 405), ("X" * 100, "/", 405)],
)  # fmt: skip
def test_methods_and_paths(daemon: Daemon, method: str, path: str, code: int) -> None:
    head, body = daemon.get(method=method, path=path)
    assert head.split()[1] == str(code)
    assert (body == "") == (method == "HEAD")


@pytest.mark.parametrize(
    "sent",
    [b"\r\n\r\n", b"x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100 + b"\r\n\r\n",
     b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"x" * 100_000, b"\xff\xfe\r\n\r\n",
     b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text; version=x\r\n\r\n"],
)  # fmt: skip
def test_a_mad_client_is_answered_or_dropped(daemon: Daemon, sent: bytes) -> None:
    with daemon.connect() as channel:
        try:
            channel.sendall(sent)
            answer = everything(channel)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
    assert answer == b"" or b"HTTP/1.0 " in answer or b"Error" in answer
    assert daemon.get()[0].split()[1] == "200"


def test_a_silent_client_is_dropped_and_keeps_nobody_waiting(daemon: Daemon) -> None:
    with daemon.connect() as silent, daemon.connect() as half:
        half.sendall(b"GET /metrics HT")
        assert daemon.get()[0].split()[1] == "200"
        assert silent.recv(1) == b""
        assert half.recv(1) == b""


def test_a_client_that_closes_its_half_is_answered(daemon: Daemon) -> None:
    with daemon.connect() as channel:
        channel.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        channel.shutdown(socket.SHUT_WR)
        assert everything(channel).startswith(b"HTTP/1.0 200 ")


def test_a_client_that_does_not_read_is_dropped(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKING", 0.3)
    many = {f"dev.xbbd.{unit}": DEVICE for unit in range(200)}
    daemon.snapshot = lambda: {"hw.xbbd": DAEMON, **many}
    with daemon.connect() as lazy:
        lazy.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = daemon.get()[1]
        assert text.count("xbbd_disk_connected{") == 200
        eventually(lambda: not daemon.server._exchanges, "the lazy client is dropped")
        assert len(everything(lazy)) < len(text)


def test_fifty_at_once(daemon: Daemon) -> None:
    channels = [daemon.connect() for _ in range(50)]
    for channel in channels:
        channel.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    for channel in channels:
        with channel:
            assert everything(channel).startswith(b"HTTP/1.0 200 ")
    assert daemon.asked <= 3


def test_silent_clients_beyond_the_limit_only_delay(daemon: Daemon) -> None:
    silent = [daemon.connect() for _ in range(module.MOST + 8)]
    assert daemon.get()[0].split()[1] == "200"
    for channel in silent:
        channel.close()


def test_a_busy_daemon_is_no_reason_to_wait_for_ever(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKING", 0.1)
    go_on = threading.Event()
    daemon.loop.call_soon_threadsafe(go_on.wait, 30)
    assert daemon.get()[0].split()[1] == "503"
    go_on.set()
    assert daemon.get()[0].split()[1] == "200"


def test_an_error_of_ours_is_logged_and_answered(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.snapshot = lambda: {"dev.xbbd.0": {"xbb": {}}}
    head, body = daemon.get()
    assert head.split()[1] == "500"
    assert body == "internal error\n"
    assert "an answer failed" in caplog.text
    daemon.snapshot = lambda: SNAPSHOT
    assert daemon.server.port == 0


def test_out_of_descriptors_is_said_once_and_only_while_somebody_waits(
    daemon: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    tried: list[bool] = []

    def looked(listening: socket.socket) -> bool:
        tried.append(found := awaited(listening))
        return found

    monkeypatch.setattr(module, "awaited", looked)
    daemon.get()  # loads what it needs
    with (
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
        no_descriptors(but=1),
    ):
        for channel in (first, second):
            channel.settimeout(15)
        first.connect(daemon.address)
        eventually(lambda: tried[-3:] == [False] * 3, "it has the last one, nobody waits")
        assert not caplog.records
        second.connect(daemon.address)
        eventually(lambda: tried[-3:] == [True] * 3, "the second waits")
        for channel in (first, second):
            channel.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert everything(channel).startswith(b"HTTP/1.0 200 ")
    assert [record.getMessage() for record in caplog.records] == [
        "nobody is accepted just now: Too many open files; see hw.xbbd.shortage"
    ]


def test_closing_while_clients_are_there_leaves_nothing(short_path: Path) -> None:
    before = held()
    running = Daemon(str(short_path / "metrics"))
    blocked = threading.Event()
    running.loop.call_soon_threadsafe(blocked.wait, 30)
    with running.connect() as silent, running.connect() as waiting:
        waiting.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        eventually(lambda: running.server._taken is not None, "a snapshot is being waited for")
        running.server.close()  # though the daemon's loop does nothing
        assert silent.recv(1) == b""
        assert waiting.recv(1) == b""
    blocked.set()
    running._end()
    assert held() == before


@pytest.mark.parametrize("address", [("127.0.0.1", 0), ("::1", 0)])
def test_by_tcp(address: tuple[str, int]) -> None:
    try:
        running = Daemon(address)
    except OperatorError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            pytest.skip(str(error))
        raise
    try:
        assert running.get()[0].split()[1] == "200"
        with pytest.raises(OperatorError, match=r"^metrics .*: Address already in use$"):
            Daemon(running.address)
    finally:
        running.close()


def test_who_may_connect(short_path: Path) -> None:
    path = str(short_path / "metrics")
    running = Daemon(path)
    try:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        running.server.give_to(os.getegid())
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert os.stat(path).st_gid == os.getegid()
    finally:
        running.close()


def test_what_a_dead_daemon_left_is_replaced_and_nothing_else(short_path: Path) -> None:
    path = short_path / "metrics"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    running = Daemon(str(path))
    try:
        assert running.get()[0].split()[1] == "200"
        with pytest.raises(OperatorError, match="Address already in use"):
            Daemon(str(path))
    finally:
        running.close()
    path.write_text("precious")
    with pytest.raises(OperatorError, match="something else of that name"):
        Daemon(str(path))
    assert path.read_text() == "precious"
    with pytest.raises(OperatorError, match="No such file or directory"):
        Daemon(str(short_path / "no" / "metrics"))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    for name in list(sys.modules):
        if name.startswith("prometheus_client"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [])
    before = held()
    with pytest.raises(OperatorError, match="net-mgmt/py-prometheus-client"):
        Daemon(str(short_path / "metrics"))
    assert held() == before
    assert not os.path.exists(short_path / "metrics")
