"""What an operator sees of one disk, and may change: read off its state segment.

Costs the data path nothing.  Who asks, and by which names, is not known here;
the names are those of block/oids.py.  Control thread.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import IntEnum
from typing import Any, Final

from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.negotiate import DiskInfo
from xbbd_bsd.block.oids import OPERATIONS, PERCENTILES, RECORDS
from xbbd_bsd.block.pauses import pause_facts
from xbbd_bsd.config import DiskConfig, check_tunable
from xbbd_bsd.errands import Ended
from xbbd_bsd.native import Devstat, State, Transport
from xbbd_bsd.oids import Value
from xbbd_bsd.stats import (
    GAUGES,
    TUNABLES,
    bucket_limit,
    percentile,
    tunable_words,
)

Facts = Callable[[], Mapping[str, Value]]

_MODULUS: Final = 1 << 64
_NS: Final = 1_000_000_000
_DATA_PATHS: Final[dict[int, str]] = {Transport.MAP: "map", Transport.COPY: "copy"}
_SUMMED: Final = ("max_requests", "inflight", "grants_mapped", "grants_persistent")


class SegmentNumbers:
    """The numbers of a device that has a state segment."""

    def __init__(
        self,
        segment: State,
        medium: Facts,
        process: Facts,
        limits: Facts,
        resize: Callable[[], Ended],
    ) -> None:
        """Three groups, by their names, are not in the segment, or not wholly."""
        self.resize = resize
        self.segment = segment
        self._created_ns = time.monotonic_ns()
        # A counter that was written starts there; the data path counts on undisturbed.
        self._added: dict[str, int] = {}
        self._groups: dict[str, Facts] = {
            "medium": lambda: {**self._size(), **medium(), **self._negotiated()},
            "process": process,
            "tunables": lambda: tunable_words(segment.tunables()),
            "pause": lambda: pause_facts(segment, str(medium().get("path", ""))),
            "limits": limits,
            "counters": self._counters,
            "gauges": self._gauges,
            "errors": lambda: self._errors(str(medium().get("path", ""))),
            "takeovers": self._takeovers,
            "devstat": self._devstat,
            "latency": self._latency,
        }

    def group(self, name: str) -> Mapping[str, Value]:
        """The values of a group of leaves; none of one that is not ours."""
        return self._groups[name]() if name in self._groups else {}

    def _size(self) -> Mapping[str, Value]:
        """What is open has its own; else what it was, if anybody ever looked."""
        return {"sectors": self.segment.sectors} if self.segment.sectors else {}

    def rings(self) -> list[int]:
        """The rings in use."""
        return [n for n in range(self.segment.rings) if self.segment.ring(n).connected]

    def ring(self, number: int) -> Mapping[str, Value]:
        """All of one ring."""
        view = self.segment.ring(number)
        own = {name: getattr(view, name) for name in ("req_cons", "rsp_prod", *GAUGES)}
        return {**own, **self.segment.counters(number)}

    def set(self, name: str, value: int, where: str) -> None:
        """Change a tunable, or where a counter stands.

        OperatorError that says what is allowed, of what the operator calls `where`.
        """
        if name in TUNABLES:
            check_tunable(name, value, where)
            self.segment.set_tunable(name, value)
        else:
            self._added[name] = value - self.segment.counters()[name]

    def stat(self, *, latency: bool) -> dict[str, Any]:
        """The records and what goes with them; histograms as {bucket: count}."""
        views = [self.segment.ring(n) for n in range(self.segment.rings)]
        now_ns = time.monotonic_ns()
        found: dict[str, Any] = {
            "now_ns": now_ns,
            "created_ns": self._created_ns,
            "sectors": self.segment.sectors,
            "inflight": sum(view.inflight for view in views if view.connected),
            **{name: self.segment.counters()[name] for name in ("throttled", "throttled_ns")},
            **self._takeovers(),
        }
        for record in RECORDS:
            received = record == "xbbi"
            found[record] = {
                **_record(self.segment.devstat(received=received)),
                "busy_rings_ns": self.segment.busy(now_ns, received=received),
            }
        faults = self.segment.faults()
        found["xbb"]["errors"] = faults.by_operation()
        found["xbbi"]["errors"] = faults.guest
        found["disk_errors"] = faults.by_errno()
        if latency:
            found["latency"] = {
                operation: {str(b): n for b, n in enumerate(self.segment.latency(kind)) if n}
                for kind, operation in enumerate(OPERATIONS)
            }
        return found

    def inflight(self) -> list[dict[str, Value]]:
        """The requests in flight, oldest first; and answered ones, until that is published."""
        now = time.monotonic_ns()
        found: list[dict[str, Value]] = [
            {
                "ring": ring,
                "index": request.ring_index,
                "id": request.id,
                "operation": _word(request.operation),
                "sector": request.sector,
                "sectors": request.nsectors,
                "state": _word(request.state),
                "age_us": max(0, now - request.received_ns) // 1000,
            }
            for ring in self.rings()
            for request in self.segment.inflight(ring)
        ]
        return sorted(found, key=lambda request: -int(request["age_us"]))

    def ages(self) -> list[float]:
        """Seconds for which each request has been without an answer; cheaper than `inflight`."""
        now = time.monotonic_ns()
        return [
            max(0, now - received_ns) / 1e9
            for ring in self.rings()
            if self.segment.ring(ring).inflight
            for received_ns in self.segment.received(ring)
        ]

    def _negotiated(self) -> dict[str, Value]:
        rings = self.rings()
        if not rings:
            return {"queues": 0, "abi": "", "persistent": 0, "data_path": ""}
        view = self.segment.ring(rings[0])
        return {
            "queues": len(rings),
            "abi": _word(view.abi),
            "persistent": int(view.persistent),
            "data_path": _DATA_PATHS.get(view.transport, _word(view.transport)),
        }

    def _counters(self) -> Mapping[str, int]:
        counters = self.segment.counters()
        for name, added in self._added.items():
            counters[name] = (counters[name] + added) % _MODULUS
        return {**counters, "oo_req": counters["request_shortages"]}

    def _gauges(self) -> dict[str, Value]:
        views = [self.segment.ring(number) for number in self.rings()]
        found: dict[str, Value] = {
            name: sum(int(getattr(view, name)) for view in views)
            if name in _SUMMED
            else max((int(getattr(view, name)) for view in views), default=0)
            for name in GAUGES
        }
        found["inflight_table"] = "".join(
            "\n{ring} {index} {operation} {sector} {sectors} {state} {age}".format(
                **request, age=int(request["age_us"]) // 1000
            )
            for request in self.inflight()
        )
        return found

    def _errors(self, path: str) -> dict[str, Value]:
        faults = self.segment.faults()
        disk, guest = faults.last_disk, faults.last_guest
        return {
            **{f"errors.{name}": count for name, count in faults.by_operation().items()},
            "errors.last_errno": disk.errno if disk else 0,
            "errors.last_time": disk.time_ns // _NS if disk else 0,
            "errors.last": disk.sentence(path) if disk else "",
            **{f"errors.guest.{kind}": count for kind, count in faults.guest.items()},
            "errors.guest.last": str(guest) if guest else "",
            "errors.guest.last_time": guest.time_ns // _NS if guest else 0,
        }

    def _takeovers(self) -> dict[str, Value]:
        found = self.segment.takeovers
        return {
            "takeovers": found.count,
            "takeover_longest_ms": found.longest_ns // 1_000_000,
        }

    def _devstat(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for record in RECORDS:
            for name, value in _record(self.segment.devstat(received=record == "xbbi")).items():
                if isinstance(value, dict):
                    found.update({f"devstat.{record}.{name}.{n}": v for n, v in value.items()})
                else:
                    found[f"devstat.{record}.{name}"] = value
        return found

    def _latency(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for kind, operation in enumerate(OPERATIONS):
            histogram = self.segment.latency(kind)
            name = f"latency.{operation}"
            found[f"{name}.count"] = sum(histogram)
            for percentile_name, p in PERCENTILES.items():
                found[f"{name}.{percentile_name}"] = percentile(histogram, p) // 1000
            found[f"{name}.histogram"] = " ".join(
                f"{bucket_limit(bucket)}:{n}" for bucket, n in enumerate(histogram) if n
            )
        return found


def _word(value: int) -> str:
    """What a number stands for, in the manner of the tree; the number if for nothing."""
    return value.name.lower() if isinstance(value, IntEnum) else str(value)


def _record(stat: Devstat) -> dict[str, Any]:
    """A record by the names of its leaves, kinds by operation."""
    kinds = {
        operation: {
            "operations": stat.operations[kind],
            "bytes": stat.bytes[kind],
            "duration_ns": stat.duration_ns[kind],
        }
        for kind, operation in enumerate(OPERATIONS)
    }
    return {
        "start_count": stat.start_count,
        "end_count": stat.end_count,
        **kinds,
        "tag_simple": stat.tag_simple,
        "tag_ordered": stat.tag_ordered,
        "busy_ns": stat.busy_ns,
    }


def facts_of(disk: Disk, info: DiskInfo) -> dict[str, Value]:
    """Leaves of the group "medium" that an open disk has, as its guest is told of it."""
    return {
        "medium": disk.geometry.medium.value,
        "mode": "r" if disk.read_only else "w",
        "physical_device": disk.device,
        "sectors": info.sectors,
        "sector_bytes": info.sector_size,
        "physical_sector_bytes": info.physical_sector_size,
        "discard_granularity": info.discard.granularity if info.discard else 0,
    }


def limits_of(config: DiskConfig) -> dict[str, Value]:
    """The configuration as it is for a disk."""
    return {
        field.name: value if isinstance(value, str) else int(value)
        for field in fields(DiskConfig)
        if field.name not in TUNABLES
        for value in (getattr(config, field.name),)
    }
