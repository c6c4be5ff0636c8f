"""xbbctl, the operator's hand: attach and detach disks, see and change what runs.

    xbbctl attach 3 /tank/vm.img xvdb      xbbctl get dev.xbbd.0
    xbbctl detach 3 xvdb                   xbbctl set dev.xbbd.0.flush_interval=8
                                           xbbctl resize dev.xbbd.0

The first two speak to the store as the toolstack does: xl before Xen 4.19 knows
no backendtype=tap, and a simulated machine has no xl.  The others speak to the
daemon, by its control socket.  A process of its own.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence

from xbbd_bsd import __version__
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.errors import HostError, OperatorError, XbbdError
from xbbd_bsd.host import control_path, detect, run_directory
from xbbd_bsd.toolstack import DiskOffer, attach, detach, offered, remove, vdev_number
from xbbd_bsd.xenstore.client import Store

StoreVerb = Callable[[Store, asyncio.AbstractEventLoop, DiskOffer], None]


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


def get(socket: str, options: argparse.Namespace) -> None:
    """Print names and values, `name: value` each."""
    for name, value in ask(socket, Request(Verb.GET, options.name)).items():
        print(f"{name}: {value}")


def set_value(socket: str, options: argparse.Namespace) -> None:
    """Change a value, and print the change as sysctl(8) does."""
    name, separator, value = options.assignment.partition("=")
    if not separator:
        raise OperatorError(f"{options.assignment}: must be NAME=VALUE")
    number = int(value) if value.lstrip("-").isdigit() else value
    for leaf, before in ask(socket, Request(Verb.SET, name, number)).items():
        print(f"{leaf}: {before} -> {value}")


def resize(socket: str, options: argparse.Namespace) -> None:
    """Have the daemon look at the size of a disk now."""
    ask(socket, Request(Verb.RESIZE, options.name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xbbctl", description="disks of guests, and their numbers"
    )
    parser.add_argument("--host", metavar="SPEC", help="sim:DIR for a simulated machine")
    parser.add_argument("--state-dir", metavar="DIR", help="of the daemon, if not the usual one")
    parser.add_argument("--version", action="version", version=f"xbbctl {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    command = verbs.add_parser("attach", help="give a guest a disk, as xl block-attach does")
    _add_disk(command, "path")
    command.add_argument("--mode", choices=("r", "w"), default="w")
    command.add_argument("--cdrom", action="store_true")
    command.set_defaults(call=_to_store, store_verb=attach_disk)
    command = verbs.add_parser("detach", help="take it back, as xl block-detach does")
    _add_disk(command)
    command.set_defaults(call=_to_store, store_verb=detach_disk, path="", mode="w", cdrom=False)
    command = verbs.add_parser("get", help="numbers of running disks")
    command.add_argument("name", nargs="?", default="", help="or the beginning of several")
    command.set_defaults(call=_to_daemon, daemon_verb=get)
    command = verbs.add_parser("set", help="change a tunable of a running disk")
    command.add_argument("assignment", metavar="NAME=VALUE")
    command.set_defaults(call=_to_daemon, daemon_verb=set_value)
    command = verbs.add_parser("resize", help="look at the size of a disk now, and tell its guest")
    command.add_argument("name", metavar="dev.xbbd.N")
    command.set_defaults(call=_to_daemon, daemon_verb=resize)
    return parser


def _add_disk(command: argparse.ArgumentParser, *more: str) -> None:
    command.add_argument("domid", type=int)
    for name in more:
        command.add_argument(name)
    command.add_argument("vdev", help="xvda and so on, or its number")
    command.add_argument("--kind", choices=("vbd", "vbd3"), default="vbd3", help="of backend")


def _to_daemon(options: argparse.Namespace) -> None:
    directory = options.state_dir or run_directory(options.host)
    options.daemon_verb(control_path(directory), options)


def _to_store(options: argparse.Namespace) -> None:
    verb: StoreVerb = options.store_verb
    disk = DiskOffer(
        options.domid,
        vdev_number(options.vdev),
        os.path.abspath(options.path) if options.path else "",
        mode=options.mode,
        kind=options.kind,
        cdrom=options.cdrom,
    )
    loop = asyncio.new_event_loop()
    try:
        store = Store(detect(options.host).store_path, loop=loop)
        store.connect()
        try:
            verb(store, loop, disk)
        finally:
            store.close()
    finally:
        loop.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except (XbbdError, OSError) as error:
        print(f"xbbctl: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
