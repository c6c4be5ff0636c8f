"""Numbers in nodes, which a guest may have written: 32 bits, or an error that names the node.

Pure; which nodes there are is a family's matter.  Any thread.
"""

from collections.abc import Callable
from typing import Final

from xbbd_bsd.errors import GuestError, printable

_UINT32_MAX: Final = 0xFFFFFFFF

Nodes = Callable[[str], bytes | None]
"""Reads one node of a directory; None when it is absent."""


def is_number(value: bytes) -> bool:
    """Whether it is an unsigned one in plain decimal digits, with nothing else around them."""
    return value.isdigit() and len(value) <= 10 and int(value) <= _UINT32_MAX


def decimal(name: str, value: bytes) -> int:
    """The value of a frontend's node of that name; GuestError."""
    if not is_number(value):
        raise GuestError(f"frontend node {name} is '{printable(value)}', not a 32-bit number")
    return int(value)


def required(node: Nodes, name: str) -> int:
    """The same of one that must be there."""
    value = node(name)
    if value is None:
        raise GuestError(f"frontend node {name} is missing")
    return decimal(name, value)
