"""What xl does for a disk, through dom0's store: offer it, wait, take it away.

Nodes and their owners are those of libxl 4.19 (libxl_disk.c, libxl_device.c),
but for /libxl, which is libxl's own, and the full paths of scripts; the hotplug
node is that of tools/hotplug/FreeBSD/block.  It knows no backend but by its
nodes.  Runs on the thread of the store's loop; waiting runs that loop.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.vdev import vdev_name
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.client import Store, Transaction
from xbbd_bsd.xenstore.waiting import wait_until

LIMIT = 10.0  # seconds; what libxl waits for a backend

# A backend that has answered the offer, and may not have opened the disk yet.
_WAITS_FOR_MEDIUM: Final = (State.INIT_WAIT, State.INITIALISED, State.CONNECTED)


@dataclass(frozen=True, slots=True)
class DiskOffer:
    """A disk for a guest, as a line of xl.cfg(5) describes it.

    `vdev` is the device number (51712: xvda); `kind` the backend's directory,
    "vbd" (backendtype=phy) or "vbd3" (backendtype=tap).
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

    def backend_nodes(self) -> dict[str, str]:
        """What libxl writes for the backend."""
        return {
            "frontend": self.frontend,
            "params": f"aio:{self.path}" if self.kind == "vbd3" else self.path,
            "script": "block-tap" if self.kind == "vbd3" else "block",
            "frontend-id": str(self.domid),
            "online": "1",
            "removable": "1" if self.cdrom else "0",
            "bootable": "1",
            "dev": vdev_name(self.vdev),
            "type": "vbd3" if self.kind == "vbd3" else "phy",
            "mode": self.mode,
            "device-type": "cdrom" if self.cdrom else "disk",
            "discard-enable": "1" if self.discard else "0",
            "specification": "xen",
            "state": "1",
        }

    def frontend_nodes(self) -> dict[str, str]:
        """What libxl writes for the frontend."""
        return {
            "backend": self.backend,
            "backend-id": "0",
            "state": "1",
            "virtual-device": str(self.vdev),
            "device-type": "cdrom" if self.cdrom else "disk",
            "trusted": "1",
        }


def offer(store: Store, disk: DiskOffer) -> None:
    """Write all nodes of both ends in one transaction."""

    def body(transaction: Transaction) -> None:
        for name, value in disk.frontend_nodes().items():
            transaction.write(f"{disk.frontend}/{name}", value.encode())
        for name, value in disk.backend_nodes().items():
            transaction.write(f"{disk.backend}/{name}", value.encode())

    domid = disk.domid
    for path, permissions in (
        (disk.frontend, [f"n{domid}", "r0"]),
        (disk.backend, ["n0", f"r{domid}"]),
    ):
        store.mkdir(path)
        store.set_permissions(path, permissions)  # what is made below inherits them
    store.transaction(body)


def offered(store: Store, disk: DiskOffer) -> bool:
    """Whether the guest has such a disk, of any backend."""
    return store.get(f"{disk.frontend}/backend") is not None


def backend_state(store: Store, disk: DiskOffer) -> State:
    """The backend's state now."""
    return parse_state(store.get(f"{disk.backend}/state"))


def attach(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float = LIMIT
) -> bool:
    """Offer a disk, and run the hotplug script once the backend is at InitWait at least.

    A guest may be quicker than we look, and be connected by then.  False if the
    backend did not open the disk in time, or said that it cannot.
    """
    offer(store, disk)

    def answered() -> bool:
        return backend_state(store, disk) is not State.INITIALISING

    if not wait_until(store, loop, disk.backend, answered, limit):
        return False
    if disk.kind == "vbd" and backend_state(store, disk) in _WAITS_FOR_MEDIUM:
        store.write(f"{disk.backend}/physical-device-path", disk.path.encode())

    def decided() -> bool:
        state = backend_state(store, disk)
        return opened(store, disk) is not None or state not in _WAITS_FOR_MEDIUM

    return wait_until(store, loop, disk.backend, decided, limit) and opened(store, disk) is True


def opened(store: Store, disk: DiskOffer) -> bool | None:
    """Whether the backend has opened the disk: None if it has not said.

    What it says stays, whatever becomes of the connection.
    """
    status = store.get(f"{disk.backend}/hotplug-status")
    return None if status is None else status == b"connected"


def detach(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float = LIMIT
) -> bool:
    """Ask for the disk back, wait for Closed, remove the nodes; False if that was by force."""

    def body(transaction: Transaction) -> None:
        transaction.write(f"{disk.backend}/online", b"0")
        transaction.write(f"{disk.backend}/state", State.CLOSING.node)

    if backend_state(store, disk) is not State.CLOSED:
        store.transaction(body)
    closed = wait_until(
        store,
        loop,
        disk.backend,
        lambda: backend_state(store, disk) in (State.CLOSED, State.GONE),
        limit,
    )
    remove(store, disk)
    return closed


def remove(store: Store, disk: DiskOffer) -> None:
    """Remove the nodes of both ends."""
    store.remove(disk.backend)
    store.remove(disk.frontend)
