"""One queue and one frontend in one process: what goes in comes out.

The oracle is a plain copy of the disk: the frontend keeps one while it runs,
and the file itself is compared with it afterwards.
"""

from __future__ import annotations

import os
import struct
from itertools import count
from pathlib import Path

import pytest

from tests.native.ring import ABIS, SANITIZED, SLOW_DISK, ring
from tests.native.slots import RawRing, request
from tests.waiting import eventually
from xbbd_bsd.native import (
    Abi,
    Op,
    Progress,
    QueueState,
    Workload,
)

OKAY, ERROR, EOPNOTSUPP = 0, -1, -2


@pytest.mark.parametrize("ring_pages", [1, 2, 32])
@pytest.mark.parametrize("abi", ABIS)
def test_transfer_out_and_in(tmp_path: Path, abi: Abi, ring_pages: int) -> None:
    with ring(tmp_path, abi=abi, ring_pages=ring_pages) as r:
        data = bytearray(os.urandom(1 << 20))
        r.front.transfer(Op.WRITE, 3, 2048, data)
        back = bytearray(1 << 20)
        r.front.transfer(Op.READ, 3, 2048, back)
        assert back == data
        assert r.stored(3, 2048) == data
        view = r.state.ring()
        assert (view.abi, view.ring_pages, view.connected) == (abi, ring_pages, True)
        assert view.max_requests == {1: 32, 2: 64, 32: 1024}[ring_pages]


@pytest.mark.slow
@pytest.mark.parametrize("abi", ABIS)
def test_random_io_against_a_model(tmp_path: Path, abi: Abi) -> None:
    with ring(tmp_path, abi=abi, ring_pages=4, depth=128) as r:
        model = bytearray(r.disk.stat().st_size)
        progress = Progress()
        load = Workload(
            seed=abi + 1,
            sectors=len(model) // 512,
            depth=128,
            operations=4000 if SLOW_DISK or SANITIZED else 20000,
            flush_every=200,
            barrier_every=50,
            model=model,
        )
        r.front.exercise(load, progress)
        assert progress.mismatches == progress.errors == 0, f"sector {progress.first_mismatch}"
        assert progress.still_mapped == progress.bad_responses == 0
        done = (progress.reads, progress.writes, progress.flushes, progress.barriers)
        assert min(done) > 0
        assert r.disk.read_bytes() == model
        counters = r.state.counters()
        assert counters["reqs_received"] == counters["reqs_completed"] == load.operations
        if SLOW_DISK:
            assert counters["io_handed_over"] > counters["io_inline"]
        assert counters["reqs_completed_with_error"] == 0
        assert counters["grants_mapped_total"] == counters["grants_unmapped_total"]
        assert (
            counters["forced_dispatch"] + counters["normal_dispatch"] == counters["total_dispatch"]
        )


def test_overlapping_writes_keep_their_order(tmp_path: Path) -> None:
    """Writes to one place without waiting: the last one in the ring is what stays."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        for i in range(32):
            r.front.page(i)[:] = bytes([i]) * 4096
        for _ in range(8):
            raw.put(
                *(
                    request(
                        Abi.NATIVE,
                        op=Op.WRITE,
                        id=i,
                        sector=100 + i % 2,
                        segments=[(r.front.page_ref(i), 0, 3)],
                    )
                    for i in range(32)
                )
            )
            assert [status for _, _, status in raw.responses(32)] == [OKAY] * 32
            place = r.stored(100, 5)
            assert place == bytes([30]) * 512 + bytes([31]) * 2048


def test_one_request_is_handed_over_only_if_the_disk_is_slow(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        for sector in range(50):
            r.front.transfer(Op.READ, sector, 1, bytearray(512))
        if SLOW_DISK:  # a stall is enough to show it
            assert 1 <= r.counter("io_inline") <= 4
        else:
            assert r.counter("io_inline") == 50
        assert r.counter("io_inline") + r.counter("io_handed_over") == 50


def test_neighbours_are_merged(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        page = [(r.front.page_ref(i), 0, 7) for i in range(8)]
        raw.put(
            *(request(Abi.NATIVE, op=0, id=i, sector=i * 8, segments=[page[i]]) for i in range(8))
        )
        assert sorted(raw.responses(8)) == [(i, 0, OKAY) for i in range(8)]
        assert r.counter("total_dispatch") == 1


def test_no_coalesce_reqs_keeps_them_apart(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        r.state.set_tunable("no_coalesce_reqs", 1)
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(
            *(
                request(
                    Abi.NATIVE, op=0, id=i, sector=i * 8, segments=[(r.front.page_ref(i), 0, 7)]
                )
                for i in range(8)
            )
        )
        raw.responses(8)
        assert r.counter("total_dispatch") == 8


def test_flush_interval_and_disable_flush(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        for _ in range(8):
            r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        assert r.counter("flushes_done") == 8
        r.state.set_tunable("flush_interval", 4)
        for _ in range(8):
            r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        assert r.counter("flushes_done") == 10
        r.state.set_tunable("disable_flush", 1)
        for _ in range(8):
            r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        assert r.counter("flushes_done") == 10
        assert r.counter("f_req") == 24


def test_barrier_is_ordered_and_durable(tmp_path: Path) -> None:
    """Three writes to one sector, the barrier in the middle: the last one stays."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        for i in range(3):
            r.front.page(i)[:512] = bytes([i + 1]) * 512
        ops = (Op.WRITE, Op.WRITE_BARRIER, Op.WRITE)
        for _ in range(50):
            raw.put(
                *(
                    request(
                        Abi.NATIVE, op=op, id=i, sector=9, segments=[(r.front.page_ref(i), 0, 0)]
                    )
                    for i, op in enumerate(ops)
                )
            )
            order = [id for id, _, status in raw.responses(3) if status == OKAY]
            assert order == [0, 1, 2]
            assert r.stored(9, 1) == b"\x03" * 512
        assert r.counter("flushes_done") == 100


def test_empty_barrier(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        r.front.transfer(Op.WRITE_BARRIER, 0, 0)
        assert r.counter("flushes_done") == 1


def test_flush_with_data_writes_the_data(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        r.front.transfer(Op.FLUSH_DISKCACHE, 5, 1, bytearray(b"x" * 512))
        assert r.stored(5, 1) == b"x" * 512


def test_read_only_disk(tmp_path: Path) -> None:
    """XSA-142, XSA-266: refused by us, whatever the descriptor would allow."""
    with ring(tmp_path, read_only=True) as r:
        r.front.transfer(Op.READ, 0, 8, bytearray(4096))
        r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        for op in (Op.WRITE, Op.WRITE_BARRIER, Op.FLUSH_DISKCACHE):
            with pytest.raises(OSError, match="1 sectors at 0"):
                r.front.transfer(op, 0, 1, bytearray(b"x" * 512))
        assert r.counter("reqs_malformed") == 3


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"op": 4}, EOPNOTSUPP),
        ({"op": 5}, EOPNOTSUPP),
        ({"op": 255}, EOPNOTSUPP),
        ({"op": 0, "segments": []}, ERROR),
        ({"op": 1, "segments": []}, ERROR),
        ({"nr_segments": 12}, ERROR),
        ({"nr_segments": 255}, ERROR),
        ({"first": 5, "last": 4}, ERROR),
        ({"last": 8}, ERROR),
        ({"first": 255, "last": 255}, ERROR),
        ({"sector": (8 << 20) // 512}, ERROR),
        ({"sector": (8 << 20) // 512 - 7}, ERROR),
        ({"sector": 2**64 - 1}, ERROR),
        ({"sector": 2**63}, ERROR),
        ({"gref": 0}, ERROR),
        ({"gref": 2**32 - 1}, ERROR),
        ({"gref": 16000}, ERROR),
    ],
)
def test_a_malformed_request_gets_its_error_and_nothing_else(
    tmp_path: Path, abi: Abi, fields: dict[str, object], status: int
) -> None:
    with ring(tmp_path, abi=abi) as r:
        raw = RawRing(r.front, abi)
        good = (r.front.page_ref(0), 0, 7)
        bad = (
            fields.get("gref", r.front.page_ref(1)),
            fields.get("first", 0),
            fields.get("last", 7),
        )
        op = fields.get("op", 0)
        assert isinstance(op, int)
        raw.put(
            request(abi, op=0, id=1, sector=0, segments=[good]),
            request(
                abi,
                op=op,
                id=2,
                sector=fields.get("sector", 8),  # type: ignore[arg-type]
                segments=fields.get("segments", [bad]),  # type: ignore[arg-type]
                nr_segments=fields.get("nr_segments"),  # type: ignore[arg-type]
            ),
            request(abi, op=0, id=3, sector=16, segments=[good]),
        )
        assert sorted(raw.responses(3)) == [(1, 0, OKAY), (2, op, status), (3, 0, OKAY)]
        assert r.counter("reqs_completed_with_error") == 1
        assert r.counter("io_errors") == 0
        assert r.disk.read_bytes() == bytes(8 << 20)
        assert r.queue.status().state == QueueState.RUNNING


def test_sector_size_is_an_alignment(tmp_path: Path) -> None:
    with ring(tmp_path, sector_size=4096) as r:
        r.front.transfer(Op.WRITE, 8, 16, bytearray(b"a" * 8192))
        for sector, count in ((1, 8), (8, 4), (12, 8)):
            with pytest.raises(OSError, match="sectors"):
                r.front.transfer(Op.READ, sector, count, bytearray(count * 512))


def test_bad_grant_in_a_merged_batch_hits_only_its_request(tmp_path: Path) -> None:
    """XSA-361: one reference that does not map, at each position of a batch."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        for victim in range(6):
            r.front.set_access(r.front.page_ref(victim), 0)
            raw.put(
                *(
                    request(
                        Abi.NATIVE, op=0, id=i, sector=i * 8, segments=[(r.front.page_ref(i), 0, 7)]
                    )
                    for i in range(6)
                )
            )
            expected = [(i, 0, ERROR if i == victim else OKAY) for i in range(6)]
            assert sorted(raw.responses(6)) == expected
            r.front.set_access(r.front.page_ref(victim), 2)


def test_a_page_granted_read_only_can_be_written_from_but_not_read_into(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        r.front.page(0)[:] = b"w" * 4096
        r.front.set_access(r.front.page_ref(0), 1)
        segments = [(r.front.page_ref(0), 0, 7)]
        raw.put(
            request(Abi.NATIVE, op=1, id=1, sector=0, segments=segments),
            request(Abi.NATIVE, op=0, id=2, sector=64, segments=segments),
        )
        assert sorted(raw.responses(2)) == [(1, 1, OKAY), (2, 0, ERROR)]
        assert bytes(r.front.page(0)) == b"w" * 4096


def test_no_byte_beside_the_segment_is_written(tmp_path: Path) -> None:
    """XSA-403: the rest of a granted page is the guest's."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        r.front.page(0)[:] = b"\xee" * 4096
        raw.put(request(Abi.NATIVE, op=0, id=1, segments=[(r.front.page_ref(0), 2, 4)]))
        raw.responses(1)
        page = bytes(r.front.page(0))
        assert page[: 2 * 512] == b"\xee" * 1024
        assert page[2 * 512 : 5 * 512] == bytes(1536)
        assert page[5 * 512 :] == b"\xee" * 1536


def test_segments_with_gaps_between_them(tmp_path: Path) -> None:
    """What lies apart in the guest's pages is one run on the disk."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        pieces = [(0, 0, 2), (1, 3, 5), (2, 7, 7)]
        segments = [(r.front.page_ref(page), first, last) for page, first, last in pieces]
        for page in range(3):
            r.front.page(page)[:] = bytes([page + 1]) * 4096
        raw.put(request(Abi.NATIVE, op=1, id=1, segments=segments))
        raw.responses(1)
        for page in range(3):
            r.front.page(page)[:] = bytes(4096)
        raw.put(request(Abi.NATIVE, op=0, id=2, segments=segments))
        raw.responses(1)
        for page, first, last in pieces:
            found = bytes(r.front.page(page))
            assert found[first * 512 : (last + 1) * 512] == bytes([page + 1]) * (
                (last - first + 1) * 512
            )
            assert found[: first * 512] == bytes(first * 512)
            assert found[(last + 1) * 512 :] == bytes((7 - last) * 512)


@pytest.mark.parametrize("abi", ABIS)
def test_every_byte_of_a_response_is_defined(tmp_path: Path, abi: Abi) -> None:
    """XSA-216: padding carries nothing of ours; the slot's rest stays the guest's."""
    with ring(tmp_path, abi=abi) as r:
        raw = RawRing(r.front, abi)
        slot = bytearray(request(abi, op=77, id=0x1122334455667788, nr_segments=0))
        slot[24:] = b"\xcc" * (len(slot) - 24)
        raw.put(bytes(slot))
        assert raw.responses(1) == [(0x1122334455667788, 77, EOPNOTSUPP)]
        size = struct.calcsize(raw.layout.response)
        answer = bytes(raw.bytes[64 : 64 + raw.layout.slot])
        assert answer[:size] == struct.pack(raw.layout.response, 0x1122334455667788, 77, EOPNOTSUPP)
        assert answer[size:] == bytes(slot)[size:]


def test_a_disk_that_ends_early_fails_what_lies_beyond(tmp_path: Path) -> None:
    """A merged batch over the end of a file that shrank: only the rest fails."""
    tries = count()

    def only_the_rest_fails() -> bool:
        """False: on a busy machine the slow disk took so long that it was not asked again."""
        directory = tmp_path / str(next(tries))
        directory.mkdir()
        with ring(directory) as r:
            os.truncate(r.disk, 3 * 4096)
            raw = RawRing(r.front, Abi.NATIVE)
            page = [(r.front.page_ref(i), 0, 7) for i in range(6)]
            raw.put(
                *(
                    request(Abi.NATIVE, op=0, id=i, sector=i * 8, segments=[page[i]])
                    for i in range(6)
                )
            )
            answers = sorted(raw.responses(6))
            assert r.counter("total_dispatch") == 1
            if SLOW_DISK and r.counter("io_errors") < 6:
                return False
            assert answers == [(i, 0, OKAY if i < 3 else ERROR) for i in range(6)]
            # Of the whole, of halves, of halves of these.
            assert r.counter("io_errors") == 6
            return True

    eventually(only_the_rest_fails, "a disk that is quick enough to be asked again")


@pytest.mark.parametrize(
    ("malformed", "status"),
    [
        ({"op": 77, "nr_segments": 200}, EOPNOTSUPP),
        ({"op": Op.READ, "nr_segments": 0}, ERROR),
        ({"op": Op.READ, "sector": 2**40, "segments": [(1, 0, 7)]}, ERROR),
    ],
)
def test_a_malformed_request_is_in_the_table_until_its_answer_is_published(
    tmp_path: Path, malformed: dict[str, object], status: int
) -> None:
    """Whoever takes over must know that it was read; what a guest wrote is only shown."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        id = 0x6655443322110099
        raw.put(request(Abi.NATIVE, id=id, **malformed))  # type: ignore[arg-type]
        assert raw.responses(1) == [(id, malformed["op"], status)]
        # Nothing wipes an entry that is free again: what was there once is seen.
        entry = Path(r.state.path).read_bytes().partition(id.to_bytes(8, "little"))[2]
        assert struct.unpack_from("<h", entry, 32)[0] == status
        eventually(lambda: r.state.inflight() == [], "its entry is free")
        assert r.state.ring().inflight == 0


def test_flush_of_a_read_only_disk_is_nothing_to_do(tmp_path: Path) -> None:
    """FreeBSD refuses DIOCGFLUSH on a descriptor that is not open for writing."""
    with ring(tmp_path, read_only=True) as r:
        r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        assert r.counter("flushes_done") == 0


def test_a_full_ring_is_no_shortage(tmp_path: Path) -> None:
    """The in-flight table has an entry for every slot, so requests are never short."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(
            *(
                request(
                    Abi.NATIVE, op=0, id=i, sector=i * 9, segments=[(r.front.page_ref(i), 0, 0)]
                )
                for i in range(32)
            )
        )
        assert len(raw.responses(32)) == 32
        assert r.counter("request_shortages") == 0
