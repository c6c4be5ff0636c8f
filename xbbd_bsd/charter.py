"""What was agreed for a device, of whatever family, in words that no server can write.

A state segment is written by whoever serves the device, who shares memory with a guest; what
it says of medium, rings and guest is believed only as far as it is what the daemon made.  So
a node of ours in XenStore has the segment's number and a digest of all that.  Any thread.
"""

import hashlib
from dataclasses import fields
from typing import Any, Final

NODE: Final = "served"


def charter_of(unit: int, text: str) -> bytes:
    """The node's value: the unit, and what is never to change while the device is served."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{unit} {digest}".encode()


def unit_of(value: bytes | None) -> int | None:
    """The number that a device had, by the node; None if there is none."""
    unit, _, _ = (value or b"").partition(b" ")
    return int(unit) if unit.isdigit() and len(unit) < 10 else None


def said(of: Any) -> str:
    """A dataclass by name, but for what is as it ever was; "" of None.

    So a version that has more says the same.
    """
    if of is None:
        return ""
    pairs = ((f.name, getattr(of, f.name), f.default) for f in fields(of))
    return repr([(name, value) for name, value, usual in pairs if value != usual])
