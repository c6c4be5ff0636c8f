"""Part of the conformance suite: what is seen, what conflicts, what a commit tells."""

from collections.abc import Callable

import pytest

from tests.store.connection import Connection, refused, watching
from tests.store.servers import StoreUnderTest
from xbbd_bsd.xenstore.wire import Error, Op


def test_a_transaction_is_unseen_until_its_end(dom0: Connection, other: Connection) -> None:
    watching(other, "/a")
    tx = dom0.begin()
    dom0.write("/a/b", b"1", tx)
    dom0.call(Op.MKDIR, "/a/c", tx=tx)
    dom0.permit("/a/c", "n0", "r5", tx=tx)
    assert dom0.names("/a", tx) == ["b", "c"]
    assert dom0.permissions("/a/c", tx) == ["n0", "r5"]
    refused(Error.ENOENT, dom0.read, "/a")
    refused(Error.ENOENT, other.read, "/a/b")
    assert other.events() == []
    dom0.end(tx)
    assert other.read("/a/b") == b"1"
    assert other.permissions("/a/c") == ["n0", "r5"]
    assert other.events() == [("/a/b", "/a"), ("/a/c", "/a")]


def test_an_abandoned_transaction_leaves_nothing(dom0: Connection, other: Connection) -> None:
    watching(other, "/a")
    tx = dom0.begin()
    dom0.write("/a", b"1", tx)
    dom0.end(tx, keep=False)
    refused(Error.ENOENT, dom0.read, "/a")
    assert other.events() == []


def test_the_id_is_dead_after_the_end(dom0: Connection, other: Connection) -> None:
    for keep in (True, False):
        tx = dom0.begin()
        dom0.end(tx, keep)
        refused(Error.ENOENT, dom0.read, "/", tx)
        refused(Error.ENOENT, dom0.end, tx)
    refused(Error.ENOENT, dom0.end, 0)


def test_transactions_belong_to_their_connection(dom0: Connection, other: Connection) -> None:
    tx = dom0.begin()
    dom0.begin()
    refused(Error.ENOENT, other.read, "/", tx)
    assert other.begin() == tx  # each counts for itself


def test_the_end_needs_t_or_f(dom0: Connection) -> None:
    tx = dom0.begin()
    refused(Error.EINVAL, dom0.call, Op.TRANSACTION_END, "X", tx=tx)
    dom0.write("/a", b"1", tx)
    dom0.end(tx)
    assert dom0.read("/a") == b"1"


def test_transactions_do_not_nest(dom0: Connection) -> None:
    tx = dom0.begin()
    refused(Error.EBUSY, dom0.call, Op.TRANSACTION_START, "", tx=tx)


def test_watches_know_no_transactions(dom0: Connection) -> None:
    assert dom0.call(Op.WATCH, "/a", "t", tx=77) == b"OK\0"
    assert dom0.call(Op.UNWATCH, "/a", "t", tx=77) == b"OK\0"


def test_events_at_commit_are_one_a_node(dom0: Connection, other: Connection) -> None:
    other.write("/a/old")
    other.write("/a/gone/below")
    watching(other, "/a", "/a/gone/below")
    tx = dom0.begin()
    dom0.write("/a/2", tx=tx)
    dom0.write("/a/1", tx=tx)
    dom0.write("/a/2", b"again", tx)
    dom0.permit("/a/1", "n0", "r5", tx=tx)
    dom0.write("/a/brief", tx=tx)
    dom0.remove("/a/brief", tx)
    dom0.remove("/a/old", tx)
    dom0.write("/a/old", tx=tx)
    dom0.remove("/a/gone", tx)
    dom0.end(tx)
    assert other.events() == [
        ("/a/2", "/a"),
        ("/a/1", "/a"),
        ("/a/old", "/a"),
        ("/a/gone", "/a"),
        ("/a/gone/below", "/a/gone/below"),
    ]


Act = Callable[[Connection, int], object]


def read_a(connection: Connection, tx: int) -> None:
    connection.read("/k/a", tx)


def read_new(connection: Connection, tx: int) -> None:
    refused(Error.ENOENT, connection.read, "/k/new", tx)


def names_k(connection: Connection, tx: int) -> None:
    connection.names("/k", tx)


def write_a(connection: Connection, tx: int) -> None:
    connection.write("/k/a", b"2", tx)


def write_b(connection: Connection, tx: int) -> None:
    connection.write("/k/b", b"2", tx)


def write_below(connection: Connection, tx: int) -> None:
    connection.write("/k/d/e", b"2", tx)


def create(connection: Connection, tx: int) -> None:
    connection.write("/k/new", b"2", tx)


def create_uncle(connection: Connection, tx: int) -> None:
    connection.write("/k/new2", b"2", tx)


def mkdir_a(connection: Connection, tx: int) -> None:
    connection.call(Op.MKDIR, "/k/a", tx=tx)


def permit_a(connection: Connection, tx: int) -> None:
    connection.permit("/k/a", "n0", "r7", tx=tx)


def permissions_a(connection: Connection, tx: int) -> None:
    connection.permissions("/k/a", tx)


def remove_a(connection: Connection, tx: int) -> None:
    connection.remove("/k/a", tx)


def remove_d(connection: Connection, tx: int) -> None:
    connection.remove("/k/d", tx)


def recreate_a(connection: Connection, tx: int) -> None:
    connection.remove("/k/a", tx)
    connection.write("/k/a", b"1", tx)


@pytest.mark.parametrize(
    ("inside", "outside", "conflict"),
    [
        (read_a, write_a, True),
        (write_a, write_a, True),
        (read_a, permit_a, True),
        (permissions_a, write_a, True),
        (read_a, remove_a, True),
        (read_a, recreate_a, True),
        (remove_a, write_a, True),
        (remove_d, write_below, True),
        (names_k, create, True),
        (names_k, remove_a, True),
        (read_new, create, True),
        (create, create, True),
        (create, create_uncle, True),
        (remove_a, create, True),
        (read_new, create_uncle, True),
        (read_a, write_b, False),
        (read_a, mkdir_a, False),
        (read_a, create, False),
        (write_a, write_b, False),
        (write_a, create, False),
        (names_k, write_a, False),
        (names_k, write_below, False),
        (remove_a, write_b, False),
        (remove_d, write_b, False),
    ],
    ids=lambda act: getattr(act, "__name__", None),
)
def test_conflicts(
    dom0: Connection, other: Connection, inside: Act, outside: Act, conflict: bool
) -> None:
    for path in ("/k/a", "/k/b", "/k/d/e"):
        dom0.write(path, b"1")
    tx = dom0.begin()
    inside(dom0, tx)
    dom0.write("/done", b"1", tx)
    outside(other, 0)
    if conflict:
        refused(Error.EAGAIN, dom0.end, tx)
        refused(Error.ENOENT, dom0.read, "/", tx)
    else:
        dom0.end(tx)
    assert ("done" in dom0.names("/")) is not conflict


def test_two_transactions_conflict_as_well(dom0: Connection, other: Connection) -> None:
    dom0.write("/a", b"1")
    first, second = dom0.begin(), other.begin()
    value = int(dom0.read("/a", first))
    other.write("/a", str(int(other.read("/a", second)) + 1).encode(), second)
    dom0.write("/a", str(value + 1).encode(), first)
    other.end(second)
    refused(Error.EAGAIN, dom0.end, first)
    assert dom0.read("/a") == b"2"


def test_what_was_read_stays_as_it_was(dom0: Connection, other: Connection) -> None:
    dom0.write("/a", b"1")
    tx = dom0.begin()
    other.write("/a", b"2")  # before the first look: no conflict
    assert dom0.read("/a", tx) == b"2"
    other.write("/a", b"3")
    assert dom0.read("/a", tx) == b"2"


def test_transactions_end_with_their_connection(store: StoreUnderTest, dom0: Connection) -> None:
    leaving = store.dom0()
    leaving.write("/a", b"1", leaving.begin())
    leaving.close()
    refused(Error.ENOENT, dom0.read, "/a")
    dom0.write("/a", b"2")
