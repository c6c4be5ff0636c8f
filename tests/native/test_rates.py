"""Limits of a ring: what they hold back, what they do not, and what guests and damage make of them.

Times are bounds from below where a machine may be busy; that no more is let through than may
be, and no less, is shown in tests/c/test_rate.c, and measured in tests/sim/test_rates.py.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.native.ring import Ring, ring
from tests.native.slots import RawRing, discard, request
from tests.waiting import GIVE_UP, eventually, patience
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Abi, Progress, State, Workload
from xbbd_bsd.native._xbb import ffi
from xbbd_bsd.native.rates import RATES, Level, SharedRates

READ, DISCARD = 0, 5
NS = 1_000_000_000


def do(
    r: Ring, operations: int, *, read_percent: int, sectors: int = 8, flush_every: int = 0
) -> float:
    """So many requests; seconds that they took."""
    load = Workload(
        seed=1,
        sectors=8192,
        depth=16,
        operations=operations,
        read_percent=read_percent,
        min_sectors=sectors,
        max_sectors=sectors,
        align_sectors=sectors,
        flush_every=flush_every,
    )
    progress = Progress()
    begun = time.monotonic()
    r.front.exercise(load, progress)
    assert progress.errors == 0
    return time.monotonic() - begun


def held(r: Ring) -> int:
    return r.counter("throttled")


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Ring]:
    with ring(tmp_path) as made:
        made.state.set_tunable("burst_ms", 10)
        yield made


def test_all_operations_and_bytes(r: Ring) -> None:
    r.state.set_tunable("iops_max", 400)
    assert do(r, 100, read_percent=50) >= 0.2
    assert r.counter("throttled") > 0
    assert r.counter("throttled_ns") > NS // 10
    before = held(r)
    r.state.set_tunable("iops_max", 0)
    r.state.set_tunable("bytes_max", 400 * 4096)
    assert do(r, 100, read_percent=50) >= 0.2
    assert held(r) > before
    r.state.set_tunable("bytes_max", 0)
    before = held(r)
    do(r, 100, read_percent=50)
    assert held(r) == before


def test_what_is_read(r: Ring) -> None:
    r.state.set_tunable("read_iops_max", 400)
    do(r, 100, read_percent=0)
    assert held(r) == 0
    assert do(r, 100, read_percent=100) >= 0.2
    r.state.set_tunable("read_iops_max", 0)
    r.state.set_tunable("read_bytes_max", 400 * 4096)
    before = held(r)
    do(r, 100, read_percent=0)
    assert held(r) == before
    assert do(r, 100, read_percent=100) >= 0.2


def test_what_is_written(r: Ring) -> None:
    """A flush is an operation, and has no bytes."""
    r.state.set_tunable("write_iops_max", 400)
    do(r, 100, read_percent=100)
    assert held(r) == 0
    assert do(r, 100, read_percent=0) >= 0.2
    r.state.set_tunable("write_iops_max", 0)
    r.state.set_tunable("write_bytes_max", 400 * 4096)
    before = held(r)
    do(r, 100, read_percent=100)
    do(r, 20, read_percent=100, flush_every=2)
    assert held(r) == before
    assert do(r, 100, read_percent=0) >= 0.2


def test_a_discard_moves_no_bytes(tmp_path: Path) -> None:
    """It waits for none that were moved before it."""
    with ring(tmp_path, discard=True) as r:
        r.state.set_tunable("burst_ms", 10)
        r.state.set_tunable("bytes_max", 512)
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(read_of(r, 0))
        assert raw.responses(1) == [(0, READ, 0)]
        assert debt(r, kind=1) > 1
        raw.put(discard(Abi.NATIVE, id=1, sector=0, nsectors=4096))
        assert raw.responses(1) == [(1, DISCARD, 0)]
        assert held(r) == 0


def test_a_burst_is_what_may_be_done_at_once(r: Ring) -> None:
    r.state.set_tunable("iops_max", 100)
    r.state.set_tunable("burst_ms", 1000)
    do(r, 90, read_percent=50)
    assert held(r) == 0
    do(r, 90, read_percent=50)
    assert held(r) > 0


def test_a_batch_that_is_larger_than_a_burst_passes_and_is_paid_for(r: Ring) -> None:
    r.state.set_tunable("bytes_max", 1 << 20)
    begun = time.monotonic()
    assert do(r, 20, read_percent=0, sectors=88) >= 20 * 88 * 512 / (1 << 20) - 0.1
    assert time.monotonic() - begun < patience(10)


@contextmanager
def waiting(r: Ring, operations: int, limit: int) -> Iterator[threading.Thread]:
    """Somebody who wants to do so much, and is held back by a limit."""
    r.state.set_tunable("iops_max", limit)
    thread = threading.Thread(target=lambda: do(r, operations, read_percent=50))
    thread.start()
    eventually(lambda: held(r) > 0, "it is held back")
    yield thread
    thread.join(GIVE_UP)
    assert not thread.is_alive()


@pytest.mark.parametrize("limit", [0, 100_000])
def test_a_limit_that_is_raised_lets_go_at_once(r: Ring, limit: int) -> None:
    with waiting(r, 200, 1):
        begun = time.monotonic()
        r.state.set_tunable("iops_max", limit)
    assert time.monotonic() - begun < patience(5), "by the old one, minutes"
    waited = r.counter("throttled_ns")
    assert waited > 0
    do(r, 10, read_percent=50)
    assert limit or r.counter("throttled_ns") == waited, "nothing is held back any more"


def read_of(r: Ring, n: int) -> bytes:
    """A request of a page, that nothing merges with another."""
    pages = [(r.front.page_ref(n), 0, 7)]
    return request(Abi.NATIVE, op=READ, id=n, sector=64 * n, segments=pages)


def reads_held_back(r: Ring, number: int) -> RawRing:
    """So many are wanted, and one may be done in a second."""
    raw = RawRing(r.front, Abi.NATIVE)
    r.state.set_tunable("iops_max", 1)
    raw.put(*(read_of(r, n) for n in range(number)))
    eventually(lambda: held(r) > 0, "it is held back")
    return raw


def test_a_ring_that_ends_waits_for_no_limit(r: Ring) -> None:
    raw = reads_held_back(r, 32)
    begun = time.monotonic()
    r.queue.drain()
    r.wait_drained()
    assert time.monotonic() - begun < patience(5), "by the limit, half a minute"
    assert sorted(id for id, _, status in raw.responses(32) if status == 0) == [*range(32)]


def test_what_is_accepted_when_its_guest_closes_waits_for_no_limit(r: Ring) -> None:
    """But what comes after it does: it is a debt, also of who connects again."""
    raw = reads_held_back(r, 30)
    begun = time.monotonic()
    r.state.pardon()
    assert len(raw.responses(30)) == 30
    assert time.monotonic() - begun < patience(5), "by the limit, half a minute"
    due = debt(r)
    assert due > 20, "all of it is counted"
    raw.put(read_of(r, 30))
    eventually(lambda: r.state.inflight() != [], "it is taken")
    assert r.state.inflight() != []
    r.state.set_tunable("iops_max", 0)
    raw.responses(1)


def debt(r: Ring, kind: int = 0) -> float:
    """Seconds that a limit of the disk is ahead of the clock: the first, of all operations."""
    due = int(r.state.handle.words[0].due_ns[kind])
    return due / 1e9 - time.monotonic()


def test_a_ring_that_ends_leaves_all_as_a_debt(r: Ring) -> None:
    """Else a guest that connects again and again would have what it likes."""
    reads_held_back(r, 32)
    r.queue.drain()
    r.wait_drained()
    assert debt(r) > 20


def test_flushes_and_barriers_keep_their_order_and_count(r: Ring) -> None:
    """With a model: what is read is what was written before it."""
    model = bytearray(1024 * 512)
    r.state.set_tunable("iops_max", 600)
    load = Workload(
        seed=3,
        sectors=1024,
        depth=32,
        operations=900,
        flush_every=5,
        barrier_every=7,
        max_sectors=88,
        model=model,
    )
    progress = Progress()
    r.front.exercise(load, progress)
    assert (progress.errors, progress.mismatches) == (0, 0)
    assert held(r) > 100
    assert r.stored(0, 1024) == bytes(model)


@pytest.mark.parametrize("ahead", [2 * NS, 10**15, 1 << 63, (1 << 64) - 1, -NS, -(10**15)])
def test_a_damaged_word_holds_nobody_back_for_long(r: Ring, ahead: int) -> None:
    """The clock far ahead, far behind, and whatever the words of turns say.

    Into the file, as others would: not by a mapping that the ring has, too.
    """
    r.state.set_tunable("iops_max", 1000)
    do(r, 40, read_percent=50)
    wrong = (time.monotonic_ns() + ahead) % (1 << 64)
    times = ffi.sizeof("struct xbb_rate_words") // 8
    turns = ffi.offsetof("struct xbb_rate_words", "sharer") // 8
    words = [wrong] * turns + [wrong | 1] * (times - turns)
    with open(r.state.path, "r+b", buffering=0) as file:
        file.seek(ffi.offsetof("struct xbb_state", "words"))
        file.write(struct.pack(f"={times}Q", *words))
    begun = time.monotonic()
    do(r, 40, read_percent=50)
    assert time.monotonic() - begun < patience(3)


def test_limits_of_several_levels_all_hold(r: Ring) -> None:
    r.state.set_tunable("iops_max", 100_000)
    r.state.set_rate(Level.GUEST, "burst_ms", 10)
    r.state.set_rate(Level.GUEST, "write_iops_max", 400)
    r.state.set_rate(Level.GROUP, "burst_ms", 10)
    r.state.set_rate(Level.GROUP, "read_iops_max", 400)
    assert do(r, 100, read_percent=0) >= 0.2
    assert do(r, 100, read_percent=100) >= 0.2
    assert r.state.rates(Level.GUEST)["write_iops_max"] == 400
    assert r.state.rates(Level.DISK)["write_iops_max"] == 0


def test_names_and_numbers_that_there_are(r: Ring) -> None:
    for name in RATES:
        r.state.set_tunable(name, (1 << 64) - 1)
        assert r.state.tunables()[name] == (1 << 64) - 1
        r.state.set_tunable(name, 0)
    with pytest.raises(KeyError):
        r.state.set_rate(Level.GUEST, "iops", 1)


def test_words_in_a_file_are_those_of_all_who_map_it(tmp_path: Path) -> None:
    path = tmp_path / "rates.guest.7"
    first, second = SharedRates(str(path)), SharedRates(str(path))
    first.words.due_ns[3] = 77
    assert second.words.due_ns[3] == 77
    second.close()
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [b"", b"x", bytes(4096), b"BBRX" * 1024])
def test_a_file_of_words_that_is_none_is_made_anew(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "rates.group.g"
    path.write_bytes(text)
    shared = SharedRates(str(path))
    assert shared.words.turn == 0
    assert path.stat().st_size == 4096
    shared.close()


def test_a_file_of_words_that_is_replaced_is_not_given_to_others(tmp_path: Path) -> None:
    path = tmp_path / "rates.group.g"
    shared = SharedRates(str(path))
    path.rename(tmp_path / "old")
    SharedRates(str(path)).close()
    with pytest.raises(HostError, match="is another file than it was"):
        shared.open()
    shared.close()


def test_a_file_of_words_that_is_cut_off_is_no_end(r: Ring, tmp_path: Path) -> None:
    """What is missing reads as zeros; nobody shares anything by it any more."""
    path = tmp_path / "rates.guest.1"
    shared = SharedRates(str(path))
    path.write_bytes(b"")
    assert shared.words.due_ns[0] == 0
    shared.words.turn = 5
    assert shared.words.turn == 5
    shared.close()


def test_a_group_in_one_process(tmp_path: Path) -> None:
    """Two disks that go by the same words get as much as one would, and as much each."""
    shared = SharedRates(str(tmp_path / "rates.group.g"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    try:
        with two_rings(tmp_path, shared) as pair:
            begun = time.monotonic()
            threads = [
                threading.Thread(target=do, args=(one, 100), kwargs={"read_percent": 50})
                for one in pair
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(GIVE_UP)
            assert time.monotonic() - begun >= 0.45, "200 at 400 a second"
            assert all(held(one) for one in pair)
    finally:
        shared.close()


@contextmanager
def two_rings(tmp_path: Path, shared: SharedRates) -> Iterator[list[Ring]]:
    def prepare(state: State) -> None:
        state.share(Level.GROUP, shared)
        state.set_rate(Level.GROUP, "burst_ms", 10)
        state.set_rate(Level.GROUP, "iops_max", 400)

    with (
        ring(tmp_path / "a", unit=0, prepare=prepare) as a,
        ring(tmp_path / "b", unit=1, prepare=prepare) as b,
    ):
        yield [a, b]
