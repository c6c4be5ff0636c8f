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
from errno import EBUSY
from typing import Any, Final

from xbbd_bsd import __version__, program
from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.control.sysctl import Sysctl, add_options
from xbbd_bsd.errors import HostError, OperatorError, one_line, printable, shown
from xbbd_bsd.host import control_path, detect, run_directory
from xbbd_bsd.oids import ROOT
from xbbd_bsd.toolstack import (
    KINDS,
    LIMIT,
    DiskOffer,
    detach,
    find_backend,
    give_up,
    in_use,
    offer,
    see_opened,
)
from xbbd_bsd.vdev import vdev_name, vdev_number
from xbbd_bsd.xenstore.client import Store

VERBS: Final = ("list", "attach", "detach", "inflight", "log", "resize", "clear", "reload")
_COLUMNS: Final = ("name", "guest", "vdev", "mode", "MiB", "state", "path")


# Through the store.


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
        disk = DiskOffer(domid, number, "")
        raise OperatorError(f"{disk.frontend} is not in XenStore")
    return DiskOffer(domid, number, "", kind=kind)


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
        if options.vdev is None:
            disk = _disk_of_unit(options)
        else:
            disk = find_disk(store, options.domain, options.vdev)
        detach_disk(store, loop, disk, options.limit, force=options.force)
        if options.json:
            print(json.dumps({"backend": disk.backend, "frontend": disk.frontend}))


def _disk_of_unit(options: argparse.Namespace) -> DiskOffer:
    """Only the daemon knows which disk its units are."""
    if options.domain.isdigit():
        raise OperatorError(f"{options.domain}: write the disk too, or xbbd{options.domain}")
    name = f"{device_name(options.domain)}.xenstore_path"
    with _connect(options) as connection:
        path = connection.whole(Request(Verb.GET, name))[name]
    match = re.fullmatch("backend/([a-z0-9]+)/([0-9]+)/([0-9]+)", path)
    if match is None:
        raise HostError(f"{name} is {path}: no backend of ours")
    return DiskOffer(int(match[2]), int(match[3]), "", kind=match[1])


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
    with _connect(options) as connection:
        # Not all of the tree, which takes long where there are many.
        devices = connection.whole(Request(Verb.STAT))
    rows = [
        {
            "name": f"xbbd{device.rpartition('.')[2]}",
            "guest": found.get("guest") or str(found["domid"]),
            "vdev": found.get("vdev", ""),
            "mode": found.get("mode", ""),
            "MiB": found.get("sectors", 0) // 2048,
            "state": found["state"],
            "hung": found.get("hung_seconds", 0),
            "path": found.get("path", ""),
        }
        for device, found in devices.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        for row in rows:
            row["path"] = shown(row["path"])
            if row["hung"]:
                row["state"] += f", hung {row['hung']} s"
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
        print(f"{date}.{int(when % 1 * 1000):03} {severity:7} {one_line(text)}")


def _resize(options: argparse.Namespace) -> None:
    """Have the daemon look at the size of a disk now."""
    name = device_name(options.device)
    with _connect(options) as connection:
        connection.whole(Request(Verb.RESIZE, name))
        if options.json:
            print(json.dumps(connection.whole(Request(Verb.GET, f"{name}.sectors"))))


def _clear(options: argparse.Namespace) -> None:
    """Have a disk opened again that has lost something."""
    try:
        name = device_name(options.disk)
    except OperatorError:
        name = os.path.abspath(options.disk)
    with _connect(options) as connection:
        connection.whole(Request(Verb.CLEAR, name))


def _reload(options: argparse.Namespace) -> None:
    """Have the daemon read its configuration, and say what became of that."""
    with _connect(options) as connection:
        changes = connection.whole(Request(Verb.RELOAD))
    if options.json:
        names = ("before", "after", "note")
        told = {key: dict(zip(names, change, strict=True)) for key, change in changes.items()}
        print(json.dumps(told, indent=2))
        return
    for key, (before, after, note) in changes.items():
        print(one_line(f"{key}: {before} -> {after}" + (f" ({note})" if note else "")))
    if not changes:
        print("nothing has changed")


def _print_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Columns as wide as they must be; numbers to the right, the last one free."""
    cells = [[one_line(str(row[column])) for column in columns] for row in rows]
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
        if name == "attach":
            command.add_argument("domain", help="name or number of the guest")
            command.add_argument("path", help="file or device")
            command.add_argument("vdev", help="xvda and so on, or its number")
        else:
            command.add_argument("domain", help="name or number of the guest, or xbbdN alone")
            command.add_argument("vdev", nargs="?", help="xvda and so on, or its number")
            command.add_argument(
                "--force", action="store_true", help="remove the nodes even if it is in use"
            )
        command.add_argument(
            "--limit", type=_seconds, default=LIMIT, metavar="SECONDS", help="how long to wait"
        )
        if name == "attach":
            command.add_argument("--mode", choices=("r", "w", "w!"), default="w")
            command.add_argument("--kind", choices=KINDS, default="vbd3")
            command.add_argument("--cdrom", action="store_true")
            command.add_argument("--no-discard", action="store_true")
    command = verb("inflight", _inflight, "requests in flight, with their age")
    command.add_argument("device", nargs="?", metavar="xbbdN")
    command = verb("log", _log, "last events of a disk, or of the daemon")
    command.add_argument("device", nargs="?", metavar="xbbdN")
    command = verb("resize", _resize, "look at the size of a disk now, and tell its guest")
    command.add_argument("device", metavar="xbbdN")
    command = verb("clear", _clear, "have a disk opened again that has lost something")
    command.add_argument("disk", help="xbbdN, or its path")
    verb("reload", _reload, "have the configuration read again, and say what has changed")
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
    return program.run("xbbctl", lambda: _run(words))


if __name__ == "__main__":
    sys.exit(main())
