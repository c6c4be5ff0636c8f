"""Disks of servers that speak NBD: connected to, looked at, and given to whoever serves them.

What is said of a server goes where its guest reads it, so it has no address.  By threads,
since all of it may have to wait; nothing is kept.
"""

import fcntl
import os
import socket
import tempfile
from contextlib import suppress
from errno import EINVAL, ETIMEDOUT

from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.stores import Store, key_of
from xbbd_bsd.errors import HostError, OperatorError, shown
from xbbd_bsd.host import DiskGeometry, Medium
from xbbd_bsd.native import (
    KEPT_SIZE,
    Kept,
    NbdExport,
    NbdFound,
    carry_to_server,
    load_nbd,
    look_at_export,
)
from xbbd_bsd.storeuri import NbdAddress

LARGEST_BLOCK = 4096  # bytes: of larger ones no part can be written
_PAGE = 4096


class ServerError(OperatorError):
    """A server that is not there, or has not what it had: it may be well later."""

    @property
    def passes(self) -> bool:
        return True


def open_server(store: Store, *, read_only: bool, shared: bool, former: str) -> Disk:
    """The disk of a server, as it says; no connection is left.  Raises OperatorError.

    A server says of nobody that he has it.
    """
    del shared, former
    try:
        load_nbd()
        found = _look(store)
        if found.read_only and not read_only:
            raise OperatorError("its server has it read-only", EINVAL)
        return _disk(store, found, read_only=read_only)
    except (OperatorError, HostError) as error:
        kind = type(error) if isinstance(error, OperatorError) else OperatorError
        raise kind(f"unable to open {store.shown}: {error}", error.errno) from None


def connect_again(disk: Disk, least: int) -> tuple[socket.socket, NbdExport]:
    """A connection to a disk's server, which still has it, and what to ask it for; OperatorError.

    `least`: sectors of 512 bytes that it must have.
    """
    store = disk.store
    assert store is not None
    found = _look(store)
    now = _disk(store, found, read_only=disk.read_only)
    os.close(now.fd)
    if now.sectors < least:
        raise ServerError(f"it has {now.sectors} sectors, and had {least}", EINVAL)
    if found.read_only and not disk.read_only:
        raise ServerError("it is read-only now", EINVAL)
    if now.geometry.sector_size > disk.geometry.sector_size:
        raise ServerError(f"it has blocks of {found.minimum} bytes now", EINVAL)
    if disk.geometry.flushes and not disk.read_only and not found.can_flush:
        raise ServerError("it cannot flush any more", EINVAL)
    return _connected(store), _export(store)


def carry(kept: Kept, disk: Disk) -> None:
    """Have what another disk had acknowledged on this one, which is flushed.

    OperatorError, HostError.
    """
    store = disk.store
    assert store is not None
    limit = store.config.timeout
    carry_to_server(kept, _connected(store).detach(), _export(store), limit=limit)


def _look(store: Store) -> NbdFound:
    try:
        return look_at_export(
            _connected(store).detach(), _export(store), limit=store.config.timeout
        )
    except ServerError:
        raise
    except OperatorError as error:
        # What the server says may repeat what it was asked for, which is not to be told.
        words = str(error).replace(_address(store).export or "\0", "EXPORT")
        raise ServerError(f"its server: {words}", error.errno) from None


def _disk(store: Store, found: NbdFound, *, read_only: bool) -> Disk:
    if found.minimum > LARGEST_BLOCK:
        raise OperatorError(
            f"its server wants blocks of {found.minimum} bytes, and at most {LARGEST_BLOCK}"
            " can be had",
            EINVAL,
        )
    sector_size = max(512, found.minimum)
    if found.size < sector_size:
        raise OperatorError(f"its {found.size} bytes are less than one sector", EINVAL)
    left_over = found.size % sector_size
    granularity = max(sector_size, min(found.preferred, _PAGE))
    geometry = DiskGeometry(
        Medium.SERVER,
        found.size - left_over,
        sector_size,
        granularity,
        flushes=found.can_flush,
        discard=(granularity, 0) if found.can_trim and not read_only else None,
    )
    key = key_of("nbd", _address(store).text)
    return Disk(_keeps(), store.shown, read_only, geometry, key, left_over, store=store)


def _keeps() -> int:
    """A file without a name, for what a ring leaves to the next one (KEPT_SIZE); OperatorError.

    Whoever serves a guest writes to it, and shall not make it larger.
    """
    try:
        if hasattr(os, "memfd_create") and hasattr(os, "MFD_ALLOW_SEALING"):
            fd = os.memfd_create("xbbd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                fd = os.dup(file.fileno())
        try:
            os.truncate(fd, KEPT_SIZE)
            if hasattr(fcntl, "F_ADD_SEALS"):
                with suppress(OSError):  # of a file in a file system
                    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        except OSError:
            os.close(fd)
            raise
    except OSError as error:
        text = f"there is no room for what it has not flushed: {error.strerror}"
        raise OperatorError(text, error.errno or 0) from None
    return fd


def _address(store: Store) -> NbdAddress:
    assert isinstance(store.address, NbdAddress)
    return store.address


def _export(store: Store) -> NbdExport:
    config, address = store.config, _address(store)
    return NbdExport(address.export, address.tls, config.certificates, config.psk_file, config.user)


def _connected(store: Store) -> socket.socket:
    """A connected socket; ServerError."""
    address, limit = _address(store), store.config.timeout
    try:
        if address.socket:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                channel.settimeout(limit)
                channel.connect(address.socket)
            except OSError:
                channel.close()
                raise
        else:
            channel = socket.create_connection((address.host, address.port), limit)
            with suppress(OSError):
                channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except TimeoutError:
        raise ServerError("its server does not answer", ETIMEDOUT) from None
    except OSError as error:
        why = error.strerror or "no such address"
        raise ServerError(f"its server cannot be reached: {shown(why)}", error.errno or 0) from None
    channel.setblocking(True)
    return channel
