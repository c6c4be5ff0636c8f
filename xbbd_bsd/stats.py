"""The names and one-line descriptions of everything the data path counts.

Pure declarations and arithmetic: where the numbers are kept, and who shows
them, is not known here; oids.py has all the other names.  Those that the
in-kernel xbbd has keep its names and its descriptions (sysctl -d dev.xbbd); ours
are in the same manner.  Any thread.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

RATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "iops_max": "most I/O operations a second, 0 for any number",
        "bytes_max": "most bytes read and written a second, 0 for any number",
        "read_iops_max": "most read operations a second, 0 for any number",
        "read_bytes_max": "most bytes read a second, 0 for any number",
        "write_iops_max": "most other operations a second, 0 for any number",
        "write_bytes_max": "most bytes written a second, 0 for any number",
        "burst_ms": "what the limits allow in so many milliseconds may be done at once",
    }
)

TUNABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "disable_flush": "fake the flush command",
        "flush_interval": "send a real flush for N flush requests",
        "no_coalesce_reqs": "Don't coalesce contiguous requests",
        "poll_max_us": "most microseconds to look for work before sleeping",
        "persistent_grant_unused_seconds": "unmap persistent grants not used for so long",
        "on_error": "what to do when the disk fails: report, retry, pause or stop",
        "on_full": "the same when it is full; auto: pause in place of retry",
        "retry_seconds": "for how long to retry before the guest is told",
        **RATES,
    }
)

POLICIES: Final = ("report", "retry", "pause", "stop", "auto")
"""What to do about an error of the disk, by number (native/block/policy.c)."""

WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"on_error": POLICIES[:-1], "on_full": POLICIES}
)
"""What those tunables may be that are words, by their numbers."""


def tunable_word(name: str, value: int) -> int | str:
    """A tunable as people have it."""
    if name not in WORDS:
        return value
    return WORDS[name][value] if 0 <= value < len(WORDS[name]) else str(value)


def tunable_words(values: Mapping[str, int]) -> dict[str, int | str]:
    """All of them as people have them."""
    return {name: tunable_word(name, value) for name, value in values.items()}


COUNTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "reqs_received": "how many I/O requests we have received",
        "reqs_completed": "how many I/O requests have been completed",
        "reqs_queued_for_completion": "how many I/O requests queued but not yet pushed",
        "reqs_completed_with_error": "how many I/O requests completed with error status",
        "forced_dispatch": "how many I/O dispatches were forced",
        "normal_dispatch": "how many I/O dispatches were normal",
        "total_dispatch": "total number of I/O dispatches",
        "kva_shortages": "how many times we have run out of KVA",
        "request_shortages": "how many times we have run out of requests",
        "rd_req": "how many read requests we have received",
        "wr_req": "how many write requests we have received",
        "f_req": "how many flush requests we have received",
        "br_req": "how many barrier requests we have received",
        "ds_req": "how many discard requests we have received",
        "indirect_req": "how many of the requests had indirect segments",
        "rd_sect": "how many 512-byte sectors the read requests asked for",
        "wr_sect": "how many 512-byte sectors the write requests brought",
        "ds_sect": "how many 512-byte sectors the discard requests named",
        "reqs_malformed": "how many I/O requests broke a rule of the protocol",
        "flushes_done": "how many real flushes were sent to the disk",
        "io_inline": "how many I/O dispatches the ring's own thread did",
        "io_handed_over": "how many I/O dispatches were given to a worker",
        "io_short": "how many disk operations moved less than asked",
        "io_errors": "how many disk operations failed",
        "io_bounced": "how many I/O dispatches went by a buffer of ours",
        "io_read_modify_write": "how many writes had to read the sectors around first",
        "io_held": "how many I/O dispatches were held back when the disk failed them",
        "io_retries": "how many times such a dispatch was tried again",
        "throttled": "how many I/O dispatches a limit has held back",
        "throttled_ns": "for how many nanoseconds limits have held some back",
        "reconnects": "how often the server of the disk was connected again",
        "grants_mapped_total": "how many grants have been mapped",
        "grants_unmapped_total": "how many grants have been unmapped",
        "grants_copied_total": "how many grants have been copied from or to",
        "grant_errors": "how many times mapping or copying grants failed",
        "persistent_hits": "how many grants were found mapped already",
        "persistent_misses": "how many grants had to be mapped to stay mapped",
        "notifies_received": "how many events the frontend has sent us",
        "notifies_sent": "how many events we have sent the frontend",
        "ring_sleeps": "how many times the ring's thread went to sleep",
    }
)

GAUGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "max_requests": "maximum outstanding requests (negotiated)",
        "max_request_segments": "maximum number of pages per requests (negotiated)",
        "max_request_size": "maximum size in bytes of a request (negotiated)",
        "ring_pages": "communication channel pages (negotiated)",
        "inflight": "how many I/O requests are in flight now",
        "grants_mapped": "how many grants requests at the disk use now",
        "grants_persistent": "how many grants stay mapped now",
    }
)


def latency_bucket(ns: int, buckets: int) -> int:
    """The bucket of a latency in nanoseconds: 8 a power of two, the last takes all the rest.

    The data path in C does the same sum.
    """
    if ns < 8:
        return min(ns, buckets - 1)
    exponent = ns.bit_length() - 1
    return min((exponent - 2) * 8 + ((ns >> (exponent - 3)) & 7), buckets - 1)


def bucket_limit(bucket: int) -> int:
    """The largest latency in nanoseconds that falls into a bucket other than the last."""
    if bucket < 8:
        return bucket
    shift = bucket // 8 - 1
    return ((8 + bucket % 8 + 1) << shift) - 1


def percentile(histogram: Sequence[int], p: float) -> int:
    """The latency in nanoseconds that `p` percent (0 to 100) of the entries do not exceed.

    Rounded up to the limit of its bucket, at most one eighth above the truth.
    0 for an empty histogram.
    """
    if not 0 <= p <= 100:
        raise ValueError(f"percentile {p} is not within 0 to 100")
    total = sum(histogram)
    if total == 0:
        return 0
    wanted = max(1.0, total * p / 100)
    seen = 0
    last = 0
    for bucket, count in enumerate(histogram):
        if count:
            seen += count
            last = bucket
            if seen >= wanted:
                break
    return bucket_limit(last)
