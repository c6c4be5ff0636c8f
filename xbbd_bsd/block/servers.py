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
from xbbd_bsd.native import NbdExport
from xbbd_bsd.storeuri import Address, NbdAddress


class _Open(Protocol):
    def __call__(self, store: Store, *, read_only: bool) -> Disk: ...


class _Connect(Protocol):
    def __call__(self, disk: Disk, least: int) -> tuple[socket.socket, NbdExport]: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done with one kind."""

    open: _Open
    connect_again: _Connect


KINDS: Final[Mapping[type[Address], Kind]] = {
    NbdAddress: Kind(nbd.open_server, nbd.connect_again),
}


def kind_of(store: Store) -> Kind:
    return KINDS[type(store.address)]
