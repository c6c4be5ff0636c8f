"""How a queue opens, drains and ends, and what ends it."""

from __future__ import annotations

import select
from dataclasses import replace
from errno import EPROTO
from pathlib import Path

import pytest

from tests.native.ring import ring
from tests.native.slots import REQ_PROD, RawRing, request
from tests.waiting import eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import (
    Abi,
    DiskKind,
    HvKind,
    Op,
    Queue,
    QueueParams,
    QueueState,
    State,
    StopReason,
    Transport,
)
from xbbd_bsd.native._xbb import ffi
from xbbd_bsd.native.queue import c_params, queue_bytes

OKAY, ERROR, EOPNOTSUPP = 0, -1, -2


@pytest.mark.parametrize("lie", [33, 1 << 16, 1 << 31, -1])
def test_ring_indices_that_lie_stop_this_ring(tmp_path: Path, lie: int) -> None:
    """XSA-39."""
    with ring(tmp_path) as r:
        r.front.transfer(Op.READ, 0, 1, bytearray(512))
        raw = RawRing(r.front, Abi.NATIVE)
        raw.set_index(REQ_PROD, raw.index(REQ_PROD) + lie)
        r.front.notify()
        r.wait_drained()
        assert r.queue.status().reason == StopReason.RING


def test_the_segment_says_what_a_queue_is_made_of_and_how_it_ended(tmp_path: Path) -> None:
    """So that whoever comes next need not ask the guest, or the daemon that was."""
    with ring(tmp_path) as r:
        found = State.open(r.state.path)
        shown = found._state.ring[0]
        asked = c_params(r.params)
        asked.conn.grant_fd = asked.conn.event_fd = asked.conn.wake_fd = asked.disk_fd = -1
        assert bytes(ffi.buffer(ffi.addressof(shown, "params"))) == bytes(ffi.buffer(asked))
        assert (shown.common.status.state, shown.common.status.reason) == (
            QueueState.RUNNING,
            StopReason.NONE,
        )

        raw = RawRing(r.front, Abi.NATIVE)
        raw.set_index(REQ_PROD, raw.index(REQ_PROD) + 33)
        r.front.notify()
        r.wait_drained()
        assert (
            shown.common.status.state,
            shown.common.status.reason,
            shown.common.status.errnum,
        ) == (
            QueueState.DRAINED,
            StopReason.RING,
            EPROTO,
        )
        found.close()


def test_a_ring_without_a_queue_is_said_to_have_drained(tmp_path: Path) -> None:
    state = State.create(str(tmp_path / "state"), rings=2, table_entries=32)
    assert state._state.ring[1].common.status.state == QueueState.DRAINED
    state.close()


def test_drain_answers_what_was_accepted(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        raw.put(
            *(
                request(
                    Abi.NATIVE, op=0, id=i, sector=i * 16, segments=[(r.front.page_ref(i), 0, 7)]
                )
                for i in range(32)
            )
        )
        r.queue.drain()
        r.wait_drained()
        counters = r.state.counters()
        assert counters["reqs_received"] == counters["reqs_completed"]
        assert counters["reqs_queued_for_completion"] == 0
        raw.responses(counters["reqs_completed"])
        assert r.state.inflight() == []
        assert not r.state.ring().connected


def test_the_guest_vanishes(tmp_path: Path) -> None:
    """The other end of the event channel closes: no spin, no stop, drains when told."""
    with ring(tmp_path) as r:
        r.state.set_tunable("poll_max_us", 0)
        raw = RawRing(r.front, Abi.NATIVE)
        # Each a page of its own: several threads may be at the disk.
        pages = [[(r.front.page_ref(i), 0, 7)] for i in range(8)]
        raw.put(*(request(Abi.NATIVE, op=Op.READ, id=i, segments=pages[i]) for i in range(8)))
        del raw, pages  # nobody will look for the responses
        r.front.close()
        eventually(lambda: r.counter("reqs_completed") == 8, "what was put is carried out")

        # What spins goes to sleep all the time, some thousand times in as long as this.
        before = r.counter("ring_sleeps")
        ready, _, _ = select.select([r.wake_fd], [], [], 0.2)
        assert (ready, r.counter("ring_sleeps") - before < 20) == ([], True)
        status = r.queue.status()
        assert (status.state, status.reason) == (QueueState.RUNNING, StopReason.NONE)
        r.queue.drain()
        r.wait_drained()
        assert r.queue.status().reason == StopReason.NONE
        assert r.state.inflight() == []


def test_an_opening_that_fails_leaves_a_running_queue_alone(tmp_path: Path) -> None:
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        values = {name: getattr(r.params, name) for name in r.params.__slots__}
        raw.put(
            *(
                request(
                    Abi.NATIVE,
                    op=Op.READ,
                    id=i,
                    sector=i * 16,
                    segments=[(r.front.page_ref(i), 0, 7)],
                )
                for i in range(20, 28)
            )
        )
        with pytest.raises(HostError, match="map ring"):
            Queue(QueueParams(**{**values, "ring_refs": (15000,)}), r.state)
        assert sorted(raw.responses(8)) == [(i, Op.READ, OKAY) for i in range(20, 28)]


def test_opening_fails_cleanly(tmp_path: Path) -> None:
    with ring(tmp_path) as r:

        def attempt(**changes: object) -> None:
            values = {name: getattr(r.params, name) for name in r.params.__slots__}
            Queue(QueueParams(**{**values, **changes}), r.state)

        with pytest.raises(HostError, match="map ring"):
            attempt(ring_refs=(15000,))
        with pytest.raises(HostError, match="check parameters"):
            attempt(ring_refs=(1, 2, 3))
        with pytest.raises(HostError, match="check parameters"):
            attempt(sector_size=1000)
        with pytest.raises(HostError, match="bind event channel"):
            attempt(event_fd=-1)


def test_memory_of_a_queue_that_may_copy(tmp_path: Path) -> None:
    """As much as one that is told to keep data of its own; one that only maps takes less."""
    with ring(tmp_path) as r:
        usual = replace(r.params, hv=HvKind.SIM, disk_kind=DiskKind.FILE, bounce=False)
        mapped, best, copied = (
            queue_bytes(replace(usual, transport=kind))
            for kind in (Transport.MAP, Transport.BEST, Transport.COPY)
        )
        bounced = queue_bytes(replace(usual, transport=Transport.MAP, bounce=True))
        assert mapped < best == copied == bounced
