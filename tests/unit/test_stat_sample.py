"""devstat's arithmetic: literal records, literal rates."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.block.oids import OPERATIONS
from xbbd_bsd.stat.sample import Rate, Sample, compare, read_sample
from xbbd_bsd.stats import bucket_limit

SECOND = 1_000_000_000
START = 1000 * SECOND
DAEMON = {"hw.xbbd.pid": 77, "hw.xbbd.uptime": 50}


def record(
    *,
    start: int = 0,
    end: int = 0,
    busy_ns: int = 0,
    busy_from_ns: int = 0,
    errors: Mapping[str, int] | None = None,
    **kinds: tuple[int, int, int],
) -> dict[str, Any]:
    """A record; a kind is operations, bytes, nanoseconds."""
    fields = ("operations", "bytes", "duration_ns")
    return {
        "start_count": start,
        "end_count": end,
        **{name: dict(zip(fields, kinds.get(name, (0, 0, 0)), strict=True)) for name in OPERATIONS},
        "tag_simple": end,
        "tag_ordered": 0,
        "busy_ns": busy_ns,
        "busy_from_ns": busy_from_ns,
        "busy_rings_ns": [busy_ns],
        "errors": dict(errors or {}),
    }


def device(
    at: float, xbb: dict[str, Any], xbbi: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """What the daemon says of a device, so many seconds after the start."""
    now_ns = START + int(at * SECOND)

    def busy_at(record: dict[str, Any]) -> dict[str, Any]:
        """With the period under way, as the daemon counts it."""
        under_way = record["start_count"] > record["end_count"]
        busy = record["busy_ns"] + (now_ns - record["busy_from_ns"]) * under_way
        sent = {name: value for name, value in record.items() if name != "busy_from_ns"}
        return {**sent, "busy_rings_ns": [busy, *record["busy_rings_ns"][1:]]}

    return {
        "names": ["xbb0", "xbbi0"],
        "domid": 3,
        "guest": "vm",
        "vdev": "xvda",
        "path": "/tank/vm",
        "state": "Connected",
        "now_ns": now_ns,
        "sectors": 2048,
        "inflight": 0,
        "xbb": busy_at(xbb),
        "xbbi": busy_at(xbbi or xbb),
        **more,
    }


def sample(*devices: dict[str, Any], daemon: dict[str, Any] | None = None) -> Sample:
    found = {f"dev.xbbd.{unit}": values for unit, values in enumerate(devices)}
    return read_sample(found, daemon or DAEMON)


def rate(before: dict[str, Any] | None, now: dict[str, Any], name: str = "xbb0") -> Rate:
    previous = None if before is None else sample(before)
    return next(rate for rate in compare(sample(now), previous) if rate.name == name)


OLD = record(
    start=105, end=100, busy_ns=3 * SECOND, busy_from_ns=START,
    flush=(5, 0, SECOND), read=(60, 600 * 1024, 2 * SECOND),
    write=(30, 3 << 20, SECOND), discard=(5, 5 << 20, SECOND),
)  # fmt: skip
NEW = record(
    start=193, end=190, busy_ns=4 * SECOND, busy_from_ns=START + 2 * SECOND - SECOND // 4,
    flush=(15, 0, SECOND * 3 // 2), read=(100, 1000 * 1024, SECOND * 11 // 5),
    write=(60, 7 << 20, SECOND * 4), discard=(15, 15 << 20, SECOND * 2),
)  # fmt: skip


def test_rates_are_those_of_devstat() -> None:
    found = rate(device(0, OLD), device(2, NEW))
    assert found.elapsed == 2.0
    assert found.queue == 3
    read, write = found.kinds["read"], found.kinds["write"]
    assert (read.operations, read.bytes, read.duration_ns) == (40, 400 * 1024, SECOND // 5)
    assert (read.per_second, read.kib_per_second, read.ms, read.kib) == (20.0, 200.0, 5.0, 10.0)
    assert (write.per_second, write.kib_per_second, write.ms) == (15.0, 2048.0, 100.0)
    assert (found.kinds["flush"].per_second, found.kinds["flush"].ms) == (5.0, 50.0)
    assert (found.kinds["discard"].kib_per_second, found.kinds["discard"].ms) == (5120.0, 100.0)
    assert found.total.operations == 90
    assert found.total.per_second == 45.0
    assert found.total.bytes == 400 * 1024 + (14 << 20)
    assert found.total.ms == pytest.approx((0.2 + 3 + 0.5 + 1) * 1000 / 90)


def test_busy_counts_the_period_under_way() -> None:
    # Before: 3 s, the period just begun.  Now: 4 s, and one under way for a quarter.
    found = rate(device(0, OLD), device(2, NEW))
    assert found.busy_seconds == 1.25
    assert found.busy_percent == 62.5


def test_a_disk_that_hangs_is_busy() -> None:
    hangs = record(start=1, end=0, busy_from_ns=START)
    assert rate(device(1, hangs), device(2, hangs)).busy_percent == 100.0


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_a_ring_that_was_busier_before_hides_nothing(first: int, second: int) -> None:
    before, now = record(), record()
    before["busy_rings_ns"] = [0, 0]
    before["busy_rings_ns"][first] = 100 * SECOND
    now["busy_rings_ns"] = [*before["busy_rings_ns"]]
    now["busy_rings_ns"][second] = SECOND
    old, new = device(1, before), device(2, now)
    for whole, counts in ((old, before), (new, now)):
        whole["xbb"] = counts
    assert rate(old, new).busy_percent == 100.0


def test_an_idle_disk_is_not_busy_whenever_it_was_so() -> None:
    idle = record(start=7, end=7, busy_ns=SECOND, busy_from_ns=START)
    found = rate(device(1, idle), device(2, idle))
    assert (found.busy_percent, found.queue, found.total.ms, found.total.kib) == (0, 0, 0, 0)


def test_busy_is_within_bounds_though_rings_are_read_one_by_one() -> None:
    less = record(start=2, end=1, busy_ns=SECOND, busy_from_ns=START)
    more = record(start=2, end=1, busy_ns=9 * SECOND, busy_from_ns=START)
    assert rate(device(1, more), device(2, less)).busy_percent == 0.0
    assert rate(device(1, less), device(2, more)).busy_percent == 100.0


def test_the_queue_is_never_negative() -> None:
    torn = record(start=5, end=6)
    assert rate(None, device(0, torn)).queue == 0


def test_the_first_report_is_of_all_the_daemons_time() -> None:
    found = rate(None, device(0, OLD))
    assert found.elapsed == 50.0
    assert found.kinds["read"].operations == 60
    assert found.kinds["read"].per_second == 1.2


def test_the_first_report_is_since_the_device_was_made_if_that_is_known() -> None:
    found = rate(None, device(0, OLD, created_ns=START - 10 * SECOND))
    assert found.elapsed == 10.0
    assert found.kinds["read"].per_second == 6.0


def test_errors_are_those_of_the_interval() -> None:
    before = device(0, record(errors={"write": 5, "read": 1}), record(errors={"grants": 7}))
    now = device(2, record(errors={"write": 9, "read": 1}), record(errors={"grants": 8}))
    found = rate(before, now)
    assert found.errors == {"write": 4, "read": 0}
    assert found.errors_per_second == 2.0
    assert rate(before, now, "xbbi0").errors == {"grants": 1}
    assert rate(None, now).errors == {"write": 9, "read": 1}
    # Fewer than before: somebody has damaged the segment.
    assert rate(now, before | {"now_ns": now["now_ns"]}).errors_per_second == 0


def test_a_daemon_that_counts_no_errors_is_understood() -> None:
    old = device(0, record())
    del old["xbb"]["errors"]
    assert rate(None, old).errors == {}
    assert rate(None, old).errors_per_second == 0


def test_a_daemon_that_has_just_begun() -> None:
    new = sample(device(0, OLD), daemon={"hw.xbbd.pid": 1, "hw.xbbd.uptime": 0})
    assert compare(new, None)[0].kinds["read"].per_second == 60.0


def test_a_device_that_came_has_done_it_all_since() -> None:
    old = sample(device(0, OLD))
    both = sample(device(2, OLD), device(2, NEW))
    found = {rate.name: rate for rate in compare(both, old)}
    assert found["xbb1"].elapsed == 2.0
    assert found["xbb1"].kinds["read"].per_second == 50.0
    assert list(found) == ["xbb0", "xbbi0", "xbb1", "xbbi1"]
    assert [rate.name for rate in compare(old, both)] == ["xbb0", "xbbi0"]


@pytest.mark.parametrize(
    "other",
    [
        device(0, NEW),  # counters go backwards
        device(0, OLD, domid=4),
        device(0, OLD, path="/tank/other"),
        device(0, OLD, vdev="xvdb"),
        device(9, OLD),  # so does its clock
        device(0, OLD, created_ns=5),
    ],
)
def test_another_device_of_the_same_name_is_new(other: dict[str, Any]) -> None:
    found = rate(other, device(2, OLD, created_ns=START + SECOND))
    assert found.elapsed == 1.0
    assert found.kinds["read"].operations == 60


def test_all_devices_of_another_daemon_are_new() -> None:
    restarted = sample(device(2, NEW), daemon={"hw.xbbd.pid": 78, "hw.xbbd.uptime": 4})
    found = compare(restarted, sample(device(0, OLD)))[0]
    assert found.elapsed == 4.0
    assert found.kinds["read"].operations == 100


def test_percentiles_are_those_of_the_interval() -> None:
    before = device(0, OLD, latency={"read": {"40": 100, "100": 100}, "write": {"7": 1}})
    now = device(2, NEW, latency={"read": {"40": 101, "100": 109}, "write": {"7": 1}, "flush": {}})
    found = rate(before, now, "xbbi0")
    assert found.percentiles["read"] == {
        50.0: bucket_limit(100) / 1e6,
        90.0: bucket_limit(100) / 1e6,
        99.0: bucket_limit(100) / 1e6,
        99.9: bucket_limit(100) / 1e6,
    }
    assert "write" not in found.percentiles
    assert "flush" not in found.percentiles
    assert rate(before, now, "xbb0").percentiles == {}
    assert rate(None, now, "xbbi0").percentiles["read"][50.0] == bucket_limit(100) / 1e6
    assert rate(None, before, "xbbi0").percentiles["read"][50.0] == bucket_limit(40) / 1e6


def test_the_two_records_are_apart() -> None:
    found = {rate.name: rate for rate in compare(sample(device(0, OLD, NEW)), None)}
    assert found["xbb0"].total.operations == 100
    assert found["xbbi0"].total.operations == 190
    assert found["xbbi0"].record.record == "xbbi"
    assert found["xbbi0"].record.label == "vm:xvda"


def test_devices_are_in_order_of_unit() -> None:
    found = read_sample({f"dev.xbbd.{n}": device(0, OLD) for n in (10, 9, 2)}, DAEMON)
    assert list(found.records) == ["xbb2", "xbbi2", "xbb9", "xbbi9", "xbb10", "xbbi10"]


def test_devices_of_other_drivers_are_left_out() -> None:
    """Whatever their records are called: they are no disks'."""
    stat = {"dev.other.0": device(0, NEW), "dev.xbbd.0": device(0, OLD), "dev.other.1": {"x": 1}}
    assert list(read_sample(stat, DAEMON).records) == ["xbb0", "xbbi0"]
    assert (
        read_sample(stat, DAEMON).records
        == read_sample({"dev.xbbd.0": device(0, OLD)}, DAEMON).records
    )


def test_a_device_without_a_state_segment_is_left_out() -> None:
    bare = {"names": ["xbb1", "xbbi1"], "domid": 3, "state": "InitWait"}
    assert list(sample(device(0, OLD), bare).records) == ["xbb0", "xbbi0"]
    assert sample(bare).now_ns is None
    found = compare(sample(device(0, OLD)), sample(bare))[0]
    assert found.elapsed == 50.0


@pytest.mark.parametrize(
    ("stat", "daemon"),
    [
        ({"dev.xbbd.x": {}}, DAEMON),
        ({"dev.xbbd.0.more": {}}, DAEMON),
        ({"dev.xbbd.0": {"xbb": {}}}, DAEMON),
        ({"dev.xbbd.0": {**device(0, OLD), "xbbi": {**OLD, "read": 5}}}, DAEMON),
        ({"dev.xbbd.0": {**device(0, OLD), "now_ns": None}}, DAEMON),
        ({"dev.xbbd.0": device(0, OLD, latency={"read": 5})}, DAEMON),
        ({"dev.xbbd.0": 5}, DAEMON),
        ({}, {}),
    ],
)
def test_nonsense_is_refused(stat: dict[str, Any], daemon: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unexpected answer"):
        read_sample(stat, daemon)


counts = st.tuples(*[st.integers(0, 1 << 63)] * 3)


@given(
    old=st.fixed_dictionaries(dict.fromkeys(OPERATIONS, counts)),
    new=st.fixed_dictionaries(dict.fromkeys(OPERATIONS, counts)),
    at=st.floats(0, 1e6),
    ends=st.tuples(st.integers(0, 1 << 63), st.integers(0, 1 << 63)),
)
def test_no_rate_is_ever_negative(
    old: dict[str, Any], new: dict[str, Any], at: float, ends: tuple[int, int]
) -> None:
    start, end = ends
    found = rate(
        device(0, record(start=end, end=start, **old)),
        device(at, record(start=start, end=end, busy_ns=end, **new)),
    )
    assert found.elapsed > 0
    assert found.queue >= 0
    assert 0 <= found.busy_percent <= 100
    for kind in (*found.kinds.values(), found.total):
        assert min(kind.operations, kind.bytes, kind.duration_ns) >= 0
        assert min(kind.per_second, kind.kib_per_second, kind.ms, kind.kib) >= 0
