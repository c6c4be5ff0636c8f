"""xbbctl, the operator's hand: names and values as sysctl(8) has them, and verbs for disks.

    xbbctl -a                                 xbbctl list
    xbbctl dev.xbbd.0                         xbbctl attach vm1 /tank/vm.img xvdb
    xbbctl dev.xbbd.0.flush_interval=8        xbbctl detach vm1 xvdb

attach and detach speak to the store as the toolstack does: xl before Xen 4.19
knows no backendtype=tap, and a simulated machine has no xl.  All else speaks to
the daemon, by its control socket.  A process of its own.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from xbbd_bsd import __version__, command
from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.control.sysctl import Sysctl, add_options
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import control_path, detect, run_directory
from xbbd_bsd.oids import ROOT
from xbbd_bsd.toolstack import LIMIT, DiskOffer, attach, detach, offered, remove
from xbbd_bsd.vdev import vdev_number
from xbbd_bsd.xenstore.client import Store

VERBS: Final = ("list", "attach", "detach", "inflight", "log", "resize")
_COLUMNS: Final = ("name", "guest", "vdev", "mode", "MiB", "state", "path")


# Through the store.


def attach_disk(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float
) -> None:
    """Offer a disk and wait until the backend has opened it.

    HostError with the backend's reason if it does not; no node is left then.
    OperatorError if the guest has such a disk already.
    """
    if offered(store, disk):
        raise OperatorError(f"{disk.frontend} is in XenStore already")
    if not attach(store, loop, disk, limit):
        reason = store.get(f"{disk.backend}/hotplug-error") or b"the backend does not answer"
        remove(store, disk)
        raise HostError(reason.decode("utf-8", "replace"))


def detach_disk(
    store: Store, loop: asyncio.AbstractEventLoop, disk: DiskOffer, limit: float
) -> None:
    """Ask guest and backend to let go, then remove the nodes in any case.

    HostError if they did not in time, OperatorError if there is no such disk.
    """
    if not offered(store, disk):
        raise OperatorError(f"{disk.frontend} is not in XenStore")
    if not detach(store, loop, disk, limit):
        raise HostError("the disk was not let go in time; its nodes are removed")


def find_domain(store: Store, name: str) -> int:
    """The number of a guest by name or number; OperatorError if there is none."""
    if re.fullmatch(r"\d{1,5}", name):
        if store.get(f"/local/domain/{name}") is not None:
            return int(name)
    else:
        for domid in store.list("/local/domain"):
            if domid.isdigit() and store.get(f"/local/domain/{domid}/name") == name.encode():
                return int(domid)
    raise OperatorError(f"there is no domain {name}")


def kind_of(store: Store, domid: int, number: int) -> str:
    """The kind of backend that a guest's disk has; OperatorError if it has no such disk."""
    frontend = f"/local/domain/{domid}/device/vbd/{number}"
    backend = store.get(f"{frontend}/backend")
    if backend is None:
        raise OperatorError(f"{frontend} is not in XenStore")
    match = re.fullmatch(rf"/local/domain/0/backend/([a-z0-9]+)/{domid}/{number}", backend.decode())
    if match is None:
        raise OperatorError(f"{frontend} is served by another domain")
    return match[1]


@contextmanager
def _store(host: str | None) -> Iterator[tuple[Store, asyncio.AbstractEventLoop]]:
    loop = asyncio.new_event_loop()
    try:
        store = Store(detect(host).store_path, loop=loop)
        store.connect()
        try:
            yield store, loop
        finally:
            store.close()
    finally:
        loop.close()


def _attach(options: argparse.Namespace) -> None:
    with _store(options.host) as (store, loop):
        domid = find_domain(store, options.domain)
        disk = DiskOffer(
            domid,
            vdev_number(options.vdev),
            os.path.abspath(options.path),
            mode=options.mode,
            kind=options.kind,
            cdrom=options.cdrom,
            discard=not options.no_discard,
        )
        attach_disk(store, loop, disk, options.limit)
        if options.json:
            print(json.dumps({"backend": disk.backend, "frontend": disk.frontend}))


def _detach(options: argparse.Namespace) -> None:
    with _store(options.host) as (store, loop):
        domid = find_domain(store, options.domain)
        number = vdev_number(options.vdev)
        disk = DiskOffer(domid, number, "", kind=kind_of(store, domid, number))
        detach_disk(store, loop, disk, options.limit)
        if options.json:
            print(json.dumps({"backend": disk.backend, "frontend": disk.frontend}))


# Through the daemon.


def device_name(word: str) -> str:
    """dev.xbbd.N of any of its spellings: that, xbbdN, xbbN, xbbiN or N; OperatorError."""
    match = re.fullmatch(rf"(?:{re.escape(ROOT)}\.|xbbd|xbbi?)?(\d{{1,9}})", word)
    if match is None:
        raise OperatorError(f"{word}: no device, write {ROOT}.N")
    return f"{ROOT}.{int(match[1])}"


def _connect(options: argparse.Namespace) -> Connection:
    return Connection(control_path(options.state_dir or run_directory(options.host)))


def _list(options: argparse.Namespace) -> None:
    """One line a device."""
    devices: dict[str, dict[str, Any]] = {}
    with _connect(options) as connection:
        for values in connection.ask(Request(Verb.GET, ROOT)):
            for name, value in values.items():
                unit, _, leaf = name.removeprefix(f"{ROOT}.").partition(".")
                devices.setdefault(unit, {})[leaf] = value
    rows = [
        {
            "name": f"xbbd{unit}",
            "guest": leaves.get("guest") or str(leaves.get("xenbus_peer_domid", "")),
            "vdev": leaves.get("vdev", ""),
            "mode": leaves.get("mode", ""),
            "MiB": leaves.get("sectors", 0) // 2048,
            "state": leaves.get("xenbus_connection_state", ""),
            "path": leaves.get("path", ""),
        }
        for unit, leaves in devices.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        _print_table(_COLUMNS, rows)


def _inflight(options: argparse.Namespace) -> None:
    """One line a request, the oldest of each device first."""
    name = device_name(options.device) if options.device else ""
    with _connect(options) as connection:
        found = connection.whole(Request(Verb.INFLIGHT, name))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        {"device": f"xbbd{device.rpartition('.')[2]}", **request}
        for device, requests in found.items()
        for request in requests
    ]
    if rows:
        _print_table(tuple(rows[0]), rows)


def _log(options: argparse.Namespace) -> None:
    """The last events of a device, or the last lines of the daemon's log."""
    name = device_name(options.device) if options.device else ""
    with _connect(options) as connection:
        (lines,) = connection.whole(Request(Verb.LOG, name)).values()
    if options.json:
        fields = ("time", "severity", "text")
        print(json.dumps([dict(zip(fields, line, strict=True)) for line in lines], indent=2))
        return
    for when, severity, text in lines:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        print(f"{date}.{int(when % 1 * 1000):03} {severity:7} {text}")


def _resize(options: argparse.Namespace) -> None:
    """Have the daemon look at the size of a disk now."""
    name = device_name(options.device)
    with _connect(options) as connection:
        connection.whole(Request(Verb.RESIZE, name))
        if options.json:
            print(json.dumps(connection.whole(Request(Verb.GET, f"{name}.sectors"))))


def _print_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Columns as wide as they must be; numbers to the right, the last one free."""
    cells = [[str(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [isinstance(rows[0][column], int) for column in columns]
    for line in ([name.upper() for name in columns], *cells):
        fields = [
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(fields).rstrip())


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xbbctl",
        add_help=False,
        allow_abbrev=False,
        usage="xbbctl [-dehijNnqtTW] [-f FILE] NAME[=VALUE] ...\n"
        "       xbbctl [-dehjNntTW] -a\n"
        "       xbbctl [-j] VERB ...",
        description="names and values of xbbd as sysctl(8) has them, and verbs for disks",
        epilog=f"Verbs are {', '.join(VERBS)}; xbbctl VERB --help says more.  See xbbctl(8).",
    )
    add_options(parser)
    _add_common(parser)
    parser.add_argument("--version", action="version", version=f"xbbctl {__version__}")
    parser.add_argument("words", nargs="*", metavar="NAME[=VALUE]")
    return parser


def _add_common(parser: argparse.ArgumentParser, default: Any = None) -> None:
    """Options of names and verbs alike."""
    parser.add_argument("--help", action="help", help="this")
    parser.add_argument(
        "--host", metavar="SPEC", default=default, help="sim:DIR for a simulated machine"
    )
    parser.add_argument(
        "--state-dir", metavar="DIR", default=default, help="of the daemon, if not the usual one"
    )


def _verb_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xbbctl", add_help=False, allow_abbrev=False)
    parser.add_argument("-j", dest="json", action="store_true")
    _add_common(parser)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, call: Callable[[argparse.Namespace], None], text: str) -> Any:
        command = verbs.add_parser(
            name, help=text, description=text, add_help=False, allow_abbrev=False
        )
        # Given before the verb they stand too.
        _add_common(command, argparse.SUPPRESS)
        command.add_argument(
            "-j", dest="json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )
        command.set_defaults(call=call)
        return command

    verb("list", _list, "all disks, one a line")
    for name, call, text in (
        ("attach", _attach, "give a guest a disk, as xl block-attach does"),
        ("detach", _detach, "take it back, as xl block-detach does"),
    ):
        command = verb(name, call, text)
        command.add_argument("domain", help="name or number of the guest")
        if name == "attach":
            command.add_argument("path", help="file or device")
        command.add_argument("vdev", help="xvda and so on, or its number")
        command.add_argument(
            "--limit", type=_seconds, default=LIMIT, metavar="SECONDS", help="how long to wait"
        )
        if name == "attach":
            command.add_argument("--mode", choices=("r", "w", "w!"), default="w")
            command.add_argument("--kind", choices=("vbd", "vbd3"), default="vbd3")
            command.add_argument("--cdrom", action="store_true")
            command.add_argument("--no-discard", action="store_true")
    command = verb("inflight", _inflight, "requests in flight, with their age")
    command.add_argument("device", nargs="?", metavar="xbbdN")
    command = verb("log", _log, "last events of a disk, or of the daemon")
    command.add_argument("device", nargs="?", metavar="xbbdN")
    command = verb("resize", _resize, "look at the size of a disk now, and tell its guest")
    command.add_argument("device", metavar="xbbdN")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ValueError
    return seconds


def _first_word(words: Sequence[str]) -> str:
    """The first argument that is no option, nor the value of one."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--host", "--state-dir", "-f"):
            skip = True
        elif not word.startswith("-"):
            return word
    return ""


def _run(words: Sequence[str]) -> int:
    if _first_word(words) in VERBS:
        options = _verb_parser().parse_args(words)
        options.call(options)
        return 0
    parser = _parser()
    options = parser.parse_intermixed_args(words)
    if (options.names and options.values) or not (options.words or options.all or options.file):
        parser.print_usage(sys.stderr)
        return 1
    with _connect(options) as connection:
        return Sysctl(connection, options).run(options.words)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return command.run("xbbctl", lambda: _run(words))


if __name__ == "__main__":
    sys.exit(main())
