"""attach and detach: they speak to the store, as the toolstack does.

xl before Xen 4.19 knows no backendtype=tap, and a simulated machine has no xl.  The
daemon learns who did what by a note, if it runs.  Runs in xbbctl's process.
"""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES, EBUSY, ENOENT, EPERM
from typing import Final

from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.ctl.daemon import connect, device_name, note, short
from xbbd_bsd.errors import HostError, OperatorError, XbbdError, printable, shown
from xbbd_bsd.host.choice import detect
from xbbd_bsd.toolstack import (
    DiskOffer,
    detach,
    find_backend,
    give_up,
    in_use,
    offer,
    see_opened,
)
from xbbd_bsd.vdev import vdev_name, vdev_number
from xbbd_bsd.xenstore.client import Store, StoreError

MODES: Final[Mapping[str, str]] = {"r": "r", "ro": "r", "w": "w", "rw": "w", "w!": "w!"}
"""What may be written for access to a disk, and what XenStore has of it."""

_DOM0: Final = "/local/domain/0/"


def attach_disk(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float
) -> None:
    """Offer a disk and wait until the backend has opened it.

    HostError with the backend's reason if it does not; no node is left then.
    OperatorError if the guest has such a disk already.
    """
    token = offer(store, disk)
    try:
        see_opened(store, loop, disk, limit)
    finally:  # interrupted too, nothing is left that nobody waits for
        reason = give_up(store, disk, token)
    if reason is not None:
        raise HostError(reason)


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
    if detach(store, loop, disk, limit, force=force):
        return
    if force:
        raise HostError("the disk was not let go in time; its nodes are removed")
    if not in_use(store, disk):
        raise HostError(f"{disk.backend}: the backend does not answer; --force removes the nodes")
    who, what = guest_name(store, disk.domid), vdev_name(disk.vdev)
    raise HostError(
        f"{who} holds {what}, and keeps it: unmount it there and try again (--force takes it away)",
        EBUSY,
    )


def guest_name(store: Store, domid: int) -> str:
    """What to call a guest in a message."""
    name = store.get(f"/local/domain/{domid}/name")
    return f"domain {domid}" + (f" ({printable(name)})" if name else "")


def find_domain(store: Store, name: str) -> int:
    """The number of a living guest by name or number; OperatorError if there is none."""
    domid = domain_number(name)
    if domid is not None:
        if store.get(f"/local/domain/{domid}") is not None:
            return domid
    else:
        for child in store.list("/local/domain"):
            if child.isdigit() and store.get(f"/local/domain/{child}/name") == os.fsencode(name):
                return int(child)
    raise OperatorError(f"there is no domain {name}")


def domain_number(name: str) -> int | None:
    """A domain's number that somebody has written; None if it is a name."""
    return int(name) if re.fullmatch("[0-9]{1,5}", name) else None


def find_disk(store: Store, domain: str, vdev: str) -> DiskOffer:
    """A disk of a guest, or what is left of one whose guest is gone; OperatorError."""
    number = vdev_number(vdev)
    domid = domain_number(domain)
    if domid is None:
        try:
            domid = find_domain(store, domain)
        except OperatorError as error:
            raise OperatorError(
                f"{error}; if its disk is still in xbbctl list, write xbbctl detach xbbdN"
            ) from None
    kind = find_backend(store, domid, number)
    if kind is None:
        find_domain(store, str(domid))  # the better reason, if it fails
        raise OperatorError(f"guest {domid} has no disk {vdev_name(number)}", ENOENT)
    return DiskOffer(domid, number, "", kind=kind)


@contextmanager
def _store(host: str | None) -> Iterator[tuple[Store, asyncio.AbstractEventLoop]]:
    loop = asyncio.new_event_loop()
    try:
        store = Store(detect(host).store_path, loop=loop)
        try:
            store.connect()
            yield store, loop
        except StoreError as error:
            if error.errno not in (EACCES, EPERM):
                raise
            raise OperatorError(f"XenStore: {error}: only root may attach and detach") from None
        finally:
            store.close()
    finally:
        loop.close()


def run_attach(options: argparse.Namespace) -> None:
    """The verb."""
    mode = MODES[options.mode]
    if options.cdrom and mode != "r":
        print("xbbctl: a CD-ROM is attached read-only", file=sys.stderr)
        mode = "r"
    with _store(options.host) as (store, loop):
        disk = DiskOffer(
            find_domain(store, options.domain),
            vdev_number(options.vdev),
            os.path.abspath(options.path),
            mode=mode,
            kind=options.kind,
            cdrom=options.cdrom,
            discard=not options.no_discard,
        )
        what = f"{shown(disk.path)} to guest {disk.domid} as {vdev_name(disk.vdev)}, mode {mode}"
        try:
            attach_disk(store, loop, disk, options.limit)
        except XbbdError as error:
            note(options, _directory(disk), f"did not attach {what}: {error}")
            raise
    unit = note(options, _directory(disk), f"attached {what}")
    if options.json:
        found = {"device": unit or None, "backend": disk.backend, "frontend": disk.frontend}
        print(json.dumps({**found, "vdev": vdev_name(disk.vdev), "mode": mode}))
    elif unit:
        print(unit)


def run_detach(options: argparse.Namespace) -> None:
    """The verb."""
    with _store(options.host) as (store, loop):
        if options.vdev is None:
            disk = _disk_of_unit(options)
        else:
            disk = find_disk(store, options.domain, options.vdev)
        what = f"{vdev_name(disk.vdev)} from guest {disk.domid}" + " by force" * options.force
        try:
            detach_disk(store, loop, disk, options.limit, force=options.force)
        except XbbdError as error:
            note(options, _directory(disk), f"did not detach {what}: {error}")
            raise
    note(options, _directory(disk), f"detached {what}")
    if options.json:
        print(json.dumps({"backend": disk.backend, "frontend": disk.frontend}))


def _directory(disk: DiskOffer) -> str:
    """The backend's, as the daemon has it."""
    return disk.backend.removeprefix(_DOM0)


def _disk_of_unit(options: argparse.Namespace) -> DiskOffer:
    """Only the daemon knows which disk its units are."""
    if options.domain.isdigit():
        raise OperatorError(f"{options.domain}: write the disk too, or xbbd{options.domain}")
    device = device_name(options.domain)
    name = f"{device}.xenstore_path"
    try:
        with connect(options) as daemon:
            path = daemon.whole(Request(Verb.GET, name))[name]
    except OperatorError as error:
        if error.errno == ENOENT and "oid" in str(error):
            raise OperatorError(f"no disk {short(device)}", ENOENT) from None
        raise
    match = re.fullmatch("backend/([a-z0-9]+)/([0-9]+)/([0-9]+)", path)
    if match is None:
        raise HostError(f"{name} is {path}: no backend of ours")
    return DiskOffer(int(match[2]), int(match[3]), "", kind=match[1])
