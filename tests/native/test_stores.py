"""What every store does alike, and what becomes of requests when a server goes, lies, is silent.

The oracle is a copy of the disk, or of what of it must be durable.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.native.nbd_player import FAILS, FLUSH, LIES, Lie, Player
from tests.native.ring import Ring, exercise, ring
from tests.native.slots import RawRing, request
from tests.native.stores import Server, require_nbdkit
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.native import (
    Abi,
    LinkState,
    NbdExport,
    Op,
    Progress,
    QueueState,
    StopReason,
    Workload,
    load_nbd,
    look_at_export,
)

STORES = ("local", "nbd", "rbd")
OKAY, ERROR = 0, -1
SIZE = 1 << 20
# How often connections end; a thousand is for who has half a minute more.
BREAKS = int(os.environ.get("XBBD_TEST_BREAKS", "60"))


@pytest.fixture(autouse=True)
def library() -> None:
    try:
        load_nbd()
    except HostError as error:
        pytest.skip(str(error))


def export(fd: socket.socket) -> int:
    return look_at_export(fd.detach(), NbdExport(""), limit=GIVE_UP).size


# All stores.


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("options", [{}, {"persistent": 256}, {"max_segments": 64}])
def test_random_io_against_a_model(tmp_path: Path, store: str, options: dict[str, int]) -> None:
    with ring(tmp_path, store=store, depth=32, ring_pages=2, **options) as r:  # type: ignore[arg-type]
        exercise(r, depth=32, flush_every=100, barrier_every=50)


@pytest.mark.parametrize("store", STORES)
def test_discard_leaves_zeros(tmp_path: Path, store: str) -> None:
    with ring(tmp_path, store=store, discard=True) as r:
        r.front.transfer(Op.WRITE, 0, 64, bytearray(b"x" * 64 * 512))
        r.front.transfer(Op.DISCARD, 8, 32)
        back = bytearray(64 * 512)
        r.front.transfer(Op.READ, 0, 64, back)
        assert back == b"x" * 4096 + bytes(32 * 512) + b"x" * 24 * 512


@pytest.mark.parametrize("store", STORES)
def test_nothing_is_beyond_the_end(tmp_path: Path, store: str) -> None:
    with ring(tmp_path, store=store, size=SIZE) as r:
        last = SIZE // 512
        r.front.transfer(Op.WRITE, last - 8, 8, bytearray(4096))
        with pytest.raises(OSError, match="Input/output"):
            r.front.transfer(Op.WRITE, last - 7, 8, bytearray(4096))


# Servers.


@pytest.mark.slow
@pytest.mark.parametrize("loses", [False, True], ids=["cut", "crash"])
@pytest.mark.parametrize("options", [{}, {"persistent": 256}])
@pytest.mark.parametrize("late_ms", [0, 5])
def test_connections_that_end_under_load(
    tmp_path: Path, options: dict[str, int], loses: bool, late_ms: int
) -> None:
    """Anywhere, again and again; and with a server that has lost what was not flushed.

    Also while what was written twice waits for its answer.
    """
    player, chance, over = Player(SIZE), random.Random(1), threading.Event()
    model = bytearray(SIZE)

    def cut() -> None:
        while not over.wait(chance.uniform(0, 0.03)):
            player.cut(loses=loses)

    with ring(tmp_path, size=SIZE, server=player, depth=32, late_ms=late_ms, **options) as r:  # type: ignore[arg-type]
        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            while r.counter("reconnects") < BREAKS:
                progress = Progress()
                load = Workload(
                    seed=r.counter("reqs_received") + 1,
                    sectors=SIZE // 512,
                    depth=32,
                    operations=1000,
                    flush_every=100,
                    barrier_every=50,
                    discard_every=0,
                    model=model,
                )
                r.front.exercise(load, progress)
                assert progress.mismatches == progress.errors == 0, progress.first_mismatch
        finally:
            over.set()
            cutter.join()
        r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        assert player.durable == model


def test_a_server_that_is_restarted(tmp_path: Path) -> None:
    with ring(tmp_path, store="nbd") as r:
        assert isinstance(r.server, Server)
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"a" * 4096))
        r.server.kill()
        eventually(lambda: r.state.link().state is LinkState.WANTED, "it is missed")
        r.server.start()
        back = bytearray(4096)
        r.front.transfer(Op.READ, 0, 8, back)
        assert back == b"a" * 4096
        assert r.counter("reconnects") == 1


@pytest.mark.slow
def test_errors_of_a_server_reach_who_asked(tmp_path: Path) -> None:
    require_nbdkit("error")
    flaky = ("--filter=error", "file")
    with ring(tmp_path, store="nbd", serve=flaky, size=SIZE) as r:
        assert isinstance(r.server, Server)
        r.server.kill()
        r.server.start(
            "--filter=error", "file", str(r.disk), "error-pwrite=ENOSPC", "error-pwrite-rate=50%"
        )
        raw = RawRing(r.front, Abi.NATIVE)
        statuses = set()
        for n in range(50):
            raw.put(
                *(
                    request(
                        Abi.NATIVE,
                        op=Op.WRITE,
                        id=i,
                        sector=i * 8,
                        segments=[(r.front.page_ref(i), 0, 7)],
                    )
                    for i in range(8)
                )
            )
            statuses |= {status for _, _, status in raw.responses(8)}
            assert n < 49 or statuses == {OKAY, ERROR}
        assert r.state.faults().by_operation()["write"] > 0
        assert r.queue.status().state is QueueState.RUNNING


def test_what_was_not_flushed_survives_a_crash_of_the_server(tmp_path: Path) -> None:
    """It has lost it; so it is told again, before a flush that would vouch for it."""
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player) as r:
        data = bytearray(os.urandom(SIZE))
        r.front.transfer(Op.WRITE, 0, SIZE // 512, data)
        data[4096:8192] = b"z" * 4096
        r.front.transfer(Op.WRITE, 8, 8, bytearray(b"z" * 4096))
        assert r.state.link().unflushed == SIZE + 4096
        assert player.durable == bytes(SIZE)
        player.kill()
        assert player.cached == bytes(SIZE)
        player.start()
        flush(r)
        assert player.durable == data
        assert r.state.link().unflushed == 0
        player.crash()
        back = bytearray(SIZE)
        r.front.transfer(Op.READ, 0, SIZE // 512, back)
        assert back == data


def test_what_is_not_to_be_flushed_is_newer_all_the_same(tmp_path: Path) -> None:
    """An operator says so, amid writes of which some are kept: those are not the last word."""
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player) as r:
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"a" * 4096))
        r.state.set_tunable("disable_flush", 1)
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"b" * 4096))
        player.cut(loses=False)
        back = bytearray(4096)
        r.front.transfer(Op.READ, 0, 8, back)
        assert back == b"b" * 4096


def flush(r: Ring) -> None:
    r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)


def test_a_flush_that_fails_is_the_last(tmp_path: Path) -> None:
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player) as r:
        player.flush_errno = FAILS
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(request(Abi.NATIVE, op=Op.FLUSH_DISKCACHE, id=7, sector=0))
        assert raw.responses(1) == [(7, Op.FLUSH_DISKCACHE, ERROR)]
        eventually(lambda: r.queue.status().state is QueueState.DRAINED, "it has drained")
        assert r.queue.status().reason is StopReason.LOST
        assert r.state.lost_errno == FAILS


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_server_that_lies_is_left(tmp_path: Path, lie: Lie) -> None:
    player = Player(SIZE)
    player.cached[:] = player.durable[:] = b"t" * SIZE
    with ring(tmp_path, size=SIZE, server=player, late_ms=20) as r:
        assert r.connector is not None
        back = bytearray(4096)
        r.front.transfer(Op.READ, 0, 8, back)
        player.lie = lie
        reader = threading.Thread(target=r.front.transfer, args=(Op.READ, 8, 8, back))
        given = r.connector.given  # before, for one lie is told but once
        reader.start()
        eventually(lambda: r.connector is not None and r.connector.given > given, "left")
        player.lie = None
        reader.join(GIVE_UP)
        assert back == b"t" * 4096
        assert r.counter("reqs_completed_with_error") == 0


def test_a_server_that_hangs_up_anywhere(tmp_path: Path) -> None:
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player, late_ms=20) as r:

        def given() -> int:
            assert r.connector is not None
            return r.connector.given

        for end in range(1, 300, 23):
            player.hang_up_after = end
            seen = given()  # how many connections there were says more than how one is now
            player.crash()
            eventually(lambda seen=seen: given() > seen, "the end is seen")  # type: ignore[misc]
        player.hang_up_after = -1
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"w" * 4096))
        flush(r)
        assert player.durable[:4096] == b"w" * 4096


@pytest.mark.parametrize("change", ["smaller", "read-only", "blocks"])
def test_a_server_that_comes_back_with_less(tmp_path: Path, change: str) -> None:
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player) as r:
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"w" * 4096))
        player.size = SIZE // 2 if change == "smaller" else SIZE
        player.flags |= 2 if change == "read-only" else 0
        player.minimum = 4096 if change == "blocks" else 1
        player.crash()
        seen = len(player.seen)
        assert r.connector is not None
        given = r.connector.given + 2
        eventually(lambda: r.connector is not None and r.connector.given > given, "refused")
        assert len(player.seen) == seen
        player.size, player.flags, player.minimum = SIZE, player.flags & ~2, 1
        flush(r)
        assert player.durable[:4096] == b"w" * 4096


@pytest.mark.slow
def test_a_server_that_is_silent_is_left(tmp_path: Path) -> None:
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player, patience=1, late_ms=20) as r:
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"w" * 4096))
        player.silent = True
        reader = threading.Thread(target=r.front.transfer, args=(Op.READ, 0, 8, bytearray(4096)))
        reader.start()
        eventually(lambda: r.state.link().errno != 0, "it is left")
        player.silent = False
        reader.join(GIVE_UP)
        assert r.counter("reconnects") >= 1


@pytest.mark.slow
def test_nobody_waits_for_ever_for_one_who_is_silent(tmp_path: Path) -> None:
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player) as r:
        eventually(lambda: r.state.link().state is LinkState.READY, "it is connected")
        player.silent = True
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(
            request(Abi.NATIVE, op=Op.READ, id=1, sector=0, segments=[(r.front.page_ref(0), 0, 7)])
        )
        eventually(lambda: bool(player.seen), "it is asked")
        begun = time.monotonic()
        r.queue.drain()
        assert raw.responses(1) == [(1, Op.READ, ERROR)]
        assert time.monotonic() - begun >= 2.9
        eventually(lambda: r.queue.status().state is QueueState.DRAINED, "it has drained")


def test_our_own_flush_bounds_what_is_kept(tmp_path: Path) -> None:
    player = Player(8 * SIZE)
    with ring(tmp_path, size=8 * SIZE, server=player) as r:
        for _ in range(6):
            r.front.transfer(Op.WRITE, 0, 8 * SIZE // 512, bytearray(8 * SIZE))
            assert r.state.link().unflushed <= 32 << 20
        eventually(lambda: r.state.link().unflushed < 16 << 20, "it is flushed")
        assert FLUSH in player.seen


def test_what_is_no_server(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    with theirs, pytest.raises(OperatorError):
        export(ours)
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(OperatorError, match="does not say"):
        look_at_export(ours.detach(), NbdExport(""), limit=0.1)
    player = Player(SIZE)
    player.start()
    assert export(player.connected()) == SIZE
    player.kill()
