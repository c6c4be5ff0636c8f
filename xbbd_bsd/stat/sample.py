"""Two samples of devstat records to rates, by the arithmetic of devstat(3).

A sample is what the control socket's `stat` verb says of all devices at one
time.  Everything here is as devstat_compute_statistics() does it, but that
%busy counts the period under way, so that a disk which hangs is 100 % busy.
Who asks the daemon and who prints is not known here.  Pure; any thread.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final, Protocol, TypeVar

from xbbd_bsd.block.oids import DRIVER, OPERATIONS, RECORDS
from xbbd_bsd.errors import one_line
from xbbd_bsd.oids import split
from xbbd_bsd.stat.cards import CardRate, CardRecord, card_rate, read_cards
from xbbd_bsd.stats import percentile

_NS: Final = 1_000_000_000

Histogram = Mapping[int, int]
"""How many requests fell into a bucket (stats.bucket_limit)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Transactions of one kind since the device was made; time in nanoseconds."""

    operations: int = 0
    bytes: int = 0
    duration_ns: int = 0


_NOTHING: Final = Kind()


@dataclass(frozen=True, slots=True)
class Process:
    """The process that serves a device, zeros if none does; `age` in seconds.

    `takeovers`: how often another one went on where one had died.
    """

    pid: int = 0
    rss_kb: int = 0
    age: int = 0
    takeovers: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One of the two records of a device: xbbN, as given to the disk, or xbbiN, as asked for.

    Times in nanoseconds of the daemon's clock; `created_ns` None if not known.
    `errors`: of xbbN by operation that the disk failed, of xbbiN by what the guest did wrong.
    `latency` is by operation, of xbbiN only: it is the guest who waits.  `paused`: who keeps
    requests back, "" if nobody does.
    """

    name: str
    record: str
    unit: int
    domid: int
    guest: str
    vdev: str
    path: str
    state: str
    now_ns: int
    created_ns: int | None
    start_count: int
    end_count: int
    kinds: Mapping[str, Kind]
    busy_rings_ns: tuple[int, ...]  # of each ring, the period under way included
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, Histogram] = field(default_factory=dict)
    process: Process = Process()
    paused: str = ""
    throttled: int = 0  # dispatches that a limit has held back
    throttled_ns: int = 0  # for how long

    @property
    def label(self) -> str:
        """Whose disk it is: "guest:vdev"; and that it is paused, if it is."""
        paused = f", paused ({self.paused})" if self.paused else ""
        return f"{self.guest or self.domid}:{self.vdev}{paused}"

    def follows(self, other: "Record") -> bool:
        """Whether the counters are those of `other`, later: neither another disk, nor a new one."""
        same = (self.domid, self.vdev, self.path) == (other.domid, other.vdev, other.path)
        pairs = [
            (self.now_ns, other.now_ns),
            (self.start_count, other.start_count),
            (self.end_count, other.end_count),
        ]
        for operation in OPERATIONS:
            mine, theirs = self.kinds[operation], other.kinds[operation]
            pairs.append((mine.operations, theirs.operations))
            pairs.append((mine.bytes, theirs.bytes))
            pairs.append((mine.duration_ns, theirs.duration_ns))
        return (
            same
            and (self.created_ns == other.created_ns or None in (self.created_ns, other.created_ns))
            and all(now >= before for now, before in pairs)
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """All records at one time, in order of unit; `daemon` is the process that counted.

    `uptime` is the daemon's, in seconds.  `cards`: the network cards, which have no such
    records.
    """

    records: Mapping[str, Record]
    daemon: int
    uptime: int
    cards: Mapping[str, CardRecord] = field(default_factory=dict)

    @property
    def now_ns(self) -> int | None:
        """When it was taken, None if no device could tell."""
        counted: list[Record | CardRecord] = [*self.records.values(), *self.cards.values()]
        return max((record.now_ns for record in counted), default=None)


@dataclass(frozen=True, slots=True)
class KindRate:
    """What one kind of transactions did in an interval; the first three are totals."""

    operations: int
    bytes: int
    duration_ns: int
    per_second: float
    kib_per_second: float
    ms: float
    """Milliseconds a transaction, 0 if there was none."""

    @property
    def kib(self) -> float:
        """KiB a transaction, 0 if there was none."""
        return self.bytes / 1024 / self.operations if self.operations else 0.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What a record did in an interval of `elapsed` seconds."""

    record: Record
    elapsed: float
    queue: int
    busy_seconds: float
    busy_percent: float
    kinds: Mapping[str, KindRate]
    total: KindRate
    errors: Mapping[str, int]
    errors_per_second: float
    percentiles: Mapping[str, Mapping[float, float]]
    """Latency in milliseconds by operation and per cent; none of operations that there were not."""

    @property
    def name(self) -> str:
        return self.record.name


PERCENTS: Final = (50.0, 90.0, 99.0, 99.9)


def read_sample(stat: Mapping[str, Any], daemon: Mapping[str, Any]) -> Sample:
    """Of the answers to `stat` and to `get hw.xbbd`; ValueError if they are not such answers.

    Devices without a state segment have no records yet and are left out, and so are those
    that are neither disks nor cards.
    """
    try:
        disks = {oid: values for oid, values in stat.items() if not _of_another(oid)}
        records = {
            record.name: record
            for oid, values in sorted(disks.items(), key=lambda item: _unit(item[0]))
            if any(name in values for name in RECORDS)
            for record in _records(_unit(oid), values)
        }
        pid, uptime = int(daemon["hw.xbbd.pid"]), int(daemon["hw.xbbd.uptime"])
        return Sample(records, pid, uptime, read_cards(stat))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"unexpected answer: {type(error).__name__}: {error}") from None


def compare(current: Sample, previous: Sample | None) -> list[Rate]:
    """What every record did between two samples; without the first, since it was made.

    A device that was not there, or is another by now, has done all it did since
    the sample before.
    """
    previous = _of_same_daemon(current, previous)
    there = previous.records if previous is not None else {}
    return [
        rate(record, *_base(record, there.get(record.name), current, previous))
        for record in current.records.values()
    ]


def compare_cards(current: Sample, previous: Sample | None) -> list[CardRate]:
    """The same of every network card."""
    previous = _of_same_daemon(current, previous)
    there = previous.cards if previous is not None else {}
    return [
        card_rate(card, *_base(card, there.get(card.name), current, previous))
        for card in current.cards.values()
    ]


def _of_same_daemon(current: Sample, previous: Sample | None) -> Sample | None:
    """With nothing to compare with, if it was another that counted."""
    if previous is not None and previous.daemon != current.daemon:
        return Sample({}, previous.daemon, previous.uptime)
    return previous


class _Counted(Protocol):
    """What a device has done until now."""

    @property
    def now_ns(self) -> int: ...

    @property
    def created_ns(self) -> int | None: ...

    def follows(self: "_C", other: "_C") -> bool: ...


_C = TypeVar("_C", bound=_Counted)


def _base(
    record: _C, before: _C | None, current: Sample, previous: Sample | None
) -> tuple[_C | None, int]:
    """What to subtract, and nanoseconds since then; `before`: that of its name then."""
    if before is not None and record.follows(before):
        return before, record.now_ns - before.now_ns
    if record.created_ns is not None:
        return None, record.now_ns - record.created_ns
    if previous is not None and previous.now_ns is not None:
        return None, record.now_ns - previous.now_ns
    return None, current.uptime * _NS


def rate(record: Record, before: Record | None, elapsed_ns: int) -> Rate:
    """What a record did since `before` (None: since there was nothing), so many nanoseconds ago."""
    # As iostat(8) does; a daemon's first second is no reason to divide by nothing.
    elapsed = elapsed_ns / _NS if elapsed_ns > 0 else 1.0
    kinds = {
        name: _kind_rate(
            _less(kind, before.kinds[name] if before is not None else _NOTHING), elapsed
        )
        for name, kind in record.kinds.items()
    }
    busy_ns = _busy_ns(record, before)
    errors = {
        name: max(0, count - (before.errors.get(name, 0) if before is not None else 0))
        for name, count in record.errors.items()
    }
    return Rate(
        record=record,
        elapsed=elapsed,
        # The two counters are not read at once.
        queue=max(0, record.start_count - record.end_count),
        busy_seconds=busy_ns / _NS,
        busy_percent=min(100.0, busy_ns / _NS / elapsed * 100),
        kinds=kinds,
        total=_kind_rate(_sum(kinds), elapsed),
        errors=errors,
        errors_per_second=sum(errors.values()) / elapsed,
        percentiles=dict(_percentiles(record, before)),
    )


def _kind_rate(kind: Kind, elapsed: float) -> KindRate:
    return KindRate(
        operations=kind.operations,
        bytes=kind.bytes,
        duration_ns=kind.duration_ns,
        per_second=kind.operations / elapsed,
        kib_per_second=kind.bytes / 1024 / elapsed,
        ms=kind.duration_ns / kind.operations / 1e6 if kind.operations else 0.0,
    )


def _less(kind: Kind, before: Kind) -> Kind:
    return Kind(
        kind.operations - before.operations,
        kind.bytes - before.bytes,
        kind.duration_ns - before.duration_ns,
    )


def _sum(kinds: Mapping[str, KindRate]) -> Kind:
    return Kind(
        sum(kind.operations for kind in kinds.values()),
        sum(kind.bytes for kind in kinds.values()),
        sum(kind.duration_ns for kind in kinds.values()),
    )


def _percentiles(
    record: Record, before: Record | None
) -> Iterator[tuple[str, Mapping[float, float]]]:
    for operation, histogram in record.latency.items():
        earlier = before.latency.get(operation, {}) if before is not None else {}
        counts = [0] * (max(histogram, default=-1) + 1)
        for bucket, count in histogram.items():
            counts[bucket] = max(0, count - earlier.get(bucket, 0))
        if any(counts):
            yield operation, {p: percentile(counts, p) / 1e6 for p in PERCENTS}


def _busy_ns(record: Record, before: Record | None) -> int:
    """How long the ring that was busiest since then was busy."""
    earlier = before.busy_rings_ns if before is not None else ()
    pairs = zip_longest(record.busy_rings_ns, earlier, fillvalue=0)
    return max(0, *(now - then for now, then in pairs))


def _of_another(oid: str) -> bool:
    """Whether it is a device of some driver that is not ours."""
    parts = split(oid)
    return parts is not None and not parts[2] and parts[0] != DRIVER.name


def _unit(oid: str) -> int:
    parts = DRIVER.split(oid)
    if parts is None or parts[1]:
        raise ValueError(f"unexpected answer: {one_line(oid):.40} is not {DRIVER.root}.N")
    return parts[0]


def _records(unit: int, values: Mapping[str, Any]) -> Iterator[Record]:
    now_ns = int(values["now_ns"])
    created = values.get("created_ns")
    for record in RECORDS:
        counts = values[record]
        start_count, end_count = int(counts["start_count"]), int(counts["end_count"])
        yield Record(
            name=f"{record}{unit}",
            record=record,
            unit=unit,
            domid=int(values["domid"]),
            guest=str(values.get("guest", "")),
            vdev=str(values.get("vdev", "")),
            path=str(values.get("path", "")),
            state=str(values["state"]),
            now_ns=now_ns,
            created_ns=None if created is None else int(created),
            start_count=start_count,
            end_count=end_count,
            kinds={operation: _kind(counts[operation]) for operation in OPERATIONS},
            busy_rings_ns=tuple(int(ns) for ns in counts["busy_rings_ns"]),
            errors={str(name): int(n) for name, n in counts.get("errors", {}).items()},
            latency=_latency(values.get("latency", {})) if record == "xbbi" else {},
            process=Process(
                pid=int(values.get("process", 0)),
                rss_kb=int(values.get("process_rss_kb", 0)),
                age=int(values.get("process_age", 0)),
                takeovers=int(values.get("takeovers", 0)),
            ),
            paused=str(values.get("paused", "")),
            throttled=int(values.get("throttled", 0)),
            throttled_ns=int(values.get("throttled_ns", 0)),
        )


def _kind(values: Mapping[str, Any]) -> Kind:
    return Kind(int(values["operations"]), int(values["bytes"]), int(values["duration_ns"]))


def _latency(values: Mapping[str, Any]) -> dict[str, Histogram]:
    return {
        operation: {int(bucket): int(count) for bucket, count in histogram.items()}
        for operation, histogram in values.items()
        if operation in OPERATIONS
    }
