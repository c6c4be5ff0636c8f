"""Packets as FreeBSD 15 wants them told: with an end, and not believed if a part went."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from errno import EPIPE
from typing import Any

import pytest

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import _xbb, forkserver, packets
from xbbd_bsd.native.binding import HvKind
from xbbd_bsd.native.link import Link
from xbbd_bsd.native.processes import Processes


class Recorded(socket.socket):
    """A socket that knows with which flags it was written to, and may take a part only."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.flags: list[int] = []
        self.takes: int | None = None

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, *_: Any) -> int:
        self.flags.append(flags)
        whole = b"".join(buffers)
        return super().sendmsg([whole[: self.takes]], ancdata, flags)

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.flags.append(flags)
        return super().send(data, flags)


@pytest.fixture
def pair() -> Iterator[tuple[Recorded, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Recorded(ours.detach()) as recorded, theirs:
        yield recorded, theirs


Pair = tuple[Recorded, socket.socket]


def test_a_packet_has_an_end(pair: Pair) -> None:
    ours, theirs = pair
    packets.send(ours, b"packet")
    assert (theirs.recv(100), ours.flags) == (b"packet", [socket.MSG_EOR])


def test_descriptors_go_along_and_stay(pair: Pair) -> None:
    ours, theirs = pair
    packets.send(ours, b"packet", [ours.fileno(), theirs.fileno()])
    data, descriptors, _, _ = socket.recv_fds(theirs, 100, 4)
    for fd in descriptors:
        os.close(fd)
    assert (data, len(descriptors), ours.flags) == (b"packet", 2, [socket.MSG_EOR])


def test_a_part_of_a_packet_is_none(pair: Pair) -> None:
    """And the last that is sent: the next one would belong to it."""
    ours, theirs = pair
    ours.takes = 3
    with pytest.raises(OSError, match="in part") as raised:
        packets.send(ours, b"packet")
    assert raised.value.errno == EPIPE
    ours.takes = None
    with pytest.raises(BrokenPipeError):
        packets.send(ours, b"packet")
    assert [theirs.recv(100) for _ in range(2)] == [b"pac", b""]
    packets.send(theirs, b"answer")
    assert ours.recv(100) == b"answer"


def test_what_is_said_to_a_process(pair: Pair) -> None:
    ours, theirs = pair
    link = Link(ours)
    link.drain(1)
    assert ours.flags == [socket.MSG_EOR]
    ours.takes = 3
    with pytest.raises(HostError, match="has ended"):
        link.drain(1)
    assert link.lost is not None
    assert [len(theirs.recv(100)) for _ in range(3)][1:] == [3, 0]  # and no more
    link.close()


def test_what_is_said_to_the_server_of_processes(pair: Pair) -> None:
    ours, theirs = pair
    processes = object.__new__(Processes)
    processes.__dict__.update(_channel=ours, _serial=0, _asked={}, _placed={})
    processes.start("vm", theirs, hv=HvKind.SIM, idle_seconds=1)
    processes.kill(1)
    assert ours.flags == [socket.MSG_EOR] * 2


def test_a_server_that_got_a_part_of_a_request_is_asked_no_more(pair: Pair) -> None:
    """It ends once it has done what it was asked before; the next one may be asked then."""
    ours, theirs = pair
    processes = object.__new__(Processes)
    processes.__dict__.update(_channel=ours, _serial=0, _asked={}, _placed={})
    ours.takes = 3
    for _ in range(2):
        with pytest.raises(HostError) as raised:
            processes.kill(1)
        assert raised.value.passes
        ours.takes = None
    assert [len(theirs.recv(1000)) for _ in range(2)] == [3, 0]
    theirs.close()
    with pytest.raises(HostError, match="has gone"):
        processes.news()


def test_what_the_server_reports(pair: Pair) -> None:
    ours, _ = pair
    server = object.__new__(forkserver.Server)
    server.__dict__.update(_channel=ours, _xbb=_xbb)
    server._report(type=1, serial=2, pid=3)
    assert ours.flags == [socket.MSG_EOR]
