"""What goes over the rings and the link of a card, a second time, and the C functions to compare.

The model knows the same specifications (``netif.h`` of Xen, the RFCs) and nothing of the
product's C files, which are called as they are in the extension.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cffi import FFI

from xbbd_bsd.native import _xbb

NET = Path(_xbb.__file__).parent / "net"

PAGE = 4096
MOST_SLOTS = 18
LEAST_SEGMENT = 8
SG, TCPV4, TCPV6, CSUM4, CSUM6 = 1, 2, 4, 8, 16  # what may be offered, or accepted
BLANK, VALIDATED, MORE, EXTRA = 1, 2, 4, 8  # flags of tx slots
RX_VALIDATED, RX_BLANK = 1, 2  # and of rx responses, else the same
ERROR, OKAY, NULL = -1, 0, 1
FINE, SHORT, LONG, BEYOND, MANY, BAD_EXTRA, BAD_GSO = range(7)
GSO, HASH = 1, 4  # kinds of extra info
NEEDS_CSUM = 1

REQUEST, TX_RESPONSE = struct.Struct("<IHHHH"), struct.Struct("<Hh8x")
RX_REQUEST, RX_RESPONSE = struct.Struct("<HHI"), struct.Struct("<HHHh")
EXTRA_INFO = struct.Struct("<BBHBBH")
LINK_HEADER = struct.Struct("<BBHHHHH")
TCP, UDP = 6, 17


def declarations(header: str) -> str:
    """What is declared there, for cffi, which knows no preprocessor."""
    text = re.sub(r"/\*.*?\*/", "", (NET / header).read_text(), flags=re.S)
    text = re.sub(r"^#.*$|^_Static_assert\([^;]*;", "", text, flags=re.M)
    return text.replace("XBB_NET_MAX_SLOTS", str(MOST_SLOTS))


ffi: Any = FFI()
ffi.cdef(declarations("netif.h") + declarations("offload.h"))
lib: Any = ffi.dlopen(_xbb.__file__)


# Slots.


@dataclass(frozen=True)
class Packet:
    """What some slots are, and what they are answered with if all goes well."""

    slots: int
    refusal: int
    pieces: tuple[tuple[int, int, int], ...] = ()
    size: int = 0
    flags: int = 0
    gso: tuple[int, int] = (0, 0)
    answers: tuple[bytes, ...] = ()


def request(ref: int, offset: int, flags: int, ident: int, size: int) -> bytes:
    return REQUEST.pack(ref, offset, flags, ident, size)


def extra(kind: int, flags: int = 0, size: int = 0, gso: int = 0) -> bytes:
    return EXTRA_INFO.pack(kind, flags, size, gso, 0, 0) + b"\xee" * 4


def packet_of(slots: Sequence[bytes], offered: int) -> Packet | None:
    """The packet at the beginning of some slots; None if it is not whole."""
    rest = iter(slots)
    extras, others = [], []
    try:
        head = REQUEST.unpack(next(rest))
        more = head[2] & EXTRA != 0
        while more:
            extras.append(EXTRA_INFO.unpack(next(rest)[:8]))
            more = extras[-1][1] & 1 != 0
        more = head[2] & MORE != 0
        while more:
            others.append(REQUEST.unpack(next(rest)))
            more = others[-1][2] & MORE != 0
    except StopIteration:
        return None
    count = 1 + len(extras) + len(others)
    kinds = [kind for kind, *_ in extras]
    gso = next(((kind, size) for what, _, size, kind, *_ in extras if what == GSO), (0, 0))
    first = head[4] - sum(size for *_, size in others)
    parts = [(head[0], head[1], first), *((ref, at, size) for ref, at, _, _, size in others)]
    refusal = FINE
    if (others and not offered & SG) or len(parts) > MOST_SLOTS:
        refusal = MANY
    elif head[4] < 14:
        refusal = SHORT
    elif first < 0:
        refusal = LONG
    elif any(at + size > PAGE for _, at, size in parts):
        refusal = BEYOND
    for number, (kind, _, size, what, *_) in enumerate(extras):  # the first that is bad
        if kind not in (GSO, HASH) or kind in kinds[:number]:
            refusal = BAD_EXTRA
            break
        if kind == GSO and (
            not {1: TCPV4, 2: TCPV6}.get(what, 0) & offered or size < LEAST_SEGMENT
        ):
            refusal = BAD_GSO
            break
    status = OKAY if refusal == FINE else ERROR
    answers = (
        TX_RESPONSE.pack(head[3], status),
        *(TX_RESPONSE.pack(kind | flags << 8, NULL) for kind, flags, *_ in extras),
        *(TX_RESPONSE.pack(ident, status) for _, _, _, ident, _ in others),
    )
    if refusal != FINE:
        return Packet(count, refusal, answers=answers)
    pieces = tuple(part for part in parts if part[2] != 0)
    return Packet(count, FINE, pieces, head[4], head[2], gso, answers)


def packet_by_c(slots: Sequence[bytes], offered: int) -> Packet | None:
    """What netif.c says of them."""
    memory = ffi.new("union xbb_tx_slot[]", len(slots))
    ffi.memmove(memory, b"".join(slots), 12 * len(slots))
    made = ffi.new("struct xbb_net_packet *")
    count = lib.xbb_netif_tx_packet(memory, len(slots), 0, offered, made)
    if count == 0:
        return None
    assert count == made.nslots
    assert made.first == 0
    lib.xbb_netif_tx_answer(memory, made, OKAY, memory)
    text = bytes(ffi.buffer(memory))
    answers = tuple(text[12 * n : 12 * n + 12] for n in range(count))
    assert text[12 * count :] == b"".join(slots[count:])
    if made.refusal != FINE:
        return Packet(count, made.refusal, answers=answers)
    pieces = tuple((p.ref, p.offset, p.len) for p in made.piece[0 : made.npieces])
    gso = (made.gso_type, made.gso_size)
    return Packet(count, FINE, pieces, made.size, made.flags, gso, answers)


def received(answers: bytes, pages: Sequence[bytes]) -> tuple[bytes, int, tuple[int, int]]:
    """What a frontend makes of responses to rx requests: frame, flags of sums, GSO."""
    slots = [answers[n : n + 8] for n in range(0, len(answers), 8)]
    _, offset, flags, status = RX_RESPONSE.unpack(slots.pop(0))
    page = iter(pages)
    frame = next(page)[offset : offset + status]
    sums, gso = flags & (RX_BLANK | RX_VALIDATED), (0, 0)
    if flags & EXTRA:
        next(page)  # posted again
        kind, more, size, what, pad, features = EXTRA_INFO.unpack(slots.pop(0))
        assert (kind, more, pad, features) == (GSO, 0, 0, 0)
        gso = (what, size)
    while flags & MORE:
        _, offset, flags, status = RX_RESPONSE.unpack(slots.pop(0))
        assert flags & ~MORE == 0
        assert status > 0
        frame += next(page)[offset : offset + status]
    assert not slots
    return frame, sums, gso


# Frames.


def total(data: bytes) -> int:
    """The sum of the Internet, not inverted (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    value: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while value > 0xFFFF:
        value = (value & 0xFFFF) + (value >> 16)
    return value


@dataclass(frozen=True)
class Datagram:
    """TCP or UDP in IP, as one writes it; `frame` has all sums."""

    version: int
    protocol: int
    payload: bytes
    tags: bytes = b""
    options: bytes = b""
    """Of IPv4; of IPv6 headers between, whose last says which protocol follows."""
    first_option: int = 0
    tcp_options: bytes = b""
    flags: int = 0x10
    sequence: int = 1
    ident: int = 0
    addresses: bytes = field(default=bytes(range(32)))

    @property
    def l3(self) -> int:
        return 14 + len(self.tags)

    @property
    def l4(self) -> int:
        return self.l3 + (20 if self.version == 4 else 40) + len(self.options)

    @property
    def sum_at(self) -> int:
        return self.l4 + (16 if self.protocol == TCP else 6)

    @property
    def headers(self) -> int:
        """Bytes before the payload."""
        return self.l4 + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    @property
    def pair(self) -> bytes:
        """Source and destination."""
        return self.addresses[: 8 if self.version == 4 else 32]

    def pseudo(self, length: int) -> bytes:
        if self.version == 4:
            return self.pair + struct.pack(">HH", self.protocol, length)
        return self.pair + struct.pack(">II", length, self.protocol)

    def segment(self) -> bytes:
        """TCP or UDP, summed."""
        if self.protocol == TCP:
            words = (20 + len(self.tcp_options)) // 4
            head = struct.pack(
                ">HHIIBBHHH", 1, 2, self.sequence, 9, words << 4, self.flags, 512, 0, 0
            )
            text = head + self.tcp_options + self.payload
        else:
            text = struct.pack(">HHHH", 1, 2, 8 + len(self.payload), 0) + self.payload
        value = ~total(self.pseudo(len(text)) + text) & 0xFFFF
        if self.protocol == UDP and value == 0:
            value = 0xFFFF
        at = self.sum_at - self.l4
        return text[:at] + struct.pack(">H", value) + text[at + 2 :]

    @property
    def frame(self) -> bytes:
        segment = self.segment()
        if self.version == 4:
            words = (20 + len(self.options)) // 4
            head = struct.pack(
                ">BBHHHBBH",
                0x40 | words,
                0,
                words * 4 + len(segment),
                self.ident,
                0,
                64,
                self.protocol,
                0,
            )
            head += self.pair + self.options
            head = head[:10] + struct.pack(">H", ~total(head) & 0xFFFF) + head[12:]
            kind = b"\x08\x00"
        else:
            following = self.first_option if self.options else self.protocol
            length = len(self.options) + len(segment)
            head = struct.pack(">IHBB", 0x60012345, length, following, 64) + self.pair
            head += self.options
            kind = b"\x86\xdd"
        return bytes(range(12)) + self.tags + kind + head + segment

    @property
    def blank(self) -> bytes:
        """With its sum left to a card."""
        whole = self.frame
        value = total(self.pseudo(len(whole) - self.l4))
        return whole[: self.sum_at] + struct.pack(">H", value) + whole[self.sum_at + 2 :]


def completed(frame: bytes, start: int, offset: int) -> bytes:
    """What a card does with a sum that is left to it."""
    value = ~total(frame[start:]) & 0xFFFF
    if value == 0 and offset == 6:
        value = 0xFFFF
    at = start + offset
    return frame[:at] + struct.pack(">H", value) + frame[at + 2 :]
