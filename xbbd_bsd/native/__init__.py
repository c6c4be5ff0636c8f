"""The data plane as Python sees it: the only importer of the C module.

Handles, numbers and counters cross here, never payload of a guest.  Constants
come from ``xbb.h`` through cffi and are not repeated.  :func:`check` is the one
place where a C error becomes an exception.  Control thread only, except where
a docstring says otherwise; C releases the interpreter lock around each call.
"""

from __future__ import annotations

from xbbd_bsd.native.binding import (
    LATENCY_BUCKETS,
    MAX_BATCH_SEGMENTS,
    MAX_INDIRECT_SEGMENTS,
    MAX_PERSISTENT,
    MAX_REQUESTS,
    MAX_RING_ORDER,
    MAX_RING_PAGES,
    MAX_RINGS,
    MAX_SEGMENTS,
    MAX_WORKERS,
    PAGE_SIZE,
    SECTOR_SIZE,
    Abi,
    DiskKind,
    HvKind,
    Op,
    QueueState,
    RequestState,
    StopReason,
    Transport,
    can_flush,
    can_punch,
    check,
    kernel_environment,
    max_requests,
    pseudo_file_system,
    sim_format,
    sim_mapped,
)
from xbbd_bsd.native.front import Front, FrontParams, Progress, Workload, direct_reads
from xbbd_bsd.native.queue import Queue, QueueParams, QueueStatus
from xbbd_bsd.native.state import (
    Devstat,
    InflightRequest,
    RingView,
    Segment,
    SegmentMedium,
    State,
)

__all__ = [
    "LATENCY_BUCKETS",
    "MAX_BATCH_SEGMENTS",
    "MAX_INDIRECT_SEGMENTS",
    "MAX_PERSISTENT",
    "MAX_REQUESTS",
    "MAX_RINGS",
    "MAX_RING_ORDER",
    "MAX_RING_PAGES",
    "MAX_SEGMENTS",
    "MAX_WORKERS",
    "PAGE_SIZE",
    "SECTOR_SIZE",
    "Abi",
    "Devstat",
    "DiskKind",
    "Front",
    "FrontParams",
    "HvKind",
    "InflightRequest",
    "Op",
    "Progress",
    "Queue",
    "QueueParams",
    "QueueState",
    "QueueStatus",
    "RequestState",
    "RingView",
    "Segment",
    "SegmentMedium",
    "State",
    "StopReason",
    "Transport",
    "Workload",
    "can_flush",
    "can_punch",
    "check",
    "direct_reads",
    "kernel_environment",
    "max_requests",
    "pseudo_file_system",
    "sim_format",
    "sim_mapped",
]
