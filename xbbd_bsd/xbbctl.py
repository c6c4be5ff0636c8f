"""xbbctl, the operator's hand: today, attach a disk to a guest and detach it.

For toolstacks that cannot write the nodes themselves: xl before Xen 4.19 knows
no backendtype=tap, and a simulated machine has no xl.  It speaks to the store
as the toolstack does, never to the daemon.  A process of its own.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence

from xbbd_bsd import __version__
from xbbd_bsd.errors import HostError, OperatorError, XbbdError
from xbbd_bsd.host import detect
from xbbd_bsd.toolstack import DiskOffer, attach, detach, offered, remove, vdev_number
from xbbd_bsd.xenstore.client import Store

Verb = Callable[[Store, asyncio.AbstractEventLoop, DiskOffer], None]


def attach_disk(store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer) -> None:
    """Offer a disk and wait until the backend has opened it.

    HostError with the backend's reason if it does not; no node is left then.
    OperatorError if there is no such guest, or it has such a disk already.
    """
    if store.get(f"/local/domain/{disk.domid}") is None:
        raise OperatorError(f"there is no domain {disk.domid}")
    if offered(store, disk):
        raise OperatorError(f"{disk.frontend} is in XenStore already")
    if not attach(store, loop, disk):
        reason = store.get(f"{disk.backend}/hotplug-error") or b"the backend does not answer"
        remove(store, disk)
        raise HostError(reason.decode("utf-8", "replace"))


def detach_disk(store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer) -> None:
    """Ask guest and backend to let go, then remove the nodes in any case.

    HostError if they did not in time, OperatorError if there is no such disk.
    """
    if not offered(store, disk):
        raise OperatorError(f"{disk.frontend} is not in XenStore")
    if not detach(store, loop, disk):
        raise HostError("the disk was not let go in time; its nodes are removed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xbbctl", description="attach disks to guests")
    parser.add_argument("--host", metavar="SPEC", help="sim:DIR for a simulated machine")
    parser.add_argument("--version", action="version", version=f"xbbctl {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    command = verbs.add_parser("attach", help="give a guest a disk, as xl block-attach does")
    _add_disk(command, "path")
    command.add_argument("--mode", choices=("r", "w"), default="w")
    command.add_argument("--cdrom", action="store_true")
    command.set_defaults(verb=attach_disk)
    command = verbs.add_parser("detach", help="take it back, as xl block-detach does")
    _add_disk(command)
    command.set_defaults(verb=detach_disk, path="", mode="w", cdrom=False)
    return parser


def _add_disk(command: argparse.ArgumentParser, *more: str) -> None:
    command.add_argument("domid", type=int)
    for name in more:
        command.add_argument(name)
    command.add_argument("vdev", help="xvda and so on, or its number")
    command.add_argument("--kind", choices=("vbd", "vbd3"), default="vbd3", help="of backend")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    verb: Verb = options.verb
    loop = asyncio.new_event_loop()
    try:
        disk = DiskOffer(
            options.domid,
            vdev_number(options.vdev),
            os.path.abspath(options.path) if options.path else "",
            mode=options.mode,
            kind=options.kind,
            cdrom=options.cdrom,
        )
        store = Store(detect(options.host).store_path, loop=loop)
        store.connect()
        try:
            verb(store, loop, disk)
        finally:
            store.close()
    except (XbbdError, OSError) as error:
        print(f"xbbctl: {error}", file=sys.stderr)
        return 1
    finally:
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
