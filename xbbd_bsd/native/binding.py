"""The C module itself: its constants as Python enums, and its errors.

Touches every struct once, so that a header that does not fit the compiled
module fails at import and not in front of a guest.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.native._xbb import ffi, lib

SECTOR_SIZE: int = lib.XBB_SECTOR_SIZE
PAGE_SIZE: int = lib.XBB_PAGE_SIZE
MAX_RING_PAGES: int = lib.XBB_MAX_RING_PAGES
MAX_RING_ORDER: int = lib.XBB_MAX_RING_ORDER
MAX_REQUESTS: int = lib.XBB_MAX_REQUESTS
MAX_SEGMENTS: int = lib.XBB_MAX_SEGMENTS
MAX_INDIRECT_PAGES: int = lib.XBB_MAX_INDIRECT_PAGES
MAX_INDIRECT_SEGMENTS: int = lib.XBB_MAX_INDIRECT_SEGMENTS
MAX_PERSISTENT: int = lib.XBB_MAX_PERSISTENT
MAX_RINGS: int = lib.XBB_MAX_RINGS
MAX_BATCH_SEGMENTS: int = lib.XBB_MAX_BATCH_SEGMENTS
MAX_WORKERS: int = lib.XBB_MAX_WORKERS
LATENCY_BUCKETS: int = lib.XBB_LATENCY_BUCKETS
SERVICE_MAPPINGS: int = lib.XBB_SERVICE_MAPPINGS
SERVICE_GRANTS: int = lib.XBB_SERVICE_GRANTS
GUEST_GRANTS: int = lib.XBB_GUEST_GRANTS


class Abi(IntEnum):
    """Layout of ring slots, from the frontend's ``protocol`` node."""

    NATIVE = lib.XBB_ABI_NATIVE
    X86_32 = lib.XBB_ABI_X86_32
    X86_64 = lib.XBB_ABI_X86_64


class Op(IntEnum):
    """Operation of a ring request (``blkif.h``)."""

    READ = lib.XBB_OP_READ
    WRITE = lib.XBB_OP_WRITE
    WRITE_BARRIER = lib.XBB_OP_WRITE_BARRIER
    FLUSH_DISKCACHE = lib.XBB_OP_FLUSH_DISKCACHE
    DISCARD = lib.XBB_OP_DISCARD


class HvKind(IntEnum):
    """Which filling of the hypervisor table the data plane uses."""

    SIM = lib.XBB_HV_SIM
    XEN = lib.XBB_HV_XEN


class Transport(IntEnum):
    """How data moves between the guest's pages and the disk.

    MAP: the disk works on mapped pages.  COPY: by a buffer, with grant copy.
    BEST: what suits the hypervisor.
    """

    BEST = lib.XBB_TRANSPORT_BEST
    MAP = lib.XBB_TRANSPORT_MAP
    COPY = lib.XBB_TRANSPORT_COPY


class DiskKind(IntEnum):
    """What stands behind a disk descriptor."""

    FILE = lib.XBB_DISK_FILE
    DEVICE = lib.XBB_DISK_DEVICE
    NBD = lib.XBB_DISK_NBD
    RBD = lib.XBB_DISK_RBD


class QueueState(IntEnum):
    """Life of a queue."""

    RUNNING = lib.XBB_QUEUE_RUNNING
    DRAINING = lib.XBB_QUEUE_DRAINING
    DRAINED = lib.XBB_QUEUE_DRAINED


class StopReason(IntEnum):
    """Why a queue stopped by itself: RING is the guest's doing, the rest the host's."""

    NONE = lib.XBB_STOP_NONE
    RING = lib.XBB_STOP_RING
    MEDIUM = lib.XBB_STOP_MEDIUM
    EVENT = lib.XBB_STOP_EVENT
    LOST = lib.XBB_STOP_LOST
    SEGMENT = lib.XBB_STOP_SEGMENT
    UNMAP = lib.XBB_STOP_UNMAP
    ERROR = lib.XBB_STOP_ERROR


class RequestState(IntEnum):
    """Life of an entry of the in-flight table.

    ACCEPTED: it waits.  DISPATCHED: at the disk.  DONE: its status is known, as it is
    at once if it was refused.  ANSWERED: its response is on the ring, not published.
    """

    FREE = lib.XBB_REQ_FREE
    ACCEPTED = lib.XBB_REQ_ACCEPTED
    DISPATCHED = lib.XBB_REQ_DISPATCHED
    DONE = lib.XBB_REQ_DONE
    ANSWERED = lib.XBB_REQ_ANSWERED


@dataclass(frozen=True, slots=True)
class IoUse:
    """Of all queues together: I/O threads beyond the first of each, bytes of their buffers.

    ``over_bound``: how often the bound was in the way of one, ``failed``: how often
    the host had none.
    """

    threads: int
    bytes: int
    over_bound: int
    failed: int


for _name in ("error", "req", "ring_state", "state", "queue_params", "queue_status"):
    ffi.new(f"struct xbb_{_name} *")
for _name in ("front_params", "workload", "progress", "io_use", "budget_limits", "nbd_found"):
    ffi.new(f"struct xbb_{_name} *")
for _name in ("rbd_wanted", "rbd_found"):
    ffi.new(f"struct xbb_{_name} *")


Known = TypeVar("Known", bound=IntEnum)


def known(kind: type[Known], value: int) -> Known | int:
    """A number that is not to be trusted: as what it stands for, or as it is."""
    try:
        return kind(value)
    except ValueError:
        return value


def check(result: int, operation: str, error: Any = None) -> None:
    """Raise :class:`HostError` for a negative result of a C function.

    ``operation`` says what was tried; where C filled ``error`` its own, more
    exact words are used.
    """
    if result >= 0:
        return
    what = operation
    if error is not None and error.errnum != 0:
        what = f"{operation}: {ffi.string(error.operation).decode()}"
    raise HostError(f"{what}: {os.strerror(-result)}", errno=-result)


def put_text(field: Any, text: str, what: str) -> None:
    """Have a text in an array that was zeros; OperatorError, in which it is `what`."""
    data = os.fsencode(text)
    if len(data) >= len(field) or b"\0" in data:
        raise OperatorError(
            f"its {what} is longer than {len(field) - 1} bytes, or has a NUL", errno.EINVAL
        )
    ffi.memmove(field, data, len(data))


def can_punch(fd: int) -> bool:
    """Whether holes can be made in an open file, whose first page becomes one."""
    return bool(lib.xbb_file_can_punch(fd))


def can_flush(fd: int, kind: DiskKind) -> bool:
    """Whether a disk, open for writing, can be flushed; HostError if it fails to."""
    result = int(lib.xbb_can_flush(fd, kind))
    check(result, "flush")
    return bool(result)


def pseudo_file_system(fd: int) -> str | None:
    """The file system of an open file that is the kernel's answer and no storage; HostError."""
    name = ffi.new("char[]", lib.XBB_FILE_SYSTEM_NAME)
    result = int(lib.xbb_pseudo_file_system(fd, name))
    check(result, "look at its file system")
    return str(ffi.string(name).decode("ascii")) if result else None


def kernel_environment(variable: str) -> str | None:
    """A variable of FreeBSD's kenv(2), None if it is not set; HostError."""
    value = ffi.new("char[]", lib.XBB_KERNEL_VALUE)
    result = int(lib.xbb_kernel_environment(variable.encode(), value))
    if result == -errno.ENOENT:
        return None
    check(result, f"kenv {variable}")
    return str(ffi.string(value).decode("utf-8", "replace"))


def name_thread(name: str) -> None:
    """Tell the operating system what the calling thread is, for top(1); any thread.

    The first 15 characters on Linux, 19 on FreeBSD.
    """
    lib.xbb_thread_name(name.encode("ascii", "replace"))


def max_requests(abi: Abi, ring_pages: int) -> int:
    """How many requests a ring of so many pages holds."""
    return int(lib.xbb_max_requests(abi, ring_pages))


def bound_io(threads: int, size: int) -> IoUse:
    """Bound what :class:`IoUse` counts, threads and bytes; what there is stays, and is told."""
    use = ffi.new("struct xbb_io_use *")
    lib.xbb_io_bound(min(threads, (1 << 32) - 1), size, use)
    return IoUse(use.threads, use.bytes, use.over_bound, use.failed)


def set_budget(*, mappings: int, grants: int, guest_grants: int) -> None:
    """What may stay mapped for guests, from now on and in the whole process.

    ``mappings``: of the process, for all guests; ``grants`` and ``guest_grants``:
    kept of all guests, and of each.  What is kept beyond that is given back a
    little later.
    """
    limits = ffi.new(
        "struct xbb_budget_limits *",
        {"mappings": mappings, "grants": grants, "guest_grants": guest_grants},
    )
    lib.xbb_budget_set(limits)


def budget_used() -> tuple[int, int]:
    """Mappings for guests, kept or set aside for open queues; grants that are kept."""
    mappings, grants = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    lib.xbb_budget_used(mappings, grants)
    return int(mappings[0]), int(grants[0])


def sim_format(domain_fd: int, pages: int) -> None:
    """Make the memory and grant table of a simulated domain of so many pages."""
    check(lib.xbb_sim_format(domain_fd, pages), "format domain")


def sim_mapped(domain_fd: int) -> int:
    """How many grants of a simulated domain live processes have mapped now."""
    count = ffi.new("uint32_t *")
    check(lib.xbb_sim_mapped(domain_fd, count), "count mappings")
    return int(count[0])
