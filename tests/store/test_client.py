"""The client's interface, over every kind of server there is: what the rest of xbbd relies on."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.scripted import Connect, Driver, connecting, driving
from tests.store.servers import KINDS, Server
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction, Watch


@pytest.fixture
def driver() -> Iterator[Driver]:
    with driving() as driver:
        yield driver


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    running = KINDS[request.param](tmp_path)
    yield running
    running.stop()


@pytest.fixture
def connect(server: Server, driver: Driver) -> Iterator[Connect]:
    with connecting(server.socket, driver) as connect:
        yield connect


@pytest.fixture
def store(connect: Connect) -> Store:
    return connect()


def refused(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(StoreError) as caught:
        call()
    assert caught.value.errno == number


# Nodes.


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", b"value\0\0", b"\n\t", "\u00fc\u20ac".encode(), bytes(range(256)), b"x" * 4000],
    ids=["empty", "NUL", "NULs at the end", "controls", "UTF-8", "every octet", "long"],
)
def test_values_are_any_octets(store: Store, value: bytes) -> None:
    store.write("/test/value", value)
    assert store.read("/test/value") == value

    def inside(transaction: Transaction) -> bytes:
        transaction.write("/test/inside", value)
        return transaction.read("/test/inside")

    assert store.transaction(inside) == value
    assert store.read("/test/inside") == value


def test_every_value_comes_back(store: Store) -> None:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.binary(max_size=300))
    def check(value: bytes) -> None:
        store.write("/test/value", value)
        assert store.read("/test/value") == value

    check()


def test_absent_nodes(store: Store) -> None:
    assert store.get("/test/absent") is None
    refused(errno.ENOENT, lambda: store.read("/test/absent"))
    refused(errno.ENOENT, lambda: store.list("/test/absent"))
    refused(errno.ENOENT, lambda: store.permissions("/test/absent"))
    store.remove("/test/absent")
    store.remove("/test/absent/below")


def test_several_nodes_at_once(store: Store) -> None:
    """More of them than go in one go, with octets of any kind, and some that are not there."""
    values = {f"/test/many/{number}": bytes([number]) * number for number in range(70)}
    store.write_all(values)
    assert {path: store.read(path) for path in values} == values
    absent = {f"/test/absent/{number}": None for number in range(3)}
    found = store.get_all([*absent, *values])
    assert (found, list(found)) == ({**absent, **values}, [*absent, *values])
    store.write_all({})
    assert store.get_all([]) == {}

    def inside(transaction: Transaction) -> dict[str, bytes | None]:
        transaction.write_all({"/test/many/0": b"x", "/test/new": b"y"})
        return transaction.get_all(["/test/many/0", "/test/new", "/test/none"])

    wanted = {"/test/many/0": b"x", "/test/new": b"y", "/test/none": None}
    assert store.transaction(inside) == wanted
    assert store.get_all(wanted) == wanted


def test_of_several_nodes_the_impossible_is_refused(store: Store) -> None:
    """Before anything is sent."""
    refused(errno.EINVAL, lambda: store.get_all(["/test/a", "/test//b"]))
    refused(errno.EINVAL, lambda: store.write_all({"/test/a": b"1", "/test/b\n": b"2"}))
    refused(errno.E2BIG, lambda: store.write_all({"/test/a": b"1", "/test/b": bytes(5000)}))
    assert store.get("/test/a") is None


def test_an_error_names_operation_and_path(store: Store) -> None:
    with pytest.raises(StoreError, match="read /test/absent: No such file or directory") as caught:
        store.read("/test/absent")
    assert not isinstance(caught.value, StoreLost)
    assert store.connected


def test_directories_are_made_listed_and_removed(store: Store) -> None:
    store.mkdir("/test/a/b")
    store.write("/test/a/c", b"1")
    store.mkdir("/test/a/c")
    assert store.read("/test/a/c") == b"1"
    assert sorted(store.list("/test/a")) == ["b", "c"]
    assert store.list("/test/a/b") == []
    store.remove("/test/a")
    assert store.get("/test/a/c") is None


def test_a_directory_of_any_size_is_listed(store: Store) -> None:
    names = [f"a-name-of-some-length-{number:04}" for number in range(500)]

    def fill(transaction: Transaction) -> list[str]:
        for name in names:
            transaction.write(f"/test/{name}", b"")
        return transaction.list("/test")

    assert sorted(store.transaction(fill)) == names
    assert sorted(store.list("/test")) == names


def test_permissions(store: Store) -> None:
    store.write("/test", b"")
    store.set_permissions("/test", ["n0", "r5", "b7"])
    assert store.permissions("/test") == ["n0", "r5", "b7"]


def test_domain_path_and_relative_paths(store: Store) -> None:
    assert store.domain_path(5) == "/local/domain/5"
    store.write("backend/vbd", b"1")
    assert store.read("/local/domain/0/backend/vbd") == b"1"


def test_raw_operations(store: Store) -> None:
    assert store.raw(21, b"") == b"OK\0"  # RESET_WATCHES
    refused(errno.ENOSYS, lambda: store.raw(99, b"x"))
    assert store.connected


# Watches.


def test_a_watch_fires_at_once_and_on_changes_below(
    store: Store, connect: Connect, driver: Driver
) -> None:
    events: list[str] = []
    store.watch("/test", driver.note(events))
    assert events == []  # never from within a call
    driver.until(lambda: events == ["/test"])
    connect().write("/test/a/b", b"1")
    driver.until(lambda: events == ["/test", "/test/a/b"])
    store.write("/test", b"1")
    driver.until(lambda: events == ["/test", "/test/a/b", "/test"])


def test_relative_watches_give_relative_events(store: Store, driver: Driver) -> None:
    events: list[str] = []
    store.watch("backend/vbd", driver.note(events))
    store.write("/local/domain/0/backend/vbd/7", b"")
    driver.until(lambda: events == ["backend/vbd", "backend/vbd/7"])


def test_a_watch_tells_apart_no_more_than_it_is_asked_to(store: Store, driver: Driver) -> None:
    """So that what changes below is one event, however many nodes that are."""
    seen: list[str] = []
    watch = store.watch("/test/w", driver.note(seen), depth=2)
    relative: list[str] = []
    store.watch("data/w", driver.note(relative), depth=1)
    driver.until(lambda: seen == ["/test/w"] and relative == ["data/w"])
    store.write_all({f"/test/w/1/2/{name}/x": b"" for name in "abcdef"})
    store.write("data/w/1/2", b"")
    store.write("/test/w/1", b"")
    driver.until(lambda: "/test/w/1" in seen and "data/w/1" in relative)
    assert set(seen) == {"/test/w", "/test/w/1/2", "/test/w/1"}
    assert set(relative) == {"data/w", "data/w/1"}
    watch.cancel()


def test_special_watches(store: Store, driver: Driver) -> None:
    events: list[str] = []
    watches = [
        store.watch(path, driver.note(events)) for path in ["@introduceDomain", "@releaseDomain"]
    ]
    driver.until(lambda: sorted(events) == ["@introduceDomain", "@releaseDomain"])
    for watch in watches:
        watch.cancel()


def test_one_path_may_be_watched_many_times(store: Store, driver: Driver) -> None:
    first: list[str] = []
    second: list[str] = []
    watch = store.watch("/test", driver.note(first))
    store.watch("/test", driver.note(second))
    driver.until(lambda: first and second)
    watch.cancel()
    store.write("/test", b"")
    driver.until(lambda: len(second) == 2)
    assert first == ["/test"]


def test_no_callback_after_cancel(store: Store, driver: Driver) -> None:
    events: list[str] = []
    watch = store.watch("/test", driver.note(events))
    store.write("/test", b"")
    watch.cancel()
    watch.cancel()
    store.write("/test", b"")
    driver.settle()
    assert events == []


def test_a_callback_may_cancel_another_watch(store: Store, driver: Driver) -> None:
    events: list[str] = []
    second: list[Watch] = []
    note = driver.note(events)

    def cancelling(path: str) -> None:
        note(path)
        second[0].cancel()

    store.watch("/test/1", cancelling)
    second.append(store.watch("/test/2", note))
    driver.until(lambda: events)
    driver.settle()
    assert events == ["/test/1"]


def test_a_callback_may_use_the_store(store: Store, driver: Driver) -> None:
    values: list[bytes | None] = []
    note = driver.note(values)
    store.watch("/test", lambda path: note(store.get(path)))
    driver.until(lambda: values == [None])
    store.write("/test", b"1")
    driver.until(lambda: values == [None, b"1"])


def test_events_met_during_a_call_are_not_left_in_the_buffer(
    store: Store, connect: Connect, driver: Driver
) -> None:
    events: list[str] = []
    store.watch("/test", driver.note(events))
    connect().write("/test/a", b"")
    store.read("/test/a")  # by now the server has sent both events, and they have been read
    driver.until(lambda: events == ["/test", "/test/a"])


def test_a_failing_callback_harms_nobody_else(store: Store, driver: Driver) -> None:
    events: list[str] = []

    def failing(path: str) -> None:
        raise ZeroDivisionError(path)

    store.watch("/test/1", failing)
    store.watch("/test/2", driver.note(events))
    driver.until(lambda: events)
    failure = driver.failures.pop()
    assert type(failure["exception"]) is ZeroDivisionError
    assert "/test/1" in failure["message"]


@pytest.mark.slow
def test_a_flood_of_events_costs_bounded_memory(
    store: Store, connect: Connect, driver: Driver
) -> None:
    events: list[str] = []
    store.watch("/test", driver.note(events))
    driver.until(lambda: events)
    writer = connect()
    most = 0
    for number in range(1000):
        writer.write(f"/test/{number}", b"")
        if number % 50 == 0:
            store.get("/test")  # takes in the events, but does not deliver them
            most = max(most, len(store._pending))
    writer.write("/test/last", b"")
    assert 200 < most <= 256
    driver.until(lambda: events[-1] == "/test/last")
    assert len(events) < 400
    assert events.count("/test") >= 2  # the first one, and the one that stands for many


# Transactions.


def test_a_transaction_shows_its_writes_only_when_committed(store: Store, connect: Connect) -> None:
    other = connect()

    def body(transaction: Transaction) -> str:
        transaction.mkdir("/test/dir")
        transaction.write("/test/a", b"1")
        transaction.write("/test/b", b"1")
        transaction.remove("/test/b")
        transaction.remove("/test/absent")
        assert sorted(transaction.list("/test")) == ["a", "dir"]
        assert transaction.get("/test/b") is None
        assert other.get("/test/a") is None
        assert store.get("/test/a") is None
        return "result"

    assert store.transaction(body) == "result"
    assert other.read("/test/a") == b"1"


def test_a_conflict_is_tried_again(store: Store, connect: Connect) -> None:
    other = connect()
    store.write("/test", b"1")
    attempts: list[int] = []

    def increment(transaction: Transaction) -> None:
        value = int(transaction.read("/test"))
        if not attempts:
            other.write("/test", b"10")
        attempts.append(value)
        transaction.write("/test", str(value + 1).encode())

    store.transaction(increment)
    assert attempts == [1, 10]
    assert store.read("/test") == b"11"


def test_conflicts_without_end_are_given_up(store: Store, connect: Connect) -> None:
    other = connect()
    attempts: list[bytes | None] = []

    def body(transaction: Transaction) -> None:
        attempts.append(transaction.get("/test"))
        other.write("/test", str(len(attempts)).encode())
        transaction.write("/test", b"mine")

    refused(errno.EAGAIN, lambda: store.transaction(body, attempts=3))
    assert len(attempts) == 3
    assert store.read("/test") == b"3"


def test_an_exception_rolls_back(store: Store) -> None:
    def body(transaction: Transaction) -> None:
        transaction.write("/test", b"")
        raise ZeroDivisionError

    for _ in range(30):  # more than a server keeps open
        with pytest.raises(ZeroDivisionError):
            store.transaction(body)
    assert store.get("/test") is None


def test_a_transaction_is_of_no_use_after_its_end(store: Store) -> None:
    kept = store.transaction(lambda transaction: transaction)
    refused(errno.EINVAL, lambda: kept.read("/"))
    assert store.connected


# Loss.


def test_a_restarted_server_is_found_again(
    server: Server, connect: Connect, driver: Driver
) -> None:
    log: list[Any] = []
    note = driver.note(log)
    store = connect(on_lost=lambda error: note(type(error)), on_connected=lambda: note("connected"))
    store.watch("/test", note)
    driver.until(lambda: log == ["/test"])
    server.kill()
    driver.until(lambda: log == ["/test", StoreLost])
    with pytest.raises(StoreLost):
        store.read("/")
    assert not store.connected
    server.restart()
    driver.until(lambda: len(log) == 4)
    assert sorted(map(str, log[2:])) == ["/test", "connected"]
    assert store.connected
    store.write("/test/a", b"")
    driver.until(lambda: log[-1] == "/test/a")


def test_a_server_killed_within_a_transaction(server: Server, connect: Connect) -> None:
    store = connect()

    def body(transaction: Transaction) -> None:
        transaction.write("/test", b"")
        server.kill()
        transaction.write("/test", b"")

    with pytest.raises(StoreLost):
        store.transaction(body)
    assert not store.connected


def test_a_watch_cancelled_while_the_server_is_away_stays_cancelled(
    server: Server, connect: Connect, driver: Driver
) -> None:
    lost: list[Any] = []
    events: list[Any] = []
    connected: list[Any] = []
    store = connect(on_lost=driver.note(lost), on_connected=driver.note(connected))
    watch = store.watch("/test", driver.note(events))
    driver.until(lambda: events)
    server.kill()
    driver.until(lambda: lost)
    watch.cancel()
    server.restart()
    driver.until(lambda: connected)
    store.write("/test", b"")
    driver.settle()
    assert events == ["/test"]
