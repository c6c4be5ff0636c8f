"""The XenStore wire format: literal bytes of a little-endian machine, and round trips."""

import errno
import struct
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.xenstore.wire import Error, Op, Packet, Parser, decode_path, join, split

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="literal bytes")

U32 = st.integers(0, 2**32 - 1)
PACKETS = st.builds(Packet, U32, U32, U32, st.binary(max_size=80) | st.just(b"x" * 4096))

READ = b"\x02\0\0\0\x07\0\0\0\x09\0\0\0\x06\0\0\0/tool\0"
REPLY = b"\x02\0\0\0\x07\0\0\0\x09\0\0\0\x02\0\0\0\xff\0"
REFUSAL = b"\x10\0\0\0\x07\0\0\0\x09\0\0\0\x07\0\0\0ENOENT\0"
EVENT = b"\x0f\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0/a\0t\0"


@little_endian
def test_packets_on_the_wire() -> None:
    request = Packet(Op.READ, 7, 9, b"/tool\0")
    assert request.encode() == READ
    assert request.answer(b"\xff\0").encode() == REPLY
    assert request.refusal(Error.ENOENT).encode() == REFUSAL
    assert Packet(Op.WATCH_EVENT, payload=join(b"/a", b"t")).encode() == EVENT
    assert len(request) == len(READ)


@little_endian
@pytest.mark.parametrize("size", [1, 3, 16, 1000])
def test_packets_off_the_wire(size: int) -> None:
    stream = READ + REPLY + REFUSAL + EVENT + READ[:20]
    parser = Parser()
    packets = []
    for at in range(0, len(stream), size):
        packets += parser.feed(stream[at : at + size])
    assert packets == [
        Packet(2, 7, 9, b"/tool\0"),
        Packet(2, 7, 9, b"\xff\0"),
        Packet(16, 7, 9, b"ENOENT\0"),
        Packet(15, 0, 0, b"/a\0t\0"),
    ]
    assert parser.feed(READ[20:]) == [Packet(2, 7, 9, b"/tool\0")]
    assert not parser.broken


def test_a_packet_comes_with_its_last_byte() -> None:
    parser = Parser()
    encoded = Packet(Op.WRITE, 1, 0, b"/a\0x").encode()
    assert parser.feed(encoded[:-1]) == []
    assert parser.feed(encoded[-1:]) == [Packet(Op.WRITE, 1, 0, b"/a\0x")]
    assert parser.feed(b"") == []


def test_a_packet_without_payload() -> None:
    assert Parser().feed(struct.pack("=IIII", 2, 3, 4, 0)) == [Packet(2, 3, 4, b"")]


def test_a_length_too_great_breaks_the_stream() -> None:
    parser = Parser()
    good = Packet(Op.READ, 1, 0, b"/\0")
    longest = Packet(Op.WRITE, 2, 0, b"x" * 4096)
    header = struct.pack("=IIII", 2, 3, 0, 4097)
    stream = good.encode() + longest.encode() + header
    assert parser.feed(stream[:-1]) == [good, longest]
    assert not parser.broken
    assert parser.feed(stream[-1:] + good.encode()) == []
    assert parser.broken
    assert parser.feed(good.encode()) == []


@given(st.lists(PACKETS, max_size=6), st.lists(st.integers(0, 500), max_size=10))
def test_packets_survive_the_trip_in_any_pieces(packets: list[Packet], cuts: list[int]) -> None:
    stream = b"".join(packet.encode() for packet in packets)
    parser = Parser()
    received = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(edges):
        received += parser.feed(stream[start:end])
    assert received == packets


@given(st.binary(max_size=200))
def test_any_bytes_are_packets_or_break_the_stream(data: bytes) -> None:
    parser = Parser()
    packets = parser.feed(data)
    assert data.startswith(b"".join(packet.encode() for packet in packets))
    if not parser.broken:
        rest = data[sum(map(len, packets)) :]
        assert len(rest) < 16 or len(rest) - 16 < struct.unpack_from("=I", rest, 12)[0]


def test_no_packet_holds_too_much() -> None:
    with pytest.raises(ValueError, match="4097 bytes"):
        Packet(Op.WRITE, payload=b"x" * 4097)
    with pytest.raises(struct.error):
        Packet(Op.WRITE, req_id=2**32).encode()


def test_operations_have_the_numbers_of_xs_wire_h() -> None:
    numbers = [*range(20), 21, 22]
    assert sorted(Op) == numbers
    assert (Op.READ, Op.WRITE, Op.RM, Op.WATCH_EVENT, Op.ERROR) == (2, 11, 13, 15, 16)
    assert (Op.SET_TARGET, Op.RESET_WATCHES, Op.DIRECTORY_PART) == (19, 21, 22)


def test_errors_travel_by_name() -> None:
    assert Error.EAGAIN.payload == b"EAGAIN\0"
    for error in Error:
        assert Error.from_payload(error.payload) is error
        assert error.value == getattr(errno, error.name)
    assert Error.from_payload(b"ENOENT") is Error.ENOENT
    assert len(Error) == 16


@pytest.mark.parametrize("payload", [b"", b"\0", b"EWHAT\0", b"name\0", b"\xff\xfe\0"])
def test_unknown_errors_are_einval(payload: bytes) -> None:
    assert Error.from_payload(payload) is Error.EINVAL


def test_arguments() -> None:
    assert join() == b""
    assert join(b"") == b"\0"
    assert join(b"/a", b"n0") == b"/a\0n0\0"
    assert split(b"/a\0b\0c", 1) == ([b"/a"], b"b\0c")
    assert split(b"/a\0b\0", 2) == ([b"/a", b"b"], b"")
    assert split(b"/a\0b", 2) == ([b"/a"], b"b")
    assert split(b"", 2) == ([], b"")
    with pytest.raises(ValueError, match="NUL"):
        join(b"a\0b")


@given(st.lists(st.binary(max_size=9).filter(lambda each: b"\0" not in each)), st.binary())
def test_arguments_survive_the_trip(arguments: list[bytes], rest: bytes) -> None:
    assert split(join(*arguments) + rest, len(arguments)) == (arguments, rest)


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "a", "/a/b", "a/b-c_d@e", "@releaseDomain", "/AZaz09-_@", "0", "-"],
)
def test_valid_paths(path: str) -> None:
    assert decode_path(path.encode()) == path


@pytest.mark.parametrize(
    "path",
    ["", "//", "/a/", "a/", "/a//b", "//a", "/a.b", "/a:b", "a b", "/\0", "/a\n", "\u00e9", "."],
)
def test_invalid_paths(path: str) -> None:
    with pytest.raises(ValueError, match="not a valid path"):
        decode_path(path.encode())


@pytest.mark.parametrize(("prefix", "most"), [(b"/", 3072), (b"", 2048)])
def test_lengths_of_paths(prefix: bytes, most: int) -> None:
    longest = prefix + b"x" * (most - len(prefix))
    assert decode_path(longest) == longest.decode()
    with pytest.raises(ValueError, match=f"at most {most}"):
        decode_path(longest + b"x")
