"""The verbs attach and detach, of disks and of network cards: what was typed, and what is said.

A card is described where a disk has its path, as key=value, and has no name after it.  The
daemon learns who did what by a note, if it runs.  Runs in xbbctl's process.
"""

import argparse
import json
import re
from errno import EINVAL, ENOENT
from typing import Any, Final

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.cards import CardOffer, CardSpec, find_card
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.ctl.bridges import of_this_system
from xbbd_bsd.ctl.cards import (
    attach_card,
    card_of,
    detach_card,
    interface,
    is_card,
    is_spec,
)
from xbbd_bsd.ctl.daemon import connect, find_device, note, short
from xbbd_bsd.ctl.disks import attach_disk, detach_disk, disk_said, find_disk
from xbbd_bsd.ctl.offers import directory, find_domain, opened_store
from xbbd_bsd.errors import HostError, OperatorError, XbbdError, one_line, shown
from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.vdev import vdev_name
from xbbd_bsd.xenstore.client import Store

_OF_DISKS: Final = {
    "mode": "w",
    "cdrom": False,
    "no_discard": False,
    "on_error": "",
    "on_full": "",
    "limit_group": "",
}
"""Options that say nothing of a card, with their defaults."""


def run_attach(options: argparse.Namespace) -> None:
    """The verb."""
    if options.vdev is not None:
        _attach_disk(options)
    elif is_spec(options.path):
        _attach_card(options)
    else:
        raise OperatorError(
            f"{shown(options.path)}: write the disk's name in the guest after it, as xvda,"
            " or a card as bridge=xenbr0",
            EINVAL,
        )


def _attach_disk(options: argparse.Namespace) -> None:
    with opened_store(options.host) as (store, loop):
        disk = disk_said(store, options)
        name = vdev_name(disk.vdev)
        what = f"{shown(disk.path)} to guest {disk.domid} as {name}, mode {disk.mode}"
        try:
            attach_disk(store, loop, disk, options.limit)
        except XbbdError as error:
            note(options, directory(disk), f"did not attach {what}: {error}")
            raise
    unit = note(options, directory(disk), f"attached {what}")
    _tell(options, unit, disk, {"vdev": name, "mode": disk.mode})


def _attach_card(options: argparse.Namespace) -> None:
    for option, default in _OF_DISKS.items():
        if getattr(options, option) != default:
            raise OperatorError(f"--{option.replace('_', '-')} is of disks, not of cards", EINVAL)
    spec = CardSpec.parse(options.path)
    bridges = of_this_system()
    with opened_store(options.host) as (store, loop):
        domid = find_domain(store, options.domain)
        try:
            card = attach_card(store, loop, domid, spec, bridges, options.limit)
        except XbbdError as error:
            # It may have no number yet: the guest is named in words.
            said = one_line(options.path)
            note(options, f"backend/vif/{domid}", f"did not attach a card to guest {domid}"
                 f" ({said}): {error}")  # fmt: skip
            raise
    where = f", bridge {card.bridge}" if card.bridge else ""
    what = f"a card to guest {domid} as {card.name}, {card.mac}{where}"
    unit = note(options, directory(card), f"attached {what}")
    more = {"interface": interface(card, bridges), "mac": card.mac, "bridge": card.bridge}
    _tell(options, unit, card, {"handle": card.handle, **more, "mtu": card.mtu})


def _tell(
    options: argparse.Namespace, unit: str, what: DiskOffer | CardOffer, more: dict[str, Any]
) -> None:
    if options.json:
        found = {"device": unit or None, "backend": what.backend, "frontend": what.frontend}
        print(json.dumps({**found, **more}))
    elif unit:
        print(unit)


def run_detach(options: argparse.Namespace) -> None:
    """The verb."""
    with opened_store(options.host) as (store, loop):
        what = _to_detach(options, store)
        words = f"{what.name} from guest {what.domid}" + " by force" * options.force
        try:
            if isinstance(what, CardOffer):
                bridges = of_this_system()
                detach_card(store, loop, what, bridges, options.limit, force=options.force)
            else:
                detach_disk(store, loop, what, options.limit, force=options.force)
        except XbbdError as error:
            note(options, directory(what), f"did not detach {words}: {error}")
            raise
    note(options, directory(what), f"detached {words}")
    if options.json:
        print(json.dumps({"backend": what.backend, "frontend": what.frontend}))


def _to_detach(options: argparse.Namespace, store: Store) -> DiskOffer | CardOffer:
    if options.vdev is None:
        return _of_unit(options, store)
    if is_card(options.vdev):
        return card_of(store, options.domain, options.vdev)
    return find_disk(store, options.domain, options.vdev)


def _of_unit(options: argparse.Namespace, store: Store) -> DiskOffer | CardOffer:
    """Only the daemon knows what its units are."""
    if options.domain.isdigit():
        raise OperatorError(
            f"{options.domain}: write the disk or card too, or xbbd{options.domain}"
        )
    device = find_device(options, options.domain)
    name = f"{device}.xenstore_path"
    try:
        with connect(options) as daemon:
            path = daemon.whole(Request(Verb.GET, name))[name]
    except OperatorError as error:
        if error.errno == ENOENT and "oid" in str(error):
            noun = "disk" if DRIVER.split(device) else "card"
            raise OperatorError(f"no {noun} {short(device)}", ENOENT) from None
        raise
    match = re.fullmatch("backend/([a-z0-9]+)/([0-9]+)/([0-9]+)", path)
    if match is None:
        raise HostError(f"{name} is {path}: no backend of ours")
    kind, domid, number = match[1], int(match[2]), int(match[3])
    if kind == "vif":
        return find_card(store, domid, match[3]) or CardOffer(domid, number, "", bridge="")
    return DiskOffer(domid, number, "", kind=kind)
