"""The control socket with good clients and bad ones; the daemon's loop must not care."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.descriptors import no_descriptors
from tests.waiting import eventually
from xbbd_bsd.control import server as module
from xbbd_bsd.control.accept import shortage
from xbbd_bsd.control.client import Connection, ask
from xbbd_bsd.control.protocol import DENIED, LIMIT, FamilyVerb, Part, Request, Verb
from xbbd_bsd.control.server import (
    FOLLOWERS,
    FOLLOWERS_RESERVED,
    MOST,
    RESERVED,
    ControlServer,
    Rights,
    Visitor,
)
from xbbd_bsd.errors import OperatorError, Refused
from xbbd_bsd.events import Event, NotAccepted
from xbbd_bsd.feed import LIMIT as WAITING
from xbbd_bsd.feed import Feed, Record
from xbbd_bsd.host import Peer
from xbbd_bsd.host.choice import platform

GET = Request(Verb.GET, "a")
SET = Request(Verb.SET, "a", 1)


class Daemon:
    """A server on a loop and a thread of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.rights = Rights.WRITE
        self.ready = False
        self.feed = Feed(None)
        self.asked: list[Request] = []
        self.events: list[Event] = []
        self.server = ControlServer(
            path,
            self.perform,
            self.loop,
            visitor=self.visitor,
            journal=self.events.append,
            verbs=("resize",),
        )
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def visitor(self, _: socket.socket) -> Visitor:
        return Visitor(self.rights, "alice (uid 7)")

    def perform(self, request: Request) -> Iterator[Part]:
        self.asked.append(request)
        if request.verb is Verb.EVENTS:
            try:
                while not self.feed.over:
                    yield self.feed.take() or self.feed
            finally:
                self.asked.clear()
            return
        if request.name == "slow":
            while not self.ready:
                yield None
        if request.name == "parts":
            yield from ({str(part): "x" * 10_000} for part in range(1000))
            return
        if request.name == "defect":
            raise ZeroDivisionError
        if request.name == "half":
            yield {"half": 1}
        if request.name in ("bad", "half"):
            raise OperatorError("no such thing")
        if request.name == "faults":
            raise Refused(["first", "second"])
        yield {request.name: "x" * 100_000 if request.name == "much" else 1}

    def connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(10)
        channel.connect(self.path)
        return channel

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.server.close()
        self.loop.close()


@pytest.fixture
def daemon(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    running = Daemon(str(short_path / "control"))
    yield running
    running.close()
    assert not os.path.exists(running.path)


def test_answers(daemon: Daemon) -> None:
    assert ask(daemon.path, GET) == {"a": 1}
    assert len(str(ask(daemon.path, Request(Verb.GET, "much"))["much"])) == 100_000
    with pytest.raises(OperatorError, match=r"^no such thing$"):
        ask(daemon.path, Request(Verb.GET, "bad"))
    with pytest.raises(Refused) as raised:
        ask(daemon.path, Request(Verb.GET, "faults"))
    assert raised.value.lines == ("first", "second")


def test_only_the_daemons_user_may_connect(daemon: Daemon) -> None:
    assert stat.S_IMODE(os.stat(daemon.path).st_mode) == 0o600


def test_many_requests_on_one_connection(daemon: Daemon) -> None:
    with daemon.connect() as channel, channel.makefile("rb") as lines:
        channel.sendall(GET.encode() * 50)
        for _ in range(50):
            assert lines.readline() == b'{"values": {"a": 1}}\n'
            assert lines.readline() == b'{"ok": true}\n'


def test_an_answer_comes_in_parts_and_others_are_served_between(daemon: Daemon) -> None:
    with Connection(daemon.path) as slow:
        parts = slow.ask(Request(Verb.GET, "parts"))
        assert list(next(parts)) == ["0"]
        assert ask(daemon.path, GET) == {"a": 1}
        assert len(list(parts)) == 999
        assert slow.whole(GET) == {"a": 1}


def test_an_answer_that_has_to_wait_keeps_nobody(daemon: Daemon) -> None:
    with daemon.connect() as slow:
        slow.sendall(Request(Verb.GET, "slow").encode() + GET.encode())
        for _ in range(3):
            assert ask(daemon.path, GET) == {"a": 1}
        daemon.ready = True
        with slow.makefile("rb") as answers:
            lines = [answers.readline() for _ in range(4)]
    assert [b"slow" in line or b'"a"' in line for line in lines] == [True, False, True, False]


def test_an_error_after_some_of_the_answer(daemon: Daemon) -> None:
    with Connection(daemon.path) as connection:
        parts = connection.ask(Request(Verb.GET, "half"))
        assert next(parts) == {"half": 1}
        with pytest.raises(OperatorError, match="no such thing"):
            next(parts)


def test_rights(daemon: Daemon) -> None:
    daemon.rights = Rights.READ
    assert ask(daemon.path, GET) == {"a": 1}
    with pytest.raises(OperatorError, match=r"^a=1: Operation not permitted: only root may$"):
        ask(daemon.path, SET)
    with pytest.raises(
        OperatorError, match=r"^dev\.xbbd\.0: Operation not permitted: only root may$"
    ):
        ask(daemon.path, Request(FamilyVerb("resize"), "dev.xbbd.0"))
    with pytest.raises(OperatorError, match=r"^reload: Operation not permitted: only root may$"):
        ask(daemon.path, Request(Verb.RELOAD))
    daemon.rights = Rights.NONE
    with pytest.raises(OperatorError, match=f"^{DENIED}$"):
        ask(daemon.path, GET)
    daemon.rights = Rights.WRITE
    assert ask(daemon.path, SET) == {"a": 1}


def test_readers_do_not_lock_out_those_who_may_write(daemon: Daemon) -> None:
    daemon.rights = Rights.READ
    silent = [daemon.connect() for _ in range(MOST - RESERVED)]
    try:
        with pytest.raises(OperatorError, match="too many connections"):
            ask(daemon.path, GET)
        daemon.rights = Rights.WRITE
        assert ask(daemon.path, SET) == {"a": 1}
    finally:
        for channel in silent:
            channel.close()


def test_the_kernel_says_who_a_client_is(daemon: Daemon) -> None:
    here, there = socket.socketpair()
    with here, there:
        peer = platform().peer(here)
    assert peer == Peer(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


def test_members_of_a_group_may_connect(daemon: Daemon) -> None:
    daemon.server.give_to(os.getegid())
    status = os.stat(daemon.path)
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getegid())
    daemon.server.give_to(None)
    assert stat.S_IMODE(os.stat(daemon.path).st_mode) == 0o600


@pytest.mark.parametrize(
    "sent", [b"", b"x", b"\n", b"x" * (LIMIT + 1), b"x" * (LIMIT * 20), b"[" * LIMIT + b"\n"]
)
def test_a_mad_client_loses_its_connection_or_gets_an_error(daemon: Daemon, sent: bytes) -> None:
    with daemon.connect() as channel:
        try:
            channel.sendall(sent)
            answer = channel.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert answer == b"" or b'"ok": false' in answer
    assert ask(daemon.path, GET) == {"a": 1}


def test_a_client_that_does_not_read(daemon: Daemon) -> None:
    with daemon.connect() as channel:
        channel.settimeout(0.1)
        with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
            channel.sendall(Request(Verb.GET, "much").encode() * 100_000)
        assert ask(daemon.path, GET) == {"a": 1}


def test_silent_clients_do_not_keep_others_out_for_long(daemon: Daemon) -> None:
    silent = [daemon.connect() for _ in range(MOST + 8)]
    try:
        for channel in silent:  # each is told so, or has its time
            answer = channel.recv(65536)
            assert answer == b"" or b"too many connections" in answer
        assert ask(daemon.path, GET) == {"a": 1}
    finally:
        for channel in silent:
            channel.close()


def test_what_a_dead_daemon_left_is_replaced(short_path: Path) -> None:
    path = str(short_path / "control")
    with pytest.raises(OperatorError, match="no xbbd listens"):
        ask(path, GET)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with pytest.raises(OperatorError, match="no xbbd listens"):
        ask(path, GET)
    running = Daemon(path)
    assert ask(path, GET) == {"a": 1}
    running.close()


def test_no_place_for_the_socket(short_path: Path) -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(OperatorError, match=r"^control socket "):
        ControlServer(
            str(short_path / "none" / "control"),
            lambda _: iter(()),
            loop,
            visitor=lambda _: Visitor(Rights.WRITE),
        )
    loop.close()


def test_requests_before_a_half_close_are_answered(daemon: Daemon) -> None:
    with daemon.connect() as channel, channel.makefile("rb") as lines:
        channel.sendall(GET.encode() * 10)
        channel.shutdown(socket.SHUT_WR)
        assert len(lines.readlines()) == 20


def test_a_flood_of_requests_is_not_kept(daemon: Daemon) -> None:
    """A client that sends more than it is answered waits; it never has two turns at once."""
    sent = threading.Event()
    with daemon.connect() as channel:

        def send() -> None:
            with contextlib.suppress(OSError):
                channel.sendall(b"x\n" * 500_000)
            sent.set()

        sender = threading.Thread(target=send)
        sender.start()
        kept, turns = 0, 0
        for _ in range(200):
            channel.recv(1 << 16)
            for client in list(daemon.server._clients):
                kept = max(kept, len(client._unread))
                turns = max(turns, sum(
                    getattr(handle._callback, "__self__", None) is client
                    for handle in list(daemon.loop._ready)  # type: ignore[attr-defined]
                ))  # fmt: skip
        channel.shutdown(socket.SHUT_RDWR)
        sender.join(10)
    assert kept <= LIMIT + (256 << 10)
    assert turns <= 1


def test_a_defect_of_ours_is_an_answer(daemon: Daemon) -> None:
    with pytest.raises(OperatorError, match=r"^internal error, see the daemon's log$"):
        ask(daemon.path, Request(Verb.GET, "defect"))
    (event,) = daemon.events
    assert "please report it: Traceback" in str(event)
    assert "ZeroDivisionError" in str(event)
    assert "\n" not in str(event)
    assert ask(daemon.path, GET) == {"a": 1}


def test_who_may_only_read_connects_again_when_the_group_changes(daemon: Daemon) -> None:
    daemon.rights = Rights.READ
    with Connection(daemon.path) as connection:
        assert connection.whole(GET) == {"a": 1}
        done = threading.Event()

        def change() -> None:
            daemon.server.give_to(None)
            done.set()

        daemon.loop.call_soon_threadsafe(change)
        assert done.wait(10)
        with pytest.raises(OperatorError):
            connection.whole(GET)


def test_a_socket_that_cannot_be_given_away(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(path: str, uid: int, gid: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    path, loop = str(short_path / "control"), asyncio.new_event_loop()
    with pytest.raises(OperatorError, match="Operation not permitted"):
        ControlServer(
            path, lambda _: iter(()), loop, visitor=lambda _: Visitor(Rights.WRITE), group=1
        )
    assert not os.path.exists(path)
    loop.close()


def test_who_asks_is_what_the_kernel_says(daemon: Daemon) -> None:
    assert ask(daemon.path, GET) == {"a": 1}
    assert [request.who for request in daemon.asked] == ["alice (uid 7)"]
    with daemon.connect() as channel:
        channel.sendall(GET.encode().replace(b"}", b', "who": "root"}'))
        assert b"nothing else" in channel.recv(65536)


FOLLOW = Request(Verb.EVENTS)


def say(daemon: Daemon, *numbers: int) -> None:
    """Have lines logged."""

    def add() -> None:
        for number in numbers:
            daemon.feed.add(Record(1.5, "info", None, "Said", {"number": number}, "x" * 1000))

    daemon.loop.call_soon_threadsafe(add)


def test_lines_come_as_they_are_logged(daemon: Daemon) -> None:
    """However long that takes: the connection of one who follows is not given up."""
    with Connection(daemon.path) as connection:
        lines = connection.follow(FOLLOW)
        say(daemon, 0)
        assert next(lines)["fields"] == {"number": 0}
        (client,) = daemon.server._clients
        timers: list[object] = []

        def renewed() -> bool:
            if client._timer not in timers:
                timers.append(client._timer)
            return len(timers) == 3

        eventually(renewed, "a client that did nothing would be gone")
        say(daemon, 1)
        assert next(lines)["fields"] == {"number": 1}
        assert len(daemon.asked) == 1
    eventually(lambda: not daemon.asked, "nobody follows any more")


def test_a_reader_that_is_too_slow_is_told_and_costs_little(daemon: Daemon) -> None:
    with Connection(daemon.path) as connection:
        lines = connection.follow(FOLLOW)
        said = 0
        while not daemon.feed._missed:
            assert said < 100 * WAITING
            say(daemon, *range(said, said + WAITING))
            said += WAITING
            assert ask(daemon.path, GET) == {"a": 1}
        assert len(daemon.feed._waiting) <= WAITING + 1
        expected = missed = 0
        while expected < said:
            line = next(lines)
            if "missed" in line:
                missed += line["missed"]
                expected += line["missed"]
            else:
                assert line["fields"]["number"] == expected
                expected += 1
        assert missed > 0


@pytest.mark.parametrize(
    ("rights", "most"),
    [(Rights.READ, FOLLOWERS - FOLLOWERS_RESERVED), (Rights.WRITE, FOLLOWERS)],
)
def test_there_are_not_too_many_who_follow(daemon: Daemon, rights: Rights, most: int) -> None:
    """And who may only read leaves some places to others."""
    daemon.rights = rights
    with contextlib.ExitStack() as held:
        for _ in range(most):
            held.enter_context(daemon.connect()).sendall(FOLLOW.encode())
        eventually(
            lambda: sum(client.follows for client in set(daemon.server._clients)) == most,
            "all follow",
        )
        with pytest.raises(OperatorError, match="too many follow the log already"):
            ask(daemon.path, FOLLOW)
        assert ask(daemon.path, GET) == {"a": 1}


@pytest.mark.parametrize("sent", [None, GET.encode()])
def test_who_follows_says_nothing_more(daemon: Daemon, sent: bytes | None) -> None:
    with daemon.connect() as channel:
        channel.sendall(FOLLOW.encode())
        say(daemon, 1)
        assert b"fields" in channel.recv(65536)
        if sent is None:
            channel.shutdown(socket.SHUT_WR)
        else:
            channel.sendall(sent)
        assert channel.recv(65536) == b""
    eventually(lambda: not daemon.asked, "nobody follows any more")


def test_the_end_of_what_is_followed(daemon: Daemon) -> None:
    with Connection(daemon.path) as connection:
        lines = connection.follow(FOLLOW)
        say(daemon, 1)
        daemon.loop.call_soon_threadsafe(daemon.feed.end)
        assert [line["fields"] for line in lines] == [{"number": 1}]
        assert connection.whole(GET) == {"a": 1}


def test_the_last_descriptor_but_the_spare_one_is_no_shortage(daemon: Daemon) -> None:
    """Nobody is kept waiting, so nobody is told that; whoever comes next is let in as well."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for channel in clients:
            stack.enter_context(channel).settimeout(10)
        with no_descriptors(but=1):
            for channel in clients:
                channel.connect(daemon.path)
                channel.sendall(GET.encode())
                assert channel.recv(65536).startswith(b'{"values": {"a": 1}}')
                channel.shutdown(socket.SHUT_RDWR)  # a close would free one of this process
                eventually(lambda: not daemon.server._clients, "it has gone")
    assert not daemon.events


def test_out_of_descriptors_one_operator_is_let_in(daemon: Daemon) -> None:
    """And then the next; who may only read has to wait."""
    first, second, reader = (socket.socket(socket.AF_UNIX) for _ in range(3))
    with first, second, reader:
        for channel in (first, second, reader):
            channel.settimeout(10)
        with no_descriptors():
            for channel in (first, second):
                channel.connect(daemon.path)
                channel.sendall(GET.encode())
                assert channel.recv(65536).startswith(b'{"values": {"a": 1}}')
                assert shortage().startswith("file descriptors of the process")
                channel.sendall(FOLLOW.encode())
                assert b"out of file descriptors" in channel.recv(65536)
                channel.shutdown(socket.SHUT_RDWR)  # a close would free one of this process
            daemon.rights = Rights.READ
            reader.connect(daemon.path)
            assert b"keeps the last one for root" in reader.recv(65536)
        assert shortage() == ""
    (event,) = daemon.events
    assert isinstance(event, NotAccepted), "said once, however often it is tried"
    assert event.reason == "Too many open files"
    daemon.rights = Rights.WRITE
    assert ask(daemon.path, SET) == {"a": 1}
    eventually(lambda: daemon.server._listener._spare is not None, "a spare descriptor again")
