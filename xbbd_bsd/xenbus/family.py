"""What a kind of backend must supply, so that xenbus can be its life.

Pure: interfaces only.  Bus and device know these and nothing of disks or
rings; a family knows its nodes and its data path and nothing of states, watches
or other devices.  All methods are called on the control thread, and none waits for
a medium or a guest: what has to is begun, and raises Pending (errands.py) until it is
done; `wake` says when to ask again, with the same arguments.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from xbbd_bsd.config import Config
from xbbd_bsd.errors import GuestError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.findings import Finding
from xbbd_bsd.oids import Driver, Value
from xbbd_bsd.xenbus.pace import RESTLESS
from xbbd_bsd.xenbus.states import Queue, State

Nodes = Callable[[str], bytes | None]
"""Reads one node of a directory, e.g. `backend("mode")`; None when it is absent."""


Changes = Mapping[str, bytes | None]
"""Nodes of ours to write all at once; None for those that must not be there."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is: kind of directory, guest, device number there, our driver's name and unit.

    A driver may serve several kinds, and counts all their devices as its own.
    """

    kind: str
    domid: int
    number: int
    driver: str
    unit: int

    @property
    def path(self) -> str:
        """The backend's directory, relative to our domain."""
        return f"backend/{self.kind}/{self.domid}/{self.number}"

    def __str__(self) -> str:
        return f"{self.driver}{self.unit} ({self.kind}/{self.domid}/{self.number})"


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
    def news(self) -> Changes:
        """Nodes that have changed since a connected frontend was told; mostly none."""

    def told(self) -> None:
        """The frontend knows the news."""

    def closing(self) -> None:
        """It is to close, and its guest waits for what it has asked for; said again and again."""

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

    @property
    def adoptable(self) -> bool:
        """Whether an earlier daemon served the data path, and we can go on with it."""

    @property
    def lost(self) -> str:
        """Why we cannot, as far as that is known; "" if it is not, or there was none."""

    def adopt(self, backend: Nodes) -> str:
        """Go on where that daemon died; what to say about it in the log.  May raise Pending.

        Medium and data path are as that one had them, whatever nodes and configuration say.
        An error that does not pass leaves nothing adoptable.
        """

    def leave(self) -> None:
        """The daemon leaves, and another follows: end the data path as that one may adopt it.

        No node is to be changed, and nothing else is called any more; `wake` is called when
        `left` has become true.
        """

    @property
    def left(self) -> bool:
        """After `leave`: whether all that was begun is answered, or served by others."""

    def abandon(self) -> None:
        """What was begun (Pending) is not wanted any more; harmless otherwise."""

    def drain(self) -> None:
        """Begin to end the data path: no new request; `wake` is called when all are answered.

        Of one that was to be adopted too, which whoever serves it still gives back: it is
        DRAINING until then, and NONE afterwards.
        """

    def disconnect(self) -> None:
        """Give back what belongs to the frontend; the data path is DRAINED or FAILED."""

    def close(self) -> None:
        """Give back the medium; there is no data path any more.

        May raise Pending, and goes on whether it is asked again or not.
        """

    def forget(self) -> None:
        """The device is gone: undo what `capabilities` made."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Why a device does not have what its guest wants.

    `held_back` and `closed` are reasons, "" if it is neither; `by_guest`: the guest is to
    blame for that.
    """

    held_back: str = ""
    closed: str = ""
    by_guest: bool = False

    @classmethod
    def of(cls, held_back: str, failed: XbbdError | None) -> "Standing":
        """Of a device that is held back, or has failed: what keeps it now comes first."""
        if held_back:
            return cls(held_back, by_guest=held_back == RESTLESS)
        return cls("", "" if failed is None else str(failed), isinstance(failed, GuestError))


class Numbers(Protocol):
    """What an operator sees of a device, and may change: by the names of its driver's leaves.

    Costs the data path nothing, waits for nobody, and is there as long as the device.
    """

    def group(self, name: str) -> Mapping[str, Value]:
        """The values there are of one of the driver's own groups; none of any other."""

    def rings(self) -> Sequence[int]:
        """The numbers of the rings in use."""

    def ring(self, number: int) -> Mapping[str, Value]:
        """The values of one."""

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        """What a list of devices and a look at their work say of it, "guest" above all.

        `latency`: with histograms, where there are any.
        """

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        """The requests in flight, the oldest first."""

    def configured(self) -> Mapping[str, Value]:
        """What the configuration says of the leaves that can be written."""

    def set(self, name: str, value: int, where: str) -> None:
        """Change a leaf that can be written.

        OperatorError that says what is allowed, of what the operator calls `where`.
        """

    def health(
        self, standing: Standing, bound: float, shared: Sequence[Finding], *, alone: bool
    ) -> list[Finding]:
        """What is wrong with it, where a request may take `bound` seconds.

        `shared` is what is found of the daemon and of what no device has, and is not said
        again; `alone`: it is not told besides, so that what is about this device belongs here.
        """


class Family(Protocol):
    """What serves the devices of a driver, of one kind or several: all that is its own."""

    @property
    def driver(self) -> Driver:
        """What its devices are called, and have to show."""

    @property
    def connect_on(self) -> frozenset[State]:
        """The frontend's states in which it wants to be connected."""

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> Backend:
        """A device's own part, nothing opened.  `wake`: called on the loop when to look again."""

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on.  Raises nothing."""

    def unit_of(self, kind: str, domid: int, number: int, backend: Nodes) -> int | None:
        """The number that an earlier daemon gave to a device that can be adopted."""

    @property
    def promised(self) -> Collection[int]:
        """Numbers of such devices, as long as they have not been found."""

    def settle(self, kind: str) -> None:
        """All devices of a kind that there are have been created: others are not to come."""

    def leave(self) -> None:
        """All devices have been left: have the next daemon know what it needs.  Raises nothing."""

    def numbers(self, unit: int) -> Numbers:
        """Those of a device there is, that is after `create` and before `forget`; KeyError."""

    def findings(self) -> list[Finding]:
        """What is wrong with what none of its devices has alone."""

    def perform(
        self, verb: str, operand: int | str, who: str, value: str = ""
    ) -> Iterator[Mapping[str, Any] | None]:
        """Do one of the driver's verbs: to a device, by its unit, or to what a path names.

        The answer in parts, None to be asked again in a moment; XbbdError.  `who` is logged;
        `value` is what some verbs want besides.
        """
