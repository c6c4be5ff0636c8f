"""A daemon that serves disks and counters: two families side by side, and neither knows it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counter.guest import CounterGuest
from tests.counter.names import DRIVER
from tests.counter.negotiate import RingParams
from tests.counter.queue import LIBRARY, compile_library
from tests.sim.conftest import Machine, image, running_machine
from tests.sim.test_operator import tool, values, xbbctl
from tests.waiting import eventually
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import FamilyVerb, Request, Verb
from xbbd_bsd.errors import GuestError, OperatorError
from xbbd_bsd.host import control_path
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.xenbus.states import State

__all__ = ["image"]  # a fixture

CONFIG = '[daemon]\nkinds = ["vbd", "counter"]\n'
DISK, COUNTER = 1, 2  # guests


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data path of a counter, compiled once."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    return compile_library(tmp_path_factory.mktemp("counter"))


@pytest.fixture
def machine(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose daemon has the second family."""
    monkeypatch.setenv(LIBRARY, str(library))
    with running_machine(CONFIG, daemon="tests.counter") as running:
        yield running


@pytest.fixture
def disk(machine: Machine, image: Path) -> Guest:
    """A guest that has a disk."""
    return machine.connected(image, domid=DISK)


@pytest.fixture
def counter(machine: Machine, disk: Guest) -> Iterator[CounterGuest]:
    """A guest that has a counter, besides; it is dead and gone afterwards."""
    guest = CounterGuest(machine.chain, COUNTER)
    guest.connect()
    yield guest
    guest.die()
    guest.withdraw()
    eventually(lambda: not counters(machine), "no counter left")


def counters(machine: Machine) -> list[str]:
    """The nodes of all there are."""
    found = {re.sub(r"^(dev\.xcount\.\d+)\..*", r"\1", name) for name in values(machine)}
    return sorted(name for name in found if name.startswith("dev.xcount."))


def count(machine: Machine, unit: int = 0) -> int:
    name = DRIVER.oid(unit, "count")
    return int(values(machine, name)[name])


def unharmed(machine: Machine, disk: Guest, image: Path) -> None:
    """The disk's guest has had one connection all the time, and reads what is on it."""
    disk.tell(f"copy {image}.copy")
    assert disk.event("copied")["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert values(machine)["dev.xbbd.0.xenbus_connection_state"] == "Connected"
    lines = re.findall(r"^xbbd: xbbd0 .*: connected: .*$", machine.log(), re.M)
    assert len(lines) == 1, machine.log()


@pytest.mark.slow
def test_an_operator_sees_both(
    machine: Machine, disk: Guest, counter: CounterGuest, image: Path
) -> None:
    assert [counter.ring(), counter.ring(2)] == [1, 3]
    assert count(machine) == 3
    found = json.loads(xbbctl(machine, "-aj"))
    below = {name.removeprefix("dev.xcount.0.") for name in found if ".xcount." in name}
    assert below == {*DRIVER.leaves, "ring.0.events"}
    assert found["dev.xcount.0.%driver"] == "xcount"
    assert found["dev.xcount.0.%desc"] == "Backend Virtual Counter"
    assert found["dev.xcount.0.xenstore_path"] == "backend/counter/2/0"
    assert found["dev.xbbd.0.%driver"] == "xbbd"
    assert found["dev.xbbd.0.path"] == str(image)
    assert found["hw.xbbd.devices"] == 2
    assert xbbctl(machine, "-d", "dev.xcount.0.count") == (
        "dev.xcount.0.count: how often the guest has rung\n"
    )
    assert [row["name"] for row in json.loads(xbbctl(machine, "list", "-j"))] == [
        "xbbd0",
        "xcount0",
    ]
    rows = [line.split() for line in xbbctl(machine, "list").splitlines()]
    assert [row[0] for row in rows] == ["NAME", "xbbd0", "xcount0"]
    assert "Connected" in rows[2]
    shown = tool(machine, "xbbstat", "-x").stdout
    assert ("xbb0" in shown, "xcount" in shown) == (True, False), "what it shows is of disks"
    assert xbbctl(machine, "health") == "all is well: 1 disk, 1 xcount\n"
    assert xbbctl(machine, "health", "xcount0") == "all is well: 1 xcount\n"
    unharmed(machine, disk, image)


@pytest.mark.slow
def test_the_journal_knows_it_by_name(machine: Machine, counter: CounterGuest) -> None:
    for name in ("xcount0", "dev.xcount.0"):
        lines = xbbctl(machine, "log", name).splitlines()
        assert all("xcount0 (counter/2/0): " in line for line in lines)
        assert any(
            f"connected: a ring at reference {counter.ring_ref}, port " in line for line in lines
        )
    assert "xcount0" not in xbbctl(machine, "log", "xbbd0")
    assert xbbctl(machine, "inflight", "xcount0") == ""
    (line,) = json.loads(xbbctl(machine, "log", "-n", "1", "-j", "xcount0"))
    assert line["text"].startswith("xcount0 (counter/2/0): ")
    refused = tool(machine, "xbbctl", "log", "xcount7")
    assert refused.stderr == (
        "xbbctl: xcount7: no device of xbbd, write xbbdN or xnbN as in xbbctl list\n"
    )


@pytest.mark.slow
def test_what_is_set_and_what_only_a_counter_can(machine: Machine, counter: CounterGuest) -> None:
    counter.ring(5)
    eventually(lambda: count(machine) == 5, "it counts")
    assert xbbctl(machine, "dev.xcount.0.count=70") == "dev.xcount.0.count: 5 -> 70\n"
    counter.ring()
    eventually(lambda: count(machine) == 71, "it goes on from there")
    machine.log_line(r"xcount0 \(counter/2/0\): count: 5 -> 70, set by ")
    socket = control_path(machine.chain.layout.run)
    reset = FamilyVerb("reset")
    assert ask(socket, Request(reset, "dev.xcount.0")) == {"dev.xcount.0.count": 71}
    assert count(machine) == 0
    for verb, name, reason in (
        (reset, "dev.xbbd.0", "reset: a disk of xbbd has no such verb"),
        (FamilyVerb("resize"), "dev.xcount.0", "resize: a counter of xcount has no such verb"),
        (reset, "dev.xcount.4", "no counter xcount4"),
        (reset, "/somewhere", "unknown oid '/somewhere'"),
    ):
        with pytest.raises(OperatorError, match=f"^{reason}$"):
            ask(socket, Request(verb, name))
    names = ask(socket, Request(Verb.STAT, "dev.xcount"))
    assert list(names) == ["dev.xcount.0"]
    assert list(ask(socket, Request(Verb.HEALTH, "dev.xbbd"))) == ["hw.xbbd", "dev.xbbd.0"]


@pytest.mark.slow
def test_a_counter_comes_and_goes_and_the_disk_is_left_alone(
    machine: Machine, disk: Guest, counter: CounterGuest, image: Path
) -> None:
    second = CounterGuest(machine.chain, COUNTER + 1)
    second.connect()
    assert counters(machine) == ["dev.xcount.0", "dev.xcount.1"], "its own count, from 0"
    second.ring(2)
    eventually(lambda: count(machine, 1) == 2, "it counts")
    second.die()
    machine.log_line(r"xcount1 \(counter/3/0\): disconnected")
    second.withdraw()
    eventually(lambda: counters(machine) == ["dev.xcount.0"], "the dead one is gone")
    assert xbbctl(machine, "health") == "all is well: 1 disk, 1 xcount\n"
    unharmed(machine, disk, image)
    third = CounterGuest(machine.chain, COUNTER + 2)
    third.connect()
    assert counters(machine) == ["dev.xcount.0", "dev.xcount.1"], "the smallest that is free"
    third.die()
    third.withdraw()
    counter.ring()
    eventually(lambda: count(machine) == 1, "the first counts on")
    unharmed(machine, disk, image)


@pytest.mark.slow
def test_a_guest_that_publishes_nonsense_is_told(machine: Machine) -> None:
    guest = CounterGuest(machine.chain, COUNTER)
    guest.await_state(State.INIT_WAIT)
    assert guest.read("feature-count") == b"1"
    machine.chain.store.write(f"{guest.frontend}/ring-ref", b"x")
    machine.chain.store.write(f"{guest.frontend}/state", State.INITIALISED.node)
    guest.await_state(State.CLOSING)
    machine.log_line(r"xcount0 \(counter/2/0\): .*node ring-ref is 'x', no number")
    assert xbbctl(machine, "health") == "all is well: 1 xcount\n", "its guest is to blame"
    told = xbbctl(machine, "health", "-v")
    assert "notice: xcount0: node ring-ref is 'x', no number" in told
    guest.die()
    guest.withdraw()
    eventually(lambda: not counters(machine), "it is gone")


@pytest.mark.slow
def test_a_guest_whose_indices_lie_is_drained(machine: Machine, disk: Guest, image: Path) -> None:
    """As core does for any family."""
    guest = CounterGuest(machine.chain, COUNTER)
    guest.connect()
    guest.lie()
    machine.log_line(r"xcount0 \(counter/2/0\): ")
    eventually(lambda: guest.read("state") in (b"5", b"6"), "it closes")
    unharmed(machine, disk, image)
    guest.die()
    guest.withdraw()
    eventually(lambda: not counters(machine), "it is gone")


@pytest.mark.slow
def test_its_kind_alone_can_be_left_out(
    machine: Machine, disk: Guest, counter: CounterGuest, image: Path
) -> None:
    Path(machine.chain.config_file).write_text('[daemon]\nkinds = ["vbd"]\n')
    assert "(closes 1 counter of 1 guest)" in xbbctl(machine, "reload")
    counter.await_state(State.CLOSING)
    unharmed(machine, disk, image)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ({}, "node ring-ref is missing"),
        ({"ring-ref": b"8"}, "node event-channel is missing"),
        ({"ring-ref": b"-1", "event-channel": b"1"}, "node ring-ref is '-1', no number"),
        ({"ring-ref": b"8", "event-channel": b"4294967296"}, "no number"),
    ],
)
def test_what_is_no_ring(nodes: dict[str, bytes], reason: str) -> None:
    with pytest.raises(GuestError, match=reason):
        RingParams.from_nodes(nodes.get)
    assert RingParams.from_nodes({"ring-ref": b"8", "event-channel": b"3"}.get) == RingParams(8, 3)
