"""What pyxs 0.4.1 cannot send, or spoils when it receives, and our client can: one test for each
such fault that we mend, and for packets that no sound server sends.
"""

import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyxs.client import Client as PyxsClient

from tests.descriptors import descriptors_taken
from tests.store.scripted import (
    ERROR,
    HEADER,
    READ,
    TRANSACTION_END,
    TRANSACTION_START,
    WATCH,
    WATCH_EVENT,
    Connect,
    Driver,
    Request,
    Script,
    Serve,
    answer,
    connecting,
    driving,
    packet,
    serving,
    silent_listener,
)
from xbbd_bsd.xenstore.client import StoreError, StoreLost, Transaction
from xbbd_bsd.xenstore.router import Client, Connection, Router


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


def test_descriptors_from_1024_on(serve: Serve, connect: Connect, driver: Driver) -> None:
    with descriptors_taken(below=1024):
        server = serve(lambda request: answer(request, b"OK\0"))
        store = connect()
        assert store.read("a") == b"OK\0"
        lost: list[StoreLost] = []
        store._on_lost = driver.note(lost)
        server.hang_up()
        driver.until(lambda: lost)


def test_request_ids_wrap_at_32_bits(serve: Serve, path: str) -> None:
    server = serve(lambda request: answer(request, b"value"))
    connection = Connection(path, wait=1.0)
    connection.connect()
    router = Router(connection, 5.0, lambda path, token: None)
    router.next_id = 2**32 - 2
    for _ in range(4):
        assert Client(router).read(b"a") == b"value"
    connection.close()
    assert [req_id for _, req_id, _, _ in server.requests] == [2**32 - 2, 2**32 - 1, 0, 1]


def test_a_reply_nobody_asked_for_is_dropped(serve: Serve, connect: Connect) -> None:
    stray = packet(READ, b"stray", 0xDEADBEEF)
    serve(lambda request: stray + answer(request, b"value") + stray)
    store = connect()
    assert [store.read("a"), store.read("a")] == [b"value", b"value"]
    assert store.connected


def test_an_event_of_no_watch_or_no_form_is_dropped(serve: Serve, connect: Connect) -> None:
    payloads = [b"", b"\0", b"\xff\0\xff\0", b"a\x0099\0"]
    events = b"".join(packet(WATCH_EVENT, payload) for payload in payloads)
    serve(lambda request: events + answer(request, b"value"))
    assert connect().read("a") == b"value"


def test_packets_may_come_in_pieces(path: str, connect: Connect, driver: Driver) -> None:
    whole = packet(WATCH_EVENT, b"a\x001\0") + packet(WATCH, b"OK\0")
    with silent_listener(path) as listener:
        store = connect()
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender = threading.Thread(target=lambda: [peer.send(bytes([octet])) for octet in whole])
        sender.start()
        events: list[str] = []
        store.watch("a", driver.note(events))
        driver.until(lambda: events)
        sender.join()
        peer.close()
    assert events == ["a"]


@pytest.mark.parametrize(
    "reply",
    [
        HEADER.pack(READ, 0, 0, 4097),
        packet(WATCH, b"OK\0"),
    ],
    ids=["a packet over 4096 bytes", "the reply of another operation"],
)
def test_a_server_out_of_step_is_left(serve: Serve, connect: Connect, reply: bytes) -> None:
    serve(lambda request: reply)
    store = connect()
    with pytest.raises(StoreLost) as caught:
        store.read("a")
    assert caught.value.errno == errno.EPROTO
    assert not store.connected


def test_an_error_name_unknown_here_is_an_io_error(serve: Serve, connect: Connect) -> None:
    serve(lambda request: packet(ERROR, b"EWHATEVER\0", request[1]))
    with pytest.raises(StoreError) as caught:
        connect().read("a")
    assert caught.value.errno == errno.EIO


def test_operations_pyxs_does_not_know_are_sent_and_received(
    serve: Serve, connect: Connect
) -> None:
    server = serve(answer)
    store = connect()
    assert store.raw(21, b"") == b"OK\0"  # RESET_WATCHES
    assert store.raw(99, b"a", b"b") == b"OK\0"
    sent = [(op, payload) for op, _, _, payload in server.requests]
    assert sent == [(21, b"\0"), (99, b"a\0b\0")]


def test_privileged_operations_need_no_linux_file(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PyxsClient, "SU", False)
    server = serve(answer)
    assert connect().raw(9, b"7") == b"OK\0"  # RELEASE
    assert server.requests == [(9, 0, 0, b"7\0")]


def test_the_environment_does_not_choose_the_socket(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "no-such" / "socket"))
    serve(lambda request: answer(request, b"value"))
    assert connect().read("a") == b"value"


def test_a_path_cannot_smuggle_anything_into_a_packet(serve: Serve, connect: Connect) -> None:
    server = serve(answer)
    store = connect()
    for path in ["", "a\n", "a\0", "a b", "a.b", "a//b", "a/", "\u00e9", "a" * 4000]:
        with pytest.raises(StoreError) as caught:
            store.write(path, b"value")
        assert caught.value.errno == errno.EINVAL
    for path in ["", "a\0b", "a//b"]:
        with pytest.raises(StoreError):
            store.watch(path, print)
    with pytest.raises(StoreError) as caught:
        store.set_permissions("a", ["x5"])
    assert caught.value.errno == errno.EINVAL
    assert server.requests == []


def test_a_value_too_long_for_a_packet_is_refused_here(serve: Serve, connect: Connect) -> None:
    server = serve(answer)
    store = connect()
    store.write("a", bytes(4094))
    with pytest.raises(StoreError) as caught:
        store.write("a", bytes(4095))
    assert caught.value.errno == errno.E2BIG
    assert len(server.requests) == 1


def test_an_exception_in_a_transaction_ends_it_at_the_server(
    serve: Serve, connect: Connect
) -> None:
    server = serve(
        lambda request: answer(request, b"5\0" if request[0] == TRANSACTION_START else b"OK\0")
    )

    def body(transaction: Transaction) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connect().transaction(body)
    assert server.requests == [(TRANSACTION_START, 0, 0, b"\0"), (TRANSACTION_END, 1, 5, b"F\0")]


def directory(parts: list[bytes]) -> Script:
    """A directory too long for one packet, of which each request gets the next part."""

    def script(request: Request) -> bytes:
        op, req_id, _, _ = request
        return packet(ERROR, b"E2BIG\0", req_id) if op == 1 else answer(request, parts.pop(0))

    return script


def test_a_directory_that_changes_while_it_is_read_is_read_again(
    serve: Serve, connect: Connect
) -> None:
    parts = [b"7\0a\0b\0", b"8\0d\0\0", b"8\0a\0bb\0", b"8\0d\0\0"]
    server = serve(directory(parts))
    assert connect().list("x") == ["a", "bb", "d"]
    arguments = [payload for op, _, _, payload in server.requests if op == 22]
    assert arguments == [b"x\x000\0", b"x\x004\0", b"x\x000\0", b"x\x005\0"]


def test_a_directory_that_keeps_changing_is_given_up(serve: Serve, connect: Connect) -> None:
    serve(directory([f"{number}\0a\0".encode() for number in range(100)]))
    with pytest.raises(StoreError) as caught:
        connect().list("x")
    assert caught.value.errno == errno.EAGAIN


def test_several_requests_are_sent_before_the_first_is_answered(
    serve: Serve, connect: Connect
) -> None:
    """In one go, and each answer is its own; what is refused is left out, or raised."""

    def script(request: Request) -> bytes:
        path = request[3].partition(b"\0")[0]
        if path == b"/denied":
            return packet(ERROR, b"EACCES\0", request[1], request[2])
        return answer(request, b"OK\0" if request[0] != READ else path)

    server = serve(script)
    store = connect()
    assert store.get_all(["/a", "/denied", "/b"]) == {"/a": b"/a", "/b": b"/b"}
    assert [request[1] for request in server.requests] == [0, 1, 2]
    with pytest.raises(StoreError) as refused:
        store.write_all({"/a": b"1", "/denied": b"2", "/b": b"3"})
    assert (refused.value.errno, str(refused.value)) == (
        errno.EACCES,
        "write /denied: Permission denied",
    )
    assert len(server.requests) == 6, "the rest was on its way"


def test_a_server_that_goes_between_two_answers(serve: Serve, connect: Connect) -> None:
    serve(lambda request: answer(request) if request[1] < 2 else None)
    store = connect()
    with pytest.raises(StoreLost):
        store.get_all(["/a", "/b", "/c", "/d"])
    assert not store.connected
