"""A network card's queue and segment through their Python handles.

What goes over the rings is in tests/c; here is what the control plane sees of it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from errno import EBUSY
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.descriptors import open_descriptors
from tests.native.card import card, frame
from tests.waiting import eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import (
    NET_COUNTERS,
    NET_TUNABLES,
    PLAIN_FRAMES,
    HvKind,
    NetAccepts,
    NetOffload,
    NetParams,
    NetQueue,
    NetRefusal,
    NetRingView,
    NetState,
    QueueState,
    QueueStatus,
    SegmentIdentity,
    State,
    StopReason,
    Transport,
    budget_used,
    net_params_of,
    net_queue_bytes,
    self_test,
)
from xbbd_bsd.native._xbb import ffi

WHOSE = SegmentIdentity("vif", 7, 2, 3, "/vm/some")
GUEST = bytes((2, 0, 0, 0, 0, 1))
NEITHER = NetParams(-1, -1, -1, -1, HvKind.SIM, 1, 1, 8, 9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "segment"
    NetState.create(str(made), queues=2, identity=WHOSE).close()
    return made


def read_all(state: NetState) -> None:
    """Everything a segment tells; a number is a number, whatever it is."""
    for queue in range(state.rings):
        view = state.queue(queue)
        assert isinstance(view.transport + view.offload, int)
        assert view.accepts in ~PLAIN_FRAMES
    assert all(value >= 0 for value in state.counters().values())
    assert all(value >= 0 for value in state.refusals().values())
    assert list(state.tunables()) == list(NET_TUNABLES)
    assert len(os.fsencode(state.interface)) <= 16
    assert len(os.fsencode(state.guest)) <= 64
    assert len(os.fsencode(state.identity.kind)) <= 32
    assert set(state.served) <= {0, 1}
    assert state.ending in (True, False)
    assert 0 <= state.connection_rings <= state.rings
    assert state.takeovers >= 0


def test_a_fresh_segment(path: Path) -> None:
    state = NetState.open(str(path))
    read_all(state)
    assert (state.rings, state.identity, state.damaged) == (2, WHOSE, False)
    assert (state.interface, state.guest, state.served, state.takeovers) == ("", "", [], 0)
    assert set(state.counters()) == set(NET_COUNTERS)
    assert set(state.refusals()) == set(NetRefusal)
    assert not any((*state.counters().values(), *state.refusals().values()))
    assert state.tunables() == {"poll_max_us": 50}
    state.close()
    state.close()


def test_what_the_control_plane_writes_others_read(path: Path) -> None:
    mine = NetState.open(str(path), writable=True)
    others = NetState.open(str(path))
    mine.interface, mine.guest = "vif7.2", "g" * 100
    mine.connect(2)
    mine.note_takeover()
    mine.set_tunable("poll_max_us", -1)
    mine.count_on({1: {"tx_packets": 5, "notifies_sent": 6, "gone": 7}, 9: {"tx_packets": 1}})
    assert (others.interface, others.guest) == ("vif7.2", "g" * 63)
    assert (others.connection_rings, others.takeovers) == (2, 1)
    assert others.tunables() == {"poll_max_us": -1}
    assert (others.counters(1)["tx_packets"], others.counters()["notifies_sent"]) == (5, 6)
    assert others.ending  # two were to be served, none is
    mine.handle.takeovers = (1 << 64) - 1
    mine.note_takeover()
    assert others.takeovers == 0
    with pytest.raises(KeyError):
        mine.set_tunable("reserved", 1)
    mine.close()
    others.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(), alphabet=st.sampled_from([bytes(range(256)), b"\0\1\2", b"\0\xff"]))
def test_garbage_is_only_read(path: Path, seed: int, alphabet: bytes) -> None:
    state = NetState.open(str(path))
    at = ffi.sizeof("struct xbb_segment_head")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(Random(seed).choices(alphabet, k=path.stat().st_size - at)))
    read_all(state)
    for queue in range(2):
        with suppress(HostError):
            assert net_params_of(state, queue).queue == queue
    state.close()


def test_a_file_that_is_cut_off_reads_as_zeros(path: Path) -> None:
    state = NetState.open(str(path), writable=True)
    os.truncate(path, 0)
    read_all(state)
    assert state.damaged
    state.interface = "vif1.0"
    state.close()


def test_a_disks_segment_is_none_of_a_card(tmp_path: Path, path: Path) -> None:
    State.create(str(tmp_path / "disk")).close()
    with pytest.raises(HostError, match="map state segment"):
        NetState.open(str(tmp_path / "disk"))
    with pytest.raises(HostError, match="map state segment"):
        State.open(str(path))


def test_whoever_serves_it_is_left_alone(path: Path) -> None:
    before = open_descriptors()
    taken = NetState.take_over(str(path))
    for act in (NetState.take_over, NetState.create):
        with pytest.raises(HostError, match="has not ended") as error:
            act(str(path))
        assert error.value.errno == EBUSY
    taken.unlock()
    other = NetState.take_over(str(path))
    other.close()
    taken.close()
    assert open_descriptors() == before


def test_counts_that_cannot_be(tmp_path: Path) -> None:
    for queues in (0, 9):
        with pytest.raises(HostError, match="make state segment"):
            NetState.create(str(tmp_path / "none"), queues=queues)


def test_frames_go_both_ways_and_are_counted(tmp_path: Path) -> None:
    before = open_descriptors()
    with card(tmp_path, accepts=~PLAIN_FRAMES) as c:
        assert budget_used()[0] > 0
        for n in range(50):
            c.send(c.guest, frame(n))
            assert c.receive(c.bridge) == frame(n)
            c.send(c.bridge, frame(n, 9000))
            assert c.receive(c.guest) == frame(n, 9000)
        c.queue.drain()
        c.wait_drained()
        counters = c.state.counters()
        assert (counters["tx_packets"], counters["tx_bytes"]) == (50, 5000)
        assert (counters["rx_packets"], counters["rx_bytes"]) == (50, 450000)
        assert (counters["tx_slots"], counters["rx_slots"]) == (50, 150)
        assert counters["grants_copied_total"] == 200
        assert not any(c.state.refusals().values())
        view = c.state.queue()
        assert view == NetRingView(
            connected=False,
            transport=Transport.COPY,
            max_requests=256,
            accepts=~PLAIN_FRAMES,
            offload=NetOffload.FULL,
            rx_polls=False,
            tx_req_cons=50,
            tx_rsp_prod=50,
            rx_req_cons=150,
            rx_rsp_prod=150,
            tx_answering=50,
            rx_answering=150,
            rx_full_since_ns=0,
        )
        assert c.state.counters(1)["tx_packets"] == 0
    assert open_descriptors() == before
    assert budget_used() == (0, 0)


def test_the_segment_says_what_a_queue_is_made_of(tmp_path: Path) -> None:
    accepts = NetAccepts.SG | NetAccepts.CSUM_IPV4
    with card(tmp_path, accepts=accepts, source=GUEST) as c:
        found = net_params_of(c.state, 0)
        assert found == replace(c.params, grant_fd=-1, event_fd=-1, link_fd=-1, wake_fd=-1)
        c.state.handle.ring[0].params.offload = 7
        with pytest.raises(HostError, match="queue 0 is like none of ours: 7"):
            net_params_of(c.state, 0)
        assert c.state.served == [0]
        assert c.queue.status() == QueueStatus(QueueState.RUNNING, StopReason.NONE, 0)
        c.state.connect(1)
        assert not c.state.ending
        c.queue.drain()
        c.wait_drained()
        assert c.state.ending
        assert c.state.served == []


def test_a_frame_from_another_address_is_refused(tmp_path: Path) -> None:
    with card(tmp_path, source=GUEST) as c:
        stranger = frame(1)[:11] + b"\7" + frame(1)[12:]
        c.send(c.guest, stranger)
        c.send(c.guest, frame(2))
        assert c.receive(c.bridge) == frame(2)
        assert c.state.refusals()[NetRefusal.BAD_SOURCE] == 1
        assert c.state.counters()["tx_errors"] == 1


def test_indices(tmp_path: Path) -> None:
    with card(tmp_path) as c:
        c.send(c.guest, frame(1))
        assert c.receive(c.bridge) == frame(1)

        def settled() -> bool:
            found = c.queue.indices()
            return found is not None and found.tx.rsp_prod == 1

        eventually(settled, "the packet is answered")
        found = c.queue.indices()
        assert found is not None
        assert (found.tx.nr_ents, found.tx.req_cons, found.tx.req_prod) == (256, 1, 1)
        assert (found.tx.rsp_prod_pvt, found.tx.rsp_prod) == (1, 1)
        assert (found.rx.req_cons, found.rx.rsp_prod, found.rx.nr_ents) == (0, 0, 256)
        c.queue.close()
        assert c.queue.indices() is None


def test_another_goes_on(tmp_path: Path) -> None:
    """Handed over, and shown as served all the time; or closed as if it had died."""
    with card(tmp_path) as c:
        for n in range(20):
            c.send(c.guest, frame(n))
            c.send(c.bridge, frame(n, 60))
            if n % 2:
                c.queue.hand_over()
                c.wait_drained()
                assert c.state.served == [0]
            c.adopt()
            assert c.receive(c.bridge) == frame(n)
            assert c.receive(c.guest) == frame(n, 60)
        # A frame is there before it is counted.
        eventually(lambda: c.state.counters()["tx_packets"] == 20, "all are counted")
        assert c.front.counters()["tx_errors"] == 0


def test_a_closed_queue_has_drained(tmp_path: Path) -> None:
    with card(tmp_path) as c:
        c.queue.close()
        c.queue.close()
        c.queue.drain()
        c.queue.hand_over()
        assert c.queue.status().state is QueueState.DRAINED


def test_opening_fails_cleanly(tmp_path: Path, path: Path) -> None:
    state = NetState.open(str(path), writable=True)
    before = open_descriptors()
    with pytest.raises(HostError, match="connect a card of domain 1: check parameters"):
        NetQueue(NEITHER, state)
    with pytest.raises(HostError, match="connect a card of domain 1: open grant device"):
        NetQueue(replace(NEITHER, link_fd=0), state)
    with pytest.raises(HostError, match="an address of 2 bytes"):
        NetQueue(replace(NEITHER, source=b"ab"), state)
    assert open_descriptors() == before
    state.close()
    assert budget_used() == (0, 0)


def test_what_a_queue_takes() -> None:
    """A megabyte for a sweep, and little more."""
    assert 1 << 20 < net_queue_bytes() < 2 << 20


def test_the_self_test_holds() -> None:
    results = list(self_test())
    assert len({name for name, _ in results}) == len(results) > 30
    assert [name for name, holds in results if not holds] == []
