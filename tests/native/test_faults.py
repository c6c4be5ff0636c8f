"""What a ring says of requests that failed: whose fault, at what, where.

Of the guest's each kind, from slots written as bytes; of the host's what a file gives
that is cut off, or may not grow.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tests.native.ring import ABIS, DEVICE, TRANSPORTS, Ring, ring
from tests.native.slots import RawRing, discard, indirect, request
from xbbd_bsd.faults import GUEST_KINDS, SHRUNK, Faults
from xbbd_bsd.native import Abi, Op, Transport

OKAY, ERROR, EOPNOTSUPP = 0, -1, -2
SIZE = 8 << 20
END = SIZE // 512


def put(r: Ring, abi: Abi, *slots: bytes) -> list[int]:
    """The statuses of some requests, in the order of their ids, which are 0 and on."""
    raw = RawRing(r.front, abi)
    raw.put(*slots)
    return [status for _, _, status in sorted(raw.responses(len(slots)))]


def guests(faults: Faults, **kinds: int) -> None:
    """These and no others, and nothing is the host's."""
    assert faults.guest == {**dict.fromkeys(GUEST_KINDS, 0), **kinds}
    assert faults.disk == {}
    assert faults.last_disk is None


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    ("fields", "status", "kind", "what"),
    [
        ({"op": 4}, EOPNOTSUPP, "malformed", "operation 4 of 4096 bytes at sector 8"),
        ({"op": 255}, EOPNOTSUPP, "malformed", "operation 255 of 4096 bytes at sector 8"),
        ({"op": 0, "segments": []}, ERROR, "malformed", "read at sector 8"),
        ({"op": 1, "nr_segments": 12}, ERROR, "malformed", "write at sector 8"),
        ({"first": 5, "last": 4}, ERROR, "malformed", "read at sector 8"),
        ({"last": 8}, ERROR, "malformed", "read at sector 8"),
        ({"sector": END}, ERROR, "beyond_end", f"read of 4096 bytes at sector {END}"),
        ({"sector": 2**64 - 1}, ERROR, "beyond_end", f"read of 4096 bytes at sector {2**64 - 1}"),
        ({"gref": 0}, ERROR, "grants", "read of 4096 bytes at sector 8"),
        ({"op": 1, "gref": 16000}, ERROR, "grants", "write of 4096 bytes at sector 8"),
    ],
)
def test_what_a_guest_does_wrong(
    tmp_path: Path, abi: Abi, fields: dict[str, object], status: int, kind: str, what: str
) -> None:
    with ring(tmp_path, abi=abi) as r:
        segment = (
            fields.get("gref", r.front.page_ref(1)),
            fields.get("first", 0),
            fields.get("last", 7),
        )
        good = request(abi, op=0, id=0, sector=0, segments=[(r.front.page_ref(0), 0, 7)])
        bad = request(
            abi,
            op=fields.get("op", 0),  # type: ignore[arg-type]
            id=1,
            sector=fields.get("sector", 8),  # type: ignore[arg-type]
            segments=fields.get("segments", [segment]),  # type: ignore[arg-type]
            nr_segments=fields.get("nr_segments"),  # type: ignore[arg-type]
        )
        assert put(r, abi, good) == [OKAY]
        guests(r.state.faults())
        assert r.state.failures == 0
        before = time.time_ns()
        assert put(r, abi, good, bad) == [OKAY, status]
        faults = r.state.faults()
        guests(faults, **{kind: 1})
        assert r.state.failures == 1
        assert faults.last_guest is not None
        assert faults.last_guest.what == what
        assert before <= faults.last_guest.time_ns <= time.time_ns()


@pytest.mark.parametrize(
    ("op", "what"),
    [
        (Op.WRITE, "write of 512 bytes at sector 3"),
        (Op.WRITE_BARRIER, "barrier of 512 bytes at sector 3"),
        (Op.FLUSH_DISKCACHE, "flush of 512 bytes at sector 3"),
    ],
)
def test_writes_to_a_read_only_disk(tmp_path: Path, op: Op, what: str) -> None:
    with ring(tmp_path, read_only=True) as r:
        with pytest.raises(OSError, match="1 sectors at 3"):
            r.front.transfer(op, 3, 1, bytearray(512))
        faults = r.state.faults()
        guests(faults, read_only=1)
        assert str(faults.last_guest) == f"{what} refused: the disk is read-only"


def test_discards(tmp_path: Path) -> None:
    with ring(tmp_path, discard=True) as r:
        abi = Abi.NATIVE
        assert put(r, abi, discard(abi, id=0, sector=END, nsectors=8)) == [ERROR]
        guests(r.state.faults(), beyond_end=1)
        assert put(r, abi, discard(abi, id=0, sector=0, nsectors=8, flag=1)) == [EOPNOTSUPP]
        guests(r.state.faults(), beyond_end=1, malformed=1)
        assert put(r, abi, discard(abi, id=0, sector=0, nsectors=0)) == [ERROR]
        guests(r.state.faults(), beyond_end=1, malformed=2)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_segments_in_a_page_that_is_not_granted(tmp_path: Path, transport: Transport) -> None:
    with ring(tmp_path, max_segments=32, transport=transport) as r:
        abi = Abi.NATIVE
        slot = indirect(abi, op=Op.READ, id=0, sector=16, nr_segments=20, grefs=[16000])
        assert put(r, abi, slot) == [ERROR]
        faults = r.state.faults()
        guests(faults, grants=1)
        assert faults.last_guest is not None
        assert faults.last_guest.what == "read at sector 16"


def test_parts_of_sectors(tmp_path: Path) -> None:
    with ring(tmp_path, sector_size=4096) as r:
        abi = Abi.NATIVE
        segment = (r.front.page_ref(0), 0, 7)
        assert put(r, abi, request(abi, op=0, id=0, sector=4, segments=[segment])) == [ERROR]
        guests(r.state.faults(), malformed=1)


@pytest.mark.skipif(DEVICE, reason="a file is cut off")
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_a_disk_that_has_shrunk_is_the_hosts(tmp_path: Path, known: bool) -> None:
    """Whether anybody has looked at its size since, or not."""
    with ring(tmp_path) as r:
        os.truncate(r.disk, SIZE // 2)
        if known:
            r.state.resize(END // 2)
        for op, word in ((Op.READ, "read"), (Op.WRITE, "write")):
            with pytest.raises(OSError, match="8 sectors"):
                r.front.transfer(op, END - 8, 8, bytearray(4096))
            faults = r.state.faults()
            assert faults.by_operation()[word] == 1
            assert faults.last_disk is not None
            assert faults.last_disk.sentence("/d") == (
                f"{word} of 4096 bytes at sector {END - 8} of /d failed: {SHRUNK} (EIO)"
            )
        assert faults.of_guest == 0
        # Where there never was anything the guest has no business.
        with pytest.raises(OSError, match="8 sectors"):
            r.front.transfer(Op.READ, END, 8, bytearray(4096))
        faults = r.state.faults()
        assert (faults.of_disk, faults.guest["beyond_end"]) == (2, 1)


@pytest.mark.skipif(DEVICE, reason="a file may not grow")
def test_one_bad_place_of_many_merged_requests_is_told(tmp_path: Path) -> None:
    """The system's own error, and the sector that it belongs to."""
    with ring(tmp_path) as r:
        abi = Abi.NATIVE
        slots = [
            request(abi, op=1, id=i, sector=8 * i, segments=[(r.front.page_ref(i), 0, 7)])
            for i in range(8)
        ]
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (7 * 4096, hard))
        try:
            assert put(r, abi, *slots) == [OKAY] * 7 + [ERROR]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        faults = r.state.faults()
        assert faults.by_errno() == {"write": {"EFBIG": 1}}
        assert faults.last_disk is not None
        assert faults.last_disk.what == "write of 4096 bytes at sector 56"
        assert r.counter("io_errors") > 1
