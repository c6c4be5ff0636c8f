"""What a server has acknowledged and not flushed, when its disk is paused or somebody else's.

It is flushed, if there is a server; otherwise whoever serves the disk next has it, or the
disk that takes its place.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from errno import EBADF, EBADMSG, ECANCELED, EINVAL, ENOSPC
from pathlib import Path

import pytest

from tests.native.nbd_player import FLUSH, Player
from tests.native.ring import Ring, ring
from tests.native.slots import RawRing, request
from tests.native.stores import Connector
from tests.waiting import GIVE_UP, eventually, patience
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import (
    Abi,
    DiskKind,
    Kept,
    LinkState,
    NbdExport,
    Op,
    Queue,
    QueueState,
    carry_to_disk,
    carry_to_server,
    load_nbd,
)

SIZE = 1 << 20
OKAY = 0
LIMIT = 30.0


@pytest.fixture(autouse=True)
def library() -> None:
    try:
        load_nbd()
    except HostError as error:
        pytest.skip(str(error))


@contextmanager
def written(tmp_path: Path, **options: int) -> Iterator[tuple[Ring, Player, bytes]]:
    """A ring whose server has acknowledged something, and has flushed nothing of it."""
    player = Player(SIZE)
    data = bytearray(os.urandom(SIZE))
    with ring(tmp_path, size=SIZE, server=player, discard=True, **options) as r:  # type: ignore[arg-type]
        r.front.transfer(Op.WRITE, 0, SIZE // 512, data)
        r.front.transfer(Op.DISCARD, 8, 8)
        data[4096:8192] = bytes(4096)
        r.front.transfer(Op.WRITE, 8, 1, bytearray(b"n" * 512))
        data[4096:4608] = b"n" * 512
        assert r.state.link().unflushed == SIZE + 4096 + 512
        yield r, player, bytes(data)


def pause(r: Ring, limit: float = GIVE_UP) -> None:
    r.state.pause()
    r.queue.look()
    eventually(lambda: r.state.followed, "the pause is followed")


def gone(r: Ring, player: Player) -> None:
    player.kill()
    eventually(lambda: r.state.link().state is LinkState.WANTED, "it is missed")


def leave(queue: Queue) -> None:
    queue.hand_over()
    eventually(lambda: queue.status().state is QueueState.DRAINED, "it is handed over")
    queue.close()


def handed_over(r: Ring) -> Kept:
    """What is in its file then."""
    assert r.connector is not None
    r.connector.close()
    leave(r.queue)
    return Kept(r.params.disk_fd, r.state.link().unflushed, SIZE)


def test_who_pauses_it_has_it_flushed(tmp_path: Path) -> None:
    with written(tmp_path) as (r, player, data):
        pause(r)
        assert player.durable == data
        assert r.state.link().unflushed == 0
        r.state.resume()


def test_who_hands_it_over_has_it_flushed(tmp_path: Path) -> None:
    with written(tmp_path) as (r, player, data):
        assert handed_over(r).unflushed == 0
        assert player.durable == data


def test_without_a_server_it_is_written_to_the_next_disk(tmp_path: Path) -> None:
    """A file, and another server's; as often as anybody wants."""
    with written(tmp_path) as (r, player, data):
        gone(r, player)
        pause(r)
        kept = handed_over(r)
        assert kept.unflushed == SIZE + 4096 + 512
        new = tmp_path / "new"
        new.write_bytes(bytes(SIZE))
        fd = os.open(new, os.O_RDWR)
        for _ in range(2):
            carry_to_disk(kept, fd, DiskKind.FILE)
        os.close(fd)
        assert new.read_bytes() == data
        other = Player(SIZE)
        other.start()
        carry_to_server(kept, other.connected().detach(), NbdExport(""), limit=LIMIT)
        assert other.durable == data
        other.kill()
        r.state.resume()


@pytest.mark.parametrize("rounds", [1, 2])
def test_who_serves_it_next_has_it(tmp_path: Path, rounds: int) -> None:
    """As often as its server stays away; and once that is back, nobody after that."""
    with written(tmp_path) as (r, player, data):
        gone(r, player)
        pause(r)
        kept = handed_over(r)
        for _ in range(rounds):
            queue = Queue(replace(r.params, adopt=True), r.state)
            queue.start()
            eventually(lambda: r.state.link().unflushed == kept.unflushed, "it is shown")
            leave(queue)
        r.state.resume()
        queue = Queue(replace(r.params, adopt=True), r.state)
        queue.start()
        player.start()
        connector = Connector(queue, r.state, player.connected)
        r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
        assert player.durable == data
        connector.close()
        queue.close()
        assert os.pread(kept.fd, 16, 0)[8:] == bytes(8)


def test_what_is_out_is_done_by_who_comes_next(tmp_path: Path) -> None:
    """The server is gone, and the disk paused: nothing is under way, nothing is lost."""
    with written(tmp_path) as (r, player, _):
        gone(r, player)
        raw = RawRing(r.front, Abi.NATIVE)
        for i in range(4):
            raw.put(
                request(
                    Abi.NATIVE,
                    op=Op.READ,
                    id=i,
                    sector=8 * i,
                    segments=[(r.front.page_ref(i), 0, 7)],
                )
            )
        eventually(lambda: len(r.state.inflight()) == 4, "they are taken")
        pause(r)
        handed_over(r)
        assert len(r.state.inflight()) == 4
        r.state.resume()
        queue = Queue(replace(r.params, adopt=True), r.state)
        queue.start()
        player.start()
        connector = Connector(queue, r.state, player.connected)
        assert {status for _, _, status in raw.responses(4)} == {OKAY}
        connector.close()
        queue.close()


def test_what_is_out_fails_when_the_ring_ends(tmp_path: Path) -> None:
    """Of a disk that stays paused: for no fault of the guest's."""
    with written(tmp_path) as (r, player, _):
        gone(r, player)
        raw = RawRing(r.front, Abi.NATIVE)
        asked = (Op.READ, Op.WRITE, Op.FLUSH_DISKCACHE)
        for i, op in enumerate(asked):
            segments = [] if op is Op.FLUSH_DISKCACHE else [(r.front.page_ref(i), 0, 7)]
            raw.put(request(Abi.NATIVE, op=op, id=i, sector=80 * i, segments=segments))
        eventually(lambda: len(r.state.inflight()) == len(asked), "they are taken")
        pause(r)
        r.queue.drain()
        answers = raw.responses(len(asked))
        assert sorted(answers) == [(i, op, -1) for i, op in enumerate(asked)]
        faults = r.state.faults()
        told = {what: count for what, count in faults.disk.items() if count}
        assert told == {(what, ECANCELED): 1 for what in ("read", "write", "flush")}
        assert faults.of_guest == r.counter("grant_errors") == 0
        r.wait_drained()


def test_what_is_out_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    with written(tmp_path) as (r, player, data):
        gone(r, player)
        back = bytearray(4096)
        reader = threading.Thread(target=r.front.transfer, args=(Op.READ, 8, 8, back))
        reader.start()
        eventually(lambda: bool(r.state.inflight()), "it is out")
        pause(r)
        before = len(player.seen)
        player.start()
        eventually(lambda: r.state.link().state is LinkState.READY, "it is back")
        assert len(player.seen) == before  # nothing is written while it is paused
        assert player.cached == bytes(SIZE)
        r.state.resume()
        r.queue.look()
        reader.join(GIVE_UP)
        assert back == data[4096:8192]


@pytest.mark.slow
def test_one_who_is_silent_is_left(tmp_path: Path) -> None:
    with written(tmp_path) as (r, player, _):
        player.silent = True
        reader = threading.Thread(target=r.front.transfer, args=(Op.READ, 8, 8, bytearray(4096)))
        reader.start()
        eventually(lambda: player.seen[-1] == 0, "it is asked")
        r.state.pause()
        r.queue.look()
        begun = time.monotonic()
        kept = handed_over(r)
        assert time.monotonic() - begun < patience(6)
        assert kept.unflushed == SIZE + 4096 + 512
        player.silent = False
        r.state.resume()
        queue = Queue(replace(r.params, adopt=True), r.state)
        queue.start()
        connector = Connector(queue, r.state, player.connected)
        reader.join(GIVE_UP)
        assert not reader.is_alive()
        connector.close()
        queue.close()


def test_discards_are_bounded_as_well(tmp_path: Path) -> None:
    """They have no data, but are kept in their order: a guest that only discards is no leak."""
    player = Player(SIZE)
    with ring(tmp_path, size=SIZE, server=player, discard=True) as r:
        while FLUSH not in player.seen and len(player.seen) < 5000:
            r.front.transfer(Op.DISCARD, 8, 8)
        assert len(player.seen) < 5000


def no_magic(text: bytes) -> bytes:
    return bytes(8) + text[8:]


def short_by(field: int, value: int) -> Callable[[bytes], bytes]:
    """One field of the first record after the head of 24 bytes is another."""

    def change(text: bytes) -> bytes:
        at = 24 + 8 * field
        return text[:at] + struct.pack("=Q", value) + text[at + 8 :]

    return change


def more(text: bytes) -> bytes:
    return text[:8] + struct.pack("=Q", 1 << 40) + text[16:]


LIES = {
    "none of ours": (no_magic, EBADMSG),
    "beyond the end": (short_by(0, SIZE), EINVAL),
    "no sector": (short_by(0, 7), EINVAL),
    "too long": (short_by(1, 1 << 50), EINVAL),
    "empty": (short_by(1, 0), EINVAL),
    "more than there is": (more, EINVAL),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_process_of_a_guest_has_left_is_checked(tmp_path: Path, lie: str) -> None:
    change, errno = LIES[lie]
    with written(tmp_path) as (r, player, _):
        gone(r, player)
        pause(r)
        kept = handed_over(r)
        text = os.pread(kept.fd, 2 * SIZE, 0)
        os.pwrite(kept.fd, change(text), 0)
        new = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
        os.truncate(new, SIZE)
        with pytest.raises(HostError) as raised:
            carry_to_disk(kept, new, DiskKind.FILE)
        assert raised.value.errno == errno
        assert os.pread(new, SIZE, 0) == bytes(SIZE)
        os.close(new)
        if errno == EINVAL:
            with pytest.raises(HostError, match="prepare its store"):
                Queue(replace(r.params, adopt=True), r.state)
        r.state.resume()


def test_a_disk_that_does_not_take_it(tmp_path: Path) -> None:
    with written(tmp_path) as (r, player, _):
        gone(r, player)
        pause(r)
        kept = handed_over(r)
        (tmp_path / "new").write_bytes(bytes(SIZE))
        new = os.open(tmp_path / "new", os.O_RDONLY)
        with pytest.raises(HostError) as raised:
            carry_to_disk(kept, new, DiskKind.FILE)
        assert raised.value.errno == EBADF
        os.close(new)
        other = Player(SIZE)
        other.flush_errno = ENOSPC
        other.start()
        with pytest.raises(HostError) as raised:
            carry_to_server(kept, other.connected().detach(), NbdExport(""), limit=LIMIT)
        assert raised.value.errno == ENOSPC
        other.silent = True
        with pytest.raises(HostError, match="timed out"):
            carry_to_server(kept, other.connected().detach(), NbdExport(""), limit=0.2)
        other.kill()
        r.state.resume()
