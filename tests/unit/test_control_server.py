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

from xbbd_bsd.control import server as module
from xbbd_bsd.control.client import Connection, ask
from xbbd_bsd.control.protocol import LIMIT, Request, Values, Verb
from xbbd_bsd.control.server import MOST, RESERVED, ControlServer, Rights
from xbbd_bsd.errors import OperatorError, Refused
from xbbd_bsd.host import Peer, platform

GET = Request(Verb.GET, "a")
SET = Request(Verb.SET, "a", 1)


class Daemon:
    """A server on a loop and a thread of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.rights = Rights.WRITE
        self.ready = False
        self.server = ControlServer(path, self.perform, self.loop, rights=lambda _: self.rights)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def perform(self, request: Request) -> Iterator[Values | None]:
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
    with pytest.raises(OperatorError, match=r"^a=1: Operation not permitted$"):
        ask(daemon.path, SET)
    with pytest.raises(OperatorError, match=r"^dev\.xbbd\.0: Operation not permitted$"):
        ask(daemon.path, Request(Verb.RESIZE, "dev.xbbd.0"))
    with pytest.raises(OperatorError, match=r"^reload: Operation not permitted$"):
        ask(daemon.path, Request(Verb.RELOAD))
    daemon.rights = Rights.NONE
    with pytest.raises(OperatorError, match=r"^Permission denied$"):
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
            rights=lambda _: Rights.WRITE,
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


def test_a_defect_of_ours_is_an_answer(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OperatorError, match=r"^internal error, see the daemon's log$"):
        ask(daemon.path, Request(Verb.GET, "defect"))
    assert "please report it" in caplog.text
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
        ControlServer(path, lambda _: iter(()), loop, rights=lambda _: Rights.WRITE, group=1)
    assert not os.path.exists(path)
    loop.close()
