"""A frontend of the data plane: the guest's end of a ring.

For the simulated guest, the NBD export, the bench and the tests.  Unlike the
rest of this package its calls may block for as long as their time limit, and
:meth:`Front.transfer` may be used by several threads at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import (
    LATENCY_BUCKETS,
    MAX_SEGMENTS,
    PAGE_SIZE,
    Abi,
    HvKind,
    Op,
    check,
)

_PROGRESS_NUMBERS = tuple(
    name
    for name, field in ffi.typeof("struct xbb_progress").fields
    if field.type.kind == "primitive"
)


@dataclass(frozen=True, slots=True)
class FrontParams:
    """What a frontend is made of; descriptors stay the caller's and open.

    ``port`` is the number of the event channel whose own end ``event_fd`` is.
    Requests of more than 11 segments, up to ``max_segments``, go indirect.
    ``persistent``: grants are never withdrawn.  ``patience_ms``: a backend that goes may
    be away for so long, until another serves the ring.
    """

    grant_fd: int
    event_fd: int
    port: int
    hv: HvKind
    backend_domid: int
    abi: Abi
    ring_pages: int
    depth: int
    max_segments: int = MAX_SEGMENTS
    persistent: bool = False
    patience_ms: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """Random I/O on ``sectors`` 512-byte sectors from ``first_sector`` on.

    Ends after so many operations or seconds, whichever is not 0 and first.
    ``model`` is a plain copy of the range: reads are compared with it, writes
    are done to it as well.  ``unknown`` has a byte a sector, not 0 where the
    model may be wrong: a write failed, or was never answered.
    """

    seed: int
    sectors: int
    depth: int
    operations: int = 0
    seconds: float = 0.0
    first_sector: int = 0
    read_percent: int = 50
    flush_every: int = 0
    barrier_every: int = 0
    discard_every: int = 0
    indirect_every: int = 0
    min_sectors: int = 1
    max_sectors: int = 88
    align_sectors: int = 1
    poll_us: int = 0
    model: bytearray | memoryview | None = None
    unknown: bytearray | memoryview | None = None

    def native(self) -> tuple[Any, object]:
        """The C struct, and what must stay alive with it."""
        c = ffi.new("struct xbb_workload *")
        alive = []
        for name in self.__slots__:
            value = getattr(self, name)
            if name not in ("model", "unknown"):
                setattr(c, name, value)
            elif value is not None:
                if len(value) != self.sectors * (512 if name == "model" else 1):
                    raise ValueError(f"{name} is not of the size of the range")
                buffer = ffi.from_buffer("uint8_t[]", value)
                setattr(c, name, ffi.cast("uint8_t *", buffer))
                alive.append(buffer)
        return c, alive


class Progress:
    """Live figures of an exercise; any thread may read them or :meth:`stop` it.

    Attributes are those of ``struct xbb_progress`` (``reads``, ``errors``,
    ``mismatches``, ``elapsed_ns`` and so on).
    """

    def __init__(self) -> None:
        self.handle = ffi.new("struct xbb_progress *")

    def __getattr__(self, name: str) -> int:
        if name in _PROGRESS_NUMBERS:
            return int(getattr(self.handle, name))
        raise AttributeError(name)

    @property
    def latency(self) -> list[int]:
        """Operations in each latency bucket (``stats.py`` has the arithmetic)."""
        return list(self.handle.latency[0:LATENCY_BUCKETS])

    def stop(self) -> None:
        """End the exercise after the requests in flight."""
        self.handle.stop = 1


def _check_os(result: int, operation: str) -> None:
    if result < 0:
        raise OSError(-result, f"{operation}: {os.strerror(-result)}")


class Front:
    """A granted ring with its data pages."""

    def __init__(self, params: FrontParams) -> None:
        """Grant ring and pages; :class:`HostError` if the domain has too little."""
        c = ffi.new("struct xbb_front_params *")
        for name in params.__slots__:
            setattr(c, name, getattr(params, name))
        error = ffi.new("struct xbb_error *")
        pointer = ffi.new("struct xbb_front **")
        check(lib.xbb_front_open(c, error, pointer), "open frontend", error)
        self._front = pointer[0]
        refs = ffi.new("uint32_t[]", params.ring_pages)
        lib.xbb_front_ring_refs(self._front, refs)
        self.ring_refs: tuple[int, ...] = tuple(refs)

    def transfer(
        self,
        op: Op,
        sector: int,
        nsectors: int,
        data: bytearray | memoryview | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Move ``nsectors`` 512-byte sectors, in as many requests as it takes.

        ``data`` is filled by a read and holds what a write writes; a flush and
        a discard have none.  Raises
        OSError: EIO (the backend answered with an error), ETIMEDOUT (nothing
        for ``timeout`` seconds), EPIPE (the backend has gone).
        """
        buffer = ffi.NULL
        if data is not None:
            buffer = ffi.from_buffer("uint8_t[]", data, require_writable=op == Op.READ)
            if len(buffer) < nsectors * 512:
                raise ValueError("buffer too small")
        elif nsectors != 0 and op != Op.DISCARD:
            raise ValueError("no buffer")
        result = lib.xbb_front_transfer(
            self._front, op, sector, nsectors, buffer, int(timeout * 1000)
        )
        _check_os(result, f"{op.name} {nsectors} sectors at {sector}")

    def exercise(self, workload: Workload, progress: Progress, timeout: float = 30.0) -> None:
        """Do random I/O; OSError as :meth:`transfer`, EPROTO for an answer out of the blue.

        ``timeout`` is the longest silence of the backend, in seconds.
        """
        c, alive = workload.native()
        result = lib.xbb_front_exercise(self._front, c, progress.handle, int(timeout * 1000))
        del alive
        _check_os(result, "exercise")

    @property
    def ring(self) -> memoryview:
        """The shared ring itself, for tests that misbehave."""
        length = ffi.new("uint64_t *")
        base = lib.xbb_front_ring(self._front, length)
        return memoryview(ffi.buffer(base, length[0]))

    @property
    def pages(self) -> int:
        """How many data pages there are."""
        return int(lib.xbb_front_pages(self._front))

    def page(self, number: int) -> memoryview:
        """A data page."""
        base = lib.xbb_front_page(self._front, number)
        if base == ffi.NULL:
            raise IndexError(number)
        return memoryview(ffi.buffer(base, PAGE_SIZE))

    def page_ref(self, number: int) -> int:
        """The grant reference of a data page."""
        return int(lib.xbb_front_page_ref(self._front, number))

    def set_access(self, ref: int, access: int) -> None:
        """Permit nothing (0), reading (1) or both (2); OSError(EBUSY) while mapped."""
        _check_os(lib.xbb_front_set_access(self._front, ref, access), f"grant {ref}")

    def notify(self) -> None:
        """Send the backend an event, needed or not."""
        _check_os(lib.xbb_front_notify(self._front), "notify")

    def wait(self, timeout: float) -> bool:
        """Wait for an event from the backend, at most ``timeout`` seconds."""
        result = lib.xbb_front_wait(self._front, int(timeout * 1000))
        _check_os(result, "wait")
        return bool(result)

    def close(self) -> None:
        """Withdraw all grants.  No other call may be under way."""
        if self._front is not None:
            front, self._front = self._front, None
            lib.xbb_front_close(front)


def direct_reads(disk_fd: int, workload: Workload, progress: Progress) -> None:
    """The reads of a workload by preadv(2), one thread for each in flight."""
    c, alive = workload.native()
    result = lib.xbb_direct_reads(disk_fd, c, progress.handle)
    del alive
    _check_os(result, "direct reads")
