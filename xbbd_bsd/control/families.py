"""What there is to say of daemon, disks and network cards, as families of metrics for
prometheus_client.

A snapshot is what the control socket's verbs say, so disks and rings are not known
here; nor is who asks for it, and how (metrics.py).  Runs on the metrics thread.
"""

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from xbbd_bsd.block.oids import DRIVER, OPERATIONS, RECORDS
from xbbd_bsd.control.cards import card_families
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.faults import DISK_OPERATIONS, GUEST_KINDS
from xbbd_bsd.oids import DAEMON_ROOT
from xbbd_bsd.stats import bucket_limit

Snapshot = Mapping[str, Mapping[str, Any]]
"""What there is to show: for every device, as "dev.xbbd.N", what the verb `stat` with
"latency" says of it, and for "hw.xbbd" the leaves of the daemon, without that prefix, and
as "health" how many findings there are of each severity."""

LIMITS: Final = tuple((1 << power) - 1 for power in range(14, 34))
"""Upper limits of the histograms' buckets in ns, 16 us to 9 s: limits of the data path's too,
so that every request is counted where it belongs."""

LIMITED: Final = (
    ("event_channels", "event_channels", 1, "max_event_channels", 1),
    ("threads", "threads", 1, "max_threads", 1),
    ("descriptors", "descriptors", 1, "max_descriptors", 1),
    ("buffer_bytes", "buffer_kb", 1 << 10, "max_buffer_mb", 1 << 20),
)
"""What is limited of all devices: its name, the leaves of use and bound, each with its unit."""

NO_ERROR: Final = {"EIO": 0}
"""What an operation has failed with before it ever did."""


class Collector:
    """A snapshot as families of metrics, as prometheus_client's registries want them."""

    def __init__(self, snapshot: Snapshot, prometheus: ModuleType) -> None:
        self._daemon = snapshot.get(DAEMON_ROOT, {})
        self._devices = {
            oid: values for oid, values in snapshot.items() if oid.startswith(f"{DRIVER.root}.")
        }
        self._core = prometheus.metrics_core
        self._cards = card_families(snapshot, prometheus)

    def collect(self) -> Iterator[Any]:
        """Every family."""
        yield from self._of_daemon()
        yield from self._of_disks()
        yield from self._of_records()
        yield from self._errors()
        yield self._latency()
        yield from self._cards

    def _of_daemon(self) -> Iterator[Any]:
        # Of its devices, those that are shown.
        core, daemon = self._core, {**self._daemon, "disks": len(self._devices)}
        build = core.InfoMetricFamily("xbbd_build", "Version of the daemon, and what it serves")
        build.add_metric([], {name: _text(daemon.get(name, "")) for name in ("version", "host")})
        yield build
        for name, text, leaf, unit in (
            ("xbbd_uptime_seconds", "Seconds since the daemon started", "uptime", 1),
            ("xbbd_resident_memory_max_bytes", "Most memory resident so far", "maxrss_kb", 1024),
            ("xbbd_disks", "Disks there are", "disks", 1),
            ("xbbd_store_connected", "Whether XenStore answers", "store_connected", 1),
            ("xbbd_mappings", "Mappings of guests' memory, kept or set aside", "mappings", 1),
            ("xbbd_grants", "Grants that stay mapped", "grants", 1),
        ):
            yield core.GaugeMetricFamily(name, text, value=int(daemon.get(leaf, 0)) * unit)
        used = core.GaugeMetricFamily(
            "xbbd_limited_used", "What all devices have taken of it", labels=["resource"]
        )
        most = core.GaugeMetricFamily(
            "xbbd_limited_max", "What all devices together may take", labels=["resource"]
        )
        for name, leaf, unit, limit, limit_unit in LIMITED:
            used.add_metric([name], int(daemon.get(leaf, 0)) * unit)
            most.add_metric([name], int(daemon.get(limit, 0)) * limit_unit)
        yield from (used, most)
        health = core.GaugeMetricFamily(
            "xbbd_health", "How much is wrong, as xbbctl health says", labels=["severity"]
        )
        for severity, count in daemon.get("health", {}).items():
            health.add_metric([severity], count)
        yield health
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
        paused = core.GaugeMetricFamily(
            "xbbd_disk_paused",
            "Whether an operator, or an error, keeps requests back",
            labels=["device", "by"],
        )
        inflight = core.GaugeMetricFamily(
            "xbbd_disk_inflight_requests", "Requests accepted and not answered", labels=["device"]
        )
        takeovers = core.CounterMetricFamily(
            "xbbd_disk_takeovers",
            "Times that another process went on where the one that served it had died",
            labels=["device"],
        )
        throttled = core.CounterMetricFamily(
            "xbbd_disk_throttled", "I/O dispatches that a limit has held back", labels=["device"]
        )
        throttled_seconds = core.CounterMetricFamily(
            "xbbd_disk_throttled_seconds",
            "Seconds for which limits have held some back",
            labels=["device"],
        )
        longest = core.GaugeMetricFamily(
            "xbbd_disk_takeover_longest_seconds",
            "Longest that a request in flight had waited for the next process",
            labels=["device"],
        )
        memory = core.GaugeMetricFamily(
            "xbbd_disk_process_resident_memory_bytes",
            "Memory resident of the process that serves it",
            labels=["device"],
        )
        age = core.GaugeMetricFamily(
            "xbbd_disk_process_age_seconds",
            "Seconds since the process that serves it began",
            labels=["device"],
        )
        for oid, values in self._devices.items():
            if values.get("process"):
                memory.add_metric([oid], values["process_rss_kb"] * 1024)
                age.add_metric([oid], values["process_age"])
            facts = {
                name: _text(values.get(name, "")) for name in ("domid", "guest", "vdev", "path")
            }
            info.add_metric([oid], {"unit": oid.rpartition(".")[2], **facts})
            connected.add_metric([oid], int(values.get("state") == "Connected"))
            if "sectors" in values:
                if values["sectors"]:  # else it has not been open yet
                    size.add_metric([oid], values["sectors"] * 512)
                inflight.add_metric([oid], values["inflight"])
                for by in ("operator", "error"):
                    paused.add_metric([oid, by], int(values.get("paused", "") in (by, "both")))
                throttled.add_metric([oid], values.get("throttled", 0))
                throttled_seconds.add_metric([oid], values.get("throttled_ns", 0) / 1e9)
                takeovers.add_metric([oid], values["takeovers"])
                longest.add_metric([oid], values["takeover_longest_ms"] / 1e3)
        yield from (info, connected, size, paused, inflight, throttled, throttled_seconds)
        yield from (takeovers, longest, memory, age)

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
