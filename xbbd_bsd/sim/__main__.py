"""Commands of the simulated machine: `python -m xbbd_bsd.sim COMMAND`.

Reads the command line and calls the module that the command is, which alone is
imported: a machine is made of several such processes, and should start quickly.
Commands that start processes take SIGTERM and SIGHUP as they take Ctrl-C: they
clean up.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from xbbd_bsd import program
from xbbd_bsd.errors import OperatorError, one_line
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


def _offloads(text: str) -> int:
    from xbbd_bsd.native.netstate import NetAccepts

    try:
        return sum({NetAccepts[name.upper()] for name in filter(None, text.split(","))})
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"{error.args[0].lower()} is no offload") from None


def _add_disk(command: argparse.ArgumentParser) -> None:
    command.add_argument("directory", help="of the machine")
    command.add_argument("domid", type=int)
    command.add_argument("vdev", type=_vdev, help="xvda and so on, or its number")


def _machine(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import machine

    return machine.main(options.directory)


def _guest(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import guest

    return guest.main(options)


def _netguest(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import netguest

    return netguest.main(options)


def _netdemo(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import netdemo

    return netdemo.main(options.megabytes)


def _netbench(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import netbench

    return netbench.main(options.rounds, options.seconds)


def _demo(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import demo

    return demo.main(options.seconds, options.ring_order)


def _nbd(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import nbd

    return nbd.main(options)


def _bench(options: argparse.Namespace) -> int:
    from xbbd_bsd.sim import bench

    return bench.main(options.rounds, options.seconds)


def _parser() -> argparse.ArgumentParser:
    parser = program.Parser(prog="python -m xbbd_bsd.sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("machine", help="run a machine: a store, and domains that come")
    command.add_argument("directory", help="which it is; short, for the sake of socket paths")
    command.set_defaults(call=_machine)

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
    command.set_defaults(call=_guest)

    command = commands.add_parser(
        "netguest", help="be a guest with one network card, in a network name space of its own"
    )
    command.add_argument("directory", help="of the machine")
    command.add_argument("domid", type=int)
    command.add_argument("handle", type=int, help="number of the card")
    command.add_argument(
        "--address", action="append", default=[], metavar="ADDRESS/BITS", help="of eth0"
    )
    command.add_argument("--mtu", type=int, default=1500)
    command.add_argument("--queues", type=int, default=1, help="wanted")
    command.add_argument(
        "--offloads", type=_offloads, help="sg, gso_tcpv4, and so on, joined by commas; all"
    )
    command.add_argument("--rx-buffers", type=int, default=256, help="that the backend gets")
    command.add_argument("--skew", type=int, default=0, help="bytes left out before a frame")
    command.add_argument("--poll-us", type=int, default=0, help="look so long before sleeping")
    command.add_argument("--hold", action="store_true", help="do not let go when asked to")
    command.add_argument(
        "--patience",
        type=_positive,
        default=0.0,
        metavar="SECONDS",
        help="go on if the backend is gone, and another comes within that time",
    )
    command.set_defaults(call=_netguest)

    command = commands.add_parser("demo", help="show one disk from image to guest and back")
    command.add_argument("--seconds", type=_positive, default=10.0, help="of random I/O")
    command.add_argument("--ring-order", type=int, choices=range(6), default=0)
    command.set_defaults(call=_demo)

    command = commands.add_parser("nbd", help="export a guest's view of an image over NBD")
    command.add_argument("image")
    command.add_argument("--socket", help="Unix socket to listen on (default: one in /tmp)")
    command.add_argument("--read-only", action="store_true")
    command.add_argument("--run", help="a shell command; $uri is the export; ends with it")
    command.set_defaults(call=_nbd)

    command = commands.add_parser("bench", help="ring and backend against preadv(2)")
    command.add_argument("--rounds", type=int, choices=range(1, 100), default=5, metavar="N")
    command.add_argument("--seconds", type=_positive, default=1.0, help="of each measurement")
    command.set_defaults(call=_bench)

    command = commands.add_parser("demo-net", help="show two guests with network cards")
    command.add_argument("--megabytes", type=int, default=100, help="that one sends the other")
    command.set_defaults(call=_netdemo)

    command = commands.add_parser("bench-net", help="a card against the bare relay of two taps")
    command.add_argument("--rounds", type=int, choices=range(1, 100), default=5, metavar="N")
    command.add_argument("--seconds", type=_positive, default=2.0, help="of each measurement")
    command.set_defaults(call=_netbench)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands; exit status."""
    return program.run("sim", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    if options.command in ("demo", "nbd", "bench", "demo-net", "bench-net"):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
    return int(options.call(options))


if __name__ == "__main__":
    sys.exit(main())
