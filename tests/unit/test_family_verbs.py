"""What only the block family can be asked to do, and what it says of disks with no segment yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.family_bench import IDENTITY, Bench
from xbbd_bsd.deeds import DiskCleared, ErrorsCleared, SizeAsked
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.native import State
from xbbd_bsd.xenbus.family import Standing

UNIT = IDENTITY.unit


def perform(bench: Bench, verb: str, operand: int | str = UNIT) -> list[Mapping[str, Any] | None]:
    return list(bench.family.perform(verb, operand, "root"))


def test_a_look_at_the_size_of_a_disk(bench: Bench) -> None:
    """Says what it was, and logs both; nothing of a disk that is not open."""
    bench.backend.introduce(bench.backend_nodes.get, "vm", "")
    assert perform(bench, "resize") == []
    assert not [event for event in bench.events if isinstance(event, SizeAsked)]
    bench.open()
    os.truncate(bench.disk, 2 << 20)
    assert perform(bench, "resize") == [{"dev.xbbd.0.sectors": 2048}]
    (asked,) = (event for event in bench.events if isinstance(event, SizeAsked))
    assert (asked.before, asked.after, asked.who) == (2048, 4096, "root")


def test_a_disk_is_cleared_by_its_unit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.open()
    errors = {"errors.write": 3}
    monkeypatch.setitem(bench.family.devices[UNIT]._groups, "errors", lambda: errors)
    assert [finding.kind.value for finding in health(bench)] == ["errors"]
    assert perform(bench, "clear") == []
    assert health(bench) == []
    path = str(bench.disk)
    assert bench.events[-1] == ErrorsCleared(path, 3, 0, "root")
    with pytest.raises(OperatorError, match=f"^{path}: it is not known to have lost anything"):
        perform(bench, "clear")


def test_a_disk_that_lost_something_is_cleared_by_its_path(bench: Bench) -> None:
    """And then whoever was held back for it may try again."""
    bench.open()
    bench.connect()
    segment = State.open(str(bench.run / "xbbd.0"), writable=True)
    segment.lose(5)
    segment.close()
    bench.backend.drain()
    bench.drained()
    bench.backend.disconnect()
    path = str(bench.disk)
    (lost,) = bench.family.findings()
    assert (lost.kind.value, lost.subject) == ("lost", path)
    assert health(bench, closed="a flush failed") == [], "that is said where the loss is"
    assert health(bench, closed="a flush failed", alone=True) == [lost]
    perform(bench, "clear", path)
    assert bench.events[-1] == DiskCleared(path, "root")
    assert bench.family.findings() == []
    assert bench.freed == [UNIT]


@pytest.mark.parametrize("verb", ["resize", "reset"])
def test_what_is_no_disk_of_ours(bench: Bench, verb: str) -> None:
    with pytest.raises(OperatorError, match=r"^unknown oid '/nowhere'$"):
        perform(bench, verb, "/nowhere")


def test_a_disk_without_a_segment(bench: Bench) -> None:
    """As before it is offered: who it is for is known, and nothing can be set."""
    bench.backend.introduce(bench.backend_nodes.get, "vm", "")
    numbers = bench.family.numbers(UNIT)
    assert numbers.group("medium")["guest"] == "vm"
    assert numbers.group("counters") == numbers.configured() == {}
    assert not numbers.rings()
    assert not numbers.inflight()
    stat = numbers.stat(latency=True)
    assert (stat["names"], stat["guest"], "xbb" in stat) == (["xbb0", "xbbi0"], "vm", False)
    with pytest.raises(OperatorError, match=r"^xbbd0 \(vbd/5/51712\) has no state segment$"):
        numbers.set("flush_interval", 1, "it")
    bench.open()
    assert "xbb" in bench.family.numbers(UNIT).stat(latency=True)
    assert bench.family.numbers(UNIT).configured()["flush_interval"] == 0


def health(bench: Bench, closed: str = "", *, alone: bool = False) -> list[Any]:
    shared = bench.family.findings()
    numbers = bench.family.numbers(UNIT)
    return numbers.health(Standing(closed=closed), 10.0, shared, alone=alone)
