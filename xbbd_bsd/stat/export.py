"""Reports for programs: CSV as gstat -C writes it, and JSON, an object a record.

Pure: the time of day is given.  Any thread.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import Any

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.stat.sample import KindRate, Rate


def csv_header(*, deletes: bool, others: bool, process: bool = False) -> str:
    """gstat's, and at the end what it does not have."""
    return (
        "timestamp,name,q-depth,total_ops/s,read/s,read-KiB/s,ms/read,write/s,write-KiB/s,ms/write"
        + ",delete/s,delete-KiB/s,ms/delete" * deletes
        + ",other/s,ms/other" * others
        + ",%busy,error/s"
        + ",pid,rss-KiB,age-s,takeovers" * process
    )


def csv_lines(
    rates: Sequence[Rate], when: str, *, deletes: bool, others: bool, process: bool = False
) -> list[str]:
    """A line a record; `when` as gstat writes it, "2026-08-01 12:00:00.123456789"."""
    lines = []
    for rate in rates:
        fields = [when, rate.name, str(rate.queue), f"{rate.total.per_second:.0f}"]
        for operation, shown in (("read", True), ("write", True), ("discard", deletes)):
            if shown:
                fields += _moved(rate.kinds[operation])
        if others:
            flush = rate.kinds["flush"]
            fields += [f"{flush.per_second:.0f}", milliseconds(flush.ms)]
        last = [f"{rate.busy_percent:.1f}", f"{rate.errors_per_second:.3f}"]
        if process:
            last += [str(value) for value in astuple(rate.record.process)]
        lines.append(",".join([*fields, *last]))
    return lines


def milliseconds(value: float) -> str:
    """With gstat's decimals."""
    if value > 1e3:
        return f"{value:.0f}"
    return f"{value:.1f}" if value > 1 else f"{value:.3f}"


def json_lines(rates: Sequence[Rate], seconds: float) -> list[str]:
    """An object a record; `seconds` since 1970.  Durations are in what their names say."""
    return [json.dumps(_object(rate, seconds)) for rate in rates]


def _object(rate: Rate, seconds: float) -> dict[str, Any]:
    record = rate.record
    found: dict[str, Any] = {
        "time": round(seconds, 6),
        "name": record.name,
        "device": DRIVER.node(record.unit),
        "record": record.record,
        "domid": record.domid,
        "guest": record.guest,
        "vdev": record.vdev,
        "path": record.path,
        "state": record.state,
        "paused": record.paused,
        "elapsed_s": round(rate.elapsed, 6),
        "queue_length": rate.queue,
        "busy_s": round(rate.busy_seconds, 6),
        "busy_percent": round(rate.busy_percent, 3),
        "total": _kind(rate.total),
        "errors": rate.errors,
        "errors_per_second": round(rate.errors_per_second, 3),
        "process": asdict(record.process),
        "throttled": record.throttled,
        "throttled_s": round(record.throttled_ns / 1e9, 6),
    }
    for operation, kind in rate.kinds.items():
        found[operation] = _kind(kind)
        if record.latency:
            found[operation]["latency_ms"] = {
                f"p{p:g}": ms for p, ms in rate.percentiles.get(operation, {}).items()
            }
    return found


def _kind(kind: KindRate) -> dict[str, Any]:
    return {
        "operations": kind.operations,
        "bytes": kind.bytes,
        "duration_ns": kind.duration_ns,
        "per_second": round(kind.per_second, 3),
        "kib_per_second": round(kind.kib_per_second, 3),
        "ms_per_operation": round(kind.ms, 6),
    }


def _moved(kind: KindRate) -> list[str]:
    return [f"{kind.per_second:.0f}", f"{kind.kib_per_second:.0f}", milliseconds(kind.ms)]
