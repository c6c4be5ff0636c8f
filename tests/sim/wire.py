"""What goes over an interface, as it is there: captured with its sums checked, and put there.

    python -m tests.sim.wire capture INTERFACE
    python -m tests.sim.wire inject INTERFACE
    python -m tests.sim.wire plain INTERFACE

Programs that run in a network name space.  capture says "ready", and at the end of its
input how many frames there were of what, and which had a wrong sum; with "show" in
place of an end it tells each frame in hex.  inject sends the frames that it reads in hex,
"blank" before one: its sum is left to others.  plain has an interface fill in sums and
split frames before they leave it, as a veth does for nobody by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import select
import socket
import struct
import sys
from collections import Counter

ETH_P_ALL = 3
PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, SOL_PACKET = 8, 15, 23, 263
AUXDATA = struct.Struct("=IIIHHHH")
HAS_TAG = 1 << 4
SIOCETHTOOL = 0x8946
# Of ethtool(8): set tx sums, scatter-gather, TSO, GSO.
SETTINGS = (0x17, 0x19, 0x1F, 0x24)
TCP, UDP, ICMPV6 = 6, 17, 58
SUM_AT = {TCP: 16, UDP: 6, ICMPV6: 2}


def total_of(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def transport(frame: bytes) -> tuple[int, int, int, bytes] | None:
    """Where IP and its payload begin and end, and what its pseudo header has; protocol first."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    kind, at = frame[at : at + 2], at + 2
    if kind == b"\x08\x00":
        size, protocol = struct.unpack_from(">H", frame, at + 2)[0], frame[at + 9]
        if struct.unpack_from(">H", frame, at + 6)[0] & 0x3FFF:
            return None  # a fragment
        begin = at + (frame[at] & 15) * 4
        ends = frame[at + 12 : at + 20]
        end = at + size
    elif kind == b"\x86\xdd":
        size, protocol = struct.unpack_from(">HB", frame, at + 4)
        begin, end = at + 40, at + 40 + size
        ends = frame[at + 8 : at + 40]
    else:
        return None
    return protocol, begin, end, ends + struct.pack(">IHH", end - begin, 0, protocol)


def judge(frame: bytes) -> tuple[str, bool]:
    """What it is, and whether its sums are right."""
    found = transport(frame)
    if found is None:
        return "other", True
    protocol, begin, end, pseudo = found
    ip = begin - 20
    right = frame[ip] >> 4 != 4 or begin - ip != 20 or total_of(frame[ip:begin]) == 0xFFFF
    if protocol not in SUM_AT or end > len(frame):
        return "ip", right and end <= len(frame)
    if protocol == UDP and frame[begin + 6 : begin + 8] == b"\0\0":
        return "udp", right
    kind = {TCP: "tcp", UDP: "udp", ICMPV6: "icmp6"}[protocol]
    return kind, right and total_of(pseudo + frame[begin:end]) == 0xFFFF


def take(tap: socket.socket) -> bytes:
    """A frame, with the tag that the kernel takes off."""
    frame, more, _, _ = tap.recvmsg(70000, socket.CMSG_SPACE(AUXDATA.size))
    for level, kind, data in more:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_, tci, tpid = AUXDATA.unpack(data[: AUXDATA.size])
            if status & HAS_TAG:
                frame = frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
    return frame


def capture(interface: str) -> None:
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    largest = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        tap.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        tap.bind((interface, ETH_P_ALL))
        tap.setblocking(False)
        say("ready")
        ended = False
        while True:
            ready = select.select([tap, sys.stdin], [], [], 0.2 if ended else None)[0]
            if not ready:
                break
            if sys.stdin in ready:
                ended = True
            with contextlib.suppress(BlockingIOError):
                for _ in range(256):
                    frame = take(tap)
                    kind, right = judge(frame)
                    kinds[kind] += 1
                    largest = max(largest, len(frame))
                    if not right:
                        wrong.append(frame[:80].hex())
                    elif kind == "udp":
                        say("frame", hex=frame.hex())
            if ended and tap not in ready:
                break
    say("captured", kinds=dict(kinds), wrong=wrong[:10], largest=largest)


def inject(interface: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        tap.bind((interface, ETH_P_ALL))
        say("ready")
        for line in sys.stdin:
            *flags, text = line.split()
            frame = bytearray.fromhex(text)
            header = bytes(10)
            if "blank" in flags:
                found = transport(bytes(frame))
                assert found is not None
                protocol, begin, _, pseudo = found
                at = SUM_AT[protocol]
                struct.pack_into(">H", frame, begin + at, total_of(pseudo))
                header = struct.pack("<BBHHHH", 1, 0, 0, 0, begin, at)
            tap.send(header + frame)
    say("injected")


def plain(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for setting in SETTINGS:
            value = ctypes_value(setting)
            request = struct.pack("16sP16x", interface.encode(), value)
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    say("plain")


_alive: list[object] = []


def ctypes_value(setting: int) -> int:
    """The address of a struct ethtool_value that sets something to 0."""
    import ctypes

    value = ctypes.create_string_buffer(struct.pack("II", setting, 0))
    _alive.append(value)
    return ctypes.addressof(value)


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


if __name__ == "__main__":
    {"capture": capture, "inject": inject, "plain": plain}[sys.argv[1]](sys.argv[2])
