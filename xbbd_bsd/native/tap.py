"""Interfaces of network cards: taps of this machine, by name.

They are the kernel's and outlive whoever made them.  In the network name space of the
caller; none of these waits for a guest.  Any thread.
"""

from __future__ import annotations

import os
import socket
from errno import ENXIO

from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import check

MOST_NAME: int = lib.XBB_NET_NAME - 1
"""Bytes that the name of an interface may have; whatever is no name, there is no interface of."""


def open_tap(name: str, *, multi: bool) -> int:
    """A descriptor of a queue, whose frames have a header; HostError.

    The interface is made if it is not there.  ``multi``: it may have several, all of which
    are opened like that.  Its cable is in as long as one is open.
    """
    error = ffi.new("struct xbb_error *")
    fd = ffi.new("int *")
    result = lib.xbb_link_open(os.fsencode(name), multi, fd, error)
    check(result, f"interface {name}", error)
    return int(fd[0])


def is_there(name: str) -> bool:
    """Whether there is an interface of that name, of whatever kind."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def remove_tap(name: str) -> None:
    """Remove an interface; HostError if it is no tap.  Harmless if it is not there."""
    error = ffi.new("struct xbb_error *")
    result = lib.xbb_link_remove(os.fsencode(name), error)
    if result != -ENXIO:
        check(result, f"interface {name}", error)


def bring_up(name: str) -> None:
    """Mark an interface as up, as an administrator would; HostError."""
    error = ffi.new("struct xbb_error *")
    check(lib.xbb_link_up(os.fsencode(name), error), f"interface {name}", error)


def is_up(name: str) -> bool:
    """Whether an interface is marked so, and there."""
    return int(lib.xbb_link_is_up(os.fsencode(name))) == 1


def set_mtu(name: str, mtu: int) -> None:
    """Set how many bytes a packet may have, without its Ethernet header; HostError."""
    error = ffi.new("struct xbb_error *")
    check(lib.xbb_link_mtu(os.fsencode(name), mtu, error), f"interface {name}", error)
