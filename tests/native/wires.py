"""A pair of sockets in place of a card's interface: each call is a frame.

FreeBSD 15 keeps on a SOCK_SEQPACKET together what is sent up to MSG_EOR, which nobody says
to an interface (uipc_usrreq.c; read there, not seen): two frames would be read as one.
There such tests are skipped; whoever serves a card has a tap.
"""

from __future__ import annotations

import socket
from functools import cache

import pytest


@cache
def stay_apart(kind: int = socket.SOCK_SEQPACKET) -> bool:
    """Whether what two calls send is read by two, on such sockets."""
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        one.send(b"a")
        one.send(b"b")
        return other.recv(2) == b"a"


def need_frames() -> None:
    """Skip a test of frames where they run together."""
    if not stay_apart():
        pytest.skip("frames that are sent by a pair of sockets run together here")


def wire() -> tuple[socket.socket, socket.socket]:
    """Both ends; skips where there is none."""
    need_frames()
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
