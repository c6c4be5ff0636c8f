"""A guest answers whatever it is told, and a machine has its directory for itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sim.conftest import XVDA, Machine
from tests.waiting import GIVE_UP
from xbbd_bsd.sim.chain import Chain, Guest
from xbbd_bsd.sim.guest import COMMANDS
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow


@pytest.fixture
def chain() -> Iterator[Chain]:
    with Chain() as chain:
        yield chain


def answers(guest: Guest, line: str) -> dict[str, Any]:
    guest.tell(line)
    return guest.next_event(GIVE_UP)


def refusal(guest: Guest, line: str) -> str:
    """Its reason; nothing of Python's in it."""
    said = answers(guest, line)
    assert said["event"] == "failed", said
    text = str(said["text"])
    assert "Errno" not in text
    assert "'" not in text
    return text


def check_what_is_none(guest: Guest) -> None:
    assert answers(guest, "help")["commands"] == COMMANDS
    for line in ("", "   ", "dance", "Copy x", "\udcff\udc00".encode("utf-8", "replace").decode()):
        assert "commands are help, copy, exercise" in refusal(guest, line)
    assert "too long" in refusal(guest, "x" * 100_000)


def test_before_it_has_a_disk(chain: Chain) -> None:
    guest = chain.start_guest(1, XVDA)
    check_what_is_none(guest)


def test_with_a_disk_and_after(machine: Machine, image: Path, tmp_path: Path) -> None:
    guest = machine.connected(image)
    check_what_is_none(guest)
    for line, reason in (
        ("copy", "copy FILE"),
        ("copy a b", "copy FILE"),
        (f"copy {tmp_path}/no/such", f"{tmp_path}/no/such: No such file or directory"),
        ("close now", "give the disk back"),
        ("open", "has its disk already"),
        ("exercise fast", "fast: must be KEY=VALUE with one of "),
        ("exercise fast=1", "fast=1: must be KEY=VALUE with one of "),
        ("exercise depth", "depth: must be KEY=VALUE with one of "),
        ("exercise depth=many", "depth=many: must be a number, 0 or more"),
        ("exercise depth=-1", "depth=-1: must be a number, 0 or more"),
        ("exercise seconds=nan", "seconds=nan: must be a number, 0 or more"),
    ):
        assert reason in refusal(guest, line)
    assert answers(guest, "exercise depth=9999999999999 verify=0 operations=1")["event"] == "begun"
    assert guest.next_event()["text"] == "a number is too large"
    assert answers(guest, "release")["event"] == "released"
    assert answers(guest, f"copy {tmp_path}/copy")["bytes"] == 4 << 20
    assert answers(guest, "close")["event"] == "closed"
    check_what_is_none(guest)
    assert "open it first" in refusal(guest, f"copy {tmp_path}/copy")
    guest.tell("open")
    guest.event("connected")


def test_commands_wait_for_the_disk(machine: Machine, image: Path) -> None:
    guest = machine.guest(1)
    guest.tell("exercise operations=100")
    assert answers(guest, "help")["event"] == "help"
    machine.attach(DiskOffer(1, XVDA, str(image)))
    assert guest.event("connected")
    assert guest.event("exercised")["mismatches"] == 0


def test_the_end_of_input_is_the_end_of_the_guest(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    guest.tell("exercise operations=100")
    guest.end_input()
    assert guest.event("exercised")["mismatches"] == 0
    guest.event("closed")
    assert guest.wait() == 0
    assert guest.tail() == ""


def test_latency_is_percentiles(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    guest.tell("exercise operations=2000 depth=8")
    said = guest.event("exercised")
    latency = said["latency_us"]
    assert list(latency) == ["p50", "p90", "p99", "p99.9", "max"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"] < said["elapsed_ns"] / 1000 * 2
    assert len(json.dumps(said)) < 1000


def test_a_directory_has_one_machine(chain: Chain) -> None:
    command = [sys.executable, "-m", "xbbd_bsd.sim", "machine", chain.layout.directory]
    before = Path(chain.layout.store_pid).read_text()
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr == f"machine: {chain.layout.directory}: another machine runs there\n"
    # The first has not noticed.
    assert Path(chain.layout.store_pid).read_text() == before
    assert os.path.exists(chain.layout.lifelines)
    chain.start_guest(1, XVDA)


@pytest.mark.parametrize("source", ["/dev/null", __file__])
def test_input_that_nobody_can_wait_for(chain: Chain, source: str) -> None:
    with open(source) as file:
        done = subprocess.run(
            [sys.executable, "-m", "xbbd_bsd.sim", "guest", chain.layout.directory, "1", str(XVDA)],
            stdin=file, capture_output=True, text=True, timeout=GIVE_UP, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "guest: standard input must be a pipe or a terminal\n"
