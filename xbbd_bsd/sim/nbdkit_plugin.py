"""nbdkit(1)'s Python plugin: an NBD export that is a guest's disk.

Run by nbdkit, which imports it as a script: this process is the guest.  Options
are machine=DIR, domid=N, vdev=N and holes=1 if what is discarded reads as zeros from
then on, which a guest cannot know of its disk.  nbdkit calls the functions below by name,
pread and pwrite from several threads at once (nbdkit-python-plugin(3)).
"""

import asyncio
import errno
import os
import sys
from typing import Any, NoReturn

import nbdkit

from xbbd_bsd.errors import XbbdError, in_words
from xbbd_bsd.native import PAGE_SIZE, Op
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.sim.hypervisor import Domain, layout
from xbbd_bsd.xenstore.client import Store

API_VERSION = 2
READONLY = 4  # VDISK_READONLY of the node "info"

_options: dict[str, str] = {}
_guest: dict[str, Any] = {}


def config(key: str, value: str) -> None:
    """An option of the command line."""
    if key not in ("machine", "domid", "vdev", "holes"):
        raise RuntimeError(f"unknown parameter: {key}")
    _options[key] = value


def config_complete() -> None:
    """All but the last are needed."""
    missing = {"machine", "domid", "vdev"} - _options.keys()
    if missing:
        raise RuntimeError(f"missing parameter: {', '.join(sorted(missing))}")


def thread_model() -> int:
    """Requests of one client and of several may overlap."""
    return int(nbdkit.THREAD_MODEL_PARALLEL)


def after_fork() -> None:
    """Come to life, wait for the disk, connect; or end this process."""
    try:
        _connect()
    except (XbbdError, OSError) as error:
        # An exception would come out of nbdkit as a traceback.  Nobody is served
        # yet, and the end of the process is the end of the guest.
        print(f"guest: {in_words(error)}", file=sys.stderr, flush=True)
        os._exit(1)


def _connect() -> None:
    loop = asyncio.new_event_loop()
    domain = Domain(layout(_options["machine"]), int(_options["domid"]))
    store = Store(domain.store_path, loop=loop)
    store.connect()
    blkfront = Blkfront(
        domain,
        int(_options["vdev"]),
        store=store,
        loop=loop,
        ring_order=2,
        depth=128,
        max_segments=64,
        persistent=True,
    )
    blkfront.wait_offer()
    blkfront.connect()
    _guest.update(domain=domain, store=store, blkfront=blkfront)


def cleanup() -> None:
    """Give the disk back as a guest that shuts down."""
    if "blkfront" in _guest:
        _guest["blkfront"].close(5.0)


def open(readonly: bool) -> Blkfront:
    """Every client has the same disk."""
    blkfront: Blkfront = _guest["blkfront"]
    return blkfront


def get_size(blkfront: Blkfront) -> int:
    """In bytes."""
    return blkfront.disk.sectors * 512


def can_write(blkfront: Blkfront) -> bool:
    """As the backend says."""
    return not blkfront.disk.info & READONLY


def block_size(blkfront: Blkfront) -> tuple[int, int, int]:
    """The least, the best and the most bytes at once; for the blocksize filter."""
    disk = blkfront.disk
    return disk.sector_size, max(disk.physical_sector_size, PAGE_SIZE), 0xFFFFFFFF


def can_flush(blkfront: Blkfront) -> bool:
    """As the backend says; true of a disk without a cache too: then there is nothing to do."""
    return True


def can_trim(blkfront: Blkfront) -> bool:
    """As the backend says."""
    return blkfront.disk.discard


def can_zero(blkfront: Blkfront) -> bool:
    """By a hole, where holes are zeros; else zeros are written."""
    return blkfront.disk.discard and _options.get("holes") == "1"


def can_fast_zero(blkfront: Blkfront) -> bool:
    """A hole is made quickly, and what cannot be one is refused at once."""
    return can_zero(blkfront)


def can_fua(blkfront: Blkfront) -> int:
    """A write and then a flush."""
    return int(nbdkit.FUA_NATIVE)


def can_multi_conn(blkfront: Blkfront) -> bool:
    """A flush covers what all clients wrote: there is one disk."""
    return True


def pread(blkfront: Blkfront, buffer: bytearray, offset: int, flags: int) -> None:
    """Fill the buffer."""
    _transfer(blkfront, Op.READ, offset, buffer)


def pwrite(blkfront: Blkfront, buffer: bytearray, offset: int, flags: int) -> None:
    """Write the buffer."""
    _transfer(blkfront, Op.WRITE, offset, buffer)
    if flags & nbdkit.FLAG_FUA:
        flush(blkfront, 0)


def flush(blkfront: Blkfront, flags: int) -> None:
    """Make everything written durable."""
    if blkfront.disk.flushes:
        _call(blkfront, Op.FLUSH_DISKCACHE, 0, 0, None)


def trim(blkfront: Blkfront, count: int, offset: int, flags: int) -> None:
    """The client does not need what is there any more."""
    _check(offset, count)
    _call(blkfront, Op.DISCARD, offset // 512, count // 512, None)
    if flags & nbdkit.FLAG_FUA:
        flush(blkfront, 0)


def zero(blkfront: Blkfront, count: int, offset: int, flags: int) -> None:
    """Zeros from now on; EOPNOTSUPP where they have to be written."""
    if not flags & nbdkit.FLAG_MAY_TRIM:
        _refuse(errno.EOPNOTSUPP, "the space has to be kept")
    try:
        trim(blkfront, count, offset, flags)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # Why a response is an error is not said on the ring; a write will show.
        _refuse(errno.EOPNOTSUPP, "the backend does not discard there")


def _transfer(blkfront: Blkfront, op: Op, offset: int, buffer: bytearray) -> None:
    _check(offset, len(buffer))
    _call(blkfront, op, offset // 512, len(buffer) // 512, buffer)


def _check(offset: int, count: int) -> None:
    if offset % 512 or count % 512:  # the blocksize filter is there against this
        _refuse(errno.EINVAL, "not a multiple of 512 bytes")


def _call(blkfront: Blkfront, op: Op, sector: int, sectors: int, buffer: bytearray | None) -> None:
    try:
        blkfront.front.transfer(op, sector, sectors, buffer)
    except OSError as error:
        number = error.errno or errno.EIO
        nbdkit.set_error(number)
        raise OSError(number, os.strerror(number)) from None


def _refuse(number: int, text: str) -> NoReturn:
    nbdkit.set_error(number)
    raise OSError(number, text)
