"""Packets and frames of a card: netif.c and offload.c against a model of their own.

Cases one by one are in tests/c, and run by the self-test, too.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from errno import ENOENT
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.native.cards import (
    BLANK,
    CSUM4,
    CSUM6,
    ERROR,
    EXTRA,
    GSO,
    HASH,
    LINK_HEADER,
    MORE,
    NEEDS_CSUM,
    PAGE,
    RX_BLANK,
    RX_REQUEST,
    RX_RESPONSE,
    RX_VALIDATED,
    SG,
    TCP,
    TCPV4,
    TCPV6,
    UDP,
    VALIDATED,
    Datagram,
    completed,
    extra,
    ffi,
    lib,
    packet_by_c,
    packet_of,
    received,
    request,
    total,
)
from xbbd_bsd.native._xbb import lib as product

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
OFFERS = st.integers(0, 31) | st.just(SG | TCPV4 | TCPV6)
BAD, AS_IS, SUMMED, SPLIT = range(4)

requests = st.builds(
    request,
    u32,
    st.integers(0, 200) | u16,
    st.sampled_from([0, MORE, MORE, MORE, EXTRA, EXTRA | MORE, BLANK | VALIDATED]),
    u16,
    st.integers(0, 3000) | u16,
)
extras = st.builds(
    extra,
    st.sampled_from([GSO, GSO, GSO, HASH]) | st.integers(0, 255),
    st.sampled_from([0, 0, 1]),
    st.integers(0, 100) | u16,
    st.sampled_from([1, 1, 2]) | st.integers(0, 255),
)
chains = st.lists(requests | extras | st.binary(min_size=12, max_size=12), min_size=1, max_size=30)


@st.composite
def decent_chains(draw: st.DrawFn) -> list[bytes]:
    """What a frontend would write, and others perhaps behind it."""
    sizes = draw(st.lists(st.integers(0, PAGE), min_size=1, max_size=20))
    shown = draw(st.lists(extras, max_size=2))
    flags = [MORE] * (len(sizes) - 1) + [0]
    flags[0] |= draw(st.integers(0, 3)) | (EXTRA if shown else 0)
    said = [min(sum(sizes), 0xFFFF), *sizes[1:]]
    slots = [
        request(draw(u32), draw(st.integers(0, PAGE - size)), flag, draw(u16), word)
        for size, word, flag in zip(sizes, said, flags, strict=True)
    ]
    chained = [
        slot[:1] + bytes([number + 1 < len(shown)]) + slot[2:] for number, slot in enumerate(shown)
    ]
    return [slots[0], *chained, *slots[1:], *draw(st.lists(requests, max_size=2))]


@given(chains | decent_chains(), OFFERS)
@settings(max_examples=600)
def test_any_chain_of_slots_is_the_packet_that_the_model_says(
    slots: list[bytes], offered: int
) -> None:
    """Pieces, refusal and each answer; the rest of the slots stays as it is."""
    assert packet_by_c(slots, offered) == packet_of(slots, offered)


@given(
    st.integers(1, 200) | st.integers(1, 65535),
    st.sampled_from([0, RX_VALIDATED, RX_VALIDATED | RX_BLANK]),
    st.sampled_from([(0, 0), (1, 1448), (2, 8), (1, 65535)]),
    st.lists(u16, min_size=18, max_size=18),
)
@example(PAGE + 1, 0, (0, 0), [0] * 18)
@example(65535, 3, (1, 1448), [7] * 18)
def test_a_guest_reads_the_frame_that_was_written(
    size: int, flags: int, gso: tuple[int, int], idents: list[int]
) -> None:
    """By responses alone; each is to the request in its place, and so is a failure."""
    frame = bytes((n * 7 + n // 256) & 255 for n in range(size))
    made = ffi.new(
        "struct xbb_net_frame *",
        {"size": len(frame), "flags": flags, "gso_type": gso[0], "gso_size": gso[1]},
    )
    count = lib.xbb_netif_rx_slots(made, True)
    assert count == -(-len(frame) // PAGE) + (gso[0] != 0)
    assert lib.xbb_netif_rx_slots(made, False) == (count if len(frame) <= PAGE else 0)
    posted = b"".join(RX_REQUEST.pack(ident, 0xAAAA, 5) for ident in idents)
    requests_there = ffi.new("union xbb_rx_slot[18]")
    answers = ffi.new("union xbb_rx_slot[18]")
    ffi.memmove(requests_there, posted, len(posted))
    pages, number = [], 0
    offset = ffi.new("uint32_t *")
    while length := lib.xbb_netif_rx_piece(made, number, offset):
        pages.append(frame[offset[0] : offset[0] + length])
        number += 1
    if gso[0]:
        pages.insert(1, b"")
    assert lib.xbb_netif_rx_answer(requests_there, made, False, answers) == count
    text = bytes(ffi.buffer(answers))
    assert received(text[: 8 * count], pages) == (frame, flags, gso)
    assert text[8 * count :] == bytes(8 * (18 - count))
    for n in range(count):
        if n != 1 or not gso[0]:
            assert struct.unpack_from("<H", text, 8 * n)[0] == idents[n]
    assert lib.xbb_netif_rx_answer(requests_there, made, True, requests_there) == 1
    text = bytes(ffi.buffer(requests_there))
    assert text == RX_RESPONSE.pack(idents[0], 0, 0, ERROR) + posted[8:]


@st.composite
def between_headers(draw: st.DrawFn, protocol: int) -> tuple[int, bytes]:
    """Headers of IPv6 before that of a protocol: which comes first, and all of them."""
    kinds = draw(st.lists(st.sampled_from([60, 43, 44]), max_size=3))
    if draw(st.booleans()):
        kinds.insert(0, 0)
    text = b""
    for kind, following in zip(kinds, [*kinds[1:], protocol], strict=False):
        if kind == 44:  # whole in one
            text += (
                bytes([following, 0, 0, draw(st.sampled_from([0, 2, 4, 6]))]) + b"\x12\x34\x56\x78"
            )
        else:
            units = draw(st.integers(0, 2))
            text += bytes([following, units, draw(st.integers(0, 4)), 0]) + bytes(4 + 8 * units)
    return (kinds[0] if kinds else 0), text


@st.composite
def datagrams(draw: st.DrawFn, protocols: tuple[int, ...] = (TCP, UDP)) -> Datagram:
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from(protocols))
    first, options = 0, b"\1" * (4 * draw(st.integers(0, 10)))
    if version == 6:
        first, options = draw(between_headers(protocol))
    return Datagram(
        version,
        protocol,
        draw(st.binary(max_size=100)) * draw(st.integers(1, 20)),
        tags=draw(st.sampled_from([b"", b"\x81\0\0\x05", b"\x88\xa8\0\1\x81\0\0\2"])),
        options=options,
        first_option=first,
        tcp_options=b"\1" * (4 * draw(st.integers(0, 10))) if protocol == TCP else b"",
        flags=draw(st.integers(0, 255)),
        sequence=draw(u32),
        ident=draw(u16),
        addresses=draw(st.binary(min_size=32, max_size=32)),
    )


def bytes_there(data: bytes) -> Any:
    return ffi.new("uint8_t[]", data)


@given(st.binary(max_size=300), st.integers(0, 150).map(lambda n: n * 2), u32)
def test_sums_of_any_bytes(data: bytes, cut: int, before: int) -> None:
    """In one step or in two, on top of any other."""
    memory = bytes_there(data)
    cut = min(cut, len(data) // 2 * 2)
    value = lib.xbb_sum_add(before, memory, len(data))
    assert struct.pack("=H", lib.xbb_sum_fold(value)) == struct.pack(
        ">H", total(struct.pack("=I", before) + data)
    )
    half = lib.xbb_sum_add(before, memory, cut)
    assert lib.xbb_sum_fold(
        lib.xbb_sum_add(half, memory + cut, len(data) - cut)
    ) == lib.xbb_sum_fold(value)


@given(datagrams(), st.integers(0, 20))
@settings(max_examples=300)
def test_every_sum_is_right(datagram: Datagram, padding: int) -> None:
    """Found where they are, filled in whatever was there, and by whoever is behind the link."""
    whole = datagram.frame
    size = len(whole) + padding
    memory = bytes_there(whole + bytes(padding))
    headers = ffi.new("struct xbb_headers *")
    assert lib.xbb_headers_find(memory, size, headers)
    assert (headers.l3, headers.l4) == (datagram.l3, datagram.l4)
    assert (headers.payload, headers.end) == (datagram.headers, len(whole))
    assert lib.xbb_sum_right(memory, size, headers)
    memory[datagram.sum_at] ^= 0x55
    if datagram.version == 4:
        memory[datagram.l3 + 11] ^= 0xAA
    assert lib.xbb_sum_fill(memory, size, headers)
    assert bytes(ffi.buffer(memory, size)) == whole + bytes(padding)
    memory[datagram.sum_at + 1] ^= 0x55
    header = ffi.new("struct xbb_link_header *")
    assert lib.xbb_offload_to_link(memory, size, BLANK, 0, 0, header)
    sent = bytes(ffi.buffer(memory, size))
    if padding:  # nobody behind the link could
        assert header.flags & NEEDS_CSUM == 0
    else:
        assert sent == datagram.blank
        assert bytes(ffi.buffer(header)) == LINK_HEADER.pack(
            NEEDS_CSUM, 0, datagram.headers, 0, datagram.l4, datagram.sum_at - datagram.l4, 0
        )
        sent = completed(sent, header.csum_start, header.csum_offset)
    assert sent == whole + bytes(padding)


def parts_of(frame: bytes, gso_size: int) -> list[bytes]:
    """As a queue sends them."""
    split = ffi.new("struct xbb_split *")
    memory = bytes_there(frame)
    headers = ffi.new("uint8_t[256]")
    start, length = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    assert lib.xbb_split_begin(split, memory, len(frame), gso_size)
    parts = []
    while count := lib.xbb_split_next(split, headers, start, length):
        body = frame[start[0] : start[0] + length[0]]
        parts.append(bytes(ffi.buffer(headers, count)) + body)
    return parts


def parts_expected(datagram: Datagram, gso_size: int) -> list[bytes]:
    """Each as somebody would write it who had that much to say."""
    payload, parts = datagram.payload, []
    for number, at in enumerate(range(0, len(payload), gso_size) or [0]):
        flags = datagram.flags
        if at + gso_size < len(payload):
            flags &= ~0x09  # FIN and PSH: at the end
        if number > 0:
            flags &= ~0x80  # CWR: once
        part = replace(
            datagram,
            payload=payload[at : at + gso_size],
            flags=flags,
            sequence=(datagram.sequence + at) % 2**32,
            ident=(datagram.ident + number) % 2**16,
        )
        parts.append(part.frame)
    return parts


@given(datagrams((TCP,)), st.integers(1, 300) | u16.filter(bool))
@settings(max_examples=300)
def test_parts_of_a_frame_are_what_a_stack_would_have_sent(
    datagram: Datagram, gso_size: int
) -> None:
    """Byte for byte; and so all of it, once, in order, with sums that are right."""
    parts = parts_of(datagram.blank, gso_size)
    assert parts == parts_expected(datagram, gso_size)
    assert b"".join(part[datagram.headers :] for part in parts) == datagram.payload


def test_the_largest_frame_is_split() -> None:
    payload = bytes((n * 3 + n // 256) & 255 for n in range(65535 - 14 - 20 - 32))
    datagram = Datagram(4, TCP, payload, tcp_options=b"\1" * 12, flags=0x99, ident=0xFFF0)
    assert len(datagram.frame) == 65535
    assert parts_of(datagram.blank, 1448) == parts_expected(datagram, 1448)


@given(datagrams(), st.integers(0, 31), st.integers(0, 300), st.booleans())
@settings(max_examples=300)
def test_what_a_guest_cannot_do_is_done_for_it(
    datagram: Datagram, accepts: int, gso_size: int, ecn: bool
) -> None:
    """A frame of the link, whole or not, is in the end what its sender would have sent."""
    large = datagram.protocol == TCP and 0 < gso_size < len(datagram.payload)
    kind = 0
    if large:
        kind = (1 if datagram.version == 4 else 4) | (0x80 if ecn else 0)
    header = ffi.new("struct xbb_link_header *")
    offset = datagram.sum_at - datagram.l4
    said = LINK_HEADER.pack(
        NEEDS_CSUM, kind, datagram.headers, gso_size if large else 0, datagram.l4, offset, 0
    )
    ffi.memmove(header, said, 12)
    blank = datagram.blank
    memory = bytes_there(blank)
    made = ffi.new("struct xbb_net_frame *")
    verdict = lib.xbb_offload_from_link(memory, len(blank), header, accepts, made)
    sums = accepts & (CSUM4 if datagram.version == 4 else CSUM6) and not datagram.tags
    splits = sums and accepts & SG and accepts & (TCPV4 if datagram.version == 4 else TCPV6)
    after = bytes(ffi.buffer(memory, len(blank)))
    if large and not splits:
        assert verdict == SPLIT
        assert after == blank
        assert made.gso_type == 0
        assert made.flags == RX_VALIDATED
    elif sums:
        assert verdict == AS_IS
        assert after == blank
        assert made.flags == RX_BLANK | RX_VALIDATED
        assert (made.gso_type != 0) == large
        assert made.gso_size == (gso_size if large else 0)
        assert completed(after, datagram.l4, offset) == datagram.frame
    else:
        assert verdict == SUMMED
        assert after == datagram.frame
        assert made.flags == RX_VALIDATED
        assert made.gso_type == 0
    assert made.size == len(blank)


@given(st.binary(max_size=120), st.binary(min_size=12, max_size=12), st.integers(0, 31))
def test_any_bytes_are_a_frame(data: bytes, header: bytes, accepts: int) -> None:
    """Whatever they are taken for, nothing but a sum is changed of what goes on."""
    there = ffi.new("struct xbb_link_header *")
    ffi.memmove(there, header, 12)
    memory = bytes_there(data)
    made = ffi.new("struct xbb_net_frame *")
    verdict = lib.xbb_offload_from_link(memory, len(data), there, accepts, made)
    after = bytes(ffi.buffer(memory, len(data)))
    if verdict != SUMMED:
        assert after == data
    else:
        assert sum(a != b for a, b in zip(after, data, strict=True)) <= 2
    if len(data) < 14:
        assert verdict == BAD


def self_tests() -> list[tuple[str, int]]:
    name = ffi.new("char **")
    found: list[tuple[str, int]] = []
    while (held := product.xbb_net_self_test(len(found), name)) != -ENOENT:
        found.append((ffi.string(name[0]).decode(), held))
    return found


def test_the_self_test_has_names() -> None:
    names = [name for name, _ in self_tests()]
    assert len(set(names)) == len(names) >= 50


@pytest.mark.parametrize(("name", "held"), self_tests())
def test_a_case_of_the_self_test(name: str, held: int) -> None:
    assert held == 1, name
