"""What a counter and its guest tell each other by XenStore.  Pure."""

from dataclasses import dataclass
from errno import EINVAL

from xbbd_bsd.errors import GuestError, printable
from xbbd_bsd.xenbus.family import Changes, Nodes

OFFER: Changes = {"feature-count": b"1"}


@dataclass(frozen=True, slots=True)
class RingParams:
    """The one ring of a frontend: reference of its page, and event channel."""

    ref: int
    port: int

    @classmethod
    def from_nodes(cls, frontend: Nodes) -> "RingParams":
        """As it was published; GuestError that names the node if it was not."""
        return cls(_number(frontend, "ring-ref"), _number(frontend, "event-channel"))


def _number(frontend: Nodes, name: str) -> int:
    value = frontend(name)
    if value is None:
        raise GuestError(f"node {name} is missing", EINVAL)
    if not value.isdigit() or len(value) > 10 or int(value) >= 1 << 32:
        raise GuestError(f"node {name} is '{printable(value)}', no number", EINVAL)
    return int(value)
