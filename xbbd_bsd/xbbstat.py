"""xbbstat(8): what disks do, in the manner of iostat(8), and with -i in that of gstat(8).

    xbbstat -x 1                every second, a line a device
    xbbstat -i                  the same on the whole screen
    xbbstat -C -w 5 xbb0        as comma-separated values
    xbbstat -w 1 xnb0           a network card, in the manner of netstat(1)

Devices are the two devstat records of each disk, as the kernel's driver has them:
xbbN, requests as they were given to the disk, merged where they adjoined, and
xbbiN, requests as the guest made them.  As with iostat, the first report is of all
the time before: since a disk was attached if the daemon says when that was, else
since the daemon started.  -t is iostat's selection by type: ours are direct access
devices ("da") with another interface ("other"), as the kernel's are; "xbb" and
"xbbi" select one of the two records, "xnb" the network cards instead.  iostat's -C, -K,
-M, -N and -T, which are of processors and terminals, and its -h and old -o have no
counterpart.  Reads options and calls what they ask for.  A process of its own.
"""

import argparse
import math
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from xbbd_bsd import __version__, program
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.host import control_path
from xbbd_bsd.host.choice import run_directory
from xbbd_bsd.stat.choice import Choice, checked_filter, names_of, sort_of, types_of
from xbbd_bsd.stat.gstat import Latency
from xbbd_bsd.stat.iostat import MOST_ABREAST
from xbbd_bsd.stat.report import HEADER_ROWS, CardReports, Form, Plan, Reports
from xbbd_bsd.stat.view import LEAST_WAIT, MOST_WAIT, View
from xbbd_bsd.stat.watch import Clock, Watch, ask

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """The command; its exit status.  `clock` other than the real one is for tests."""
    return program.run("xbbstat", lambda: _run(arguments, clock or Clock()))


def _run(arguments: Sequence[str] | None, clock: Clock) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        plan = _plan(options)
    except ValueError as error:
        parser.error(str(error))
    path = control_path(options.state_dir or run_directory(options.host))
    latency = plan.form in (Form.SCREEN, Form.JSON) or plan.latency is Latency.ALWAYS
    watch = Watch(lambda: ask(path, latency=latency), clock)
    try:
        if plan.form is Form.SCREEN:
            _screen(plan, watch, clock)
        else:
            kind = CardReports if plan.choice.cards else Reports
            kind(plan, watch, clock, _write, _warn, _rows).run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _screen(plan: Plan, watch: Watch, clock: Clock) -> None:
    try:
        from xbbd_bsd.stat import screen
    except ImportError as error:  # a Python without curses
        raise OperatorError(f"-i needs Python's curses: {error}") from None
    view = View(
        plan.choice,
        plan.wait,
        deletes=plan.deletes,
        others=plan.others,
        latency=plan.latency,
        process=plan.process,
    )
    with screen.opened() as terminal:
        screen.show(terminal, watch, view, clock)


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _warn(text: str) -> None:
    print(f"xbbstat: {one_line(text)}", file=sys.stderr, flush=True)


def _rows() -> int:
    """Reports that fit below a heading, as iostat counts them."""
    if not sys.stdout.isatty():
        return HEADER_ROWS
    lines = shutil.get_terminal_size().lines
    return lines - 3 if lines > 3 else HEADER_ROWS


def _parser() -> argparse.ArgumentParser:
    parser = program.Parser(
        prog="xbbstat",
        description="I/O statistics of guests' disks and network cards",
        epilog="drives: xbb0 (as given to the disk), xbbi0 (as the guest asked), or dev.xbbd.0"
        " for both; or network cards, xnb0; then wait and count, as with iostat",
        allow_abbrev=False,
    )
    form = parser.add_argument_group("forms of the report")
    form.add_argument("-x", dest="extended", action="store_true", help="a line a device")
    form.add_argument("-i", dest="screen", action="store_true", help="full screen, as gstat")
    form.add_argument(
        "-b", dest="batch", action="store_true", help="gstat's, of one interval, without a screen"
    )
    form.add_argument("-B", dest="endless", action="store_true", help="the same without end")
    form.add_argument("-C", dest="csv", action="store_true", help="comma-separated, as gstat's")
    form.add_argument("-j", dest="json", action="store_true", help="JSON, an object a line")
    what = parser.add_argument_group("what it shows")
    what.add_argument("-I", dest="totals", action="store_true", help="totals, not rates")
    what.add_argument(
        "-d", dest="deletes", action="store_true",
        help="as gstat: deletes too; as netstat: drops; as iostat: devices only, as anyway",
    )  # fmt: skip
    what.add_argument("-o", dest="others", action="store_true", help="as gstat: flushes too")
    what.add_argument("-l", dest="latency", action="store_true", help="percentiles of latency")
    what.add_argument(
        "-v", dest="process", action="store_true",
        help="also the process that serves it: pid, KiB resident, age, take-overs",
    )  # fmt: skip
    what.add_argument("-z", dest="busy", action="store_true", help="leave out what is idle")
    what.add_argument("-a", dest="active", action="store_true", help="only 0.1%% busy and more")
    what.add_argument("-n", dest="most", metavar="DEVS", help="most devices to show")
    what.add_argument(
        "-t", dest="types", metavar="TYPE", action="append", default=[],
        help="only devices of a type: da, other, xbb or xbbi, joined by commas; xnb: cards",
    )  # fmt: skip
    what.add_argument("-f", dest="filter", metavar="REGEX", default="", help="only what matches")
    what.add_argument("-s", dest="sort", metavar="COLUMN", default="name", help="largest first")
    when = parser.add_argument_group("when")
    when.add_argument("-w", dest="wait", metavar="SECONDS", help="pause between reports")
    when.add_argument("-c", dest="count", metavar="COUNT", help="so many reports")
    parser.add_argument("--host", metavar="SPEC", help="sim:DIR for a simulated machine")
    parser.add_argument("--state-dir", metavar="DIR", help="of the daemon, if not the usual one")
    parser.add_argument("--version", action="version", version=f"xbbstat {__version__}")
    parser.add_argument("drives", nargs="*", metavar="drive", help="devices to show")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """What the options ask for; ValueError."""
    drives, wait, count = _operands(options)
    names = tuple(name for drive in drives for name in names_of(drive))
    choice = Choice(
        names=names,
        types=tuple(types_of(text) for text in options.types),
        filter=checked_filter(options.filter),
        sort=sort_of(options.sort),
        active=options.active,
    )
    form = _form(options)
    if choice.cards:
        form = _form_of_cards(options, form)
    most = None if options.most is None else _number("-n", options.most, int, 0)
    if most is None and form is Form.COLUMNS:
        most = max(MOST_ABREAST, len(names))
    if count is None and (wait is None or form is Form.BATCH) and not _endless(options, form):
        count = 1
    return Plan(
        form=form,
        choice=replace(choice, most=most),
        wait=1.0 if wait is None else wait,
        count=count,
        totals=options.totals,
        idle=not options.busy,
        deletes=options.deletes,
        others=options.others,
        latency=Latency.ALWAYS if options.latency else Latency.FITTING,
        process=options.process,
    )


def _operands(options: argparse.Namespace) -> tuple[list[str], float | None, int | None]:
    """Drives, then iostat's traditional wait and count, which overrule -w and -c."""
    operands: list[str] = options.drives
    first = next((i for i, text in enumerate(operands) if text[:1].isdigit()), len(operands))
    times = operands[first:]
    if len(times) > 2:
        raise ValueError(f"{times[2]}: drives come first, then wait and count")
    wait_text = times[0] if times else options.wait
    count_text = times[1] if len(times) > 1 else options.count
    wait = None if wait_text is None else _number("wait", wait_text, float, LEAST_WAIT, MOST_WAIT)
    count = None if count_text is None else _number("count", count_text, int, 1)
    return operands[:first], wait, count


def _form(options: argparse.Namespace) -> Form:
    batch = options.batch or options.endless
    if options.extended + options.json + (options.screen or batch or options.csv) > 1:
        raise ValueError("-x, -i (with -b, -B or -C) and -j exclude each other")
    if options.csv:
        form = Form.CSV
    elif options.json:
        form = Form.JSON
    elif batch:
        form = Form.BATCH
    elif options.screen:
        form = Form.SCREEN
    else:
        form = Form.EXTENDED if options.extended else Form.COLUMNS
    ours = form in (Form.COLUMNS, Form.EXTENDED)
    if options.totals and not ours:
        raise ValueError("-I is of iostat's reports, not of gstat's; JSON has totals anyway")
    if options.others and (ours or form is Form.JSON):
        raise ValueError("-o is of gstat's reports: with -i, -b, -B or -C")
    if options.latency and form not in (Form.SCREEN, Form.BATCH):
        raise ValueError("-l is of gstat's reports: with -i, -b or -B")
    if options.process and form in (Form.COLUMNS, Form.JSON):
        raise ValueError("-v is of -x and of gstat's reports; JSON has what it shows anyway")
    return form


def _form_of_cards(options: argparse.Namespace, form: Form) -> Form:
    """The same of network cards, where it has one; ValueError."""
    if form in (Form.SCREEN, Form.BATCH):
        raise ValueError("network cards have no -i, -b or -B: plain, -x, -C or -j")
    for option, given in (
        ("-s", options.sort != "name"),
        ("-a", options.active),
        ("-l", options.latency),
        ("-o", options.others),
        ("-v", options.process),
    ):
        if given:
            raise ValueError(f"{option} is of disks")
    return Form.NETSTAT if form is Form.COLUMNS else form


def _endless(options: argparse.Namespace, form: Form) -> bool:
    """Whether a form goes on until it is interrupted, as gstat's do."""
    return form in (Form.CSV, Form.SCREEN) or options.endless


def _number(
    name: str, text: str, kind: Callable[[str], T], least: float, most: float = math.inf
) -> T:
    try:
        found = kind(text)
    except ValueError:
        raise ValueError(f"{name} {one_line(text):.40}: must be a number") from None
    if not least <= found <= most:  # type: ignore[operator]
        raise ValueError(
            f"{name} {text}: must be {least:g} at least" + f", {most:g} at most" * (most < math.inf)
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
