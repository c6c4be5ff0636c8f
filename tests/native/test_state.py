"""State segments that others write to: what is no segment is refused, the rest only read."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from errno import EBUSY
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Op, RequestState, SegmentIdentity, SegmentMedium, State
from xbbd_bsd.native._xbb import ffi, lib

MEDIUM = SegmentMedium(("file", 1, 2), "/disk", "vm1")
HEADER = struct.Struct("@4IQ2I32s64s4I")  # struct xbb_segment_head
ALPHABETS = [bytes(range(256)), b"\0\1\2\3", b"\0\xff"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "segment"
    State.create(str(made), rings=2, table_entries=32).close()
    return made


def overwrite(path: Path, at: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)


def read_all(state: State) -> None:
    """Everything a segment tells; a number is a number, whatever it is."""
    for ring in range(state.rings):
        view = state.ring(ring)
        assert isinstance(view.abi + view.transport, int)
        for request in state.inflight(ring):
            assert len(request.segments) <= 11
            assert len(request.indirect_refs) <= 8
            assert isinstance(request.operation + request.state, int)
    assert all(value >= 0 for value in state.counters().values())
    assert len(state.tunables()) == 15
    assert state.sectors >= 0
    assert 0 <= state.lost_errno < 4096
    assert state.medium is None or state.medium.key[0] in ("file", "device", "nbd", "rbd")
    assert len(os.fsencode(state.identity.kind)) <= 32
    for received in (False, True):
        state.devstat(received=received)
        assert len(state.busy(1 << 62, received=received)) == state.rings
    for kind in range(4):
        assert len(state.latency(kind)) == 320


def offset_of(state: State, pointer: object) -> int:
    """Bytes from the start of a segment."""
    return int(ffi.cast("uintptr_t", pointer)) - int(ffi.cast("uintptr_t", state._state))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(), alphabet=st.sampled_from(ALPHABETS), header=st.booleans())
def test_garbage_is_only_read(path: Path, seed: int, alphabet: bytes, header: bool) -> None:
    state = State.open(str(path))
    try:
        at = 0 if header else HEADER.size
        overwrite(path, at, bytes(Random(seed).choices(alphabet, k=path.stat().st_size - at)))
        assert (state.rings, state.table_entries) == (2, 32)
        read_all(state)
        assert not state.damaged
    finally:
        state.close()
        State.create(str(path), rings=2, table_entries=32).close()


def test_what_a_number_stands_for_or_the_number(path: Path) -> None:
    state = State.open(str(path), writable=True)
    table = offset_of(state, lib.xbb_state_table(state._state, 1))
    state._state.ring[1].common.max_requests = 1 << 31
    state._state.ring[1].abi = 77
    overwrite(path, table + 46, bytes((2, Op.WRITE)))  # of the first: state, operation
    overwrite(path, table + 144 + 46, bytes((9, 200)))
    known, odd = state.inflight(1)
    assert (known.state, known.operation) == (RequestState.DISPATCHED, Op.WRITE)
    assert (odd.state, odd.operation) == (9, 200)
    assert state.ring(1).abi == 77
    state.close()


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [0, 7, 9, 1 << 31, (1 << 32) - 1])
def test_a_header_that_lies_is_refused(path: Path, field: int, value: int) -> None:
    header = list(HEADER.unpack(path.read_bytes()[: HEADER.size]))
    header[field] = value
    overwrite(path, 0, HEADER.pack(*header))
    with pytest.raises(HostError, match="map state segment"):
        State.open(str(path))


@pytest.mark.parametrize("change", [-1, 1, -4096, 4096])
def test_another_size_than_it_says_is_refused(path: Path, change: int) -> None:
    os.truncate(path, path.stat().st_size + change)
    with pytest.raises(HostError, match="map state segment"):
        State.open(str(path))


def test_whose_it_is(tmp_path: Path) -> None:
    whose = SegmentIdentity("vbd3", 7, (1 << 32) - 1, 4)
    made = State.create(str(tmp_path / "mine"), table_entries=32, identity=whose)
    found = State.open(str(tmp_path / "mine"))
    assert made.identity == found.identity == whose
    made.close()
    overwrite(tmp_path / "mine", 32, b"k" * 32)
    assert found.identity == SegmentIdentity("k" * 32, 7, (1 << 32) - 1, 4)
    found.close()


def test_a_kind_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Cut off, it would be another's."""
    with pytest.raises(HostError, match="is too long"):
        State.create(str(tmp_path / "mine"), identity=SegmentIdentity("k" * 32, 1, 2, 3))
    assert not (tmp_path / "mine").exists()
    State.create(str(tmp_path / "mine"), identity=SegmentIdentity("k" * 31, 1, 2, 3)).close()


def test_whoever_serves_it_is_left_alone(tmp_path: Path) -> None:
    """Nobody goes on with it, nor makes another in its place, before it is closed."""
    name = str(tmp_path / "mine")
    made = State.create(name, table_entries=32)
    inode = os.stat(name).st_ino
    for act in (State.take_over, State.create):
        with pytest.raises(HostError, match="has not ended") as error:
            act(name)
        assert (error.value.errno, os.stat(name).st_ino) == (EBUSY, inode)
    State.open(name).close()  # who only looks needs no lock, and takes none away
    with pytest.raises(HostError, match="has not ended"):
        State.take_over(name)
    made.close()
    taken = State.take_over(name)
    with pytest.raises(HostError, match="has not ended"):
        State.create(name)
    taken.close()
    State.create(name).close()


def test_take_overs_are_counted_whatever_stands_there(path: Path) -> None:
    state = State.open(str(path), writable=True)
    for waited_ns in (5, 9, 7):
        state.note_takeover(waited_ns)
    assert (state.takeovers.count, state.takeovers.longest_ns) == (3, 9)
    state.handle.takeovers.count = (1 << 64) - 1
    state.note_takeover(0)
    assert state.takeovers.count == 0
    state.close()


def test_where_the_parts_are_follows_from_the_counts(path: Path) -> None:
    """The head begins the file, and nothing else in it says where to look."""
    state = State.open(str(path))
    first, second = (offset_of(state, lib.xbb_state_table(state._state, n)) for n in (0, 1))
    table, histograms = 32 * 144, 4 * 320 * 8
    assert first % 4096 == 0
    assert ffi.sizeof("struct xbb_segment_head") == HEADER.size
    assert first >= ffi.sizeof("struct xbb_state") > first - 4096
    assert offset_of(state, lib.xbb_state_latency(state._state, 0)) == first + table
    assert second == first + table + histograms
    assert path.stat().st_size == second + table + histograms
    state.close()


CUTS: list[Callable[[int], int]] = [lambda size: 0, lambda size: 1, lambda size: size // 2]


@pytest.mark.parametrize("cut", CUTS)
def test_a_file_that_is_cut_off_reads_as_zeros(path: Path, cut: Callable[[int], int]) -> None:
    """And what we said of it ourselves is still known."""
    state = State.open(str(path), writable=True)
    state.medium = MEDIUM
    state.lose(5)
    os.truncate(path, cut(path.stat().st_size))
    read_all(state)
    assert state.damaged
    assert state.inflight(0) == []
    assert (state.medium, state.lost_errno) == (MEDIUM, 5)
    state.resize(10)
    state.set_tunable("poll_max_us", 7)
    state.medium = MEDIUM
    state.close()
