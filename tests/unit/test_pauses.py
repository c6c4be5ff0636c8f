"""A disk that is paused: what its nodes say, who is told when, how it begins and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.block.faults import Holds
from xbbd_bsd.block.health import DiskFacts, of_disk
from xbbd_bsd.block.named import said_of
from xbbd_bsd.block.pauses import Pauses, pause_facts
from xbbd_bsd.deeds import PauseAsked, PauseEnded
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.faults import DiskFault, DiskPaused, DiskRetried, Faults
from xbbd_bsd.findings import Kind, Severity
from xbbd_bsd.native import State
from xbbd_bsd.stats import POLICIES, WORDS, tunable_word

FULL = DiskFault("write", 8, 16, 28, "No space left on device", False, 5)
FAULTS = Faults({}, {}, last_held=FULL)


@pytest.mark.parametrize("node", ["on-error", "on-full"])
@pytest.mark.parametrize("word", POLICIES)
def test_what_its_nodes_say(node: str, word: str) -> None:
    key = node.replace("-", "_")
    nodes = {node: word.encode()}
    if word in WORDS[key]:
        assert said_of(nodes.get) == {key: word}
    else:
        with pytest.raises(OperatorError, match=f"node {node} is '{word}': must be one of"):
            said_of(nodes.get)


def test_without_nodes_it_is_as_configured() -> None:
    assert said_of({"on-error": b""}.get) == {}


@given(st.binary(max_size=40))
def test_any_node_is_a_word_or_refused(value: bytes) -> None:
    nodes = {"on-error": value}.get
    if value.decode("latin-1") in ("", *WORDS["on_error"]):
        assert set(said_of(nodes).values()) <= set(WORDS["on_error"])
    else:
        with pytest.raises(OperatorError) as raised:
            said_of(nodes)
        assert str(raised.value).isprintable()


@given(st.sampled_from(sorted(WORDS)), st.integers(-(1 << 31), (1 << 31) - 1))
def test_any_number_in_a_segment_is_shown(name: str, value: int) -> None:
    word = tunable_word(name, value)
    if word in WORDS[name]:
        assert POLICIES.index(str(word)) == value
    else:
        assert word == str(value)


def told(
    holds: Holds, now: float, held: int, *, paused: bool = False, faults: Faults = FAULTS
) -> list[Event]:
    return [*holds.look(now, held, paused=paused, read=lambda: faults, path="/d")]


def test_a_pause_is_told_once() -> None:
    holds = Holds("xbbd0")
    holds.begin(0)
    assert told(holds, 1, 0) == []
    (event,) = told(holds, 2, 1, paused=True)
    assert event == DiskPaused(
        "xbbd0", "write of 8192 bytes at sector 8", "/d", "No space left on device", "ENOSPC"
    )
    assert told(holds, 3, 5, paused=True) == []
    assert told(holds, 4, 5) == []
    assert len(told(holds, 5, 5, paused=True)) == 1


def test_what_is_tried_again_is_told_now_and_then() -> None:
    holds = Holds("xbbd0")
    holds.begin(7)
    assert told(holds, 1, 7) == []
    (event,) = told(holds, 2, 8)
    assert isinstance(event, DiskRetried)
    assert told(holds, 3, 9) == []
    assert told(holds, 31, 9) == []
    assert len(told(holds, 33, 10)) == 1


def test_a_damaged_segment_has_words_too() -> None:
    holds = Holds("xbbd0")
    holds.begin(0)
    (event,) = told(holds, 1, 1, paused=True, faults=replace(FAULTS, last_held=None))
    assert "somebody has damaged the state segment" in str(event)


@pytest.mark.parametrize(
    ("paused", "reason", "severity", "action"),
    [
        ("operator", "an operator has paused it", Severity.WARNING, "run: xbbctl resume xbbd3"),
        (
            "error",
            "write of /d failed: No space left on device (ENOSPC)",
            Severity.ERROR,
            "make room where /d is, then run: xbbctl resume xbbd3",
        ),
        (
            "both",
            "read of /d failed: Input/output error (EIO)",
            Severity.ERROR,
            "look into /d and what it is on, then run: xbbctl resume xbbd3",
        ),
    ],
)
def test_it_is_a_finding(paused: str, reason: str, severity: Severity, action: str) -> None:
    """And not that its requests are old."""
    facts = DiskFacts(
        3, path="/d", paused=paused, paused_since=9, paused_reason=reason, ages=[1000.0]
    )
    (found,) = of_disk(facts)
    assert (found.kind, found.severity, found.when) == (Kind.PAUSED, severity, 9.0)
    assert found.what == f"it is paused, and its guest waits: {reason}"
    assert found.action == action


class Rig:
    """A segment, and rings that do what they are told when they are told to look."""

    def __init__(self, segment: State, loop: asyncio.AbstractEventLoop) -> None:
        self.segment = segment
        self.events: list[Event] = []
        self.pauses = Pauses("xbbd0", loop, self.events.append)
        self.looks = 0
        self.lost = False

    def look(self) -> None:
        self.looks += 1
        if self.lost:
            raise HostError("its process is gone")

    def pause(self) -> None:
        for _ in self.pauses.pause(self.segment, lambda: self, "root"):
            pass

    def resume(self) -> None:
        for _ in self.pauses.resume(self.segment, lambda: self, "root"):
            pass


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    segment = State.create(str(tmp_path / "s"))
    loop = asyncio.new_event_loop()
    yield Rig(segment, loop)
    loop.close()
    segment.close()


def test_pause_and_resume(rig: Rig) -> None:
    assert pause_facts(rig.segment, "/d")["paused"] == ""
    with pytest.raises(OperatorError, match="xbbd0 is not paused"):
        rig.resume()
    rig.pause()
    facts = pause_facts(rig.segment, "/d")
    assert (facts["paused"], facts["paused_reason"]) == ("operator", "an operator has paused it")
    assert facts["paused_since"] != 0
    rig.lost = True  # whoever comes in its place looks by itself
    rig.resume()
    assert pause_facts(rig.segment, "/d") == {
        "paused": "",
        "paused_since": 0,
        "paused_reason": "",
    }
    assert rig.events == [PauseAsked("xbbd0", "root"), PauseEnded("xbbd0", 0, "root")]
    assert rig.looks == 2


def test_without_a_segment() -> None:
    loop = asyncio.new_event_loop()
    pauses = Pauses("xbbd0", loop, lambda event: None)
    with pytest.raises(OperatorError, match="no state segment"):
        next(pauses.pause(None, lambda: None, "root"))
    with pytest.raises(OperatorError, match="not paused"):
        next(pauses.resume(None, lambda: None, "root"))
    pauses.end(None)
    loop.close()


def test_a_ring_that_does_not_follow(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk keeps something: that is said, and it stays paused."""
    rig.segment.handle.ring[0].common.connected = 1
    monkeypatch.setattr("xbbd_bsd.block.pauses.HUNG_SECONDS", 0.0)
    with pytest.raises(HostError, match="has not answered yet what it was given before"):
        rig.pause()
    assert pause_facts(rig.segment, "/d")["paused"] == "operator"
    rig.segment.handle.ring[0].pause_seen = rig.segment.handle.pause.serial
    rig.pauses.end(rig.segment)
    assert pause_facts(rig.segment, "/d")["paused"] == "operator"


def test_a_disk_that_is_gone(rig: Rig) -> None:
    gone = HostError("the disk is gone")
    assert not rig.pauses.for_gone(rig.segment, gone)
    assert rig.segment.paused is None
    rig.segment.set_tunable("on_error", POLICIES.index("pause"))
    assert rig.pauses.for_gone(rig.segment, gone)
    facts = pause_facts(rig.segment, "/d")
    assert (facts["paused"], facts["paused_reason"]) == ("error", "the disk is gone")
    rig.segment.pause()
    assert pause_facts(rig.segment, "/d")["paused"] == "both"
    rig.pauses.end(rig.segment)
    assert pause_facts(rig.segment, "/d")["paused"] == "operator"
    rig.segment.resume()
    rig.segment.pause(failed=True)
    rig.pauses.end(rig.segment)
    assert rig.segment.paused is None
