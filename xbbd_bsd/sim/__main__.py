"""Commands of the simulated machine: `python -m xbbd_bsd.sim COMMAND`.

Reads the command line and calls the module that the command is.  Commands that
start processes take SIGTERM and SIGHUP as they take Ctrl-C: they clean up.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from xbbd_bsd import program
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.sim import bench, demo, guest, machine, nbd
from xbbd_bsd.vdev import vdev_number


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _vdev(text: str) -> int:
    try:
        return vdev_number(text)
    except OperatorError as error:
        raise argparse.ArgumentTypeError(one_line(str(error))) from None


def _add_disk(command: argparse.ArgumentParser) -> None:
    command.add_argument("directory", help="of the machine")
    command.add_argument("domid", type=int)
    command.add_argument("vdev", type=_vdev, help="xvda and so on, or its number")


def _parser() -> argparse.ArgumentParser:
    parser = program.Parser(prog="python -m xbbd_bsd.sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("machine", help="run a machine: a store, and domains that come")
    command.add_argument("directory", help="which it is; short, for the sake of socket paths")
    command.set_defaults(call=lambda o: machine.main(o.directory))

    command = commands.add_parser("guest", help="be a guest with one disk (told what by stdin)")
    _add_disk(command)
    command.add_argument("--abi", choices=("native", "x86_32", "x86_64"), default="x86_64")
    command.add_argument("--ring-order", type=int, choices=range(6), default=0)
    command.add_argument("--depth", type=int, default=32, help="most requests in flight, a ring")
    command.add_argument("--queues", type=int, default=1, help="rings wanted")
    command.add_argument("--max-segments", type=int, default=11, help="of a request, to 256")
    command.add_argument("--persistent", action="store_true", help="grants stay mapped")
    command.add_argument("--hold", action="store_true", help="do not let go when asked to")
    command.add_argument(
        "--patience",
        type=_positive,
        default=0.0,
        metavar="SECONDS",
        help="go on if the backend is gone, and another comes within that time",
    )
    command.add_argument(
        "--refuse", action="store_true", help="say no when asked to, as older Linux does"
    )
    command.set_defaults(call=guest.main)

    command = commands.add_parser("demo", help="show one disk from image to guest and back")
    command.add_argument("--seconds", type=_positive, default=10.0, help="of random I/O")
    command.add_argument("--ring-order", type=int, choices=range(6), default=0)
    command.set_defaults(call=lambda o: demo.main(o.seconds, o.ring_order))

    command = commands.add_parser("nbd", help="export a guest's view of an image over NBD")
    command.add_argument("image")
    command.add_argument("--socket", help="Unix socket to listen on (default: one in /tmp)")
    command.add_argument("--read-only", action="store_true")
    command.add_argument("--run", help="a shell command; $uri is the export; ends with it")
    command.set_defaults(call=nbd.main)

    command = commands.add_parser("bench", help="ring and backend against preadv(2)")
    command.add_argument("--rounds", type=int, choices=range(1, 100), default=5, metavar="N")
    command.add_argument("--seconds", type=_positive, default=1.0, help="of each measurement")
    command.set_defaults(call=lambda o: bench.main(o.rounds, o.seconds))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands; exit status."""
    return program.run("sim", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    if options.command in ("demo", "nbd", "bench"):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
    return int(options.call(options))


if __name__ == "__main__":
    sys.exit(main())
