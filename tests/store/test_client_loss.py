"""What becomes of the client when its server dies, hangs, or comes back: with pyxs 0.4.1 alone it
would hang for ever, leak, or stay away. One test for each such fault that we mend.
"""

import asyncio
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import open_descriptors
from tests.store.scripted import (
    ERROR,
    READ,
    TRANSACTION_START,
    WATCH,
    WATCH_EVENT,
    Connect,
    Driver,
    Request,
    Serve,
    answer,
    connecting,
    driving,
    packet,
    serving,
    silent_listener,
)
from tests.waiting import GIVE_UP
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost
from xbbd_bsd.xenstore.router import Connection, Lost, Router


@pytest.fixture
def driver() -> Iterator[Driver]:
    with driving() as driver:
        yield driver


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


@pytest.fixture
def serve(path: str) -> Iterator[Serve]:
    with serving(path) as serve:
        yield serve


@pytest.fixture
def connect(path: str, driver: Driver) -> Iterator[Connect]:
    with connecting(path, driver) as connect:
        yield connect


# A server that goes away.

KILLED = """
import os, signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
print("listening", flush=True)
client, _ = listener.accept()
client.recv(16)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_call_ends_when_the_server_is_killed(path: str, connect: Connect) -> None:
    command = [sys.executable, "-S", "-c", KILLED, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        store = connect()
        with pytest.raises(StoreLost, match=r"read /local: .*socket: ") as caught:
            store.read("/local")
        assert caught.value.errno in (errno.ECONNRESET, errno.EPIPE)
        assert server.wait() == -signal.SIGKILL
    assert not store.connected


def test_a_call_ends_at_the_time_limit_and_later_ones_at_once(path: str, connect: Connect) -> None:
    with silent_listener(path):
        store = connect(timeout=0.03)
        with pytest.raises(StoreLost, match="time limit") as caught:
            store.read("/local")
        assert caught.value.errno == errno.ETIMEDOUT
        assert not store.connected
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.remove("a"),
            lambda: store.watch("a", print),
            lambda: store.transaction(lambda transaction: None),
            lambda: store.domain_path(1),
            lambda: store.raw(READ, b"a"),
            store.connect,
        ]
        for call in calls:
            with pytest.raises(StoreLost) as caught:
                call()
            assert caught.value.errno == errno.ENOTCONN


def test_a_server_that_stops_reading_meets_the_time_limit(path: str, connect: Connect) -> None:
    with silent_listener(path):
        connection = Connection(path, wait=1.0)
        connection.connect()
        router = Router(connection, 0.03, lambda path, token: None)

        def flood() -> None:
            for _ in range(10_000):
                router.send(READ, bytes(4096))

        with pytest.raises(Lost, match="time limit"):
            flood()
        with pytest.raises(Lost, match="closed"):  # half a packet may have gone
            router.send(READ, b"a\0")
        connection.close()


def test_a_loss_is_told_once_and_from_the_loop(
    serve: Serve, connect: Connect, driver: Driver
) -> None:
    lost: list[StoreLost] = []
    serve(lambda request: None)
    store = connect(on_lost=driver.note(lost))
    with pytest.raises(StoreLost):
        store.read("a")
    with pytest.raises(StoreLost):
        store.read("a")
    assert lost == []
    driver.until(lambda: lost)
    driver.settle()
    assert len(lost) == 1


def test_a_loss_is_noticed_without_a_call(serve: Serve, connect: Connect, driver: Driver) -> None:
    lost: list[StoreLost] = []
    server = serve(answer)
    store = connect(on_lost=driver.note(lost))
    store.mkdir("a")
    server.hang_up()
    driver.until(lambda: lost)
    assert not store.connected


# The way back.


def test_watches_are_set_again_after_a_loss(serve: Serve, connect: Connect, driver: Driver) -> None:
    def script(request: Request) -> bytes | None:
        if request[0] == WATCH:
            return answer(request) + packet(WATCH_EVENT, request[3])
        return None if request[3] == b"fatal\0" else answer(request)

    seen: list[Any] = []
    server = serve(script)
    store = connect(on_connected=driver.note(seen))
    store.watch("kept", driver.note(seen))
    store.watch("cancelled", driver.note(seen)).cancel()
    driver.until(lambda: seen == ["kept"])
    with pytest.raises(StoreLost):
        store.read("fatal")
    driver.until(lambda: len(seen) == 3)
    assert store.connected
    assert sorted(map(str, seen)) == ["()", "kept", "kept"]
    paths = [payload.partition(b"\0")[0] for op, _, _, payload in server.requests if op == WATCH]
    assert paths == [b"kept", b"cancelled", b"kept"]


def test_a_watch_that_was_refused_or_lost_is_not_set_again(
    serve: Serve, connect: Connect, driver: Driver
) -> None:
    def script(request: Request) -> bytes | None:
        if request[3].startswith(b"refused\0"):
            return packet(ERROR, b"EACCES\0", request[1])
        return None if request[3].startswith(b"lost\0") else answer(request)

    connected: list[Any] = []
    server = serve(script)
    store = connect(on_connected=driver.note(connected))
    with pytest.raises(StoreError, match="watch refused: Permission denied") as caught:
        store.watch("refused", print)
    assert caught.value.errno == errno.EACCES
    with pytest.raises(StoreLost):
        store.watch("lost", print)
    driver.until(lambda: connected)
    assert [op for op, _, _, _ in server.requests].count(WATCH) == 2


def test_attempts_to_connect_come_ever_more_rarely(
    serve: Serve, connect: Connect, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(answer)
    connected: list[Any] = []
    store = connect(on_connected=driver.note(connected))
    real = driver.loop.call_later
    delays: list[float] = []

    def call_later(delay: float, callback: Callable[..., object], *arguments: Any) -> object:
        delays.append(delay)
        return real(0 if delay <= 2 else delay, callback, *arguments)

    monkeypatch.setattr(driver.loop, "call_later", call_later)
    server.stop()
    with pytest.raises(StoreLost):
        store.read("a")
    driver.settle()
    assert delays[:8] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    server = serve(answer)
    driver.until(lambda: connected)
    delays.clear()
    server.stop()
    with pytest.raises(StoreLost):
        store.read("a")
    assert delays == [0.05]


def test_one_loss_within_a_transaction_counts_once(
    serve: Serve, connect: Connect, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(lambda request: answer(request, b"5\0") if request[0] == TRANSACTION_START else None)
    store = connect()
    delays: list[float] = []
    monkeypatch.setattr(driver.loop, "call_later", lambda delay, *_: delays.append(delay))
    with pytest.raises(StoreLost):
        store.transaction(lambda transaction: transaction.read("a"))
    assert delays == [0.05]


def test_a_callback_need_not_mind_a_loss(serve: Serve, connect: Connect, driver: Driver) -> None:
    def script(request: Request) -> bytes | None:
        if request[0] == WATCH:
            return answer(request) + packet(WATCH_EVENT, request[3])
        return None

    lost: list[StoreLost] = []
    serve(script)
    store = connect(on_lost=driver.note(lost))
    store.watch("a", store.mkdir)
    driver.until(lambda: lost)
    assert driver.failures == []


def test_a_server_that_accepts_without_answering_does_not_hold_up_the_loop(
    serve: Serve, path: str, connect: Connect, driver: Driver
) -> None:
    lost: list[StoreLost] = []
    server = serve(answer)
    store = connect(timeout=2 * GIVE_UP, on_lost=driver.note(lost))
    server.stop()
    driver.until(lambda: lost)
    with silent_listener(path) as listener:
        arrived: list[Any] = []
        driver.loop.add_reader(listener, driver.note(arrived))
        began = time.monotonic()
        driver.until(lambda: arrived)
        driver.settle()
        assert time.monotonic() - began < GIVE_UP  # a call that waits would take twice that
        driver.loop.remove_reader(listener)
        assert not store.connected


def test_a_server_that_accepts_without_answering_is_left_at_the_time_limit(
    serve: Serve, path: str, connect: Connect, driver: Driver
) -> None:
    lost: list[StoreLost] = []
    connected: list[Any] = []
    server = serve(answer)
    connect(timeout=0.01, on_lost=driver.note(lost), on_connected=driver.note(connected))
    server.stop()
    driver.until(lambda: lost)
    with silent_listener(path) as listener:
        arrived: list[Any] = []
        note = driver.note(arrived)
        driver.loop.add_reader(listener, lambda: note(listener.accept()))
        driver.until(lambda: arrived)
        driver.loop.remove_reader(listener)
    os.unlink(path)
    serve(answer)
    driver.until(lambda: connected)
    arrived[0][0].close()
    assert len(lost) == 1


def test_a_full_backlog_is_tried_again(
    path: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_listener(path, backlog=0) as listener, ExitStack() as stack:
        try:
            while True:
                early = stack.enter_context(socket.socket(socket.AF_UNIX))
                early.setblocking(False)
                early.connect(path)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        pauses: list[float] = []

        def accept_one(pause: float) -> None:
            pauses.append(pause)
            stack.enter_context(listener.accept()[0])

        monkeypatch.setattr(time, "sleep", accept_one)
        assert connect().connected
        assert len(pauses) == 1


def test_no_server_is_reported_soon(path: str, driver: Driver) -> None:
    store = Store(path, loop=driver.loop)
    with pytest.raises(StoreLost, match=r"cannot connect to .*socket") as caught:
        store.connect()
    assert caught.value.errno == errno.ENOENT
    with silent_listener(path):
        pass
    with pytest.raises(StoreLost) as caught:
        store.connect()
    assert caught.value.errno == errno.ECONNREFUSED
    store.close()


def test_a_path_too_long_for_a_socket_is_an_ordinary_error(driver: Driver) -> None:
    with pytest.raises(StoreLost) as caught:
        Store("/" + 200 * "x", loop=driver.loop).connect()
    assert caught.value.errno == errno.ENAMETOOLONG


# What is left behind.


def test_close_leaves_no_thread_descriptor_or_timer(
    serve: Serve, path: str, driver: Driver
) -> None:
    descriptors, threads = open_descriptors(), threading.enumerate()
    server = serve(lambda request: packet(WATCH_EVENT, b"a\x001\0") + answer(request))
    with_server = threading.enumerate()
    seen: list[Any] = []
    store = Store(path, loop=driver.loop, on_lost=driver.note(seen))
    store.connect()
    watch = store.watch("a", driver.note(seen))
    assert threading.enumerate() == with_server
    store.close()
    store.close()
    driver.settle()
    assert seen == []
    watch.cancel()
    with pytest.raises(StoreLost):
        store.connect()
    server.stop()
    assert threading.enumerate() == threads
    assert open_descriptors() == descriptors


def test_close_on_the_way_back_leaves_nothing(
    path: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[asyncio.TimerHandle] = []
    real = driver.loop.call_later

    def call_later(*arguments: Any) -> asyncio.TimerHandle:
        timers.append(real(*arguments))
        return timers[-1]

    monkeypatch.setattr(driver.loop, "call_later", call_later)
    seen: list[Any] = []
    with silent_listener(path):
        descriptors = open_descriptors()
        store = Store(path, loop=driver.loop, timeout=0.01, on_lost=driver.note(seen))
        store.connect()
        with pytest.raises(StoreLost):
            store.read("a")
        assert open_descriptors() == descriptors
        store.close()
        driver.settle()
        assert seen == []
        assert [timer.cancelled() for timer in timers] == [True]


def test_failed_attempts_leave_no_descriptor(path: str, driver: Driver) -> None:
    descriptors = open_descriptors()
    for _ in range(3):
        with pytest.raises(StoreLost):
            Store(path, loop=driver.loop).connect()
    assert open_descriptors() == descriptors


def test_no_descriptor_to_be_had_is_an_ordinary_loss(
    serve: Serve, path: str, driver: Driver
) -> None:
    serve(answer)
    store = Store(path, loop=driver.loop)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreLost) as caught:
            store.connect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    store.connect()
    store.close()
