"""What a guest, or dom0, does with its network: pings, streams with a hash, many datagrams.

    python -m xbbd_bsd.sim.traffic ping ADDRESS
    python -m xbbd_bsd.sim.traffic receive PORT
    python -m xbbd_bsd.sim.traffic send ADDRESS PORT

Programs of their own, run in a network name space, which say what came of it in JSON, a
line each.  They need no package: neither ping(8) nor iperf3.
"""

import argparse
import hashlib
import json
import os
import select
import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

from xbbd_bsd.errors import in_words

BLOCK: Final = 1 << 20  # bytes
_UDP_SEGMENT: Final = 103  # udp(7)
_DATAGRAMS: Final = 64  # of a call, the most that udp(7) has
_ECHO: Final = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_PROTOCOL: Final = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


def say(event: str, **values: object) -> None:
    """One line of JSON for whoever runs us."""
    print(json.dumps({"event": event, **values}), flush=True)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def checksum(data: bytes) -> int:
    """The sum of the Internet."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _echo(kind: int, number: int, sequence: int, data: bytes, *, summed: bool) -> bytes:
    head = struct.pack(">BBHHH", kind, 0, 0, number, sequence)
    if not summed:
        return head + data
    return struct.pack(">BBHHH", kind, 0, checksum(head + data), number, sequence) + data


def ping(options: argparse.Namespace) -> int:
    """Echo requests, one after another; how many were answered, with what was sent."""
    family = _family(options.address)
    request, reply = _ECHO[family]
    number = os.getpid() & 0xFFFF
    times = []
    with socket.socket(family, socket.SOCK_RAW, _PROTOCOL[family]) as echo:
        for sequence in range(options.count):
            data = os.urandom(options.size)
            begun = time.monotonic()
            packet = _echo(request, number, sequence, data, summed=family is socket.AF_INET)
            try:
                echo.sendto(packet, (options.address, 0))
            except OSError:  # nobody knows yet where that is
                time.sleep(options.interval)
                continue
            wanted = struct.pack(">HH", number, sequence) + data
            if _answered(echo, family, reply, wanted, begun + options.limit):
                times.append((time.monotonic() - begun) * 1000)
            time.sleep(options.interval)
    median = statistics.median(times) if times else 0.0
    say("pinged", sent=options.count, received=len(times), median_ms=round(median, 3))
    return 0 if times else 1


def _answered(
    echo: socket.socket, family: socket.AddressFamily, reply: int, wanted: bytes, end: float
) -> bool:
    while (left := end - time.monotonic()) > 0:
        if not select.select([echo], [], [], left)[0]:
            return False
        data = echo.recv(70000)
        if family is socket.AF_INET:
            data = data[(data[0] & 15) * 4 :]
        if data[0] == reply and data[4:] == wanted:
            return True
    return False


def _stream(size: int, seconds: float) -> Iterator[memoryview]:
    """Blocks that differ, so many bytes or for so long."""
    block = bytearray(os.urandom(BLOCK))
    view = memoryview(block)
    end = time.monotonic() + seconds
    number = sent = 0
    while (sent < size or not size) and (not seconds or time.monotonic() < end):
        block[:8] = number.to_bytes(8)
        part = view[: size - sent] if size and size - sent < BLOCK else view
        yield part
        sent += len(part)
        number += 1


def send(options: argparse.Namespace) -> int:
    """A stream of TCP, and its hash; until it has all been acknowledged."""
    digest = hashlib.sha256()
    sent = 0
    with socket.socket(_family(options.address)) as stream:
        stream.settimeout(options.limit)
        stream.connect((options.address, options.port))
        begun = time.monotonic()
        for block in _stream(options.bytes, options.seconds):
            stream.sendall(block)
            if options.hash:
                digest.update(block)
            sent += len(block)
            if options.progress:
                say("progress", bytes=sent)
            if options.rate:
                time.sleep(max(begun + sent * 8 / (options.rate * 1e6) - time.monotonic(), 0))
        stream.shutdown(socket.SHUT_WR)
        if stream.recv(1):  # its end says that the other has it all
            raise OSError("data out of the blue")
    say("sent", bytes=sent, seconds=time.monotonic() - begun, sha256=digest.hexdigest())
    return 0


def receive(options: argparse.Namespace) -> int:
    """One stream of TCP, and its hash."""
    digest = hashlib.sha256()
    with socket.create_server(
        ("::", options.port), family=socket.AF_INET6, dualstack_ipv6=True
    ) as server:
        say("listening", port=server.getsockname()[1])
        server.settimeout(options.limit)
        stream, _ = server.accept()
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    received = 0
    with stream:
        stream.settimeout(options.limit)
        begun = time.monotonic()
        while n := stream.recv_into(buffer):
            if options.hash:
                digest.update(view[:n])
            received += n
    say("received", bytes=received, seconds=time.monotonic() - begun, sha256=digest.hexdigest())
    return 0


def datagrams(options: argparse.Namespace) -> int:
    """As many of UDP as go out, of one size; the kernel makes many of each call."""
    sent = 0
    data = bytes(options.size * _DATAGRAMS)
    with socket.socket(_family(options.address), socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, options.size)
        out.connect((options.address, options.port))
        begun = time.monotonic()
        while time.monotonic() < begun + options.seconds:
            try:
                out.send(data)
            except (ConnectionRefusedError, BlockingIOError):
                continue
            sent += _DATAGRAMS
    say("sent", packets=sent, seconds=time.monotonic() - begun)
    return 0


def sink(options: argparse.Namespace) -> int:
    """Have datagrams end at a socket, where they are lost, until the end of input."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as inlet:
        inlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        inlet.bind(("::", options.port))
        say("listening", port=inlet.getsockname()[1])
        sys.stdin.read()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m xbbd_bsd.sim.traffic", description=__doc__)
    kinds = parser.add_subparsers(dest="traffic", required=True)
    limit = {"type": float, "default": 30.0, "metavar": "SECONDS", "help": "longest silence"}

    part = kinds.add_parser("ping", help="echo requests")
    part.add_argument("address")
    part.add_argument("--count", type=int, default=5)
    part.add_argument("--size", type=int, default=56, help="bytes of data")
    part.add_argument("--interval", type=float, default=0.02, metavar="SECONDS")
    part.add_argument("--limit", type=float, default=1.0, metavar="SECONDS", help="for an answer")
    part.set_defaults(run=ping)

    part = kinds.add_parser("receive", help="one stream of TCP")
    part.add_argument("port", type=int)
    part.add_argument("--no-hash", dest="hash", action="store_false")
    part.add_argument("--limit", **limit)  # type: ignore[arg-type]
    part.set_defaults(run=receive)

    part = kinds.add_parser("send", help="a stream of TCP")
    part.add_argument("address")
    part.add_argument("port", type=int)
    part.add_argument("--bytes", type=int, default=0, help="so many")
    part.add_argument("--seconds", type=float, default=0.0, help="for so long")
    part.add_argument("--no-hash", dest="hash", action="store_false")
    part.add_argument("--rate", type=float, default=0.0, help="at most, Mbit/s")
    part.add_argument("--progress", action="store_true", help="a line for each block")
    part.add_argument("--limit", **limit)  # type: ignore[arg-type]
    part.set_defaults(run=send)

    part = kinds.add_parser("datagrams", help="UDP, as much as goes")
    part.add_argument("address")
    part.add_argument("port", type=int)
    part.add_argument("--size", type=int, default=64)
    part.add_argument("--seconds", type=float, default=1.0)
    part.set_defaults(run=datagrams)

    part = kinds.add_parser("sink", help="where datagrams go")
    part.add_argument("port", type=int)
    part.set_defaults(run=sink)
    return parser


def main() -> int:
    """What the command line says; exit status."""
    options = _parser().parse_args()
    try:
        return int(options.run(options))
    except OSError as error:
        print(f"traffic: {in_words(error)}", file=sys.stderr)
        say("failed", command=options.traffic, errno=error.errno or 0, text=in_words(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
