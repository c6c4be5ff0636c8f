"""Disks that are images in a cluster of Ceph: opened by librbd, which does all the rest.

Who has one open for writing has its lock, from then until it is closed: whoever comes
after a death takes it from the dead, of whom the cluster accepts nothing any more.  What is
said of an image goes where its guest reads it, so it has no name but the store's.  By
threads, since all of it may have to wait.
"""

from errno import EINVAL, EOPNOTSUPP

from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.nbd import ServerError
from xbbd_bsd.block.stores import Store, key_of
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import DiskGeometry, Medium
from xbbd_bsd.native import Kept, RbdFound, RbdImage, close_image, load_rbd
from xbbd_bsd.native import open_image as open_by_librbd
from xbbd_bsd.storeuri import RbdAddress

_SECTOR = 512
_BLOCK = 4096  # bytes that clusters like best to have written at once
_ZEROED = 65536  # bytes; less than that is overwritten, and takes the room that it took


def open_image(store: Store, *, read_only: bool, shared: bool, former: str) -> Disk:
    """The disk that an image is.  Raises OperatorError."""
    address, config = store.address, store.config
    assert isinstance(address, RbdAddress)
    try:
        load_rbd()
        if address.snapshot and not read_only:
            raise OperatorError("it is a snapshot, and can be read only", EINVAL)
        image = RbdImage(
            address.pool,
            address.image,
            address.space,
            address.snapshot,
            config.conf,
            config.id,
            config.keyring,
            config.timeout,
        )
        found = open_by_librbd(image, read_only=read_only, shared=shared, former=former)
    except (OperatorError, HostError) as error:
        passes = isinstance(error, OperatorError) and error.errno != EINVAL
        kind = ServerError if passes else OperatorError
        raise kind(f"unable to open {store.shown}: {error}", error.errno) from None
    try:
        return _disk(store, found, read_only=read_only)
    except OperatorError as error:
        close_image(found.fd)
        raise OperatorError(f"unable to open {store.shown}: {error}", error.errno) from None


def carry(kept: Kept, disk: Disk) -> None:
    """What it has is safe; what a silent server has not flushed cannot be had here: OperatorError.

    Nothing is lost by that, since its own disk goes on.
    """
    if kept.unflushed:
        raise OperatorError(
            f"{disk.path}: what the server before has not flushed is for a file or device, or"
            " another server: exchange it for one of those, or wait for the server",
            EOPNOTSUPP,
        )


def _disk(store: Store, found: RbdFound, *, read_only: bool) -> Disk:
    if found.size < _SECTOR:
        raise OperatorError(f"its {found.size} bytes are less than one sector", EINVAL)
    left_over = found.size % _SECTOR
    geometry = DiskGeometry(
        Medium.CLUSTER,
        found.size - left_over,
        _SECTOR,
        _BLOCK,
        discard=None if read_only else (min(_ZEROED, found.unit), 0),
    )
    key = key_of("rbd", found.identity)
    return Disk(
        found.fd,
        store.shown,
        read_only,
        geometry,
        key,
        left_over,
        store=store,
        shut=close_image,
        holder=found.holder,
    )
