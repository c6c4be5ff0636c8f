"""Event channels of a queue: when it is woken, when it sleeps, when it notifies."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.native.ring import ring
from tests.native.slots import RSP_PROD, RawRing, request
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.native import Abi, Op


def test_a_flood_of_events_does_not_hold_the_ring_thread(tmp_path: Path) -> None:
    """Somebody sends as fast as the ring thread can read: a drain still comes through."""
    with ring(tmp_path) as r:
        r.front.transfer(Op.READ, 0, 1, bytearray(512))
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                r.front.notify()

        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            begun = time.monotonic()
            r.front.transfer(Op.READ, 0, 8, bytearray(4096), timeout=GIVE_UP)
            assert time.monotonic() - begun < GIVE_UP / 2, "found when it was given up"
            r.queue.drain()
            r.wait_drained()
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_the_guest_is_notified_only_when_it_asks(tmp_path: Path) -> None:
    """XSA-391: an event for the response that rsp_event names, and none before it."""
    with ring(tmp_path) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        page = [(r.front.page_ref(0), 0, 0)]
        for i in range(3):
            raw.put(request(Abi.NATIVE, op=0, id=i, segments=page), asked=3)
            eventually(lambda n=i + 1: raw.index(RSP_PROD) == n, "the response")  # type: ignore[misc]
        assert r.front.wait(GIVE_UP)
        eventually(lambda: r.counter("notifies_sent") == 1, "one notification")


def test_looking_around_spares_sleeping(tmp_path: Path) -> None:
    """As long as it pays; not allowed to, the ring sleeps after each request."""
    with ring(tmp_path) as r:

        def transfers(count: int) -> int:
            before = r.counter("ring_sleeps")
            for _ in range(count):
                r.front.transfer(Op.READ, 0, 1, bytearray(512))
            return r.counter("ring_sleeps") - before

        r.state.set_tunable("poll_max_us", 1_000_000)
        transfers(40)  # it tries after so many sleeps
        # Somebody else may have the processor for longer than it looks around.
        eventually(lambda: transfers(20) == 0, "twenty transfers without a sleep")
        r.state.set_tunable("poll_max_us", 0)
        for _ in range(20):
            before = r.counter("ring_sleeps")
            r.front.transfer(Op.READ, 0, 1, bytearray(512))
            eventually(lambda n=before: r.counter("ring_sleeps") > n, "a sleep")  # type: ignore[misc]


@pytest.mark.slow
def test_a_storm_of_events_without_requests(tmp_path: Path) -> None:
    """XSA-332: after 8 empty events the channel stays masked for 2 ms."""
    with ring(tmp_path) as r:
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            r.front.notify()
        received = r.counter("notifies_received")
        assert received <= 8 * ((time.monotonic() - begun) / 0.002 + 2)
        r.front.transfer(Op.READ, 0, 1, bytearray(512))
