"""What there is to see of a disk, and to change, by name: the driver "xbbd".

Names, types, access and descriptions of the in-kernel xbbd are kept
(sys/dev/xen/blkback/blkback.c), those of Linux's xen-blkback in name and meaning; ours
are in the same manner.  For the family, and for tools that show its numbers.  Pure
declarations: where a value comes from is not known here.  Any thread.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from xbbd_bsd.config import DiskConfig
from xbbd_bsd.faults import DISK_OPERATIONS, GUEST_KINDS
from xbbd_bsd.oids import PROCESS, Driver, Leaf, Type, config_leaves, number_type, strings
from xbbd_bsd.stats import COUNTERS, GAUGES, TUNABLES, WORDS

RESIZE: Final = "resize"
CLEAR: Final = "clear"
PAUSE: Final = "pause"
RESUME: Final = "resume"
SWAP: Final = "swap"

# Whom and what a device serves, and what was agreed with the guest.
MEDIUM: Final = (
    *strings(
        guest="name of the guest",
        vdev="name of the disk in the guest",
        path="file or device that is served",
        path_state="what became of that under the guest: gone, another, truncated, or nothing",
        medium="what that is: file or device",
        mode="access: r for read-only, w for writable",
        physical_device="major:minor of the device, in hexadecimal",
    ),
    Leaf("hung_seconds", Type.UINT, "for how long something of the disk has hung, 0 if not"),
    Leaf("sectors", Type.U64, "size of the disk in sectors of 512 bytes"),
    Leaf("sector_bytes", Type.UINT, "sector size that the guest is told"),
    Leaf("physical_sector_bytes", Type.UINT, "physical sector size that the guest is told"),
    Leaf("discard_granularity", Type.UINT, "bytes that can be discarded at once, 0 for none"),
    Leaf("queues", Type.UINT, "rings in use (negotiated)"),
    Leaf("abi", Type.STRING, "layout of the ring (negotiated)"),
    Leaf("persistent", Type.INT, "grants stay mapped (negotiated)"),
    Leaf("data_path", Type.STRING, "how data moves: map or copy"),
)

# Whether anything of it is begun just now.
PAUSED: Final = (
    Leaf("paused", Type.STRING, "who keeps requests back: operator, error, both, swap, or nobody"),
    Leaf("paused_since", Type.U64, "since when, in seconds since 1970, 0 if nobody does"),
    Leaf("paused_reason", Type.STRING, "why, in words"),
)

TUNABLE: Final = tuple(
    Leaf(
        name,
        Type.STRING if name in WORDS else number_type(name),
        text,
        writable=True,
        tunable=True,
        words=WORDS.get(name, ()),
    )
    for name, text in TUNABLES.items()
)
LIMITS: Final = tuple(leaf for leaf in config_leaves(DiskConfig) if leaf.name not in TUNABLES)
COUNTER: Final = tuple(Leaf(name, Type.U64, text, writable=True) for name, text in COUNTERS.items())
OUT_OF_REQUESTS: Final = Leaf(
    "oo_req", Type.U64, "how many times we have run out of requests, as Linux names it"
)
GAUGE: Final = tuple(Leaf(name, Type.UINT, text) for name, text in GAUGES.items())
INFLIGHT: Final = Leaf(
    "inflight_table",
    Type.STRING,
    "requests in flight: ring, index, operation, sector, sectors, state, age in ms",
)

# How often who served it died under a guest that is still connected: the process of its
# guest, or the daemon where that serves it.
TAKEOVERS: Final = (
    Leaf(
        "takeovers",
        Type.U64,
        "how many times another process went on where the one that served it had died",
    ),
    Leaf(
        "takeover_longest_ms",
        Type.U64,
        "longest that a request in flight had waited for the next process",
    ),
)

RECORDS: Final[Mapping[str, str]] = {
    "xbb": "as given to the disk",
    "xbbi": "as the guest asked for it",
}
OPERATIONS: Final = ("flush", "read", "write", "discard")  # by devicestat.h: no data ... free
PERCENTILES: Final[Mapping[str, float]] = {
    "p50_us": 50.0,
    "p90_us": 90.0,
    "p99_us": 99.0,
    "p999_us": 99.9,
}


def _devstat() -> Iterator[Leaf]:
    for record, text in RECORDS.items():
        name = f"devstat.{record}"
        yield Leaf(f"{name}.start_count", Type.U64, f"transactions begun, {text}")
        yield Leaf(f"{name}.end_count", Type.U64, f"transactions ended, {text}")
        for operation in OPERATIONS:
            kind = f"{name}.{operation}"
            yield Leaf(f"{kind}.operations", Type.U64, f"{operation} transactions, {text}")
            yield Leaf(f"{kind}.bytes", Type.U64, f"bytes of {operation} transactions, {text}")
            yield Leaf(f"{kind}.duration_ns", Type.U64, f"time of {operation} transactions, {text}")
        yield Leaf(f"{name}.tag_simple", Type.U64, f"transactions in any order, {text}")
        yield Leaf(f"{name}.tag_ordered", Type.U64, f"barriers and flushes, {text}")
        yield Leaf(f"{name}.busy_ns", Type.U64, f"time with a transaction under way, {text}")


def _latency() -> Iterator[Leaf]:
    for operation in OPERATIONS:
        name = f"latency.{operation}"
        yield Leaf(f"{name}.count", Type.U64, f"{operation} requests answered")
        for percentile, p in PERCENTILES.items():
            yield Leaf(
                f"{name}.{percentile}",
                Type.U64,
                f"{p:g} % of {operation} requests were answered within so many microseconds",
            )
        yield Leaf(
            f"{name}.histogram",
            Type.STRING,
            f"{operation} requests by latency: nanoseconds:count, up to and including",
        )


DEVSTAT: Final = tuple(_devstat())
LATENCY: Final = tuple(_latency())

# Requests that failed: the host's fault, and below errors.guest the guest's.
ERRORS: Final = (
    *(
        Leaf(f"errors.{operation}", Type.U64, f"requests that the disk failed at a {operation}")
        for operation in DISK_OPERATIONS
    ),
    Leaf("errors.last_errno", Type.INT, "errno of the last of them, 0 if there was none"),
    Leaf("errors.last_time", Type.U64, "when that was, in seconds since 1970"),
    Leaf("errors.last", Type.STRING, "the same in words: operation, place, reason"),
    *(
        Leaf(f"errors.guest.{kind}", Type.U64, f"refused: {text}")
        for kind, text in GUEST_KINDS.items()
    ),
    Leaf("errors.guest.last", Type.STRING, "the last of these in words: operation, place, reason"),
    Leaf("errors.guest.last_time", Type.U64, "when that was, in seconds since 1970"),
)

# Below ring.M; what the whole device has of these is their sum, or the first ring's.
RING: Final = (
    Leaf("req_cons", Type.UINT, "index of the next request to read"),
    Leaf("rsp_prod", Type.UINT, "index after the last response pushed"),
    *GAUGE,
    *(Leaf(leaf.name, leaf.type, leaf.description) for leaf in COUNTER),
)

DRIVER: Final = Driver(
    "xbbd",
    "disk",
    "Backend Virtual Block Device",
    own={
        "medium": MEDIUM,
        "pause": PAUSED,
        "process": PROCESS,
        "tunables": TUNABLE,
        "limits": LIMITS,
        "counters": (*COUNTER, OUT_OF_REQUESTS),
        "gauges": (*GAUGE, INFLIGHT),
        "errors": ERRORS,
        "takeovers": TAKEOVERS,
        "devstat": DEVSTAT,
        "latency": LATENCY,
    },
    ring=RING,
    verbs=(RESIZE, CLEAR, PAUSE, RESUME, SWAP),
)
