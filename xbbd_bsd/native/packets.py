"""Packets on a SOCK_SEQPACKET, whole, as those who read them count on.

Linux keeps what one call sends together.  FreeBSD 15 does so only up to MSG_EOR, and of a
packet that does not fit takes what does (uipc_usrreq.c; read there, not seen).  Knows
nothing of what is in one.  Any thread.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Sequence
from errno import EPIPE


def send(channel: socket.socket, packet: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a packet, and descriptors, which stay the caller's; OSError.

    EPIPE if only a part of it went: what is sent after that would belong to it.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
    sent = channel.sendmsg([packet], [rights] if descriptors else [], socket.MSG_EOR)
    if sent != len(packet):
        raise OSError(EPIPE, "a packet went only in part")
