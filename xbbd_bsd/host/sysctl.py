"""What the FreeBSD kernel says of itself: sysctl(3), checked.

The package freebsd-sysctl does the calls, but looks at none of their results: a
name that does not exist, or may not be read, gives zeros, and a value once read
is kept for good.  So a name must come back as it was asked, the type must be the
expected one, nothing empty is believed, and every question is a new one.
Control thread.
"""

from itertools import islice
from typing import Any, Final

from xbbd_bsd.errors import HostError, OperatorError, in_words

_STRINGS: Final = ("STRING",)
_NUMBERS: Final = ("INT", "UINT", "LONG", "ULONG", "S64", "U64", "S32", "U32", "U16", "U8")
_MOST_LEAVES: Final = 10_000  # below one name; more means that it went astray


def text(name: str) -> str:
    """A string that is not empty; HostError."""
    value = _value(name, _STRINGS)
    if not isinstance(value, str) or not value:
        raise HostError(f"sysctl {name}: no text")
    return value


def number(name: str) -> int:
    """A number above 0; HostError."""
    value = _value(name, _NUMBERS)
    if not isinstance(value, int) or value <= 0:
        raise HostError(f"sysctl {name}: no number")
    return value


def leaves(name: str) -> list[str]:
    """Names of all values below a node, none if there is no such node; HostError."""
    try:
        node = _node(name)
        if node is None:
            return []
        return [str(leaf.name) for leaf in islice(node.children, _MOST_LEAVES)]
    except OperatorError:
        raise
    except Exception as error:  # the package has no type of its own
        raise HostError(f"sysctl {name}: {in_words(error)}") from None


def _value(name: str, types: tuple[str, ...]) -> object:
    try:
        node = _node(name)
        if node is None:
            raise HostError("the kernel has no such name")
        if node.ctl_type.__name__ not in types:
            raise HostError(f"it is {node.ctl_type.__name__}")
        return node.value
    except OperatorError:
        raise
    except Exception as error:  # the package has no type of its own
        raise HostError(f"sysctl {name}: {in_words(error)}") from None


def _node(name: str) -> Any:
    """What the kernel has under that name; None if nothing.  OperatorError."""
    try:
        from freebsd_sysctl import Sysctl
    except ImportError:
        raise OperatorError("the Python package freebsd-sysctl is missing") from None
    node = Sysctl(name)
    return node if any(node.oid) and Sysctl(oid=node.oid).name == name else None
