"""What xl does for a device, through dom0's store: offer it, wait, take it away.

What is particular to a disk is here, to a network card in cards.py.  Nodes and their
owners are those of libxl 4.19 (libxl_disk.c, libxl_device.c), but for /libxl, which is
libxl's own, and the full paths of scripts; the hotplug node is that of
tools/hotplug/FreeBSD/block.  An offer of ours has one node more, which names it, so that
nobody takes away what another has offered in its place.  Others do the same things at
the same time: whatever is looked at and then acted on is one transaction.  It knows no
backend but by its nodes.  Runs on the thread of the store's loop; waiting runs that loop.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EEXIST, ENOENT
from typing import Final, Protocol

from xbbd_bsd.errors import OperatorError, printable
from xbbd_bsd.vdev import vdev_name
from xbbd_bsd.xenbus.complaint import LENGTH, complaint_node
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction
from xbbd_bsd.xenstore.waiting import wait_until

LIMIT = 10.0  # seconds; what libxl waits for a backend

KINDS: Final = ("vbd", "vbd3")  # directories of backends that serve disks as xbbd does
TOKEN: Final = "xbbctl-offer"

# A backend that has answered the offer, and may not have opened the device yet.
_WAITS_FOR_MEDIUM: Final = (State.INIT_WAIT, State.INITIALISED, State.CONNECTED)


class Offer(Protocol):
    """A device for a guest: what it is called, and the nodes of both ends."""

    @property
    def domid(self) -> int:
        """The guest."""

    @property
    def noun(self) -> str:
        """What it is, in messages: "disk"."""

    @property
    def name(self) -> str:
        """Which of the guest's it is: "xvda"."""

    @property
    def backend(self) -> str:
        """The backend's directory."""

    @property
    def frontend(self) -> str:
        """The frontend's directory."""

    def backend_nodes(self) -> Mapping[str, bytes]:
        """What libxl writes for the backend."""

    def frontend_nodes(self) -> Mapping[str, bytes]:
        """What libxl writes for the frontend."""

    @property
    def read_only(self) -> tuple[str, ...]:
        """Nodes of the frontend's that its guest cannot write."""

    @property
    def hotplug_nodes(self) -> Mapping[str, bytes]:
        """What the hotplug script writes for the backend, once that waits for it."""


@dataclass(frozen=True, slots=True)
class DiskOffer:
    """A disk for a guest, as a line of xl.cfg(5) describes it.

    `vdev` is the device number (51712: xvda); `path` a file's name as of
    os.fsdecode; `kind` the backend's directory, "vbd" (backendtype=phy) or "vbd3"
    (backendtype=tap).  `on_error` and `on_full`: what is done when it fails, "" for what is
    configured; `limit_group` likewise, whose limits it shares.
    """

    domid: int
    vdev: int
    path: str
    mode: str = "w"
    kind: str = "vbd"
    cdrom: bool = False
    discard: bool = True
    on_error: str = ""
    on_full: str = ""
    limit_group: str = ""

    @property
    def noun(self) -> str:
        """For messages."""
        return "disk"

    @property
    def name(self) -> str:
        """As the guest knows it."""
        return vdev_name(self.vdev)

    @property
    def read_only(self) -> tuple[str, ...]:
        """The guest may write all of its own."""
        return ()

    @property
    def hotplug_nodes(self) -> dict[str, bytes]:
        """The file; of a tap disk the params say it."""
        return {"physical-device-path": os.fsencode(self.path)} if self.kind == "vbd" else {}

    @property
    def backend(self) -> str:
        """The backend's directory."""
        return f"/local/domain/0/backend/{self.kind}/{self.domid}/{self.vdev}"

    @property
    def frontend(self) -> str:
        """The frontend's directory."""
        return f"/local/domain/{self.domid}/device/vbd/{self.vdev}"

    def backend_nodes(self) -> dict[str, bytes]:
        """What libxl writes for the backend."""
        tap = self.kind == "vbd3"
        path = os.fsencode(self.path)
        return {
            "frontend": self.frontend.encode(),
            "params": b"aio:" + path if tap else path,
            "script": b"block-tap" if tap else b"block",
            "frontend-id": b"%d" % self.domid,
            "online": b"1",
            "removable": b"%d" % self.cdrom,
            "bootable": b"1",
            "dev": vdev_name(self.vdev).encode(),
            "type": b"vbd3" if tap else b"phy",
            "mode": self.mode.encode(),
            "device-type": b"cdrom" if self.cdrom else b"disk",
            "discard-enable": b"%d" % self.discard,
            "specification": b"xen",
            **({"on-error": self.on_error.encode()} if self.on_error else {}),
            **({"on-full": self.on_full.encode()} if self.on_full else {}),
            **({"limit-group": self.limit_group.encode()} if self.limit_group else {}),
            "state": State.INITIALISING.node,
        }

    def frontend_nodes(self) -> dict[str, bytes]:
        """What libxl writes for the frontend."""
        return {
            "backend": self.backend.encode(),
            "backend-id": b"0",
            "state": State.INITIALISING.node,
            "virtual-device": b"%d" % self.vdev,
            "device-type": b"cdrom" if self.cdrom else b"disk",
            "trusted": b"1",
        }


# Offering.


def offer(store: Store, what: Offer) -> bytes:
    """Write all nodes of both ends; what names this very offer.

    OperatorError if the guest is gone, or has such a device of any backend.
    """
    token = new_token()
    refused = store.transaction(lambda transaction: place(transaction, what, token))
    if refused is not None:
        raise refused
    return token


def new_token() -> bytes:
    """A name for an offer that no other has."""
    return secrets.token_hex(8).encode()


def place(transaction: Transaction, what: Offer, token: bytes) -> OperatorError | None:
    """Write all nodes of both ends; why it cannot be, if so, and then nothing is written.

    Returned, not raised: a server shows each node as it is when it is first read,
    and only the commit says that they belong together.
    """
    refused = _refused(transaction, what)
    if refused is not None:
        return refused
    transaction.remove(os.path.dirname(complaint_node(what.frontend)))  # of an earlier life
    for path, permissions, nodes in (
        (what.frontend, [f"n{what.domid}", "r0"], what.frontend_nodes()),
        (what.backend, ["n0", f"r{what.domid}"], {**what.backend_nodes(), TOKEN: token}),
    ):
        transaction.remove(path)  # rings of an earlier life would mislead somebody
        transaction.mkdir(path)
        transaction.set_permissions(path, permissions)  # what is made below inherits them
        for name, value in nodes.items():
            transaction.write(f"{path}/{name}", value)
    for name in what.read_only:
        transaction.set_permissions(f"{what.frontend}/{name}", ["n0", f"r{what.domid}"])
    return None


def _refused(transaction: Transaction, what: Offer) -> OperatorError | None:
    """Why the device cannot be offered."""
    if transaction.get(f"/local/domain/{what.domid}") is None:
        return no_domain(what.domid)
    if offered(transaction, what):
        return OperatorError(f"guest {what.domid} has a {what.noun} {what.name} already", EEXIST)
    if there(transaction, what):
        return OperatorError(f"{what.backend} is left from before: detach it first", EEXIST)
    return None


def no_domain(domain: int | str) -> OperatorError:
    """That there is no such guest."""
    return OperatorError(f"there is no domain {domain}", ENOENT)


def offered(nodes: Store | Transaction, what: Offer) -> bool:
    """Whether the guest has such a device, of any backend."""
    return nodes.get(f"{what.frontend}/backend") is not None


def backend_state(nodes: Store | Transaction, what: Offer) -> State:
    """The backend's state now."""
    return parse_state(nodes.get(f"{what.backend}/state"))


def opened(nodes: Store | Transaction, what: Offer) -> bool | None:
    """Whether the backend has opened the device: None if it has not said.

    What it says stays, whatever becomes of the connection.
    """
    status = nodes.get(f"{what.backend}/hotplug-status")
    return status == b"connected" if status else None


def refusal(nodes: Store | Transaction, what: Offer) -> str:
    """Why the backend has not opened the device, by its own word if it said anything."""
    reason = nodes.get(f"{what.backend}/hotplug-error")
    if reason is not None:
        return reason.decode("utf-8", "replace")
    words = complaint(nodes, what)
    if words:
        return f"the guest does not take the {what.noun}, and says: {words}"
    return "the backend does not answer"


def complaint(nodes: Store | Transaction, what: Offer) -> str:
    """Why the guest's driver has not connected, by its own word; "" if it says nothing."""
    try:
        return printable(nodes.get(complaint_node(what.frontend)) or b"", LENGTH)
    except StoreLost:
        raise
    except StoreError:
        return ""


def attach(
    store: Store, loop: asyncio.AbstractEventLoop, what: Offer, limit: float = LIMIT
) -> bool:
    """Offer a device and see to it until it is open; False if it is not.  OperatorError."""
    offer(store, what)
    return see_opened(store, loop, what, limit)


def see_opened(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    what: Offer,
    limit: float = LIMIT,
    hotplug: Callable[[], None] | None = None,
) -> bool:
    """After an offer, do what a hotplug script does once the backend is at InitWait at least.

    `hotplug` is that part of it which is not in the store; what it raises is raised.  A
    guest may be quicker than we look, and be connected by then.  False if the backend did
    not open the device in time, or said that it cannot.
    """

    def answered() -> bool:
        return backend_state(store, what) is not State.INITIALISING

    if not wait_until(store, loop, what.backend, answered, limit):
        return False
    if hotplug is not None and backend_state(store, what) in _WAITS_FOR_MEDIUM:
        hotplug()
    if what.hotplug_nodes:
        store.transaction(lambda transaction: _hotplug(transaction, what))

    def decided() -> bool:
        return (
            opened(store, what) is not None or backend_state(store, what) not in _WAITS_FOR_MEDIUM
        )

    return wait_until(store, loop, what.backend, decided, limit) and opened(store, what) is True


def _hotplug(transaction: Transaction, what: Offer) -> None:
    """What the hotplug script writes; not where the nodes are gone, which would come back."""
    if backend_state(transaction, what) in _WAITS_FOR_MEDIUM:
        for name, value in what.hotplug_nodes.items():
            transaction.write(f"{what.backend}/{name}", value)


def give_up(store: Store, what: Offer, token: bytes, *, anyway: bool = False) -> str | None:
    """Take back an offer that was not taken up; why it was not.

    None if it was opened after all: then it stays, unless it is not wanted `anyway`.
    Nothing is removed but what `offer` wrote and named so.
    """

    def body(transaction: Transaction) -> str | None:
        if transaction.get(f"{what.backend}/{TOKEN}") != token:
            return "somebody else has taken it back"
        if opened(transaction, what) and not anyway:
            return None
        reason = refusal(transaction, what)
        _remove(transaction, what)
        return reason

    return store.transaction(body)


# Taking back.


@dataclass(frozen=True, slots=True)
class _Asked:
    """What there was when a device was asked back."""

    token: bytes | None
    online: bytes | None
    state: State
    guest: State


def detach(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    what: Offer,
    limit: float = LIMIT,
    hotplug: Callable[[], None] | None = None,
    *,
    force: bool = False,
) -> bool:
    """Ask for it back, wait for Closed, remove the nodes; False if it was not let go.

    `hotplug`, which raises nothing, is what a script does before they go.
    By `force` they are removed then too, under the guest.  Else the device stays,
    and is wanted again as it was before (xl block-detach of Xen 4.16 and newer).
    """
    asked = store.transaction(lambda transaction: _ask(transaction, what))
    if asked is not None:
        token = asked.token

        def over() -> bool:
            closed = backend_state(store, what) in (State.CLOSED, State.GONE)
            return closed or store.get(f"{what.backend}/{TOKEN}") != token

        wait_until(store, loop, what.backend, over, limit)
        if hotplug is not None and (force or backend_state(store, what) is State.CLOSED):
            hotplug()
    return store.transaction(lambda transaction: _take(transaction, what, asked, force=force))


def _ask(transaction: Transaction, what: Offer) -> _Asked | None:
    """None if there is no backend that could be asked."""
    if not there(transaction, what):
        return None
    asked = _Asked(
        transaction.get(f"{what.backend}/{TOKEN}"),
        transaction.get(f"{what.backend}/online"),
        backend_state(transaction, what),
        guest_state(transaction, what),
    )
    transaction.write(f"{what.backend}/online", b"0")
    if asked.state is not State.CLOSED:
        transaction.write(f"{what.backend}/state", State.CLOSING.node)
    return asked


def _take(transaction: Transaction, what: Offer, asked: _Asked | None, *, force: bool) -> bool:
    """Remove what was let go, or is taken by force; else put back what `_ask` wrote."""
    if not there(transaction, what):
        if transaction.get(f"{what.frontend}/backend") == what.backend.encode():
            _remove(transaction, what)  # the guest's half of it
        return True
    if asked is None or transaction.get(f"{what.backend}/{TOKEN}") != asked.token:
        return True  # it was taken back, and this is another
    if transaction.get(f"{what.backend}/online") != b"0":
        return False  # somebody wants it to stay
    state = backend_state(transaction, what)
    if state is State.CLOSED or force:
        _remove(transaction, what)
        return state is State.CLOSED
    transaction.write(f"{what.backend}/online", asked.online or b"0")
    guest = guest_state(transaction, what)
    if state is State.CLOSING and guest is asked.guest and guest is not State.CLOSING:
        # Nobody has reacted: the backend goes on as if it had not been asked.
        transaction.write(f"{what.backend}/state", asked.state.node)
    return False


def in_use(store: Store, what: Offer) -> bool:
    """Whether the guest holds the device, as far as its state says."""
    return guest_state(store, what) in (State.INITIALISED, State.CONNECTED, State.CLOSING)


def guest_state(nodes: Store | Transaction, what: Offer) -> State:
    """The frontend's state now; GONE with the guest."""
    return parse_state(nodes.get(f"{what.frontend}/state"))


def find_backend(store: Store, domid: int, vdev: int) -> str | None:
    """The kind of the backend of a disk, by the frontend's word or else by what is there.

    The second finds what is left of a guest that is gone.  OperatorError if
    another domain serves the disk; None if there is no such disk.
    """
    kind = named_backend(store, domid, f"/local/domain/{domid}/device/vbd/{vdev}")
    if kind is not None:
        return kind
    for kind in KINDS:
        if there(store, DiskOffer(domid, vdev, "", kind=kind)):
            return kind
    return None


def named_backend(nodes: Store | Transaction, domid: int, frontend: str) -> str | None:
    """The kind of the backend that a frontend names, None if it names none.

    OperatorError if that is another domain's.
    """
    backend = nodes.get(f"{frontend}/backend")
    if backend is None:
        return None
    root, _, rest = backend.decode("ascii", "replace").partition("/backend/")
    kind, _, own = rest.partition("/")
    number = os.path.basename(frontend)
    if root != "/local/domain/0" or own != f"{domid}/{number}" or not kind.isalnum():
        raise OperatorError(f"{frontend} is served by another domain")
    return kind


def remove(store: Store, what: Offer) -> None:
    """Remove the nodes of both ends, whosever they are."""
    store.transaction(lambda transaction: _remove(transaction, what))


def there(nodes: Store | Transaction, what: Offer) -> bool:
    """Whether there is a backend; daemons go by this node too."""
    return nodes.get(f"{what.backend}/frontend") is not None


def _remove(transaction: Transaction, what: Offer) -> None:
    """Remove both ends, and what was only there to hold them."""
    transaction.remove(what.backend)
    if transaction.get(f"{what.frontend}/backend") in (None, what.backend.encode()):
        transaction.remove(what.frontend)  # else another kind of backend has it
    for path in (os.path.dirname(what.backend), os.path.dirname(what.frontend)):
        try:
            if not transaction.list(path) and transaction.permissions(path)[0][1:] == "0":
                transaction.remove(path)
        except StoreError as error:
            if error.errno != ENOENT:
                raise
