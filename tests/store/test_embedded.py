"""What the embedded server promises beyond the conformance suite: bounds, and its program."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.store.connection import Connection
from tests.store.servers import Embedded
from tests.waiting import GIVE_UP
from xbbd_bsd.sim import xenstore
from xbbd_bsd.xenstore.wire import Op, Packet


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Embedded]:
    running = Embedded(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def dom0(server: Embedded) -> Iterator[Connection]:
    connection = Connection(server.socket)
    yield connection
    connection.close()


@pytest.fixture
def other(server: Embedded) -> Iterator[Connection]:
    connection = Connection(server.socket)
    yield connection
    connection.close()


@pytest.mark.slow
def test_who_asks_without_reading_is_not_read_either(dom0: Connection, other: Connection) -> None:
    other.write("/big", b"x" * 4000)
    requests = b"".join(Packet(Op.READ, 1, 0, b"/big\0").encode() for _ in range(4096))
    sent = 0
    dom0.socket.setblocking(False)
    # Small enough that Linux too takes a part of what it is given, as FreeBSD does.
    dom0.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    while select.select([], [dom0.socket], [], 0.2)[1]:
        sent += dom0.socket.send(requests[sent % len(requests) :])
        assert sent < 2_000_000
    assert other.read("/big") == b"x" * 4000
    dom0.socket.settimeout(GIVE_UP)
    for _ in range(sent // 21):
        assert dom0.receive() == Packet(Op.READ, 1, 0, b"x" * 4000)


def test_no_request_is_carried_out_before_its_turn(dom0: Connection, other: Connection) -> None:
    """While replies wait for a client, its further requests do: what waits stays small."""
    other.write("/big", b"x" * 4000)
    requests = (
        Packet(Op.READ, 1, 0, b"/big\0").encode() * 700
        + Packet(Op.WRITE, 2, 0, b"/done\0").encode()
    )
    dom0.socket.sendall(requests)
    dom0.receive()
    assert other.names("/") == ["big", "tool"]
    for _ in range(699):
        dom0.receive()
    assert dom0.receive() == Packet(Op.WRITE, 2, 0, b"OK\0")
    assert other.names("/") == ["big", "done", "tool"]


@pytest.mark.slow
def test_who_lets_too_many_events_wait_is_dropped(dom0: Connection, other: Connection) -> None:
    for number in range(5):
        dom0.watch("/", str(number) + "t" * 3000)
    dom0.events()
    for number in range(600):  # 9 MB of different events
        other.write(f"/d/{number}")

    def events() -> Iterator[tuple[str, str]]:
        with suppress(EOFError, ConnectionResetError):
            while True:
                yield dom0.event()

    assert 0 < len(list(events())) < 1500
    other.write("/d/1")


def test_guests_may_have_several_clients(server: Embedded, dom0: Connection) -> None:
    server.introduce(5)
    dom0.write("/local/domain/5")
    dom0.permit("/local/domain/5", "n5")
    first, second = (Connection(server.guest_socket(5)) for _ in range(2))
    first.watch("a")
    second.write("a")
    assert first.events() == [("a", "t"), ("a", "t")]
    second.watch("a")
    first.close()
    second.write("a")
    assert second.events() == [("a", "t"), ("a", "t")]
    second.close()


def test_release_ends_the_guest_s_connections(server: Embedded) -> None:
    server.introduce(5)
    guest = Connection(server.guest_socket(5))
    guest.watch("@releaseDomain")
    guest.events()
    server.release(5)
    with pytest.raises((EOFError, ConnectionResetError)):
        guest.receive()
    guest.close()
    assert not os.path.exists(server.guest_socket(5))


def test_a_guest_s_garbage_is_its_own_affair(server: Embedded, dom0: Connection) -> None:
    server.introduce(5)
    guest = Connection(server.guest_socket(5))
    guest.socket.sendall(b"\xff" * 64)
    with pytest.raises((EOFError, ConnectionResetError)):
        guest.receive()
    guest.close()
    again = Connection(server.guest_socket(5))
    assert again.call(Op.GET_DOMAIN_PATH, 5) == b"/local/domain/5\0"
    again.close()


@pytest.mark.parametrize("domid", [-1, 0x7FF0, 10**9])
def test_numbers_that_name_no_domain(dom0: Connection, domid: int) -> None:
    for op, more in ((Op.INTRODUCE, (1, 1)), (Op.RELEASE, ()), (Op.SET_TARGET, (0,))):
        payload = "".join(f"{number}\0" for number in (domid, *more)).encode()
        dom0.send(op, payload)
        assert dom0.receive().payload == b"EINVAL\0"


def test_control_is_not_served(dom0: Connection) -> None:
    dom0.send(Op.CONTROL, b"help\0")
    assert dom0.receive().payload == b"ENOSYS\0"


def test_a_second_server_does_not_start(
    server: Embedded, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert xenstore.main([str(tmp_path)]) == 1
    assert "running" in capfd.readouterr().err
    Connection(server.socket).close()


def test_a_directory_whose_name_is_too_long(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert xenstore.main([str(tmp_path / ("x" * 100))]) == 1
    assert "too long" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert xenstore.main([]) == 2
    assert capfd.readouterr().err.startswith("usage: ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_when_told(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "store"
    with subprocess.Popen([sys.executable, "-m", "xbbd_bsd.sim.xenstore", str(directory)]) as done:
        client = _connected(done, directory / "socket")
        client.call(Op.INTRODUCE, 5, 1, 1)
        assert sorted(directory.iterdir()) == [directory / "5.socket", directory / "socket"]
        done.send_signal(number)
        assert done.wait(GIVE_UP) == 0
        with pytest.raises((EOFError, ConnectionResetError)):
            client.receive()
        client.close()
    assert list(directory.iterdir()) == []


def _connected(process: "subprocess.Popen[bytes]", path: Path) -> Connection:
    for _ in range(1000):
        try:
            return Connection(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
    raise TimeoutError(path)
