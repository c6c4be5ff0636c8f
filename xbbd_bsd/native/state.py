"""The state segment of a disk: a file that data plane and control plane map.

Reading it costs the data path nothing, and it outlives both.  Any thread and
any process may read; one process writes the tunables.  Others may damage the file at
any time: numbers are what stands there, whatever that is, and nothing that is read
says where to look, or raises.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    RequestState,
    Transport,
    check,
    known,
)
from xbbd_bsd.native.faults import count_failures, read_faults
from xbbd_bsd.native.nbd import LinkState, StoreLink
from xbbd_bsd.native.rates import RATES, SHARED, Level, SharedRates
from xbbd_bsd.native.segment import (
    COMMON_COUNTERS,
    NOBODYS,
    MappedSegment,
    SegmentIdentity,
    SegmentMedium,
    Shape,
    Takeovers,
    cut,
    text_of,
)

_OWN_COUNTERS = tuple(name for name, _ in ffi.typeof("struct xbb_counters").fields)
COUNTERS: tuple[str, ...] = (*_OWN_COUNTERS, *COMMON_COUNTERS)
_WORDS = tuple(name for name, _ in ffi.typeof("struct xbb_tunables").fields)
TUNABLES: tuple[str, ...] = (*_WORDS, *RATES)


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


@dataclass(frozen=True, slots=True)
class Paused:
    """That nothing is begun of a disk: whether an operator asked for it, or the disk has failed.

    ``since``: seconds since 1970.  ``swapped``: another disk is about to take its place.
    """

    asked: bool
    failed: bool
    since: float
    swapped: bool = False


class State(MappedSegment):
    """A disk's mapped state segment."""

    _SHAPE = Shape(
        "xbb_state",
        lib.xbb_state_map,
        lib.xbb_state_unmap,
        lib.xbb_state_damaged,
        lib.xbb_state_rings,
        _OWN_COUNTERS,
        _WORDS,
    )

    def __init__(self, path: str, fd: int, *, writable: bool, locked: bool = False) -> None:
        super().__init__(path, fd, writable=writable, locked=locked)
        lib.xbb_state_fence(self._state, self._lock)
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
        return cls._made(
            path, identity, lambda fd, c: lib.xbb_state_format(fd, c, rings, table_entries)
        )

    def unlock(self) -> None:
        """As of any segment."""
        if self._state is not None:
            lib.xbb_state_fence(self._state, -1)
        super().unlock()

    def tunables(self) -> dict[str, int]:
        """The tunables by name; its own limits are such, too."""
        return super().tunables() | self.rates(Level.DISK)

    def set_tunable(self, name: str, value: int) -> None:
        """As of any segment; of a limit 64 bits without sign."""
        if name in RATES:
            self.set_rate(Level.DISK, name, value)
        else:
            super().set_tunable(name, value)

    def rates(self, level: Level) -> dict[str, int]:
        """The limits that hold for the disk at a level, by name; 0: none."""
        limits = self._state.rates[level]
        return dict(zip(RATES, (*map(int, limits.most), int(limits.burst_ms)), strict=True))

    def set_rate(self, level: Level, name: str, value: int) -> None:
        """Change one; whoever is held back by it goes by that at once.  KeyError."""
        if name not in RATES:
            raise KeyError(name)
        check(lib.xbb_rate_set(self._state, level, RATES.index(name), value), f"set {name}")

    def share(self, level: Level, rates: SharedRates | None) -> None:
        """Have queues, when they are opened, go by words that others have, too.

        Those must stay open as long as the segment.
        """
        assert level in SHARED
        words = ffi.NULL if rates is None else rates.words
        check(lib.xbb_rate_share(self._state, level, words), f"share limits with {level.name}")

    @property
    def failures(self) -> int:
        """Requests that have failed so far, whoever is to blame."""
        return count_failures(self._state)

    @property
    def held(self) -> int:
        """Requests that the disk has failed so far, and that were not answered for that."""
        return int(lib.xbb_state_held(self._state))

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

    def link(self, ring: int = 0) -> StoreLink:
        """The connection to what the ring's disk is reached over."""
        c = self._state.ring[ring].link
        state = known(LinkState, c.state)
        return StoreLink(state, int(c.errnum), int(c.since_ns), int(c.unflushed))

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
    def progress(self) -> list[tuple[int, int, int]]:
        """Of each ring its number, requests in flight, and index of the last response."""
        views = ((n, self.ring(n)) for n in range(self.rings))
        return [(n, view.inflight, view.rsp_prod) for n, view in views]

    @property
    def owes(self) -> bool:
        """Whether requests are unanswered, of rings that nobody serves just now."""
        return any(inflight > 0 for _, inflight, _ in self.progress)

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
    def paused(self) -> Paused | None:
        """That nothing is begun, None if it is."""
        pause = self._state.pause
        if not pause.why:
            return None
        asked, swapped = lib.XBB_PAUSE_ASKED, lib.XBB_PAUSE_SWAPPED
        return Paused(
            bool(pause.why & asked),
            bool(pause.why & ~(asked | swapped)),
            pause.since_ns / 1e9,
            bool(pause.why & swapped),
        )

    def pause(self, *, failed: bool = False) -> None:
        """Have nothing begun any more; rings follow once they look."""
        why = lib.XBB_PAUSE_FAILED if failed else lib.XBB_PAUSE_ASKED
        lib.xbb_state_pause(self._state, why)

    def pause_for_swap(self) -> None:
        """As `pause`, until `end_swap`: no operator's, and no error's."""
        lib.xbb_state_pause(self._state, lib.XBB_PAUSE_SWAPPED)

    def end_swap(self) -> None:
        """Whoever has paused it for a swap is done; it stays so for any other reason."""
        lib.xbb_state_unpause(self._state, lib.XBB_PAUSE_SWAPPED)

    def resume(self) -> None:
        """Have what is held back and what comes begun again, likewise."""
        lib.xbb_state_resume(self._state)

    def pardon(self) -> None:
        """What rings have accepted by now waits for no limit; what comes later waits for it."""
        lib.xbb_rate_pardon(self._state)

    @property
    def followed(self) -> bool:
        """Whether all rings that are served do what was said last: paused, nothing is begun."""
        return bool(lib.xbb_state_followed(self._state))

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

    @property
    def holder(self) -> str:
        """What the disk's store calls whoever serves it, "" if it does not care."""
        return text_of(self._state.medium.holder)

    @holder.setter
    def holder(self, holder: str) -> None:
        field = self._state.medium.holder
        ffi.memmove(field, cut(holder, len(field)), len(field))

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
