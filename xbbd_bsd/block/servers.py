"""The registry of stores that are no paths: how each kind is opened, and connected again.

A further kind is a file beside nbd.py and a line here; and a URI that storeuri.py knows, and
a filling of native/block/store.h, if what it is connected by is no descriptor of a disk.
By threads.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from xbbd_bsd.block import nbd
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.stores import Store
from xbbd_bsd.native import DiskKind, Kept, NbdExport, carry_to_disk
from xbbd_bsd.storeuri import Address, NbdAddress


class _Open(Protocol):
    def __call__(self, store: Store, *, read_only: bool) -> Disk: ...


class _Connect(Protocol):
    def __call__(self, disk: Disk, least: int) -> tuple[socket.socket, NbdExport]: ...


class _Carry(Protocol):
    def __call__(self, kept: Kept, disk: Disk) -> None: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done with one kind."""

    open: _Open
    connect_again: _Connect
    carry: _Carry


KINDS: Final[Mapping[type[Address], Kind]] = {
    NbdAddress: Kind(nbd.open_server, nbd.connect_again, nbd.carry),
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
