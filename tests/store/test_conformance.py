"""One suite for every XenStore server: what a client may rely on, said in packets.

The real xenstored is the measure; the embedded one must not differ from it in anything here, nor
in the parts of the suite that are files of their own: watches, transactions, domains.
"""

import stat
from pathlib import Path

import pytest

from tests.store.connection import Connection, Refused, refused, watching
from tests.store.servers import StoreUnderTest
from xbbd_bsd.xenstore.wire import HEADER, Error, Op, Packet

# Packets.


def test_a_fresh_store_holds_tool_only(dom0: Connection) -> None:
    assert dom0.names("/") == ["tool"]
    assert dom0.permissions("/") == ["n0"]
    assert dom0.permissions("/tool") == ["n0"]


def test_the_sockets_are_for_their_owner_alone(store: StoreUnderTest) -> None:
    mode = Path(store.server.socket).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_replies_on_the_wire(dom0: Connection) -> None:
    dom0.socket.sendall(HEADER.pack(11, 0xDEADBEEF, 0, 6) + b"/a\0\x01\0\xff")
    assert dom0.receive() == Packet(11, 0xDEADBEEF, 0, b"OK\0")
    dom0.socket.sendall(HEADER.pack(2, 7, 0, 3) + b"/a\0")
    assert dom0.receive() == Packet(2, 7, 0, b"\x01\0\xff")
    dom0.socket.sendall(HEADER.pack(2, 8, 0, 3) + b"/b\0")
    assert dom0.receive() == Packet(16, 8, 0, b"ENOENT\0")
    dom0.socket.sendall(HEADER.pack(2, 9, 77, 3) + b"/a\0")
    assert dom0.receive() == Packet(16, 9, 77, b"ENOENT\0")


def test_requests_may_come_in_any_pieces(dom0: Connection) -> None:
    requests = Packet(Op.WRITE, 1, 0, b"/a\0x").encode() + Packet(Op.READ, 2, 0, b"/a\0").encode()
    for at in range(len(requests)):
        dom0.socket.sendall(requests[at : at + 1])
    assert dom0.receive() == Packet(Op.WRITE, 1, 0, b"OK\0")
    assert dom0.receive() == Packet(Op.READ, 2, 0, b"x")
    dom0.socket.sendall(requests * 100)
    replies = [dom0.receive() for _ in range(200)]
    assert replies == [Packet(Op.WRITE, 1, 0, b"OK\0"), Packet(Op.READ, 2, 0, b"x")] * 100


@pytest.mark.parametrize("op", [15, 16, 20, 99, 2**32 - 1])
def test_what_is_no_request(dom0: Connection, op: int) -> None:
    refused(Error.ENOSYS, dom0.ask, op, b"/\0")
    assert dom0.read("/") == b""


@pytest.mark.parametrize("op", [Op.WRITE, Op.WATCH, Op.UNWATCH, Op.SET_PERMS, Op.DIRECTORY_PART])
def test_missing_arguments(dom0: Connection, op: Op) -> None:
    refused(Error.EINVAL, dom0.ask, op, b"/tool")
    refused(Error.EINVAL, dom0.ask, op, b"")


@pytest.mark.parametrize("op", [Op.READ, Op.DIRECTORY, Op.GET_PERMS, Op.MKDIR, Op.RM])
def test_an_argument_without_its_end(dom0: Connection, op: Op) -> None:
    with pytest.raises(Refused):  # servers differ in the error
        dom0.ask(op, b"/tool")
    assert dom0.names("/tool") == ["xenstored"]


@pytest.mark.parametrize(
    "garbage", [HEADER.pack(Op.READ, 1, 0, 4097), b"\xff" * 16, b"GET / HTTP/1.1\r\n\r\n"]
)
def test_garbage_ends_its_own_connection_only(
    dom0: Connection, other: Connection, garbage: bytes
) -> None:
    other.socket.sendall(garbage)
    with pytest.raises((EOFError, ConnectionResetError)):
        other.receive()
    assert dom0.names("/") == ["tool"]


def test_a_client_may_leave_at_any_point(store: StoreUnderTest) -> None:
    for part in (b"", b"\0", HEADER.pack(Op.READ, 1, 0, 3), HEADER.pack(Op.READ, 1, 0, 3) + b"/"):
        leaving = store.dom0()
        leaving.socket.sendall(part)
        leaving.close()
    assert store.dom0().names("/") == ["tool"]


# Nodes.


@pytest.mark.parametrize("value", [b"", b"\0", b"a\0b\0", bytes(range(256)), b"x" * 4000], ids=len)
def test_values_are_any_octets(dom0: Connection, value: bytes) -> None:
    dom0.write("/a", value)
    assert dom0.read("/a") == value


def test_a_packet_full_of_value(dom0: Connection) -> None:
    dom0.write("/a", b"x" * 4093)
    assert dom0.read("/a") == b"x" * 4093


def test_write_replaces_and_keeps_what_is_below(dom0: Connection) -> None:
    dom0.write("/a/b", b"1")
    dom0.write("/a", b"2")
    assert (dom0.read("/a"), dom0.read("/a/b")) == (b"2", b"1")


def test_write_and_mkdir_make_the_parents(dom0: Connection) -> None:
    dom0.write("/a/b/c", b"1")
    assert dom0.call(Op.MKDIR, "/a/d/e") == b"OK\0"
    assert dom0.names("/a") == ["b", "d"]
    assert [dom0.read(path) for path in ("/a", "/a/b", "/a/d", "/a/d/e")] == [b""] * 4


def test_mkdir_leaves_a_node_as_it_is(dom0: Connection) -> None:
    dom0.write("/a", b"1")
    assert dom0.call(Op.MKDIR, "/a") == b"OK\0"
    assert dom0.read("/a") == b"1"


def test_absent_nodes(dom0: Connection) -> None:
    for op in (Op.READ, Op.DIRECTORY, Op.GET_PERMS):
        refused(Error.ENOENT, dom0.call, op, "/a/b")
    refused(Error.ENOENT, dom0.permit, "/a/b", "n0")
    refused(Error.ENOENT, dom0.call, Op.DIRECTORY_PART, "/a", 0)


def test_rm_takes_all_below(dom0: Connection) -> None:
    dom0.write("/a/b/c/d")
    dom0.write("/a/bb")
    dom0.remove("/a/b")
    assert dom0.names("/a") == ["bb"]
    refused(Error.ENOENT, dom0.read, "/a/b/c/d")


def test_rm_of_what_is_absent(dom0: Connection) -> None:
    dom0.remove("/a")
    refused(Error.ENOENT, dom0.remove, "/a/b")
    refused(Error.EINVAL, dom0.remove, "/")


def test_a_deep_tree_can_be_removed(dom0: Connection) -> None:
    dom0.write("/a" + "/b" * 1000)
    dom0.remove("/a")
    assert dom0.names("/") == ["tool"]


@pytest.mark.parametrize(
    "path", ["", "/a.b", "/a:b", "/a b", "/a//b", "//a", "/a/", "a/", "/\u00e9", "/a\\b", "@a"]
)
def test_invalid_paths(dom0: Connection, path: str) -> None:
    for op in (Op.READ, Op.DIRECTORY, Op.MKDIR, Op.RM, Op.GET_PERMS):
        refused(Error.EINVAL, dom0.call, op, path)
    refused(Error.EINVAL, dom0.write, path)
    if path != "@a":
        refused(Error.EINVAL, dom0.watch, path)


def test_the_characters_of_paths(dom0: Connection) -> None:
    path = "/ABCXYZabcxyz0189-_@"
    dom0.write(path)
    assert path[1:] in dom0.names("/")


@pytest.mark.parametrize("prefix", ["", "/", "/local/domain/7/"])
def test_the_length_of_paths(dom0: Connection, prefix: str) -> None:
    longest = 2048 - (prefix == "/")
    dom0.write(prefix + "x" * longest, b"1")
    assert dom0.read(prefix + "x" * longest) == b"1"
    refused(Error.EINVAL, dom0.write, prefix + "x" * (longest + 1))


def test_relative_paths(store: StoreUnderTest, dom0: Connection) -> None:
    dom0.write("a/b", b"0")
    assert dom0.read("/local/domain/0/a/b") == b"0"
    guest = store.guest(5)
    guest.write("a/b", b"5")
    assert dom0.read("/local/domain/5/a/b") == b"5"
    assert guest.names("a") == ["b"]


# Long directories.


def test_a_directory_that_fills_a_packet(dom0: Connection) -> None:
    dom0.write("/d/" + "a" * 2040)
    dom0.write("/d/" + "b" * 2040)
    dom0.write("/d/" + "c" * 13)
    assert len(dom0.call(Op.DIRECTORY, "/d")) == 4096
    dom0.write("/d/e")
    refused(Error.E2BIG, dom0.call, Op.DIRECTORY, "/d")


def part(connection: Connection, path: str, offset: int) -> tuple[bytes, bytes]:
    payload = connection.call(Op.DIRECTORY_PART, path, offset)
    generation, _, names = payload.partition(b"\0")
    assert generation.isdigit()
    return generation, names


def test_directory_part(dom0: Connection) -> None:
    names = [f"a-name-of-some-length-{number:04}" for number in range(500)]
    for name in names:
        dom0.write(f"/d/{name}")
    first, found = part(dom0, "/d", 0)
    parts = 1
    while not found.endswith(b"\0\0"):
        assert found.endswith(b"\0")  # whole names
        generation, more = part(dom0, "/d", len(found))
        assert generation == first
        found += more
        parts += 1
    assert parts == 4
    assert sorted(found.decode().split("\0")[:-2]) == names
    assert part(dom0, "/d", len(found) - 1) == (first, b"\0")
    assert part(dom0, "/d", 10**6) == (first, b"\0")


def test_the_generation_tells_of_changed_children(dom0: Connection) -> None:
    dom0.write("/d/a")
    generation, names = part(dom0, "/d", 0)
    assert names == b"a\0\0"
    dom0.write("/d/a", b"1")
    assert part(dom0, "/d", 0) == (generation, b"a\0\0")
    dom0.write("/d/b")
    changed, _ = part(dom0, "/d", 0)
    assert changed != generation
    dom0.remove("/d/b")
    assert part(dom0, "/d", 0)[0] not in (generation, changed)


def test_directory_part_of_an_empty_directory(dom0: Connection) -> None:
    dom0.write("/d")
    assert part(dom0, "/d", 0)[1] == b"\0"


def test_directory_part_within_a_transaction(dom0: Connection) -> None:
    dom0.write("/d/a")
    tx = dom0.begin()
    before = dom0.call(Op.DIRECTORY_PART, "/d", 0, tx=tx)
    dom0.write("/d/b", tx=tx)
    after = dom0.call(Op.DIRECTORY_PART, "/d", 0, tx=tx)
    assert after.partition(b"\0")[2] == b"a\0b\0\0"
    assert after.partition(b"\0")[0] != before.partition(b"\0")[0]
    dom0.end(tx)


# The server's death.


def test_a_killed_server_comes_back_empty(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    dom0.write("/a", b"1")
    watching(dom0, "/a")
    store.server.kill()
    with pytest.raises((EOFError, ConnectionResetError)):
        dom0.receive()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        store.dom0()
    guest.close()
    store.server.restart()
    again = store.dom0()
    assert again.names("/") == ["tool"]
    assert again.call(Op.IS_DOMAIN_INTRODUCED, 5) == b"F\0"
    assert store.guest(5).read("/local/domain/5") == b""


def test_a_kill_in_the_middle_of_requests(store: StoreUnderTest, dom0: Connection) -> None:
    dom0.write("/a")
    dom0.socket.sendall(HEADER.pack(Op.WRITE, 1, 0, 100))
    store.server.kill()
    with pytest.raises((EOFError, ConnectionResetError)):
        dom0.receive()
    store.server.restart()
    assert store.dom0().names("/") == ["tool"]
    with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
        dom0.read("/")
