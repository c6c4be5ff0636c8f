"""The registry of stores that are no paths: how each kind is opened, connected, measured.

A further kind is a file beside nbd.py and a line here; and a URI that storeuri.py knows, and
a filling of native/block/store.h, if what it is connected by is no descriptor of a disk.
By threads.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from xbbd_bsd.block import nbd, rbd
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.stores import Store
from xbbd_bsd.native import DiskKind, Kept, NbdExport, carry_to_disk, image_size
from xbbd_bsd.storeuri import Address, NbdAddress, RbdAddress


class _Open(Protocol):
    def __call__(self, store: Store, *, read_only: bool, shared: bool, former: str) -> Disk: ...


class _Connect(Protocol):
    def __call__(self, disk: Disk, least: int) -> tuple[socket.socket, NbdExport]: ...


class _Carry(Protocol):
    def __call__(self, kept: Kept, disk: Disk) -> None: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done with one kind; None: there is no need to.

    `open`: `shared`, others may have it as well; `former`, whoever had it before us and is
    dead.  `carry`: have on it what another one had acknowledged, and flush it.
    `connect_again` gives its ring a connection, `size` says how large it is now, bytes.
    """

    open: _Open
    carry: _Carry
    connect_again: _Connect | None = None
    size: Callable[[int], int] | None = None


KINDS: Final[Mapping[type[Address], Kind]] = {
    NbdAddress: Kind(nbd.open_server, nbd.carry, connect_again=nbd.connect_again),
    RbdAddress: Kind(rbd.open_image, rbd.carry, size=image_size),
}
NOTHING_KEPT: Final = Kept(-1, 0, 0)


def kind_of(store: Store) -> Kind:
    return KINDS[type(store.address)]


def carry(kept: Kept, disk: Disk, kind: DiskKind) -> None:
    """Have what another disk had acknowledged on this one, of that kind, and have it flushed.

    OperatorError, HostError.
    """
    if disk.store is None:
        carry_to_disk(kept, disk.fd, kind)
    else:
        kind_of(disk.store).carry(kept, disk)


def is_connected(disk: Disk) -> bool:
    """Whether its ring is given connections, and keeps what they may lose."""
    return disk.store is not None and kind_of(disk.store).connect_again is not None


def can_measure(disk: Disk) -> bool:
    """Whether an open disk says how large it is; else it has the size that it was opened with."""
    return disk.store is None or kind_of(disk.store).size is not None


def size_of(disk: Disk) -> int:
    """Of a store's disk that can be measured, bytes; HostError."""
    assert disk.store is not None
    size = kind_of(disk.store).size
    assert size is not None
    return size(disk.fd)
