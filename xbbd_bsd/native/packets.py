"""Packets on a SOCK_SEQPACKET, whole, as those who read them count on.

Linux keeps what one call sends together.  FreeBSD 15 does so only up to MSG_EOR, and of a
packet that does not fit takes what does (uipc_usrreq.c; read there, not seen).  Knows
nothing of what is in one.  Any thread.
"""

from __future__ import annotations

import os
import socket
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from errno import EPIPE
from typing import Final

_INT: Final = array("i").itemsize
# Where more wait that were given up FreeBSD says that nobody listens (uipc_usrreq.c; not seen).
_BACKLOG: Final = 64  # forkserver.py


def listen_at(path: str) -> socket.socket:
    """Where a guest's process will listen, in place of what is there; OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def send(channel: socket.socket, packet: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a packet, and descriptors, which stay the caller's; OSError.

    EPIPE if only a part of it went: what is sent after that would belong to it, so that nothing
    can be; what the other end says is heard until it has closed.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
    sent = channel.sendmsg([packet], [rights] if descriptors else [], socket.MSG_EOR)
    if sent != len(packet):
        with suppress(OSError):  # it has gone
            channel.shutdown(socket.SHUT_WR)
        raise OSError(EPIPE, "a packet went only in part")


def receive(channel: socket.socket, largest: int, most: int) -> tuple[bytes, list[int], bool]:
    """The next packet of at most so many bytes and descriptors, and whether that was all; OSError.

    Descriptors are the caller's to close, and not for a program that is executed.
    """
    # Not by socket.recv_fds(), which leaves out its flags.
    wanted = largest, socket.CMSG_SPACE(most * _INT), socket.MSG_CMSG_CLOEXEC
    try:
        data, control, flags, _ = channel.recvmsg(*wanted)
    except ConnectionResetError:  # whoever sends has gone, and the last words come after that
        data, control, flags, _ = channel.recvmsg(*wanted)
    descriptors = [
        int.from_bytes(rights[at : at + _INT], sys.byteorder)
        for level, kind, rights in control
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for at in range(0, len(rights) - len(rights) % _INT, _INT)
    ]
    return data, descriptors, not flags & socket.MSG_TRUNC
