"""The nodes of an offer, what is made of the answers, and who takes away what."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.store.servers import Embedded
from xbbd_bsd.block.disk import disk_path
from xbbd_bsd.ctl import disks, offers
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.toolstack import (
    KINDS,
    DiskOffer,
    Offer,
    attach,
    detach,
    give_up,
    offer,
    refusal,
    remove,
)
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store, StoreError, Transaction


def test_the_nodes_of_a_tap_disk_are_those_of_libxl() -> None:
    disk = DiskOffer(7, 51728, "/tank/a", mode="r", kind="vbd3", cdrom=True)
    assert disk.backend == "/local/domain/0/backend/vbd3/7/51728"
    nodes = disk.backend_nodes()
    assert nodes["params"] == b"aio:/tank/a"
    assert nodes["script"] == b"block-tap"
    assert (nodes["dev"], nodes["mode"], nodes["device-type"]) == (b"xvdb", b"r", b"cdrom")
    assert (nodes["removable"], nodes["online"], nodes["state"]) == (b"1", b"1", b"1")
    assert disk.frontend_nodes()["backend"] == disk.backend.encode()


# What is made of the answers.


class Bench:
    """A store, and a backend that answers each change of its own state by a function."""

    def __init__(self, server: Embedded) -> None:
        self.server = server
        server.introduce(7)
        self.loop = asyncio.new_event_loop()
        self.store = self.connect()
        self.store.write("/local/domain/7", b"")
        self.other = self.connect()

    def connect(self) -> Store:
        store = Store(self.server.socket, loop=self.loop)
        store.connect()
        return store

    def close(self) -> None:
        self.store.close()
        self.other.close()
        self.loop.close()

    def set(self, disk: Offer, **nodes: str) -> None:
        """Change nodes of the backend all at once, as backends do."""

        def body(transaction: Transaction) -> None:
            for name, value in nodes.items():
                transaction.write(f"{disk.backend}/{name.replace('_', '-')}", value.encode())

        self.other.transaction(body)

    def backend(self, disk: Offer, react: Callable[[bytes | None], None]) -> None:
        """Call `react` with the backend's state at each change of its nodes."""

        def changed(_: str) -> None:
            react(self.other.get(f"{disk.backend}/state"))

        self.other.watch(disk.backend, changed)


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    server = Embedded(short_path)
    running = Bench(server)
    yield running
    running.close()
    server.stop()


@pytest.mark.parametrize("kind", ["vbd", "vbd3"])
@pytest.mark.parametrize("state", [State.INIT_WAIT, State.INITIALISED, State.CONNECTED])
def test_a_guest_that_is_quicker_than_the_toolstack(bench: Bench, state: State, kind: str) -> None:
    """By the time somebody looks, the backend may be anywhere past InitWait."""
    disk = DiskOffer(7, 51712, "/tank/a", kind=kind)

    def react(seen: bytes | None) -> None:
        if seen == State.INITIALISING.node:
            bench.set(disk, state=str(int(state)))
        elif seen == state.node and (
            kind == "vbd3" or bench.other.get(f"{disk.backend}/physical-device-path") is not None
        ):
            bench.set(disk, hotplug_status="connected")

    bench.backend(disk, react)
    assert attach(bench.store, bench.loop, disk)


@pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED])
def test_a_guest_that_has_come_and_gone(bench: Bench, state: State) -> None:
    """The disk was opened: what the guest does with it is its own affair."""
    disk = DiskOffer(7, 51712, "/tank/a", kind="vbd3")

    def react(seen: bytes | None) -> None:
        if seen == State.INITIALISING.node:
            bench.set(disk, state=str(int(state)), hotplug_status="connected")

    bench.backend(disk, react)
    assert attach(bench.store, bench.loop, disk)


@pytest.mark.parametrize(
    "answer", [{"state": "5", "hotplug_status": "error"}, {"state": "5"}, {"state": "6"}, {}]
)
def test_a_backend_that_does_not_open_the_disk(bench: Bench, answer: dict[str, str]) -> None:
    disk = DiskOffer(7, 51712, "/tank/a", kind="vbd3")

    def react(seen: bytes | None) -> None:
        if seen == State.INITIALISING.node and answer:
            bench.set(disk, **answer)

    bench.backend(disk, react)
    assert not attach(bench.store, bench.loop, disk, 10 if answer else 0.2)


# Offers, and whose they are.

DISK = DiskOffer(7, 51712, "/tank/a", kind="vbd3")


def test_an_offer_belongs_to_whom_libxl_says(bench: Bench) -> None:
    offer(bench.store, DISK)
    assert bench.store.permissions(f"{DISK.frontend}/state") == ["n7", "r0"]
    assert bench.store.permissions(f"{DISK.backend}/params") == ["n0", "r7"]
    for name, value in DISK.backend_nodes().items():
        assert bench.store.get(f"{DISK.backend}/{name}") == value
    for name, value in DISK.frontend_nodes().items():
        assert bench.store.get(f"{DISK.frontend}/{name}") == value


def test_an_offer_has_nothing_of_an_earlier_one(bench: Bench) -> None:
    bench.store.write(f"{DISK.frontend}/ring-ref", b"8")
    bench.store.write(f"{DISK.backend}/hotplug-status", b"connected")
    offer(bench.store, DISK)
    assert bench.store.get(f"{DISK.frontend}/ring-ref") is None
    assert bench.store.get(f"{DISK.backend}/hotplug-status") is None
    assert bench.store.permissions(DISK.frontend) == ["n7", "r0"]


@given(st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name))
@example(b"\xff\n\x1b")
def test_a_name_is_octets_from_the_command_to_the_disk(name: bytes) -> None:
    argument = os.fsdecode(b"/" + name)  # as in sys.argv
    for kind, prefix in (("vbd", b""), ("vbd3", b"aio:")):
        params = DiskOffer(7, 51712, argument, kind=kind).backend_nodes()["params"]
        assert params == prefix + b"/" + name
        assert disk_path(params.removeprefix(prefix)) == argument
        assert os.fsencode(json.loads(json.dumps(argument))) == b"/" + name


def nodes_of(store: Store) -> list[str]:
    return [path for path in (DISK.backend, DISK.frontend) if store.get(path) is not None]


@pytest.mark.parametrize(
    ("disk", "error"),
    [
        (DiskOffer(8, 51712, "/tank/a"), "there is no domain 8"),
        (DiskOffer(7, 51712, "/tank/" + "a" * 5000), "Argument list too long"),
    ],
)
def test_an_offer_that_fails_leaves_nothing(bench: Bench, disk: DiskOffer, error: str) -> None:
    with pytest.raises((OperatorError, StoreError), match=error):
        offer(bench.store, disk)
    assert nodes_of(bench.store) == []
    assert bench.store.get("/local/domain/8") is None


def test_an_offer_is_the_only_one(bench: Bench) -> None:
    offer(bench.store, DISK)
    for kind in KINDS:
        with pytest.raises(OperatorError, match="guest 7 has a disk xvda already"):
            offer(bench.other, replace(DISK, kind=kind))
    bench.store.remove(DISK.frontend)
    with pytest.raises(OperatorError, match="left from before: detach it first"):
        offer(bench.other, DISK)


def test_what_another_has_offered_in_its_place_is_left(bench: Bench) -> None:
    """Even if every node but one is alike."""
    first = offer(bench.store, DISK)
    remove(bench.other, DISK)
    second = offer(bench.other, DISK)
    assert first != second
    assert give_up(bench.store, DISK, first) == "somebody else has taken it back"
    assert len(nodes_of(bench.store)) == 2
    assert give_up(bench.other, DISK, second) == "the backend does not answer"
    assert nodes_of(bench.store) == []


def test_a_disk_that_was_opened_in_the_last_moment_stays(bench: Bench) -> None:
    token = offer(bench.store, DISK)
    bench.set(DISK, hotplug_status="connected")
    assert give_up(bench.store, DISK, token) is None
    assert len(nodes_of(bench.store)) == 2


def test_the_reason_is_the_backend_s(bench: Bench) -> None:
    token = offer(bench.store, DISK)
    bench.set(DISK, hotplug_status="error", hotplug_error="no such disk", state="5")
    assert give_up(bench.store, DISK, token) == "no such disk"


def test_interrupted_an_attach_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        assert len(nodes_of(bench.store)) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(offers, "see_opened", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disks.attach_disk(bench.store, bench.loop, DISK, 1)
    assert nodes_of(bench.store) == []


# Taking back.


def connected(bench: Bench, **nodes: str) -> None:
    """A disk that is in use."""
    offer(bench.store, DISK)
    bench.set(DISK, state="4", hotplug_status="connected", **nodes)
    bench.store.write(f"{DISK.frontend}/state", b"4")


def states(bench: Bench) -> tuple[bytes | None, ...]:
    return tuple(
        bench.store.get(path)
        for path in (f"{DISK.backend}/state", f"{DISK.frontend}/state", f"{DISK.backend}/online")
    )


@pytest.mark.parametrize("online", ["1", "0"])
def test_nobody_reacts_and_the_disk_is_as_before(bench: Bench, online: str) -> None:
    connected(bench, online=online)
    seen: list[bytes | None] = []
    bench.backend(DISK, seen.append)
    assert not detach(bench.store, bench.loop, DISK, 2.0)
    assert b"5" in seen, "nobody was asked"
    assert states(bench) == (b"4", b"4", online.encode())


def test_a_guest_that_refuses_keeps_the_disk(bench: Bench) -> None:
    """Both ends are Closing then, until its last user has gone."""
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            bench.other.write(f"{DISK.frontend}/state", b"5")

    bench.backend(DISK, react)
    bench.store.write("/local/domain/7/name", b"web")
    with pytest.raises(HostError, match=r"^domain 7 \(web\) holds xvda, and keeps it: .*--force"):
        disks.detach_disk(bench.store, bench.loop, DISK, 2.0)
    assert states(bench) == (b"5", b"5", b"1")


def test_a_backend_that_does_not_answer_is_said(bench: Bench) -> None:
    offer(bench.store, DISK)
    with pytest.raises(HostError, match="the backend does not answer; --force"):
        disks.detach_disk(bench.store, bench.loop, DISK, 0.3)
    assert states(bench) == (b"1", b"1", b"1")


def test_by_force_nodes_go_under_the_guest(bench: Bench) -> None:
    connected(bench)
    with pytest.raises(HostError, match="its nodes are removed"):
        disks.detach_disk(bench.store, bench.loop, DISK, 0.3, force=True)
    assert nodes_of(bench.store) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_is_let_go_goes_with_its_empty_parents(bench: Bench, force: bool) -> None:
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            bench.other.write(f"{DISK.frontend}/state", b"6")
            bench.set(DISK, state="6")

    bench.backend(DISK, react)
    bench.store.write("/local/domain/0/backend/vbd3/7/51728/frontend", b"/local/domain/7/x")
    assert detach(bench.store, bench.loop, DISK, force=force)
    assert bench.store.list("/local/domain/0/backend/vbd3/7") == ["51728"], "not empty"
    assert bench.store.list("/local/domain/7/device") == []


def test_a_parent_of_the_guest_s_is_left(bench: Bench) -> None:
    offer(bench.store, DISK)
    bench.store.set_permissions("/local/domain/7/device/vbd", ["n7"])
    remove(bench.store, DISK)
    assert bench.store.list("/local/domain/7/device") == ["vbd"]
    assert bench.store.list("/local/domain/0/backend/vbd3") == []


def test_two_hands_at_one_disk_that_is_held(bench: Bench) -> None:
    """The second has found it asked back already; what was at first comes back."""
    connected(bench)
    waiting: list[int] = []
    threads: list[Thread] = []

    def start(call: Callable[[bytes | None], None], state: bytes | None) -> Thread:
        thread = Thread(target=call, args=(state,))
        thread.start()
        return thread

    def react(state: bytes | None) -> None:
        if state == b"5" and not waiting:
            waiting.append(1)
            other = asyncio.new_event_loop()
            store = Store(bench.server.socket, loop=other)
            store.connect()
            assert not detach(store, other, DISK, 0.1)
            store.close()
            other.close()

    bench.backend(DISK, lambda state: threads.append(start(react, state)))
    assert not detach(bench.store, bench.loop, DISK, 2.0)
    for thread in threads:
        thread.join()
    assert states(bench) == (b"4", b"4", b"1")


# What is left of a guest that is gone.


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_whose_guest_is_gone(bench: Bench, kind: str) -> None:
    disk = replace(DISK, kind=kind)
    offer(bench.store, disk)
    bench.set(disk, state="6")
    bench.store.remove("/local/domain/7")
    assert disks.find_disk(bench.store, "7", "xvda") == replace(disk, path="")
    disks.detach_disk(bench.store, bench.loop, disk, 5)
    assert bench.store.list(f"/local/domain/0/backend/{kind}") == []
    assert bench.store.get("/local/domain/7") is None
    with pytest.raises(OperatorError, match="there is no domain 7"):
        disks.find_disk(bench.store, "7", "xvda")
    with pytest.raises(OperatorError, match=r"there is no domain web; .* xbbctl detach xbbdN"):
        disks.find_disk(bench.store, "web", "xvda")


def test_a_disk_is_found_where_its_frontend_says(bench: Bench) -> None:
    offer(bench.store, replace(DISK, kind="vbd"))
    bench.store.write(f"{DISK.backend}/frontend", DISK.frontend.encode())  # an old one
    assert disks.find_disk(bench.store, "7", "xvda").kind == "vbd"
    with pytest.raises(OperatorError, match=r"^guest 7 has no disk xvdb$"):
        disks.find_disk(bench.store, "7", "xvdb")
    for backend in (b"/local/domain/3/backend/vbd/7/51712", b"\xff", b""):
        bench.store.write(f"{DISK.frontend}/backend", backend)
        with pytest.raises(OperatorError, match="served by another domain"):
            disks.find_disk(bench.store, "7", "xvda")


def test_a_frontend_alone_is_removed(bench: Bench) -> None:
    offer(bench.store, DISK)
    bench.store.remove(DISK.backend)
    assert detach(bench.store, bench.loop, DISK)
    assert nodes_of(bench.store) == []
    assert detach(bench.store, bench.loop, DISK), "nor does anything come back"
    assert nodes_of(bench.store) == []


def test_what_the_guest_says_is_the_answer(bench: Bench) -> None:
    """Of this life: what an earlier one left is taken away with the offer."""
    node = "/local/domain/7/error/device/vbd/51712/error"
    bench.store.write(node, b"of an earlier life")
    token = offer(bench.store, DISK)
    assert bench.store.get(node) is None
    assert refusal(bench.store, DISK) == "the backend does not answer"
    bench.store.write(node, b"22 no \x1b driver" + b"x" * 500)
    reason = give_up(bench.store, DISK, token)
    assert reason is not None
    assert reason.startswith("the guest does not take the disk, and says: 22 no \\x1b driverxxx")
    assert reason.endswith("x...")
    bench.store.write(f"{DISK.backend}/hotplug-error", b"the disk is gone")
    assert refusal(bench.store, DISK) == "the disk is gone", "ours goes first"
