"""Asking a disk back: how long it is waited for, and what is put back after whom."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES, ENOENT
from pathlib import Path

import pytest

from tests.store.servers import Embedded
from tests.unit.test_toolstack import DISK, Bench, connected, nodes_of, states
from xbbd_bsd import toolstack
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.toolstack import attach, detach, find_backend, in_use, offer, remove
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import StoreError, Transaction
from xbbd_bsd.xenstore.waiting import wait_until

LONG = 60.0  # seconds; nobody waits so long, unless the end is not noticed


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    server = Embedded(short_path)
    running = Bench(server)
    yield running
    running.close()
    server.stop()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for an end that was not noticed is an error, not a wait."""

    def noticed(*arguments: object) -> bool:
        ended = wait_until(*arguments)  # type: ignore[arg-type]
        assert ended
        return ended

    monkeypatch.setattr(toolstack, "wait_until", noticed)
    monkeypatch.setattr(f"{__name__}.LONG", 5.0)


def test_libxl_waits_as_long() -> None:
    """LIBXL_INIT_TIMEOUT of libxl_internal.h."""
    assert toolstack.LIMIT == 10


def test_a_backend_that_opens_the_disk_later(bench: Bench) -> None:
    """At InitWait it has answered, and not yet said what came of it."""
    begun: list[bytes | None] = []

    def react(seen: bytes | None) -> None:
        begun.append(seen)
        if seen == State.INITIALISING.node:
            bench.set(DISK, state="2")
        elif seen == State.INIT_WAIT.node and begun.count(seen) < 4:
            bench.set(DISK, unrelated=str(len(begun)))  # one more look
        elif seen == State.INIT_WAIT.node and begun.count(seen) == 4:
            bench.set(DISK, hotplug_status="connected")

    bench.backend(DISK, react)
    assert attach(bench.store, bench.loop, DISK, LONG)


@pytest.mark.usefixtures("_impatient")
def test_a_disk_that_is_closed_is_waited_for_no_longer(bench: Bench) -> None:
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            bench.set(DISK, state="6")

    bench.backend(DISK, react)
    assert detach(bench.store, bench.loop, DISK, LONG)
    assert nodes_of(bench.store) == []


@pytest.mark.usefixtures("_impatient")
def test_nor_one_whose_nodes_are_gone(bench: Bench) -> None:
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            remove(bench.other, DISK)

    bench.backend(DISK, react)
    assert detach(bench.store, bench.loop, DISK, LONG)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.usefixtures("_impatient")
def test_nor_one_that_another_offer_has_taken_the_place_of(bench: Bench, force: bool) -> None:
    """Another hand was quicker, and what is there now is not what was asked for."""
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            remove(bench.other, DISK)
            offer(bench.other, DISK)

    bench.backend(DISK, react)
    assert detach(bench.store, bench.loop, DISK, LONG, force=force)
    assert states(bench) == (b"1", b"1", b"1")


def test_a_disk_is_waited_for_until_it_is_closed(bench: Bench) -> None:
    """Closing is not Closed: what else changes meanwhile is no end."""
    connected(bench)
    seen: list[bytes | None] = []

    def react(state: bytes | None) -> None:
        seen.append(state)
        if state == b"5" and len(seen) < 5:
            bench.set(DISK, unrelated=str(len(seen)))
        elif state == b"5":
            bench.set(DISK, state="6")

    bench.backend(DISK, react)
    assert detach(bench.store, bench.loop, DISK, LONG)
    assert nodes_of(bench.store) == []


def test_somebody_wants_it_to_stay(bench: Bench) -> None:
    """Who has put it online again since it was asked back is not overruled, even by force."""
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            bench.set(DISK, online="1")

    bench.backend(DISK, react)
    assert detach(bench.store, bench.loop, DISK, 1.0, force=True) is False
    assert states(bench) == (b"5", b"4", b"1")


def test_a_backend_that_has_gone_on_by_itself_is_left_where_it_is(bench: Bench) -> None:
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            bench.set(DISK, state="2")

    bench.backend(DISK, react)
    assert not detach(bench.store, bench.loop, DISK, 1.0)
    assert states(bench) == (b"2", b"4", b"1")


def test_a_guest_that_was_closing_before_is_closing_still(bench: Bench) -> None:
    connected(bench)
    bench.store.write(f"{DISK.frontend}/state", b"5")
    assert not detach(bench.store, bench.loop, DISK, 1.0)
    assert states(bench) == (b"5", b"5", b"1")


def test_a_guest_that_has_reacted_is_not_told_otherwise(bench: Bench) -> None:
    connected(bench)

    def react(state: bytes | None) -> None:
        if state == b"5":
            bench.other.write(f"{DISK.frontend}/state", b"6")

    bench.backend(DISK, react)
    assert not detach(bench.store, bench.loop, DISK, 1.0)
    assert states(bench) == (b"5", b"6", b"1")


@pytest.mark.parametrize("state", State)
def test_who_holds_a_disk(bench: Bench, state: State) -> None:
    offer(bench.store, DISK)
    if state is State.GONE:
        bench.store.remove(DISK.frontend)
    else:
        bench.store.write(f"{DISK.frontend}/state", state.node)
    assert in_use(bench.store, DISK) is (state.label in ("Initialised", "Connected", "Closing"))


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("/local/domain/0/backend/vbd/7/51712", "vbd"),
        ("/local/domain/0/backend/qdisk/7/51712", "qdisk"),
        ("/local/domain/1/backend/vbd/7/51712", None),
        ("/local/domain/0/backend/vbd/7/51713", None),
        ("/local/domain/0/backend/vbd/8/51712", None),
        ("/local/domain/0/backend/../7/51712", None),
        ("/local/domain/0/backend//7/51712", None),
        ("/local/domain/0/backend/vbd/7/51712/x", None),
        ("/local/domain/0/vbd/7/51712", None),
    ],
)
def test_the_kind_is_what_the_path_says(bench: Bench, backend: str, kind: str | None) -> None:
    bench.store.write(f"{DISK.frontend}/backend", backend.encode())
    if kind is not None:
        assert find_backend(bench.store, 7, 51712) == kind
        return
    with pytest.raises(OperatorError, match="is served by another domain"):
        find_backend(bench.store, 7, 51712)


@pytest.mark.parametrize(("errno", "fails"), [(ENOENT, False), (EACCES, True)])
def test_only_a_parent_that_is_gone_already_is_no_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, errno: int, fails: bool
) -> None:
    offer(bench.store, DISK)

    def refuse(transaction: Transaction, path: str) -> list[str]:
        raise StoreError(errno, "refused", path)

    monkeypatch.setattr(Transaction, "list", refuse)
    if fails:
        with pytest.raises(StoreError, match="refused"):
            remove(bench.store, DISK)
    else:
        remove(bench.store, DISK)
    assert (nodes_of(bench.store) == []) is not fails
