"""What xl does for a disk, through dom0's store: offer it, wait, take it away.

Nodes and their owners are those of libxl 4.19 (libxl_disk.c, libxl_device.c),
but for /libxl, which is libxl's own, and the full paths of scripts; the hotplug
node is that of tools/hotplug/FreeBSD/block.  An offer of ours has one node more,
which names it, so that nobody takes away what another has offered in its place.
Others do the same things at the same time: whatever is looked at and then acted
on is one transaction.  It knows no backend but by its nodes.  Runs on the thread
of the store's loop; waiting runs that loop.
"""

import asyncio
import os
import secrets
from dataclasses import dataclass
from errno import EEXIST, ENOENT
from typing import Final

from xbbd_bsd.errors import OperatorError, printable
from xbbd_bsd.vdev import vdev_name
from xbbd_bsd.xenbus.complaint import LENGTH, complaint_node
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction
from xbbd_bsd.xenstore.waiting import wait_until

LIMIT = 10.0  # seconds; what libxl waits for a backend

KINDS: Final = ("vbd", "vbd3")  # directories of backends that serve disks as xbbd does
TOKEN: Final = "xbbctl-offer"

# A backend that has answered the offer, and may not have opened the disk yet.
_WAITS_FOR_MEDIUM: Final = (State.INIT_WAIT, State.INITIALISED, State.CONNECTED)


@dataclass(frozen=True, slots=True)
class DiskOffer:
    """A disk for a guest, as a line of xl.cfg(5) describes it.

    `vdev` is the device number (51712: xvda); `path` a file's name as of
    os.fsdecode; `kind` the backend's directory, "vbd" (backendtype=phy) or "vbd3"
    (backendtype=tap).
    """

    domid: int
    vdev: int
    path: str
    mode: str = "w"
    kind: str = "vbd"
    cdrom: bool = False
    discard: bool = True

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


def offer(store: Store, disk: DiskOffer) -> bytes:
    """Write all nodes of both ends; what names this very offer.

    OperatorError if the guest is gone, or has such a disk of any backend.
    """
    token = secrets.token_hex(8).encode()

    def body(transaction: Transaction) -> OperatorError | None:
        refused = _refused(transaction, disk)
        if refused is not None:
            return refused
        transaction.remove(os.path.dirname(complaint_node(disk.frontend)))  # of an earlier life
        for path, permissions, nodes in (
            (disk.frontend, [f"n{disk.domid}", "r0"], disk.frontend_nodes()),
            (disk.backend, ["n0", f"r{disk.domid}"], {**disk.backend_nodes(), TOKEN: token}),
        ):
            transaction.remove(path)  # rings of an earlier life would mislead somebody
            transaction.mkdir(path)
            transaction.set_permissions(path, permissions)  # what is made below inherits them
            for name, value in nodes.items():
                transaction.write(f"{path}/{name}", value)
        return None

    refused = store.transaction(body)
    if refused is not None:
        raise refused
    return token


def _refused(transaction: Transaction, disk: DiskOffer) -> OperatorError | None:
    """Why the disk cannot be offered.

    Returned, not raised: a server shows each node as it is when it is first read,
    and only the commit says that they belong together.
    """
    if transaction.get(f"/local/domain/{disk.domid}") is None:
        return OperatorError(f"there is no domain {disk.domid}", ENOENT)
    if offered(transaction, disk):
        what = vdev_name(disk.vdev)
        return OperatorError(f"guest {disk.domid} has a disk {what} already", EEXIST)
    if _there(transaction, disk):
        return OperatorError(f"{disk.backend} is left from before: detach it first", EEXIST)
    return None


def offered(nodes: Store | Transaction, disk: DiskOffer) -> bool:
    """Whether the guest has such a disk, of any backend."""
    return nodes.get(f"{disk.frontend}/backend") is not None


def backend_state(nodes: Store | Transaction, disk: DiskOffer) -> State:
    """The backend's state now."""
    return parse_state(nodes.get(f"{disk.backend}/state"))


def opened(nodes: Store | Transaction, disk: DiskOffer) -> bool | None:
    """Whether the backend has opened the disk: None if it has not said.

    What it says stays, whatever becomes of the connection.
    """
    status = nodes.get(f"{disk.backend}/hotplug-status")
    return None if status is None else status == b"connected"


def refusal(nodes: Store | Transaction, disk: DiskOffer) -> str:
    """Why the backend has not opened the disk, by its own word if it said anything."""
    reason = nodes.get(f"{disk.backend}/hotplug-error")
    if reason is not None:
        return reason.decode("utf-8", "replace")
    words = complaint(nodes, disk)
    if words:
        return f"the guest does not take the disk, and says: {words}"
    return "the backend does not answer"


def complaint(nodes: Store | Transaction, disk: DiskOffer) -> str:
    """Why the guest's driver has not connected, by its own word; "" if it says nothing."""
    try:
        return printable(nodes.get(complaint_node(disk.frontend)) or b"", LENGTH)
    except StoreLost:
        raise
    except StoreError:
        return ""


def attach(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float = LIMIT
) -> bool:
    """Offer a disk and see to it until it is open; False if it is not.  OperatorError."""
    offer(store, disk)
    return see_opened(store, loop, disk, limit)


def see_opened(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float = LIMIT
) -> bool:
    """After an offer, run the hotplug script once the backend is at InitWait at least.

    A guest may be quicker than we look, and be connected by then.  False if the
    backend did not open the disk in time, or said that it cannot.
    """

    def answered() -> bool:
        return backend_state(store, disk) is not State.INITIALISING

    if not wait_until(store, loop, disk.backend, answered, limit):
        return False
    if disk.kind == "vbd":
        store.transaction(lambda transaction: _name_medium(transaction, disk))

    def decided() -> bool:
        return (
            opened(store, disk) is not None or backend_state(store, disk) not in _WAITS_FOR_MEDIUM
        )

    return wait_until(store, loop, disk.backend, decided, limit) and opened(store, disk) is True


def _name_medium(transaction: Transaction, disk: DiskOffer) -> None:
    """What the hotplug script does; not where the nodes are gone, which would come back."""
    if backend_state(transaction, disk) in _WAITS_FOR_MEDIUM:
        transaction.write(f"{disk.backend}/physical-device-path", os.fsencode(disk.path))


def give_up(store: Store, disk: DiskOffer, token: bytes) -> str | None:
    """Take back an offer that was not taken up; why it was not.

    None if the disk was opened after all: then it stays.  Nothing is removed but
    what `offer` wrote and named so.
    """

    def body(transaction: Transaction) -> str | None:
        if transaction.get(f"{disk.backend}/{TOKEN}") != token:
            return "somebody else has taken it back"
        if opened(transaction, disk):
            return None
        reason = refusal(transaction, disk)
        _remove(transaction, disk)
        return reason

    return store.transaction(body)


# Taking back.


@dataclass(frozen=True, slots=True)
class _Asked:
    """What there was when a disk was asked back."""

    token: bytes | None
    online: bytes | None
    state: State
    guest: State


def detach(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    disk: DiskOffer,
    limit: float = LIMIT,
    *,
    force: bool = False,
) -> bool:
    """Ask for the disk back, wait for Closed, remove the nodes; False if it was not let go.

    By `force` they are removed then too, under the guest.  Else the disk stays,
    and is wanted again as it was before (xl block-detach of Xen 4.16 and newer).
    """
    asked = store.transaction(lambda transaction: _ask(transaction, disk))
    if asked is not None:
        token = asked.token

        def over() -> bool:
            closed = backend_state(store, disk) in (State.CLOSED, State.GONE)
            return closed or store.get(f"{disk.backend}/{TOKEN}") != token

        wait_until(store, loop, disk.backend, over, limit)
    return store.transaction(lambda transaction: _take(transaction, disk, asked, force=force))


def _ask(transaction: Transaction, disk: DiskOffer) -> _Asked | None:
    """None if there is no backend that could be asked."""
    if not _there(transaction, disk):
        return None
    asked = _Asked(
        transaction.get(f"{disk.backend}/{TOKEN}"),
        transaction.get(f"{disk.backend}/online"),
        backend_state(transaction, disk),
        guest_state(transaction, disk),
    )
    transaction.write(f"{disk.backend}/online", b"0")
    if asked.state is not State.CLOSED:
        transaction.write(f"{disk.backend}/state", State.CLOSING.node)
    return asked


def _take(transaction: Transaction, disk: DiskOffer, asked: _Asked | None, *, force: bool) -> bool:
    """Remove what was let go, or is taken by force; else put back what `_ask` wrote."""
    if not _there(transaction, disk):
        if transaction.get(f"{disk.frontend}/backend") == disk.backend.encode():
            _remove(transaction, disk)  # the guest's half of it
        return True
    if asked is None or transaction.get(f"{disk.backend}/{TOKEN}") != asked.token:
        return True  # it was taken back, and this is another
    if transaction.get(f"{disk.backend}/online") != b"0":
        return False  # somebody wants it to stay
    state = backend_state(transaction, disk)
    if state is State.CLOSED or force:
        _remove(transaction, disk)
        return state is State.CLOSED
    transaction.write(f"{disk.backend}/online", asked.online or b"0")
    guest = guest_state(transaction, disk)
    if state is State.CLOSING and guest is asked.guest and guest is not State.CLOSING:
        # Nobody has reacted: the backend goes on as if it had not been asked.
        transaction.write(f"{disk.backend}/state", asked.state.node)
    return False


def in_use(store: Store, disk: DiskOffer) -> bool:
    """Whether the guest holds the disk, as far as its state says."""
    return guest_state(store, disk) in (State.INITIALISED, State.CONNECTED, State.CLOSING)


def guest_state(nodes: Store | Transaction, disk: DiskOffer) -> State:
    """The frontend's state now; GONE with the guest."""
    return parse_state(nodes.get(f"{disk.frontend}/state"))


def find_backend(store: Store, domid: int, vdev: int) -> str | None:
    """The kind of the backend of a disk, by the frontend's word or else by what is there.

    The second finds what is left of a guest that is gone.  OperatorError if
    another domain serves the disk; None if there is no such disk.
    """
    frontend = f"/local/domain/{domid}/device/vbd/{vdev}"
    backend = store.get(f"{frontend}/backend")
    if backend is not None:
        root, _, rest = backend.decode("ascii", "replace").partition("/backend/")
        kind, _, own = rest.partition("/")
        if root != "/local/domain/0" or own != f"{domid}/{vdev}" or not kind.isalnum():
            raise OperatorError(f"{frontend} is served by another domain")
        return kind
    for kind in KINDS:
        if _there(store, DiskOffer(domid, vdev, "", kind=kind)):
            return kind
    return None


def remove(store: Store, disk: DiskOffer) -> None:
    """Remove the nodes of both ends, whosever they are."""
    store.transaction(lambda transaction: _remove(transaction, disk))


def _there(nodes: Store | Transaction, disk: DiskOffer) -> bool:
    """Whether there is a backend; daemons go by this node too."""
    return nodes.get(f"{disk.backend}/frontend") is not None


def _remove(transaction: Transaction, disk: DiskOffer) -> None:
    """Remove both ends, and what was only there to hold them."""
    transaction.remove(disk.backend)
    if transaction.get(f"{disk.frontend}/backend") in (None, disk.backend.encode()):
        transaction.remove(disk.frontend)  # else another kind of backend has it
    for path in (os.path.dirname(disk.backend), os.path.dirname(disk.frontend)):
        try:
            if not transaction.list(path) and transaction.permissions(path)[0][1:] == "0":
                transaction.remove(path)
        except StoreError as error:
            if error.errno != ENOENT:
                raise
