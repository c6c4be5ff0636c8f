"""Names, descriptions and the arithmetic of latency buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd import native
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.native.state import COUNTERS as FIELDS
from xbbd_bsd.native.state import TUNABLES as TUNABLE_FIELDS
from xbbd_bsd.stats import (
    COUNTERS,
    GAUGES,
    TUNABLES,
    bucket_limit,
    latency_bucket,
    percentile,
)

BUCKETS = native.LATENCY_BUCKETS

# What sysctl -d prints for the in-kernel driver; operators and scripts know it.
KERNEL = {
    "disable_flush": "fake the flush command",
    "flush_interval": "send a real flush for N flush requests",
    "no_coalesce_reqs": "Don't coalesce contiguous requests",
    "reqs_received": "how many I/O requests we have received",
    "reqs_completed": "how many I/O requests have been completed",
    "reqs_queued_for_completion": "how many I/O requests queued but not yet pushed",
    "reqs_completed_with_error": "how many I/O requests completed with error status",
    "forced_dispatch": "how many I/O dispatches were forced",
    "normal_dispatch": "how many I/O dispatches were normal",
    "total_dispatch": "total number of I/O dispatches",
    "kva_shortages": "how many times we have run out of KVA",
    "request_shortages": "how many times we have run out of requests",
    "max_requests": "maximum outstanding requests (negotiated)",
    "max_request_segments": "maximum number of pages per requests (negotiated)",
    "max_request_size": "maximum size in bytes of a request (negotiated)",
    "ring_pages": "communication channel pages (negotiated)",
}


@pytest.mark.parametrize("name", KERNEL)
def test_the_kernels_names_keep_the_kernels_descriptions(name: str) -> None:
    leaf = DRIVER.leaf_of(name)
    assert leaf is not None
    assert leaf.description == KERNEL[name]


def test_every_counter_of_the_data_path_is_declared_and_no_other() -> None:
    assert sorted(COUNTERS) == sorted(FIELDS)
    assert tuple(TUNABLES) == TUNABLE_FIELDS


def test_every_gauge_is_one_of_a_ring() -> None:
    assert set(GAUGES) <= set(native.RingView.__dataclass_fields__)


def test_descriptions_are_single_lines_and_names_unique() -> None:
    tables = (TUNABLES, COUNTERS, GAUGES)
    assert len({name for table in tables for name in table}) == sum(map(len, tables))
    for text in (text for table in tables for text in table.values()):
        assert text == text.strip()
        assert "\n" not in text
        assert not text.endswith(".")


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (0, 0),
        (7, 7),
        (8, 8),
        (15, 15),
        (16, 16),
        (17, 16),
        (18, 17),
        (31, 23),
        (32, 24),
        (1_000, 63),
        (1_000_000, 143),
        (2**64 - 1, 319),
    ],
)
def test_bucket_of(ns: int, bucket: int) -> None:
    assert latency_bucket(ns, BUCKETS) == bucket


@given(st.integers(0, BUCKETS - 2))
def test_limit_is_the_last_of_its_bucket(bucket: int) -> None:
    limit = bucket_limit(bucket)
    assert latency_bucket(limit, BUCKETS) == bucket
    assert latency_bucket(limit + 1, BUCKETS) == bucket + 1


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200), st.floats(0, 100))
def test_percentile_against_a_sorted_list(latencies: list[int], p: float) -> None:
    histogram = [0] * BUCKETS
    for ns in latencies:
        histogram[latency_bucket(ns, BUCKETS)] += 1
    found = percentile(histogram, p)
    wanted = max(1.0, len(latencies) * p / 100)
    exact = next(ns for i, ns in enumerate(sorted(latencies), 1) if i >= wanted)
    assert exact <= found <= exact * 9 // 8 + 1


def test_percentile_of_nothing_and_of_nonsense() -> None:
    assert percentile([0] * BUCKETS, 99) == 0
    for p in (-1.0, 100.1):
        with pytest.raises(ValueError, match="0 to 100"):
            percentile([1], p)
