"""What a frontend may negotiate beyond the basic protocol, on one queue.

Indirect segments, grants that stay mapped, discard.  The oracle is a plain copy
of the disk, as in test_queue.py.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from pathlib import Path

import pytest

from tests.native.ring import ABIS, TRANSPORTS, Ring, exercise, ring
from tests.native.slots import RawRing, discard, indirect, request
from tests.waiting import eventually
from xbbd_bsd.native import (
    Abi,
    Op,
    QueueState,
    Transport,
    sim_mapped,
)

OKAY, ERROR, EOPNOTSUPP = 0, -1, -2


def mapped(r: Ring) -> int:
    """Pages of the guest that are mapped now."""
    return sim_mapped(r.domain_fd)


# Indirect segments.


@pytest.mark.parametrize("persistent", [0, 1056])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("abi", ABIS)
def test_indirect_requests_against_a_model(
    tmp_path: Path, abi: Abi, transport: Transport, persistent: int
) -> None:
    with ring(
        tmp_path,
        abi=abi,
        ring_pages=2,
        depth=16,
        max_segments=256,
        transport=transport,
        persistent=persistent,
    ) as r:
        progress = exercise(
            r,
            depth=16,
            operations=300,
            max_sectors=2048,
            indirect_every=2,
            flush_every=20,
            barrier_every=4,
        )
        assert progress.reads
        assert progress.writes
        assert progress.barriers
        assert r.counter("indirect_req") > 100
        assert r.state.ring().max_request_segments == 256
        assert r.state.ring().max_request_size == 1 << 20
        assert r.state.ring().transport is transport


def segments_in(page: memoryview, segments: list[tuple[int, int, int]]) -> None:
    """Write a list of segments into an indirect page."""
    for i, segment in enumerate(segments):
        struct.pack_into("<IBBH", page, i * 8, *segment, 0xDEAD)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("nr_segments", "op", "change", "status"),
    [
        (40, Op.READ, None, OKAY),
        (1, Op.READ, None, OKAY),
        (40, Op.WRITE_BARRIER, None, OKAY),
        (41, Op.READ, None, ERROR),  # above what was offered
        (65535, Op.READ, None, ERROR),
        (0, Op.READ, None, ERROR),
        (40, Op.FLUSH_DISKCACHE, None, ERROR),
        (40, Op.DISCARD, None, EOPNOTSUPP),
        (40, 6, None, EOPNOTSUPP),  # indirect in indirect
        (40, 77, None, EOPNOTSUPP),
        (40, Op.READ, (39, 5, 4), ERROR),
        (40, Op.READ, (0, 0, 8), ERROR),
        (40, Op.WRITE, (20, 255, 255), ERROR),
    ],
)
def test_an_indirect_request_is_checked_like_any_other(
    tmp_path: Path,
    nr_segments: int,
    op: int,
    change: tuple[int, int, int] | None,
    status: int,
    transport: Transport,
) -> None:
    """The response names the operation inside: Linux checks that."""
    with ring(tmp_path, max_segments=40, depth=4, transport=transport) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        segments = [(r.front.page_ref(i), 0, 7) for i in range(40)]
        if change is not None:
            number, first, last = change
            segments[number] = (segments[number][0], first, last)
        segments_in(r.front.page(160), segments)
        raw.put(
            indirect(
                Abi.NATIVE,
                op=op,
                id=9,
                nr_segments=nr_segments,
                grefs=[r.front.page_ref(160)],
            ),
            request(Abi.NATIVE, op=0, id=1, segments=[(*segments[1][:1], 0, 7)]),
        )
        assert sorted(raw.responses(2)) == [(1, 0, OKAY), (9, int(op), status)]


@pytest.mark.parametrize("abi", ABIS)
def test_an_indirect_request_that_was_not_offered(tmp_path: Path, abi: Abi) -> None:
    with ring(tmp_path, abi=abi) as r:
        raw = RawRing(r.front, abi)
        raw.put(indirect(abi, op=Op.WRITE, id=3, nr_segments=1, grefs=[r.front.page_ref(0)]))
        assert raw.responses(1) == [(3, Op.WRITE, EOPNOTSUPP)]


@pytest.mark.parametrize("persistent", [0, 64])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("bad", ["list", "first", "middle", "last"])
def test_a_bad_reference_of_an_indirect_request(
    tmp_path: Path, bad: str, transport: Transport, persistent: int
) -> None:
    with ring(tmp_path, max_segments=40, depth=4, transport=transport, persistent=persistent) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        segments = [(r.front.page_ref(i), 0, 7) for i in range(40)]
        list_ref = r.front.page_ref(160)
        if bad == "list":
            list_ref = 16000
        else:
            number = {"first": 0, "middle": 20, "last": 39}[bad]
            segments[number] = (16001, 0, 7)
        segments_in(r.front.page(160), segments)
        raw.put(
            request(Abi.NATIVE, op=0, id=1, segments=segments[1:2]),
            indirect(Abi.NATIVE, op=0, id=2, nr_segments=40, grefs=[list_ref]),
            request(Abi.NATIVE, op=0, id=3, segments=segments[2:3]),
        )
        assert sorted(raw.responses(3)) == [(1, 0, OKAY), (2, 0, ERROR), (3, 0, OKAY)]
        assert r.counter("grant_errors") >= 1
        if not persistent:
            assert mapped(r) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_list_of_segments_is_one_page(tmp_path: Path, transport: Transport) -> None:
    """More than 512 segments are never offered, so further references are not looked at."""
    with ring(tmp_path, max_segments=256, depth=4, transport=transport) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        segments_in(r.front.page(1024), [(r.front.page_ref(i), 0, 7) for i in range(256)])
        raw.put(
            indirect(
                Abi.NATIVE,
                op=0,
                id=2,
                nr_segments=256,
                grefs=[r.front.page_ref(1024), 16000, 16001],
            )
        )
        assert raw.responses(1) == [(2, 0, OKAY)]
        # Each page of data, and the one that lists them.
        moved = {Transport.MAP: (257, 257, 0), Transport.COPY: (0, 0, 257)}[transport]
        names = ("grants_mapped_total", "grants_unmapped_total", "grants_copied_total")
        assert tuple(r.counter(name) for name in names) == moved
        assert r.counter("grant_errors") == 0


@pytest.mark.parametrize("persistent", [0, 64])
def test_a_list_of_segments_that_changes_while_it_is_read(tmp_path: Path, persistent: int) -> None:
    """XSA-155: what was checked is what is used, so a response is one or the other, never more."""
    with ring(tmp_path, max_segments=40, depth=4, persistent=persistent) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        segments_in(r.front.page(160), [(r.front.page_ref(i), 0, 7) for i in range(40)])
        page = r.front.page(160)
        canary = r.front.page(41)
        canary[:] = b"\xee" * 4096
        stop = threading.Event()

        def flip() -> None:
            while not stop.is_set():
                page[39 * 8 + 4] = 9  # first_sect, beyond the page
                page[39 * 8 + 5] = 255
                page[39 * 8 + 4] = 0
                page[39 * 8 + 5] = 7

        flipper = threading.Thread(target=flip)
        flipper.start()
        try:
            slot = indirect(Abi.NATIVE, op=0, id=1, nr_segments=40, grefs=[r.front.page_ref(160)])
            for _ in range(300):
                raw.put(slot)
                ((_, _, status),) = raw.responses(1)
                assert status in (OKAY, ERROR)
        finally:
            stop.set()
            flipper.join()
        assert r.queue.status().state is QueueState.RUNNING
        assert bytes(canary) == b"\xee" * 4096


# Grants that stay mapped.


@pytest.mark.parametrize("pages", [4, 64, 1056])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_persistent_grants_against_a_model(
    tmp_path: Path, transport: Transport, pages: int
) -> None:
    """With room for all, for some, and for hardly any."""
    with ring(tmp_path, persistent=pages, transport=transport) as r:
        exercise(r, depth=32, flush_every=50, barrier_every=50)
        view = r.state.ring()
        assert view.persistent
        assert 0 < view.grants_persistent <= pages
        assert mapped(r) == 1 + view.grants_persistent
        if pages == 1056:
            assert r.counter("grants_copied_total") == 0
            # Of the guest's 352 pages a few may never have been used.
            assert r.counter("persistent_misses") == view.grants_persistent > 340
        else:
            assert r.counter("persistent_misses") > pages


def test_a_page_is_mapped_once_and_used_again(tmp_path: Path) -> None:
    with ring(tmp_path, persistent=64) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        slot = request(Abi.NATIVE, op=0, id=1, segments=[(r.front.page_ref(0), 0, 7)] * 11)
        for _ in range(10):
            raw.put(slot)
            assert raw.responses(1) == [(1, 0, OKAY)]
        assert r.state.ring().grants_persistent == 1
        assert r.counter("grants_mapped_total") == 1
        # Within the first request the page was missing eleven times and mapped once.
        assert r.counter("persistent_misses") == 1


def test_unused_grants_are_unmapped(tmp_path: Path) -> None:
    with ring(tmp_path, persistent=64) as r:
        r.state.set_tunable("persistent_grant_unused_seconds", 0)  # never
        r.front.transfer(Op.READ, 0, 88, bytearray(88 * 512))
        assert mapped(r) == 12
        r.state.set_tunable("persistent_grant_unused_seconds", 1)  # seen while asleep
        eventually(lambda: mapped(r) == 1, "unused grants are unmapped")
        assert r.state.ring().grants_persistent == 0
        r.front.transfer(Op.READ, 0, 88, bytearray(88 * 512))
        assert mapped(r) == 12


def test_a_grant_for_reading_only_is_used_the_ordinary_way(tmp_path: Path) -> None:
    """A persistent mapping is writable; a frontend that does not allow that is served anyway."""
    with ring(tmp_path, persistent=64) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        r.front.page(0)[:] = b"\x5a" * 4096
        r.front.set_access(r.front.page_ref(0), 1)
        segments = [(r.front.page_ref(0), 0, 7)]
        raw.put(request(Abi.NATIVE, op=Op.WRITE, id=1, sector=8, segments=segments))
        assert raw.responses(1) == [(1, Op.WRITE, OKAY)]
        raw.put(request(Abi.NATIVE, op=Op.READ, id=2, sector=8, segments=segments))
        assert raw.responses(1) == [(2, Op.READ, ERROR)]
        assert r.stored(8, 8) == b"\x5a" * 4096
        assert r.state.ring().grants_persistent == 0


def test_grants_of_a_hostile_frontend_are_bounded(tmp_path: Path) -> None:
    """Ever new references: no more stay mapped than allowed, and all are served."""
    with ring(tmp_path, persistent=16, depth=32, max_segments=64) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        for i in range(500):
            raw.put(request(Abi.NATIVE, op=0, id=i, segments=[(r.front.page_ref(i), 0, 7)]))
            assert raw.responses(1) == [(i, 0, OKAY)]
            assert mapped(r) <= 1 + 16
        assert r.state.ring().grants_persistent == 16


# Discard.


@pytest.mark.parametrize("abi", ABIS)
def test_discard_makes_a_hole(tmp_path: Path, abi: Abi) -> None:
    with ring(tmp_path, abi=abi, discard=True) as r:
        data = bytearray(os.urandom(1 << 20))
        r.front.transfer(Op.WRITE, 0, 2048, data)
        before = r.disk.stat().st_blocks
        raw = RawRing(r.front, abi)
        raw.put(discard(abi, id=7, sector=8, nsectors=1024))
        assert raw.responses(1) == [(7, Op.DISCARD, OKAY)]
        data[4096 : 4096 + 1024 * 512] = bytes(1024 * 512)
        assert r.stored(0, 2048) == data
        assert r.disk.stat().st_size == 8 << 20
        if sys.platform == "linux":  # UFS writes zeros instead, ZFS counts blocks later
            assert r.disk.stat().st_blocks < before
        assert (r.counter("ds_req"), r.counter("ds_sect")) == (1, 1024)


@pytest.mark.skipif(sys.platform != "linux", reason="what is given back is counted later")
@pytest.mark.parametrize("offered", [True, False])
def test_blocks_are_kept_unless_discarding_is_offered(tmp_path: Path, offered: bool) -> None:
    """A file that was given its blocks keeps them, whatever its guest tries."""
    with ring(tmp_path, discard=offered) as r:
        with r.disk.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 8 << 20)
        before = r.disk.stat().st_blocks
        assert before >= (8 << 20) // 512
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(discard(Abi.NATIVE, id=1, sector=0, nsectors=16384))
        assert raw.responses(1) == [(1, Op.DISCARD, OKAY if offered else EOPNOTSUPP)]
        assert (r.disk.stat().st_blocks < before) is offered


@pytest.mark.parametrize(
    ("options", "fields", "status"),
    [
        ({"discard": False}, {}, EOPNOTSUPP),
        ({}, {"flag": 1}, EOPNOTSUPP),  # secure: of a file nobody can promise that
        ({}, {"flag": 0xFE}, OKAY),
        ({}, {"nsectors": 0}, ERROR),
        ({}, {"sector": 16384}, ERROR),
        ({}, {"sector": 16377}, ERROR),
        ({}, {"sector": 16376}, OKAY),
        ({}, {"nsectors": 2**64 - 1}, ERROR),
        ({}, {"sector": 2**64 - 8}, ERROR),
        ({}, {"sector": 2**63, "nsectors": 2**63}, ERROR),
        ({}, {"sector": 0, "nsectors": 16384}, OKAY),
        ({"sector_size": 4096}, {"sector": 1}, ERROR),
        ({"sector_size": 4096}, {"nsectors": 9}, ERROR),
        ({"read_only": True}, {}, ERROR),
    ],
)
def test_a_discard_is_checked(
    tmp_path: Path, options: dict[str, int], fields: dict[str, int], status: int
) -> None:
    with ring(tmp_path, **{"discard": True, **options}) as r:  # type: ignore[arg-type]
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(discard(Abi.NATIVE, **{"id": 1, "sector": 8, "nsectors": 8, **fields}))
        assert raw.responses(1) == [(1, Op.DISCARD, status)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_discards_among_reads_and_writes(tmp_path: Path, transport: Transport) -> None:
    with ring(tmp_path, discard=True, transport=transport) as r:
        progress = exercise(r, depth=32, discard_every=5, flush_every=50, barrier_every=20)
        assert progress.discards > 100
        record = r.state.devstat()
        assert record.operations[3] > 0  # FREE
        assert record.bytes[3] == r.counter("ds_sect") * 512


# Accounting.


def test_devstat_records(tmp_path: Path) -> None:
    with ring(tmp_path, discard=True) as r:
        r.front.transfer(Op.WRITE, 0, 88, bytearray(88 * 512))
        r.front.transfer(Op.READ, 0, 8, bytearray(8 * 512))
        r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        r.front.transfer(Op.WRITE_BARRIER, 0, 8, bytearray(4096))
        r.front.transfer(Op.DISCARD, 0, 16)
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(
            request(Abi.NATIVE, op=77, id=1),
            request(Abi.NATIVE, op=Op.READ, id=2, segments=[(16000, 0, 7)]),
        )
        raw.responses(2)
        r.queue.drain()
        r.wait_drained()
        given, came = r.state.devstat(), r.state.devstat(received=True)
        assert given.operations == (1, 2, 2, 1)
        # The read that failed has moved nothing.
        assert given.bytes == came.bytes == (0, 4096, 96 * 512, 16 * 512)
        assert came.operations == (2, 2, 2, 1)  # what is refused is never dispatched
        assert (given.start_count, given.end_count) == (6, 6)
        assert (came.start_count, came.end_count) == (7, 7)
        assert (given.tag_simple, given.tag_ordered) == (4, 2)  # barrier and flush
        assert min(given.duration_ns) > 0
        assert came.busy_ns >= given.busy_ns > 0
