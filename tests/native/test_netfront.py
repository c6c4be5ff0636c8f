"""The guest's end of a network card, alone: its backend is played here, slot by slot."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.native.wires import wire
from tests.waiting import eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import PAGE_SIZE, HvKind, sim_format
from xbbd_bsd.native.front.netfront import ALL_OFFLOADS, Netfront, NetfrontParams
from xbbd_bsd.native.net import NET_LINK_HEADER
from xbbd_bsd.native.netstate import NetAccepts

PAGES = 1024
TX, RX = struct.Struct("<IHHHH"), struct.Struct("<HHI")
TX_RESPONSE, RX_RESPONSE = struct.Struct("<Hh"), struct.Struct("<HHHh")
EXTRA = struct.Struct("<BBHBBH")
HEADER = struct.Struct("<BBHHHHH")  # of the link
BLANK, VALIDATED, MORE, IS_EXTRA = 1, 2, 4, 8  # of tx
RX_VALIDATED, RX_BLANK = 1, 2
NEEDS_CSUM = 1
REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT = 0, 4, 8, 12


def tcp4(payload: bytes, tags: bytes = b"") -> bytes:
    """A frame with headers that are where they should be, and no sums."""
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0, b"\1" * 4, b"\2" * 4
    )
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 5, 0, 0)
    return bytes(12) + tags + b"\x08\x00" + ip + tcp + payload


def tcp6(payload: bytes) -> bytes:
    ip = struct.pack(">IHBB16s16s", 0x60000000, 20 + len(payload), 6, 64, b"\1" * 16, b"\2" * 16)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 5, 0, 0)
    return bytes(12) + b"\x86\xdd" + ip + tcp + payload


def header(flags: int = 0, gso: int = 0, size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return HEADER.pack(flags, gso, 0, size, start, offset, 0)


class Backend:
    """The other end: memory as it lies in the domain's file, and events."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.domain_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        sim_format(self.domain_fd, PAGES)
        with open(directory / "memory", "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.setblocking(False)
        self.listener.bind(str(directory / "port"))
        self.listener.listen()
        self.link, self.own = wire()
        self.own.setblocking(False)
        self.link.settimeout(30)
        self.events: socket.socket | None = None
        self.consumed = {"tx": 0, "rx": 0}
        self.error: OSError | None = None

    def begin(self, **changes: object) -> None:
        self.front = Netfront(
            NetfrontParams(
                self.domain_fd, self.listener.fileno(), 1, HvKind.SIM, 0, self.own.fileno(),
                **changes,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        self.base = {"tx": self.front.tx_ref * PAGE_SIZE, "rx": self.front.rx_ref * PAGE_SIZE}
        self.bind()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.front.run()
        except OSError as error:
            self.error = error

    def bind(self) -> None:
        self.events = socket.socket(socket.AF_UNIX)
        self.events.connect(str(self.directory / "port"))

    def index(self, ring: str, which: int) -> int:
        return int(struct.unpack_from("<I", self.memory, self.base[ring] + which)[0])

    def requests(self, ring: str, n: int) -> list[bytes]:
        """The next n of a ring, once they are there."""
        size = (TX if ring == "tx" else RX).size
        at = self.consumed[ring]
        eventually(lambda: self.index(ring, REQ_PROD) - at >= n, f"{n} requests of {ring}")
        self.consumed[ring] += n
        begin = self.base[ring] + 64
        return [
            self.memory[begin + i % 256 * size : begin + i % 256 * size + size]
            for i in range(at, at + n)
        ]

    def answer(self, ring: str, *responses: bytes) -> None:
        size = (TX if ring == "tx" else RX).size
        prod = self.index(ring, RSP_PROD)
        for n, response in enumerate(responses):
            at = self.base[ring] + 64 + (prod + n) % 256 * size
            self.memory[at : at + len(response)] = response
        self.set(ring, RSP_PROD, prod + len(responses))
        self.notify()

    def set(self, ring: str, which: int, value: int) -> None:
        struct.pack_into("<I", self.memory, self.base[ring] + which, value)

    def notify(self) -> None:
        assert self.events is not None
        self.events.send(b"x")

    def granted(self, ref: int) -> int:
        """Flags of a reference's entry: 1 is permitted, 4 read-only."""
        with open(self.directory / "grants", "rb") as file:
            file.seek(16 + 8 * ref)
            return int(struct.unpack("<HHHH", file.read(8))[2])

    def counter(self, name: str, value: int) -> None:
        eventually(lambda: self.front.counters()[name] == value, f"{name} is {value}")

    def end(self) -> None:
        self.front.stop()
        self.thread.join()
        self.front.close()
        if self.events is not None:
            self.events.close()
        for each in (self.listener, self.link, self.own):
            each.close()
        os.close(self.domain_fd)
        self.memory.close()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    played = Backend(tmp_path)
    yield played
    played.end()
    assert all(played.granted(ref) == 0 for ref in range(8, PAGES)), "a grant is left"


def test_a_frame_is_one_request_for_as_long_as_it_takes(backend: Backend) -> None:
    backend.begin()
    frame = os.urandom(99)
    backend.link.send(header() + frame)
    ref, offset, flags, number, size = TX.unpack(*backend.requests("tx", 1))
    assert (offset, flags, size) == (0, 0, 99)
    assert backend.memory[ref * PAGE_SIZE : ref * PAGE_SIZE + 99] == frame
    assert backend.granted(ref) == 1 | 4
    backend.answer("tx", TX_RESPONSE.pack(number, 0))
    eventually(lambda: not backend.granted(ref) & 1, "its page is withdrawn")
    assert backend.front.counters()["tx_bytes"] == 99


def test_a_large_frame_with_all_it_may_say(backend: Backend) -> None:
    backend.begin(skew=66)
    frame = tcp4(os.urandom(9000))
    backend.link.send(header(NEEDS_CSUM, 1, 1448, 34, 16) + frame)
    first, extra, *rest = backend.requests("tx", 4)
    ref, offset, flags, number, size = TX.unpack(first)
    assert (offset, flags, size) == (66, BLANK | VALIDATED | MORE | IS_EXTRA, len(frame))
    assert EXTRA.unpack(extra[:8]) == (1, 0, 1448, 1, 0, 0)
    second, third = (TX.unpack(slot) for slot in rest)
    assert (second[1:3], third[1:3]) == ((0, MORE), (0, 0))
    pieces = [(ref, 66, PAGE_SIZE - 66), (second[0], 0, second[4]), (third[0], 0, third[4])]
    found = b"".join(
        backend.memory[r * PAGE_SIZE + at : r * PAGE_SIZE + at + n] for r, at, n in pieces
    )
    assert found == frame
    backend.answer(
        "tx",
        TX_RESPONSE.pack(number, 0),
        TX_RESPONSE.pack(0xFFFF, 1),
        TX_RESPONSE.pack(second[3], 0),
        TX_RESPONSE.pack(third[3], -1),
    )
    backend.counter("tx_errors", 1)
    assert backend.front.counters()["bad_responses"] == 0


def sum_is_right(frame: bytes, l3: int, l4: int) -> bool:
    addresses = frame[l3 + 12 : l3 + 20] if l4 - l3 == 20 else frame[l3 + 8 : l3 + 40]
    data = addresses + struct.pack(">HH", 6, len(frame) - l4) + frame[l4:]
    total = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total) == 0xFFFF


@pytest.mark.parametrize("length", [1, 1000, 4099])
def test_a_sum_that_is_not_left_to_the_backend(backend: Backend, length: int) -> None:
    """Of IPv6, where only IPv4's may be left."""
    backend.begin(offloads=NetAccepts.SG | NetAccepts.CSUM_IPV4)
    frame = bytearray(tcp6(os.urandom(length)))
    pseudo = sum(struct.unpack(">16H", frame[22:54])) + 6 + 20 + length
    while pseudo >> 16:
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    struct.pack_into(">H", frame, 54 + 16, pseudo)
    backend.link.send(header(NEEDS_CSUM, start=54, offset=16) + frame)
    slots = [TX.unpack(slot) for slot in backend.requests("tx", 1 + (len(frame) > PAGE_SIZE))]
    assert slots[0][2] & ~MORE == 0
    sizes = [min(len(frame), PAGE_SIZE), *(slot[4] for slot in slots[1:])]
    sent = b"".join(
        backend.memory[slot[0] * PAGE_SIZE : slot[0] * PAGE_SIZE + n]
        for slot, n in zip(slots, sizes, strict=True)
    )
    assert sent[:70] == frame[:70]
    assert sum_is_right(sent, 14, 54)
    backend.counter("tx_summed", 1)


def test_what_may_not_be_sent_is_dropped(backend: Backend) -> None:
    backend.begin(offloads=NetAccepts.CSUM_IPV4)
    for frame in (
        header() + bytes(PAGE_SIZE + 1),
        header(NEEDS_CSUM, 1, 1448, 34, 16) + tcp4(bytes(100)),
        header(NEEDS_CSUM, start=3000, offset=16) + tcp6(b""),
        header(),
        b"short",
    ):
        backend.link.send(frame)
    backend.counter("tx_dropped", 5)
    assert backend.index("tx", REQ_PROD) == 0


def test_the_ring_is_full_and_the_link_waits(backend: Backend) -> None:
    backend.begin()
    numbers = set()
    for n in range(129):
        backend.link.send(header() + bytes([n]) * 60)
        numbers.add(TX.unpack(*backend.requests("tx", 1))[3])
    assert len(numbers) == 129
    backend.link.send(header() + bytes(60))
    backend.notify()
    eventually(lambda: backend.front.counters()["events"] > 0, "it has looked once more")
    backend.front.stop()
    backend.thread.join()
    assert backend.index("tx", REQ_PROD) == 129


def test_what_is_answered_makes_room(backend: Backend) -> None:
    backend.begin()
    for n in range(400):
        backend.link.send(header() + bytes([n % 256]) * 60)
        ref, _, _, number, _ = TX.unpack(*backend.requests("tx", 1))
        assert backend.memory[ref * PAGE_SIZE] == n % 256
        backend.answer("tx", TX_RESPONSE.pack(number, 0))
    assert backend.front.counters()["bad_responses"] == 0


def test_frames_for_the_guest(backend: Backend) -> None:
    backend.begin()
    requests = [RX.unpack(slot) for slot in backend.requests("rx", 256)]
    assert len({ref for _, _, ref in requests}) == 256
    assert backend.granted(requests[0][2]) == 1
    frame = tcp4(os.urandom(5000))
    parts = [frame[:4000], frame[4000:]]
    for (_, _, ref), at, part in zip((requests[0], requests[2]), (96, 0), parts, strict=True):
        begin = ref * PAGE_SIZE + at
        backend.memory[begin : begin + len(part)] = part
    backend.answer(
        "rx",
        RX_RESPONSE.pack(requests[0][0], 96, RX_BLANK | RX_VALIDATED | MORE | IS_EXTRA, 4000),
        EXTRA.pack(1, 0, 1448, 1, 0, 0),
        RX_RESPONSE.pack(requests[2][0], 0, 0, len(parts[1])),
    )
    got = backend.link.recv(70000)
    assert HEADER.unpack(got[:NET_LINK_HEADER]) == (NEEDS_CSUM, 1, 54, 1448, 34, 16, 0)
    assert got[NET_LINK_HEADER:] == frame
    again = [RX.unpack(slot) for slot in backend.requests("rx", 3)]
    assert sorted(ref for _, _, ref in again) == sorted(ref for _, _, ref in requests[:3])
    counters = backend.front.counters()
    assert (counters["rx_packets"], counters["rx_slots"], counters["bad_responses"]) == (1, 2, 0)


def test_sums_behind_tags_and_of_ipv6(backend: Backend) -> None:
    backend.begin()
    for frame, l4 in ((tcp4(b"x", b"\x81\x00\x00\x05"), 38), (tcp6(b"x"), 54)):
        number, _, ref = RX.unpack(*backend.requests("rx", 1))
        backend.memory[ref * PAGE_SIZE : ref * PAGE_SIZE + len(frame)] = frame
        backend.answer("rx", RX_RESPONSE.pack(number, 0, RX_BLANK, len(frame)))
        got = backend.link.recv(70000)
        assert HEADER.unpack(got[:NET_LINK_HEADER]) == (NEEDS_CSUM, 0, 0, 0, l4, 16, 0)


@pytest.mark.parametrize(
    ("offloads", "flags", "frame"),
    [
        (ALL_OFFLOADS & ~NetAccepts.CSUM_IPV4, RX_BLANK, tcp4(b"")),
        (ALL_OFFLOADS & ~NetAccepts.CSUM_IPV6, RX_BLANK, tcp6(b"")),
        (ALL_OFFLOADS, RX_BLANK, bytes(60)),
        (ALL_OFFLOADS & ~NetAccepts.GSO_TCPV4, RX_BLANK | IS_EXTRA, tcp4(b"")),
        (ALL_OFFLOADS, IS_EXTRA, tcp4(b"")),
        (NetAccepts.CSUM_IPV4, MORE, tcp4(b"")),
    ],
)
def test_what_was_not_agreed_is_unwanted(
    backend: Backend, offloads: NetAccepts, flags: int, frame: bytes
) -> None:
    backend.begin(offloads=offloads)
    requests = [RX.unpack(slot) for slot in backend.requests("rx", 2)]
    for _, _, ref in requests:
        backend.memory[ref * PAGE_SIZE : ref * PAGE_SIZE + len(frame)] = frame
    responses = [RX_RESPONSE.pack(requests[0][0], 0, flags, len(frame))]
    if flags & IS_EXTRA:
        responses.append(EXTRA.pack(1, 0, 1448, 1, 0, 0))
    if flags & MORE:
        responses.append(RX_RESPONSE.pack(requests[1][0], 0, 0, len(frame)))
    backend.answer("rx", *responses)
    backend.counter("rx_unwanted", 1)
    assert backend.front.counters()["bad_responses"] == 0


def test_a_bad_response_is_counted_and_its_page_used_again(backend: Backend) -> None:
    backend.begin()
    requests = [RX.unpack(slot) for slot in backend.requests("rx", 7)]
    numbers = [number for number, _, _ in requests]
    backend.answer("rx", RX_RESPONSE.pack(numbers[0] ^ 1, 0, 0, 60))
    backend.answer("rx", RX_RESPONSE.pack(numbers[1], 4000, 0, 97))
    backend.answer("rx", RX_RESPONSE.pack(numbers[2], 0, 0, 0))
    backend.answer("rx", RX_RESPONSE.pack(numbers[3], 0, MORE, 60))
    backend.answer(
        "rx", RX_RESPONSE.pack(numbers[4], 0, IS_EXTRA, 60), EXTRA.pack(9, 0, 0, 0, 0, 0)
    )
    backend.counter("bad_responses", 5)
    backend.answer("rx", RX_RESPONSE.pack(numbers[6], 0, 0, -1))
    backend.counter("rx_errors", 1)
    backend.answer("tx")
    backend.requests("rx", 256)
    assert backend.front.counters()["bad_responses"] == 5


def test_an_answer_that_nobody_asked_for(backend: Backend) -> None:
    backend.begin()
    backend.link.send(header() + bytes(60))
    number = TX.unpack(*backend.requests("tx", 1))[3]
    backend.answer("tx", TX_RESPONSE.pack(number ^ 1, 0))
    backend.counter("bad_responses", 1)


@pytest.mark.parametrize("ring", ["tx", "rx"])
def test_indices_that_cannot_be(backend: Backend, ring: str) -> None:
    backend.begin()
    backend.requests("rx", 256)
    backend.set(ring, RSP_PROD, 257)
    backend.notify()
    backend.thread.join(30)
    assert backend.error is not None
    assert backend.error.errno == errno.EPROTO


def test_a_backend_that_goes_and_none_that_comes(backend: Backend) -> None:
    backend.begin(patience_ms=1)
    assert backend.events is not None
    eventually(lambda: backend.index("rx", REQ_PROD) == 256, "it runs")
    backend.notify()
    backend.counter("events", 1)
    backend.events.close()
    backend.thread.join(30)
    assert backend.error is not None
    assert backend.error.errno == errno.EPIPE


def test_another_backend_goes_on(backend: Backend) -> None:
    backend.begin(patience_ms=600_000)
    assert backend.events is not None
    backend.link.send(header() + bytes(60))
    number = TX.unpack(*backend.requests("tx", 1))[3]
    backend.notify()
    eventually(lambda: backend.front.counters()["events"] > 0, "they are connected")
    backend.events.close()
    backend.bind()
    backend.answer("tx", TX_RESPONSE.pack(number, 0))
    backend.link.send(header() + bytes(61))
    assert TX.unpack(*backend.requests("tx", 1))[4] == 61
    assert backend.error is None


def test_another_backend_that_has_nothing_to_tell(backend: Backend) -> None:
    """It has come, all the same: patience is for one that does not."""
    backend.begin(patience_ms=600_000)
    assert backend.events is not None
    backend.notify()
    backend.counter("events", 1)
    backend.events.close()
    backend.counter("backends_lost", 1)
    backend.bind()
    backend.counter("backends_found", 1)


def test_parameters_that_cannot_be(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    sim_format(fd, PAGES)
    good = NetfrontParams(fd, 0, 1, HvKind.SIM, 0, 0)
    for bad in (replace(good, skew=3), replace(good, skew=4096), replace(good, rx_buffers=257)):
        with pytest.raises(HostError, match="check parameters"):
            Netfront(bad)
    os.close(fd)
