"""The state segment of a device: a file that data plane and control plane map.

Reading it costs the data path nothing, and it outlives both.  Any thread and
any process may read; one process writes the tunables.  Others may damage the file at
any time: numbers are what stands there, whatever that is, and nothing that is read
says where to look, or raises.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xbbd_bsd.errors import HostError
from xbbd_bsd.faults import Faults
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import (
    LATENCY_BUCKETS,
    MAX_INDIRECT_PAGES,
    MAX_REQUESTS,
    MAX_SEGMENTS,
    PAGE_SIZE,
    Abi,
    DiskKind,
    Op,
    QueueState,
    RequestState,
    Transport,
    check,
    known,
)
from xbbd_bsd.native.faults import count_failures, read_faults
from xbbd_bsd.native.segment import (
    NOBODYS,
    SegmentIdentity,
    SegmentMedium,
    Takeovers,
    c_identity,
    cut,
    identity_in,
    look,
    make,
    take,
    text_of,
    unlock,
)

COMMON_COUNTERS: tuple[str, ...] = tuple(
    name for name, _ in ffi.typeof("struct xbb_common_counters").fields
)
COUNTERS: tuple[str, ...] = (
    *(name for name, _ in ffi.typeof("struct xbb_counters").fields),
    *COMMON_COUNTERS,
)
TUNABLES: tuple[str, ...] = tuple(name for name, _ in ffi.typeof("struct xbb_tunables").fields)


@dataclass(frozen=True, slots=True)
class RingView:
    """A ring as it was at one moment; sizes in bytes, indices modulo 2**32."""

    connected: bool
    abi: Abi | int
    ring_pages: int
    transport: Transport | int
    max_requests: int
    max_request_segments: int
    max_request_size: int
    inflight: int
    grants_mapped: int
    persistent: bool
    grants_persistent: int
    req_cons: int
    rsp_prod: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of 512-byte sectors, 0 to 7, in one granted page."""

    gref: int
    first_sect: int
    last_sect: int


@dataclass(frozen=True, slots=True)
class Devstat:
    """A record as devstat(9) keeps one; times in nanoseconds.

    ``operations``, ``bytes`` and ``duration_ns`` are by kind, in the order of
    devicestat.h: no data, read, write, free.
    """

    start_count: int
    end_count: int
    operations: tuple[int, ...]
    bytes: tuple[int, ...]
    duration_ns: tuple[int, ...]
    tag_simple: int
    tag_ordered: int
    busy_ns: int
    busy_from_ns: int


@dataclass(frozen=True, slots=True)
class InflightRequest:
    """A request that was read off its ring, and whose response is not published.

    That includes one that was refused, whose fields are what its guest wrote.
    ``status`` is the response's once the state is DONE, ``rsp_index`` the
    response's index once it is ANSWERED; 0 before that.  The segments of an
    indirect one lie elsewhere, in its ``indirect_refs``.
    """

    id: int
    operation: Op | int
    state: RequestState | int
    sector: int
    nsectors: int
    received_ns: int
    ring_index: int
    rsp_index: int
    status: int
    segments: tuple[Segment, ...]
    indirect_refs: tuple[int, ...]


class State:
    """A mapped state segment.  Use :meth:`create`, :meth:`take_over` or :meth:`open`.

    Whoever serves its device has the file locked (flock(2)): a lock that is free says that
    no thread of theirs is in a system call any more, be it alive or not.
    """

    def __init__(self, path: str, fd: int, *, writable: bool, locked: bool = False) -> None:
        """Map the segment behind ``fd``, which is ours; :class:`HostError` if it is none.

        ``locked``: it holds the lock, and is kept for that.
        """
        self.path = path
        self._lock = -1
        pointer = ffi.new("struct xbb_state **")
        try:
            check(lib.xbb_state_map(fd, writable, pointer), f"map state segment {path}")
            if locked:
                self._lock, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        self._state = pointer[0]
        self._medium: SegmentMedium | None = None

    @classmethod
    def create(
        cls,
        path: str,
        *,
        rings: int = 1,
        table_entries: int = MAX_REQUESTS,
        identity: SegmentIdentity = NOBODYS,
    ) -> State:
        """Make a fresh segment, mode 0600, in place of an old one; OSError or HostError.

        ``table_entries`` is the size of each ring's in-flight table: at least
        the slots of the largest ring that may connect.  An old one that somebody still
        serves is left alone: HostError with EBUSY.
        """
        c = c_identity(identity, path)
        fd = make(path)
        try:
            check(lib.xbb_state_format(fd, c, rings, table_entries), f"make state segment {path}")
        except HostError:
            os.close(fd)
            raise
        return cls(path, fd, writable=True, locked=True)

    @classmethod
    def take_over(cls, path: str) -> State:
        """Map the segment of one that served a device and is gone; OSError or HostError.

        EBUSY if it is not gone, as when a disk does not let go of its threads.
        """
        return cls(path, take(path), writable=True, locked=True)

    @classmethod
    def open(cls, path: str, *, writable: bool = False) -> State:
        """Map a segment that a daemon made; OSError or :class:`HostError` if there is none."""
        return cls(path, look(path, writable=writable), writable=writable)

    @property
    def identity(self) -> SegmentIdentity:
        """Whose device it is about, as it stands there."""
        return identity_in(self._state.head)

    @property
    def handle(self) -> Any:
        """The C struct, for the queue that works on it."""
        return self._state

    @property
    def damaged(self) -> bool:
        """Whether a part of the file was missing; numbers mean nothing then."""
        return bool(lib.xbb_state_damaged(self._state))

    def _rings(self, ring: int | None) -> range:
        return range(self.rings) if ring is None else range(ring, ring + 1)

    def counters(self, ring: int | None = None) -> dict[str, int]:
        """All counters by name, of one ring or added up."""
        rings = [self._state.ring[i] for i in self._rings(ring)]
        own = [r.counters for r in rings]
        common = [r.common.counters for r in rings]
        return {
            name: sum(int(getattr(c, name)) for c in (common if name in COMMON_COUNTERS else own))
            for name in COUNTERS
        }

    @property
    def failures(self) -> int:
        """Requests that have failed so far, whoever is to blame."""
        return count_failures(self._state)

    def faults(self) -> Faults:
        """How many have failed, at what and by whose fault, and the last ones."""
        return read_faults(self._state)

    def ring(self, ring: int = 0) -> RingView:
        """What was negotiated for a ring and where it stands."""
        r = self._state.ring[ring]
        common = r.common
        return RingView(
            connected=bool(common.connected),
            abi=known(Abi, r.abi),
            ring_pages=common.ring_pages,
            transport=known(Transport, common.transport),
            max_requests=common.max_requests,
            max_request_segments=r.max_request_segments,
            max_request_size=r.max_request_size,
            inflight=r.inflight,
            grants_mapped=r.grants_mapped,
            persistent=bool(common.persistent),
            grants_persistent=common.grants_persistent,
            req_cons=common.req_cons,
            rsp_prod=common.rsp_prod,
        )

    def tunables(self) -> dict[str, int]:
        """The tunables by name."""
        return {name: int(getattr(self._state.tunables, name)) for name in TUNABLES}

    @property
    def rings(self) -> int:
        """How many rings the segment has room for."""
        return int(lib.xbb_state_rings(self._state))

    @property
    def table_entries(self) -> int:
        """How many requests in flight each ring has room for."""
        return int(lib.xbb_state_entries(self._state))

    @property
    def sectors(self) -> int:
        """The size of the disk as requests are checked against it, 512-byte sectors."""
        return int(self._state.sectors)

    def resize(self, sectors: int) -> None:
        """Say how large the disk is, in 512-byte sectors; at any time.  HostError if absurd."""
        check(lib.xbb_state_resize(self._state, sectors), f"resize to {sectors} sectors")

    @property
    def served(self) -> list[int]:
        """The rings that somebody serves, or served when he died."""
        return [n for n in range(self.rings) if self._state.ring[n].common.connected]

    @property
    def progress(self) -> list[tuple[int, int, int]]:
        """Of each ring its number, requests in flight, and index of the last response."""
        views = ((n, self.ring(n)) for n in range(self.rings))
        return [(n, view.inflight, view.rsp_prod) for n, view in views]

    @property
    def ending(self) -> bool:
        """Whether some of its guest's rings have ended, or are about to."""
        states = [self._state.ring[n].common.status.state for n in self.served]
        whole = len(states) == self._state.connection_rings
        return not whole or any(state != QueueState.RUNNING for state in states)

    @property
    def connection_rings(self) -> int:
        """On how many rings its guest was served last; at most as many as it has room for."""
        return min(int(self._state.connection_rings), self.rings)

    def connect(self, rings: int) -> None:
        """A guest is about to be served on so many rings."""
        self._state.connection_rings = rings

    @property
    def lost_errno(self) -> int:
        """Why what was acknowledged may be lost (xbb.h), 0 if it is not."""
        return int(lib.xbb_state_lost(self._state))

    def lose(self, errno: int) -> None:
        """Have no flush believed from now on: the disk lost something under somebody else."""
        lib.xbb_state_lose(self._state, errno)

    def forget_loss(self) -> None:
        """The disk is opened anew; no queue may run."""
        lib.xbb_state_believe(self._state)

    @property
    def medium(self) -> SegmentMedium | None:
        """Whose disk it is about; None as long as no disk was opened."""
        # What we said ourselves outlives the file.
        return self._medium or self._shown_medium()

    @medium.setter
    def medium(self, medium: SegmentMedium) -> None:
        m = self._state.medium
        m.known = 0
        kind, m.device, m.inode = medium.key
        m.kind = DiskKind[kind.upper()]
        m.shared = medium.shared
        for field, text in ((m.path, medium.path), (m.guest, medium.guest)):
            ffi.memmove(field, cut(text, len(field)), len(field))
        m.known = 1
        self._medium = self._shown_medium() or medium

    def _shown_medium(self) -> SegmentMedium | None:
        m = self._state.medium
        if not m.known or m.kind not in list(DiskKind):
            return None
        return SegmentMedium(
            (DiskKind(m.kind).name.lower(), int(m.device), int(m.inode)),
            text_of(m.path),
            text_of(m.guest),
            bool(m.shared),
        )

    @property
    def takeovers(self) -> Takeovers:
        """How often somebody went on where another had died."""
        found = self._state.takeovers
        return Takeovers(int(found.count), int(found.longest_ns))

    def note_takeover(self, waited_ns: int) -> None:
        """One more; of its requests in flight the longest had waited so long."""
        found = self._state.takeovers
        found.count = (found.count + 1) % (1 << 64)  # whatever stands there
        found.longest_ns = max(int(found.longest_ns), waited_ns)

    def count_on(self, counters: Mapping[int, Mapping[str, int]]) -> None:
        """Begin with these, by ring; names that are none of ours are left out."""
        for ring in counters.keys() & set(range(self.rings)):
            r = self._state.ring[ring]
            for name in counters[ring].keys() & set(COUNTERS):
                group = r.common.counters if name in COMMON_COUNTERS else r.counters
                setattr(group, name, counters[ring][name] % (1 << 64))

    def devstat(self, *, received: bool = False, ring: int | None = None) -> Devstat:
        """What was given to the disk (xbb), or what the frontend asked for (xbbi).

        Of one ring or added up; ``busy_ns`` then is the busiest ring's.
        """
        which = "received" if received else "dispatched"
        records = [getattr(self._state.ring[i], which) for i in self._rings(ring)]

        def kinds(name: str) -> tuple[int, ...]:
            return tuple(sum(int(getattr(r, name)[k]) for r in records) for k in range(4))

        def total(name: str) -> int:
            return sum(int(getattr(r, name)) for r in records)

        return Devstat(
            start_count=total("start_count"),
            end_count=total("end_count"),
            operations=kinds("operations"),
            bytes=kinds("bytes"),
            duration_ns=kinds("duration_ns"),
            tag_simple=total("tag_simple"),
            tag_ordered=total("tag_ordered"),
            busy_ns=max(int(r.busy_ns) for r in records),
            busy_from_ns=max(int(r.busy_from_ns) for r in records),
        )

    def latency(self, kind: int, ring: int | None = None) -> list[int]:
        """The latencies of requests of a kind (devicestat.h: 0 to 3), from accepted to answered.

        How many fell into each bucket (``stats.latency_bucket``), of one ring or added up.
        """
        length = LATENCY_BUCKETS * 8
        total = [0] * LATENCY_BUCKETS
        for i in self._rings(ring):
            at = lib.xbb_state_latency(self._state, i) + kind * LATENCY_BUCKETS
            histogram = memoryview(ffi.buffer(at, length)).cast("Q")
            total = [a + b for a, b in zip(total, histogram, strict=True)]
        return total

    def busy(self, now_ns: int, *, received: bool = False) -> list[int]:
        """For how long each ring had a transaction under way, those at ``now_ns`` included.

        All in nanoseconds of CLOCK_MONOTONIC, of all rings the segment has room for.
        """
        which = "received" if received else "dispatched"
        found = []
        for i in self._rings(None):
            record = getattr(self._state.ring[i], which)
            under_way = record.start_count != record.end_count
            found.append(
                record.busy_ns + (max(0, now_ns - record.busy_from_ns) if under_way else 0)
            )
        return found

    def set_tunable(self, name: str, value: int) -> None:
        """Change a tunable (32-bit signed); the data plane sees it at the next request.

        Raises KeyError for a name that is no tunable, OverflowError beyond 32 bits.
        """
        if name not in TUNABLES:
            raise KeyError(name)
        lib.xbb_tunable_set(ffi.addressof(self._state.tunables, name), value)

    def inflight(self, ring: int = 0) -> list[InflightRequest]:
        """The requests in flight, and those whose answer is about to be published.

        One that ends while it is read may show as its successor, or as half of each.
        """
        entries = min(self._state.ring[ring].common.max_requests, self.table_entries)
        table = lib.xbb_state_table(self._state, ring)[0:entries]
        return [
            InflightRequest(
                id=req.id,
                operation=known(Op, req.operation),
                state=known(RequestState, req.state),
                sector=req.sector,
                nsectors=req.nsectors,
                received_ns=req.received_ns,
                ring_index=req.ring_index,
                rsp_index=req.rsp_index,
                status=req.status,
                segments=()
                if req.indirect
                else tuple(
                    Segment(s.gref, s.first_sect, s.last_sect)
                    for s in req.seg[0 : min(req.nseg, MAX_SEGMENTS)]
                ),
                indirect_refs=tuple(
                    req.indirect_ref[0 : min(-(-req.nseg * 8 // PAGE_SIZE), MAX_INDIRECT_PAGES)]
                )
                if req.indirect
                else (),
            )
            for req in table
            if req.state != RequestState.FREE
        ]

    def received(self, ring: int = 0) -> list[int]:
        """When each request that has no answer came, in nanoseconds of CLOCK_MONOTONIC."""
        entries = min(self._state.ring[ring].common.max_requests, self.table_entries)
        table = lib.xbb_state_table(self._state, ring)[0:entries]
        settled = (RequestState.FREE, RequestState.ANSWERED)
        return [int(req.received_ns) for req in table if req.state not in settled]

    def close(self) -> None:
        """Unmap, and let go of the lock.  The file stays; harmless if done before."""
        if self._state is not None:
            lib.xbb_state_unmap(self._state)
            self._state = None
        self.unlock()

    def unlock(self) -> None:
        """Let go of the lock: somebody else is to serve the device.  Harmless without one."""
        if self._lock >= 0:
            unlock(self._lock)
            self._lock = -1
