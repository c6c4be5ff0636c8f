"""Disks for attach and detach: offered, found, taken back.

xl before Xen 4.19 knows no backendtype=tap, and a simulated machine has no xl.  Runs in
xbbctl's process.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from errno import ENOENT
from typing import Final

from xbbd_bsd.ctl.offers import domain_of, find_domain, see_through, take_back
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.storeuri import is_store
from xbbd_bsd.toolstack import DiskOffer, find_backend, offer
from xbbd_bsd.vdev import vdev_name, vdev_number
from xbbd_bsd.xenstore.client import Store

MODES: Final[Mapping[str, str]] = {"r": "r", "ro": "r", "w": "w", "rw": "w", "w!": "w!"}
"""What may be written for access to a disk, and what XenStore has of it."""


def attach_disk(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float
) -> None:
    """Offer a disk and wait until the backend has opened it.

    HostError with the backend's reason if it does not; no node is left then.
    OperatorError if the guest has such a disk already.
    """
    see_through(store, loop, disk, offer(store, disk), limit)


def detach_disk(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    disk: DiskOffer,
    limit: float,
    *,
    force: bool = False,
) -> None:
    """Ask guest and backend to let go, then remove the nodes; by force in any case.

    HostError if they did not in time, which says whether the disk stays.
    """
    take_back(store, loop, disk, limit, "unmount it", force=force)


def disk_said(store: Store, options: argparse.Namespace) -> DiskOffer:
    """What the command line wants to be attached; OperatorError."""
    mode = MODES[options.mode]
    if options.cdrom and mode != "r":
        print("xbbctl: a CD-ROM is attached read-only", file=sys.stderr)
        mode = "r"
    return DiskOffer(
        find_domain(store, options.domain),
        vdev_number(options.vdev),
        options.path if is_store(options.path) else os.path.abspath(options.path),
        mode=mode,
        kind=options.kind,
        cdrom=options.cdrom,
        discard=not options.no_discard,
        on_error=options.on_error,
        on_full=options.on_full,
        limit_group=options.limit_group,
    )


def find_disk(store: Store, domain: str, vdev: str) -> DiskOffer:
    """A disk of a guest, or what is left of one whose guest is gone; OperatorError."""
    number = vdev_number(vdev)
    domid = domain_of(store, domain, "disk", "xbbdN")
    kind = find_backend(store, domid, number)
    if kind is None:
        find_domain(store, str(domid))  # the better reason, if it fails
        raise OperatorError(f"guest {domid} has no disk {vdev_name(number)}", ENOENT)
    return DiskOffer(domid, number, "", kind=kind)
