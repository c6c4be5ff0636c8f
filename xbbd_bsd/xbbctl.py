"""xbbctl, the operator's hand: names and values as sysctl(8) has them, and verbs for devices.

    xbbctl -a                                 xbbctl list
    xbbctl dev.xbbd.0                         xbbctl attach vm1 /tank/vm.img xvdb
    xbbctl dev.xbbd.0.flush_interval=8        xbbctl attach vm1 bridge=xenbr0

attach and detach speak to the store as the toolstack does, all else to the daemon
by its control socket.  A process of its own.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xbbd_bsd import __version__, program
from xbbd_bsd.block.oids import CLEAR, PAUSE, RESIZE, RESUME, SWAP
from xbbd_bsd.control.client import LIMIT as CLIENT_LIMIT
from xbbd_bsd.control.protocol import FamilyVerb, Request, Verb
from xbbd_bsd.control.status import tell
from xbbd_bsd.control.sysctl import Sysctl, add_options
from xbbd_bsd.control.tree import MOST_BEFORE
from xbbd_bsd.ctl.attach import run_attach, run_detach
from xbbd_bsd.ctl.daemon import connect, device_name, find_device, short
from xbbd_bsd.ctl.disks import MODES
from xbbd_bsd.ctl.listing import print_table, run_list
from xbbd_bsd.ctl.log import run_log
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.findings import BOUND
from xbbd_bsd.host.choice import check_spec
from xbbd_bsd.stats import TUNABLES, WORDS
from xbbd_bsd.storeuri import is_store
from xbbd_bsd.toolstack import KINDS, LIMIT

VERBS: Final = (
    *("list", "attach", "detach", "pause", "resume", "swap", "inflight", "log", "resize", "clear"),
    *("health", "reload", "help"),
)

_SWAP_SECONDS: Final = 150.0  # more than the daemon gives all of its steps


# Through the daemon.


def _inflight(options: argparse.Namespace) -> None:
    """One line a request, the oldest of each device first."""
    name = find_device(options, options.device) if options.device else ""
    with connect(options) as connection:
        found = connection.whole(Request(Verb.INFLIGHT, name))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        {"device": short(device), **request}
        for device, requests in found.items()
        for request in requests
    ]
    if rows:
        print_table(tuple(rows[0]), rows)


def _resize(options: argparse.Namespace) -> None:
    """Have the daemon look at the size of a disk now; says what it was and is."""
    name = device_name(options.device)
    leaf = f"{name}.sectors"
    with connect(options) as connection:
        before = connection.whole(Request(FamilyVerb(RESIZE), name)).get(leaf)
        if before is None:
            raise OperatorError(f"{short(name)}: no disk is open")
        after = connection.whole(Request(Verb.GET, leaf))
    if options.json:
        print(json.dumps(after))
    else:
        print(f"{leaf}: {before} -> {after[leaf]}")


def _pause(options: argparse.Namespace) -> None:
    """Have nothing of a disk begun any more."""
    _do(options, PAUSE)


def _resume(options: argparse.Namespace) -> None:
    """Have all of it begun again that waits."""
    _do(options, RESUME)


def _swap(options: argparse.Namespace) -> None:
    """Have its guest go on with another disk."""
    path = options.path if is_store(options.path) else os.path.abspath(options.path)
    _do(options, SWAP, path, _SWAP_SECONDS)


def _do(
    options: argparse.Namespace, verb: str, value: str | None = None, limit: float = CLIENT_LIMIT
) -> None:
    name = find_device(options, options.device)
    with connect(options, limit) as connection:
        connection.whole(Request(FamilyVerb(verb), name, value))


def _clear(options: argparse.Namespace) -> None:
    """Say that somebody has seen to what was wrong with a disk."""
    try:
        name = device_name(options.disk)
    except OperatorError:
        name = os.path.abspath(options.disk)
    with connect(options) as connection:
        connection.whole(Request(FamilyVerb(CLEAR), name))


def _health(options: argparse.Namespace) -> int:
    """Say what is wrong, if anything is."""

    def ask() -> dict[str, Any]:
        name = find_device(options, options.device) if options.device else ""
        with connect(options) as connection:
            return connection.whole(Request(Verb.HEALTH, name, f"{options.age:g}"))

    return tell(ask, verbose=options.verbose, as_json=options.json)


def _reload(options: argparse.Namespace) -> None:
    """Have the daemon read its configuration, and say what became of that."""
    with connect(options) as connection:
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


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = program.Parser(
        prog="xbbctl",
        add_help=False,
        allow_abbrev=False,
        usage="xbbctl [-dehijNnqtTW] [-f FILE] NAME[=VALUE] ...\n"
        "       xbbctl [-dehjNntTW] -a\n"
        "       xbbctl [-j] VERB ...",
        description="names and values of xbbd as sysctl(8) has them, and verbs for its devices",
        epilog=f"Verbs are {', '.join(VERBS)}; xbbctl help says what they do, and xbbctl help VERB"
        " more of one.  See xbbctl(8).",
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
        "--host",
        metavar="SPEC",
        type=_spec,
        default=default,
        help="sim:DIR for a simulated machine",
    )
    parser.add_argument(
        "--state-dir", metavar="DIR", default=default, help="of the daemon, if not the usual one"
    )


def _verb_parser() -> argparse.ArgumentParser:
    parser = program.Parser(
        prog="xbbctl",
        add_help=False,
        allow_abbrev=False,
        description="names and values of xbbd as sysctl(8) has them, and verbs for its devices",
        epilog="xbbctl help VERB says more of one; xbbctl --help of names and values.",
    )
    parser.add_argument("-j", dest="json", action="store_true", help="print JSON")
    _add_common(parser)
    verbs = parser.add_subparsers(dest="command", required=True, metavar="VERB")

    def verb(name: str, call: Callable[[argparse.Namespace], int | None], text: str) -> Any:
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

    command = verb("list", run_list, "all disks and network cards, one a line")
    command.add_argument("guest", nargs="?", help="only those of a guest, by name or number")
    command.add_argument(
        "-v",
        dest="verbose",
        action="store_true",
        help="also who serves it, take-overs, and what was set by hand",
    )
    for name, call, text in (
        ("attach", run_attach, "give a guest a disk or a card, as xl block-attach does"),
        ("detach", run_detach, "take it back, as xl block-detach does"),
    ):
        command = verb(name, call, text)
        if name == "attach":
            command.add_argument("domain", help="name or number of the guest")
            command.add_argument("path", help="file or device; or a card, as bridge=xenbr0")
            command.add_argument("vdev", nargs="?", help="of a disk: xvda and so on, or its number")
        else:
            command.add_argument("domain", help="name or number of the guest; or xbbdN alone")
            command.add_argument(
                "vdev", nargs="?", help="xvda and so on, or its number; a card's vif0, or address"
            )
            command.add_argument(
                "--force", action="store_true", help="remove the nodes even if it is in use"
            )
        command.add_argument(
            "--limit", type=_seconds, default=LIMIT, metavar="SECONDS", help="how long to wait"
        )
        if name == "attach":
            command.add_argument(
                "--mode",
                choices=tuple(MODES),
                default="w",
                help="r or ro: read-only, w or rw: writable, w!: writable and shared",
            )
            command.add_argument(
                "--kind", choices=KINDS, default="vbd3", help="directory of XenStore"
            )
            command.add_argument(
                "--cdrom", action="store_true", help="it is a CD-ROM, and so read-only"
            )
            command.add_argument(
                "--no-discard", action="store_true", help="do not offer discarding"
            )
            for option, key in (("--on-error", "on_error"), ("--on-full", "on_full")):
                command.add_argument(
                    option,
                    choices=WORDS[key],
                    default="",
                    help=f"{TUNABLES[key]}; not given: as configured",
                )
            command.add_argument(
                "--limit-group",
                default="",
                metavar="NAME",
                help="section [group.NAME] of xbbd.conf whose limits it shares",
            )
    command = verb("pause", _pause, "begin nothing of a disk any more; its guest waits")
    command.add_argument("device", metavar="xbbdN")
    command = verb("resume", _resume, "begin again what waits of a disk that is paused")
    command.add_argument("device", metavar="xbbdN")
    command = verb("swap", _swap, "exchange a disk for another one, with which its guest goes on")
    command.add_argument("device", metavar="xbbdN")
    command.add_argument("path", help="file, device or store that has the same on it")
    command = verb("inflight", _inflight, "requests in flight, with their age")
    command.add_argument("device", nargs="?", metavar="xbbdN")
    command = verb("log", run_log, "last events of a device, or of the daemon")
    command.add_argument("device", nargs="?", metavar="xbbdN")
    command.add_argument(
        "-f", dest="follow", action="store_true", help="go on with each line as it is logged"
    )
    command.add_argument(
        "-n", dest="lines", type=_lines, metavar="N", help="no more than the last N lines"
    )
    command = verb("resize", _resize, "look at the size of a disk now, and tell its guest")
    command.add_argument("device", metavar="xbbdN")
    command = verb("clear", _clear, "errors of a disk are seen to: forget them, open it again")
    command.add_argument("disk", help="xbbdN, or its path")
    command = verb("health", _health, "what is wrong, and what to do; exit status 1 if anything is")
    command.add_argument(
        "-v", dest="verbose", action="store_true", help="also what guests did to themselves"
    )
    command.add_argument(
        "--age", type=_seconds, default=BOUND, metavar="SECONDS", help="how old requests may be"
    )
    command.add_argument("device", nargs="?", metavar="xbbdN")
    verb("reload", _reload, "have the configuration read again, and say what has changed")
    command = verb(
        "help", lambda options: _help(parser, verbs.choices, options), "all verbs, or one"
    )
    command.add_argument("verb", nargs="?", metavar="VERB", choices=VERBS, help="only of a verb")
    return parser


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    """The command line of each verb; for whoever writes or checks documents and completion."""
    (verbs,) = (
        action
        for action in _verb_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(verbs.choices)


def _help(
    parser: argparse.ArgumentParser,
    verbs: Mapping[str, argparse.ArgumentParser],
    options: argparse.Namespace,
) -> None:
    (verbs[options.verb] if options.verb else parser).print_help()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(
            f"{one_line(text)}: must be seconds, more than 0 and up to 86400"
        )
    return seconds


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= MOST_BEFORE):
        raise argparse.ArgumentTypeError(
            f"{one_line(text)}: must be a number of lines, 0 to {MOST_BEFORE}"
        )
    return int(text)


def _spec(text: str) -> str:
    try:
        return check_spec(text)
    except OperatorError as error:
        raise argparse.ArgumentTypeError(one_line(str(error)).removeprefix("--host ")) from None


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
        try:
            return options.call(options) or 0
        except KeyboardInterrupt:  # of one who has seen enough, or does not want to wait
            return 128 + signal.SIGINT
    parser = _parser()
    options = parser.parse_intermixed_args(words)
    if (options.names and options.values) or not (options.words or options.all or options.file):
        parser.print_usage(sys.stderr)
        return 1
    with connect(options) as connection:
        return Sysctl(connection, options).run(options.words)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return program.run("xbbctl", lambda: _run(words))


if __name__ == "__main__":
    sys.exit(main())
