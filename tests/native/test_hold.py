"""What is done about errors of a disk, as its tunables say: tried again, paused, or told.

The disk is one that has no room, or cannot be written, until it is itself again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native.ring import HV, Ring, ring
from tests.native.slots import RawRing, request
from tests.waiting import eventually
from xbbd_bsd.native import Abi, DiskKind, HvKind, Op
from xbbd_bsd.native._xbb import lib
from xbbd_bsd.stats import POLICIES

REPORT, RETRY, PAUSE, STOP, AUTO = range(5)
OKAY, ERROR = 0, -1

pytestmark = pytest.mark.skipif(HV is not HvKind.SIM, reason="its disk is another one for a while")


def test_policies_have_their_numbers() -> None:
    assert [getattr(lib, f"XBB_POLICY_{name.upper()}") for name in POLICIES] == [*range(5)]


@given(
    st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from(range(5)),
    st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from(range(5)),
    st.integers(0, 200),
    st.booleans(),
)
def test_any_word_and_any_errno_have_a_policy(
    on_error: int, on_full: int, errno: int, gone: bool
) -> None:
    """Nothing is done that nobody has asked for."""
    found = lib.xbb_policy_of(on_error, on_full, errno, gone)
    assert found in (REPORT, RETRY, PAUSE, STOP)
    if found != REPORT:
        asked = {on_error, on_full}
        assert found in asked or (found == PAUSE and RETRY in asked)
    if gone:
        assert found in (REPORT, PAUSE)


@contextmanager
def failing(tmp_path: Path, instead: str, flags: int) -> Iterator[tuple[Ring, Callable[[], None]]]:
    """A ring whose disk is something else, until what it gives is called."""
    with ring(tmp_path, disk_kind=DiskKind.DEVICE) as r:
        disk, other = os.dup(r.params.disk_fd), os.open(instead.format(disk=r.disk), flags)
        os.dup2(other, r.params.disk_fd)
        os.close(other)
        try:
            yield r, lambda: (os.dup2(disk, r.params.disk_fd), None)[1]
        finally:
            os.dup2(disk, r.params.disk_fd)
            os.close(disk)


def write(r: Ring) -> RawRing:
    raw = RawRing(r.front, Abi.NATIVE)
    segment = (r.front.page_ref(0), 0, 7)
    raw.put(request(Abi.NATIVE, op=Op.WRITE, id=1, sector=0, segments=[segment]))
    return raw


def test_an_error_is_tried_again_for_a_while(tmp_path: Path) -> None:
    with failing(tmp_path, "{disk}", os.O_RDONLY) as (r, mend):
        r.state.set_tunable("on_error", RETRY)
        r.state.set_tunable("retry_seconds", 60)
        raw = write(r)
        eventually(lambda: r.counter("io_retries") > 1, "it is tried again")
        mend()
        assert raw.responses(1) == [(1, Op.WRITE, OKAY)]
        assert (r.counter("io_held"), r.state.paused) == (1, None)


def test_and_then_told(tmp_path: Path) -> None:
    with failing(tmp_path, "{disk}", os.O_RDONLY) as (r, _):
        r.state.set_tunable("on_error", RETRY)
        r.state.set_tunable("retry_seconds", 1)
        assert write(r).responses(1) == [(1, Op.WRITE, ERROR)]
        assert r.counter("io_retries") > 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a system that has /dev/full")
def test_a_full_disk_has_its_own_word(tmp_path: Path) -> None:
    with failing(tmp_path, "/dev/full", os.O_RDWR) as (r, mend):
        r.state.set_tunable("on_full", PAUSE)
        raw = write(r)
        eventually(lambda: r.state.paused is not None, "it is paused")
        paused = r.state.paused
        assert paused is not None
        assert (paused.asked, paused.failed) == (False, True)
        held = r.state.faults().last_held
        assert held is not None
        assert (held.operation, held.sectors) == ("write", 8)
        mend()
        r.state.resume()
        r.queue.look()
        assert raw.responses(1) == [(1, Op.WRITE, OKAY)]
        eventually(lambda: r.state.followed, "it goes on")
