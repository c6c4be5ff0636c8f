"""Disks with larger sectors than the guest sees, or in need of one buffer; their size changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.native.ring import TRANSPORTS, exercise, ring
from tests.native.slots import RawRing, request
from xbbd_bsd.native import Abi, Op, Transport

OKAY, ERROR = 0, -1


@pytest.mark.parametrize("persistent", [0, 1056])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("block_size", [4096, 16384, 65536])
def test_a_disk_of_larger_sectors_presented_as_512(
    tmp_path: Path, block_size: int, transport: Transport, persistent: int
) -> None:
    with ring(
        tmp_path,
        block_size=block_size,
        bounce=True,
        transport=transport,
        max_segments=32,
        depth=32,
        persistent=persistent,
    ) as r:
        exercise(r, depth=32, operations=1500, max_sectors=64, flush_every=50, barrier_every=20)
        assert r.counter("io_read_modify_write") > 100
        assert r.counter("io_bounced") >= r.counter("io_read_modify_write")


def test_neighbours_in_one_block_do_not_lose_each_other(tmp_path: Path) -> None:
    """Writes of single sectors at once: each reads and writes the block, one after the other."""
    with ring(tmp_path, block_size=4096, bounce=True, workers=8) as r:
        r.state.set_tunable("no_coalesce_reqs", 1)
        raw = RawRing(r.front, Abi.NATIVE)
        for i in range(32):
            r.front.page(i)[:] = bytes([i + 1]) * 4096
        for _ in range(20):
            raw.put(
                *(
                    request(
                        Abi.NATIVE,
                        op=Op.WRITE,
                        id=i,
                        sector=i,
                        segments=[(r.front.page_ref(i), 0, 0)],
                    )
                    for i in range(32)
                )
            )
            assert all(status == OKAY for _, _, status in raw.responses(32))
            expected = b"".join(bytes([i + 1]) * 512 for i in range(32))
            assert r.stored(0, 32) == expected
        assert r.counter("io_read_modify_write") == 32 * 20


def test_a_discard_keeps_what_shares_a_block(tmp_path: Path) -> None:
    with ring(tmp_path, block_size=4096, bounce=True, discard=True) as r:
        data = bytearray(os.urandom(8 * 4096))
        r.front.transfer(Op.WRITE, 0, 64, data)
        r.front.transfer(Op.DISCARD, 5, 20)  # blocks 1 and 2 whole, 0 and 3 in part
        data[4096 : 3 * 4096] = bytes(2 * 4096)
        assert r.stored(0, 64) == data
        r.front.transfer(Op.DISCARD, 1, 6)  # within one block
        assert r.stored(0, 64) == data


def test_one_aligned_buffer_for_a_disk_that_wants_it(tmp_path: Path) -> None:
    with ring(tmp_path, bounce=True, transport=Transport.MAP) as r:
        exercise(r, depth=32)
        assert r.counter("io_bounced") == r.counter("total_dispatch")
        assert r.counter("io_read_modify_write") == 0


# A size that changes.


def test_growth_and_shrink_are_seen_by_the_next_request(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        page = [(r.front.page_ref(0), 0, 7)]

        def read_at(sector: int) -> int:
            raw.put(request(Abi.NATIVE, op=0, id=1, sector=sector, segments=page))
            return raw.responses(1)[0][2]

        assert (read_at(16376), read_at(16384)) == (OKAY, ERROR)
        os.truncate(r.disk, 16 << 20)
        r.state.resize(32768)
        assert (read_at(16384), read_at(32760), read_at(32768)) == (OKAY, OKAY, ERROR)
        r.state.resize(8)
        assert (read_at(0), read_at(8)) == (OKAY, ERROR)
