"""Part of the conformance suite: who hears of which change, and how often."""

import pytest

from tests.store.connection import Connection, refused, watching
from tests.store.servers import StoreUnderTest
from xbbd_bsd.xenstore.wire import Error, Op, Packet


def test_a_watch_fires_at_once_after_its_reply(dom0: Connection) -> None:
    req_id = dom0.send(Op.WATCH, b"/absent\0token\0")
    assert dom0.receive() == Packet(Op.WATCH, req_id, 0, b"OK\0")
    assert dom0.receive() == Packet(Op.WATCH_EVENT, 0, 0, b"/absent\0token\0")


def test_a_watch_fires_for_the_node_and_all_below(dom0: Connection, other: Connection) -> None:
    watching(dom0, "/a/b")
    other.write("/a/b", b"1")
    other.write("/a/b/c/d", b"1")
    other.write("/a", b"1")
    other.write("/a/bb", b"1")
    other.write("/a/c", b"1")
    assert dom0.events() == [("/a/b", "/a/b"), ("/a/b/c/d", "/a/b")]


def test_the_root_may_be_watched(dom0: Connection, other: Connection) -> None:
    watching(dom0, "/")
    other.write("/a/b")
    other.write("/")
    assert dom0.events() == [("/a/b", "/"), ("/", "/")]


def test_parents_that_come_along_fire_nothing(dom0: Connection, other: Connection) -> None:
    watching(dom0, "/a", "/a/b", "/a/b/c")
    other.write("/a/b/c")
    assert sorted(dom0.events()) == [("/a/b/c", "/a"), ("/a/b/c", "/a/b"), ("/a/b/c", "/a/b/c")]


def test_what_else_fires(dom0: Connection, other: Connection) -> None:
    watching(dom0, "/a")
    other.call(Op.MKDIR, "/a")
    assert dom0.events() == [("/a", "/a")]
    other.call(Op.MKDIR, "/a")  # changes nothing
    assert dom0.events() == []
    other.permit("/a", "n0", "r5")
    assert dom0.events() == [("/a", "/a")]
    other.write("/a", b"")  # the same as before
    assert dom0.events() == [("/a", "/a")]
    other.remove("/a")
    assert dom0.events() == [("/a", "/a")]
    other.remove("/a")
    assert dom0.events() == []


def test_one_s_own_changes_fire_too(dom0: Connection) -> None:
    watching(dom0, "/a")
    dom0.write("/a")
    assert dom0.event() == ("/a", "/a")


def test_a_removed_tree_fires_once_a_watch(dom0: Connection, other: Connection) -> None:
    other.write("/a/b/c")
    other.write("/a/b/d")
    watching(dom0, "/", "/a", "/a/b", "/a/b/c", "/a/b/absent")
    other.remove("/a")
    expected = [("/a", "/"), ("/a", "/a"), ("/a/b", "/a/b"), ("/a/b/c", "/a/b/c")]
    assert sorted(dom0.events()) == expected


def test_a_removed_child_fires_with_its_own_path(dom0: Connection, other: Connection) -> None:
    other.write("/a/b/c")
    watching(dom0, "/a")
    other.remove("/a/b")
    assert dom0.events() == [("/a/b", "/a")]


def test_relative_watches_give_relative_paths(store: StoreUnderTest, dom0: Connection) -> None:
    watching(dom0, "a")
    dom0.write("/local/domain/0/a/b")
    assert dom0.events() == [("a/b", "a")]
    guest = store.guest(5)
    guest.watch("a")
    guest.watch("/local/domain/5/a", "absolute")
    assert guest.events() == [("a", "t"), ("/local/domain/5/a", "absolute")]
    dom0.write("/local/domain/5/a/b")
    assert guest.events() == [("a/b", "t"), ("/local/domain/5/a/b", "absolute")]
    dom0.remove("/local/domain/5/a")
    assert guest.events() == [("a", "t"), ("/local/domain/5/a", "absolute")]


def test_tokens(dom0: Connection, other: Connection) -> None:
    dom0.watch("/a", "1")
    refused(Error.EEXIST, dom0.watch, "/a", "1")
    dom0.watch("/a", "2")
    dom0.watch("/b", "1")
    other.watch("/a", "1")
    dom0.watch("/a", "")
    dom0.events()
    other.write("/a")
    assert sorted(dom0.events()) == [("/a", ""), ("/a", "1"), ("/a", "2")]


def test_unwatch(dom0: Connection, other: Connection) -> None:
    refused(Error.ENOENT, dom0.call, Op.UNWATCH, "/a", "t")
    dom0.watch("/a", "1")
    dom0.watch("/a", "2")
    refused(Error.ENOENT, dom0.call, Op.UNWATCH, "/a", "3")
    assert dom0.call(Op.UNWATCH, "/a", "1") == b"OK\0"
    dom0.events()
    other.write("/a")
    assert dom0.events() == [("/a", "2")]
    dom0.watch("/a", "1")


def test_reset_watches(dom0: Connection, other: Connection) -> None:
    watching(dom0, "/a", "/b")
    watching(other, "/a")
    tx = dom0.begin()
    assert dom0.call(Op.RESET_WATCHES, "") == b"OK\0"
    dom0.write("/a")
    assert dom0.events() == []
    assert other.events() == [("/a", "/a")]
    refused(Error.ENOENT, dom0.read, "/a", tx)


def test_an_event_that_fits_no_packet_is_not_sent(dom0: Connection) -> None:
    path = "/" + "p" * 2000
    dom0.watch(path, "t" * 2093)
    assert dom0.events() == [(path, "t" * 2093)]  # 4096 bytes
    dom0.write(path + "/more")
    assert dom0.events() == []


@pytest.mark.slow
def test_identical_events_that_wait_are_merged(dom0: Connection, other: Connection) -> None:
    """3 MB of them: what a system's sockets hold counts as sent, and is little of that."""
    token = "t" * 2000
    dom0.watch("/", token)
    dom0.events()
    for number in range(1500):
        other.write(f"/d/{number % 50}")
    received = dom0.events()
    assert {path for path, _ in received} == {f"/d/{number}" for number in range(50)}
    assert len(received) < 1000
    other.write("/d/1")
    assert dom0.events() == [("/d/1", token)]  # no merging with what has been sent


def test_a_client_that_does_not_read_holds_up_nobody(dom0: Connection, other: Connection) -> None:
    other.write("/big", b"x" * 4000)
    for number in range(100):  # 400 kB of replies
        dom0.socket.sendall(Packet(Op.READ, number, 0, b"/big\0").encode())
    assert other.read("/big") == b"x" * 4000
    for number in range(100):
        assert dom0.receive() == Packet(Op.READ, number, 0, b"x" * 4000)


def test_watches_end_with_their_connection(store: StoreUnderTest, dom0: Connection) -> None:
    watcher = store.dom0()
    watching(watcher, "/a")
    watcher.close()
    dom0.write("/a", b"1")
    fresh = store.dom0()
    fresh.write("/a", b"2")
    assert fresh.events() == []
