"""The interface of a simulated guest, in a network name space of its own: a tap of Linux.

The other end of the cable is the guest's driver.  It stays while the guest gives its
card back and takes it again, without a carrier then.  Addresses are set by ip(8), so
that it is as in any guest.  Any thread; of the name space of the caller.
"""

import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final

from xbbd_bsd.errors import HostError, reason
from xbbd_bsd.native.net import NET_LINK_HEADER
from xbbd_bsd.native.netstate import NetAccepts
from xbbd_bsd.sim.namespace import run

NAME: Final = "eth0"
# As Linux has them for tuntap.
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOFFLOAD = 0x400454CA, 0x400454CB, 0x400454D0
_TUNSETVNETHDRSZ, _TUNSETVNETLE = 0x400454D8, 0x400454DC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
_F_CSUM, _F_TSO4, _F_TSO6 = 0x01, 0x02, 0x04


def _left_to_others(offloads: NetAccepts) -> int:
    """What the guest's stack may leave to its driver, which does what the backend was not told."""
    left = 0
    if offloads & (NetAccepts.CSUM_IPV4 | NetAccepts.CSUM_IPV6):
        left |= _F_CSUM
    if NetAccepts.GSO_TCPV4 in offloads:
        left |= _F_TSO4
    if NetAccepts.GSO_TCPV6 in offloads:
        left |= _F_TSO6
    return left


def open_queue(offloads: NetAccepts, name: str = NAME) -> int:
    """A queue of an interface, made if it is not there; a descriptor, the caller's.  HostError."""
    fd = -1
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_MULTI_QUEUE
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", NET_LINK_HEADER))
        fcntl.ioctl(fd, _TUNSETVNETLE, struct.pack("i", 1))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _left_to_others(offloads))
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise HostError(f"tap {name}: {reason(error)}", error.errno or 0) from None
    return fd


def make(addresses: Sequence[str], mtu: int) -> None:
    """The interface with these addresses, up; HostError."""
    os.close(open_queue(NetAccepts(0)))
    run(("ip", "link", "set", "lo", "up"))
    run(("ip", "link", "set", NAME, "mtu", str(mtu)))
    for address in addresses:
        # Nobody else has it, and nobody waits until that is certain.
        more = ("nodad",) if ":" in address else ()
        run(("ip", "address", "add", address, "dev", NAME, *more))
    run(("ip", "link", "set", NAME, "up"))


def set_mac(mac: str) -> None:
    """Give it the address of the card; HostError."""
    run(("ip", "link", "set", NAME, "address", mac))
