"""What a kind of backend must supply, so that xenbus can be its life.

Pure: interfaces only.  Bus and device know these and nothing of disks or
rings; a family knows its nodes and its data path and nothing of states, watches
or other devices.  All methods are called on the control thread, and none waits for
a medium or a guest: what has to is begun, and raises Pending (errands.py) until it is
done; `wake` says when to ask again, with the same arguments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from xbbd_bsd.errors import XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.xenbus.states import Queue, State

Nodes = Callable[[str], bytes | None]
"""Reads one node of a directory, e.g. `backend("mode")`; None when it is absent."""


Changes = Mapping[str, bytes | None]
"""Nodes of ours to write all at once; None for those that must not be there."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is: kind of directory, guest, device number there, and our unit number."""

    kind: str
    domid: int
    number: int
    unit: int

    @property
    def path(self) -> str:
        """The backend's directory, relative to our domain."""
        return f"backend/{self.kind}/{self.domid}/{self.number}"

    def __str__(self) -> str:
        return f"xbbd{self.unit} ({self.kind}/{self.domid}/{self.number})"


@dataclass(frozen=True, slots=True)
class Connection:
    """A data path that was started: what to tell the frontend, and the log."""

    nodes: Changes
    text: str


class Backend(Protocol):
    """One device's own part: its medium and its data path.

    Methods that may fail raise GuestError, OperatorError or HostError and leave
    nothing half done.
    """

    @property
    def medium_open(self) -> bool:
        """Whether the medium is held."""

    @property
    def queue(self) -> Queue:
        """Where the data path is."""

    @property
    def fault(self) -> XbbdError | None:
        """Why the data path stops by itself, from when it does until `disconnect`."""

    @property
    def news(self) -> Mapping[str, bytes]:
        """Nodes that have changed since a connected frontend was told; mostly none."""

    def told(self) -> None:
        """The frontend knows the news."""

    def introduce(self, backend: Nodes, guest: str, vm: str) -> None:
        """Who it is for: when it is found, and again before it is offered.

        `guest`: the domain's name, `vm`: the virtual machine that it is ("/vm/UUID");
        "" if there is none.
        """

    def capabilities(self, backend: Nodes) -> Changes:
        """The nodes that tell the frontend what we can do; makes what the device needs to exist."""

    def medium_named(self, backend: Nodes) -> bool:
        """Whether the toolstack has said which medium to open."""

    def open(self, backend: Nodes) -> str:
        """Open the medium that the backend's nodes name; what to say about it in the log.

        May raise Pending.
        """

    def connect(self, frontend: Nodes) -> Connection:
        """Start the data path.  May raise Pending."""

    def abandon(self) -> None:
        """What `open` or `connect` has begun is not wanted any more; harmless otherwise."""

    def drain(self) -> None:
        """Begin to end the data path: no new request; `wake` is called when all are answered."""

    def disconnect(self) -> None:
        """Give back what belongs to the frontend; the data path is DRAINED or FAILED."""

    def close(self) -> None:
        """Give back the medium; there is no data path any more.

        May raise Pending, and goes on whether it is asked again or not.
        """

    def forget(self) -> None:
        """The device is gone: undo what `capabilities` made."""


class Family(Protocol):
    """A kind of backend, e.g. "vbd"."""

    @property
    def connect_on(self) -> frozenset[State]:
        """The frontend's states in which it wants to be connected."""

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> Backend:
        """A device's own part, nothing opened.  `wake`: called on the loop when to look again."""
