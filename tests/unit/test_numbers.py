"""What an operator sees of a disk whose state segment somebody has overwritten."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xbbd_bsd.block.numbers import SegmentNumbers
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.native import Abi, RequestState, State
from xbbd_bsd.native._xbb import lib
from xbbd_bsd.native.vitals import Process, Vitals
from xbbd_bsd.serving import process_facts

GROUPS = tuple(name for name in DRIVER.groups if name != "xenbus")
ALPHABETS = [bytes(range(256)), b"\0\1\2\3", b"\0\xff"]
FIRST = 80  # bytes; behind what says how large the segment is, and whose


class Damaged:
    """The numbers of a segment, and a way to overwrite it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = State.create(str(path), rings=2, table_entries=32)
        self.numbers = SegmentNumbers(self.state, dict, dict, dict, lambda: lambda: True)

    def overwrite(self, seed: int, alphabet: bytes) -> None:
        size = self.path.stat().st_size - FIRST
        with self.path.open("r+b") as file:
            file.seek(FIRST)
            file.write(bytes(Random(seed).choices(alphabet, k=size)))


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Damaged]:
    made = Damaged(tmp_path / "segment")
    yield made
    made.state.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(), alphabet=st.sampled_from(ALPHABETS))
def test_garbage_is_shown(damaged: Damaged, seed: int, alphabet: bytes) -> None:
    damaged.overwrite(seed, alphabet)
    for group in GROUPS:
        json.dumps(damaged.numbers.group(group))
    for ring in damaged.numbers.rings():
        json.dumps(damaged.numbers.ring(ring))
    json.dumps(damaged.numbers.stat(latency=True))
    json.dumps(damaged.numbers.inflight())
    json.dumps(damaged.numbers.ages())
    damaged.numbers.set("poll_max_us", 5, "it")
    assert damaged.state.tunables()["poll_max_us"] == 5


def test_a_number_that_stands_for_nothing_is_shown_as_it_is(damaged: Damaged) -> None:
    ring = damaged.state._state.ring[0]
    ring.common.connected, ring.abi, ring.common.transport = 1, Abi.X86_64, 9
    assert damaged.numbers.group("medium")["abi"] == "x86_64"
    assert damaged.numbers.group("medium")["data_path"] == "9"
    ring.abi = 33
    assert damaged.numbers.group("medium")["abi"] == "33"


def test_take_overs(damaged: Damaged) -> None:
    assert damaged.numbers.group("takeovers") == {"takeovers": 0, "takeover_longest_ms": 0}
    for waited_ns in (7_000_000, 1_250_999_999, 0):
        damaged.state.note_takeover(waited_ns)
    expected = {"takeovers": 3, "takeover_longest_ms": 1250}
    assert damaged.numbers.group("takeovers") == expected
    assert damaged.numbers.stat(latency=False).items() >= expected.items()


def test_what_the_kernel_says_of_who_serves_it() -> None:
    nobody = {"process": 0, "process_rss_kb": 0, "process_age": 0}
    assert process_facts(None) == nobody
    own, vitals = Process(os.getpid()), Vitals(5300, 70)
    assert process_facts(own)["process"] == os.getpid()
    own.look = lambda: vitals  # type: ignore[method-assign]
    expected = {"process": os.getpid(), "process_rss_kb": 5300, "process_age": 70}
    assert process_facts(own) == expected
    own.look = lambda: None  # type: ignore[method-assign]
    assert process_facts(own) == nobody


def test_ages_are_those_of_the_requests_in_flight(damaged: Damaged) -> None:
    state = damaged.state
    now = time.monotonic_ns()
    for number in (0, 1):
        ring = state._state.ring[number]
        ring.common.connected, ring.common.max_requests, ring.inflight = 1, 32, 2
        for entry in (3, 7):
            request = lib.xbb_state_table(state._state, number)[entry]
            request.state, request.received_ns = (
                RequestState.ACCEPTED,
                now - (entry + number) * 10**9,
            )
    ages = damaged.numbers.ages()
    assert [int(age) for age in ages] == [3, 7, 4, 8]
    table = [int(request["age_us"]) // 10**6 for request in damaged.numbers.inflight()]
    assert table == [8, 7, 4, 3]
    lib.xbb_state_table(state._state, 0)[3].state = RequestState.ANSWERED
    assert [int(age) for age in damaged.numbers.ages()] == [7, 4, 8]
    assert [request["state"] for request in damaged.numbers.inflight()] == [
        *["accepted"] * 3,
        "answered",
    ]
    lib.xbb_state_table(state._state, 0)[3].state = RequestState.DISPATCHED
    state._state.ring[1].inflight = 0
    assert len(damaged.numbers.ages()) == 2, "nothing is looked for where nothing is"
    state._state.ring[0].common.connected = 0
    assert damaged.numbers.ages() == []
