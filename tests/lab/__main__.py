"""The lab's command line: python -m tests.lab COMMAND (README.md)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab import payload, profile
from tests.lab.bench import BACKENDS, STORES
from tests.lab.figures import RECORDS
from tests.lab.images import LabError, build, cache, libc_version, say
from tests.lab.initramfs import BadTree
from tests.lab.machine import NO_RESULT, Boot, run

TEST_TIMEOUT = 2700.0  # seconds; half of that on a machine with nothing else to do


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="make the images, as far as they are missing")
    command.add_argument("--force", action="store_true", help="all of them")
    command = commands.add_parser("test", help="run tests/real in dom0")
    _add_boot(command, TEST_TIMEOUT)
    command.add_argument("words", nargs="*", help="pytest's arguments, after --")
    for name, what, module in (
        ("bench", "measure xbbd against other backends of disks", "bench"),
        ("bench-net", "measure it against xen-netback", "netbench"),
    ):
        command = commands.add_parser(name, help=what)
        _add_boot(command, TEST_TIMEOUT)
        command.add_argument(
            "--record", action="store_true", help="append the medians to the record of figures"
        )
        command.add_argument("words", nargs="*", help=f"arguments of tests.lab.{module}, after --")
    command = commands.add_parser(
        "profile", help="count the instructions of a row, in virtual time"
    )
    _add_boot(command, TEST_TIMEOUT)
    command.set_defaults(icount=2)
    command.add_argument(
        "words", nargs=1, metavar="ROW", help='of either bench: "128k read, depth 8"'
    )
    command.add_argument(
        "--backend", choices=BACKENDS[:2], default=BACKENDS[0], help="whose, in a row of disks"
    )
    command.add_argument(
        "--store", choices=STORES, default=STORES[0], help="on what, in a row of disks"
    )
    return parser


def _add_boot(command: argparse.ArgumentParser, timeout: float) -> None:
    command.add_argument("--timeout", type=float, default=timeout, help="seconds")
    command.add_argument(
        "--icount", type=int, metavar="N", help="virtual time: an instruction takes 2^N ns"
    )
    command.add_argument("--smp", type=int, default=1)
    command.add_argument("--env", action="append", default=[], metavar="K=V", help="of the job")
    command.add_argument("--out", type=Path, help="where results go (default: in the cache)")
    command.add_argument("--quiet", action="store_true", help="do not print what the job says")


def _boot(options: argparse.Namespace) -> int:
    images = build()
    out: Path = (options.out or cache() / "out" / options.command).resolve()
    counted = options.command == "profile"
    out.mkdir(parents=True, exist_ok=True)
    boot = Boot(
        timeout=options.timeout,
        icount=options.icount,
        smp=options.smp,
        environment=dict(pair.split("=", 1) for pair in options.env),
        quiet=options.quiet,
        plugin=profile.plugin(out) if counted else None,
    )
    say(f"results will be in {out}")
    script = {
        "test": payload.TEST_JOB,
        "bench": payload.BENCH_JOB,
        "bench-net": payload.NET_BENCH_JOB,
        "profile": payload.PROFILE_JOB,
    }[options.command]
    words = [
        *options.words,
        *(["--backend", options.backend, "--store", options.store] if counted else []),
    ]
    with payload.job(script, words, libc_version(images.tree)) as job:
        status = run(images, job, out, boot)
        if status == 0 and counted:
            profile.show(out, options.words[0], next((job / "xbbd_bsd/native").glob("_xbb*.so")))
    if status == 0 and options.command in RECORDS and options.record:
        RECORDS[options.command].append(out / "results", payload.ROOT)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status, for a job the job's."""
    options = _parser().parse_args(arguments)
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.command == "build":
            build(force=options.force)
            return 0
        return _boot(options)
    except (LabError, BadTree, OSError) as error:
        say(str(error))
        return NO_RESULT


if __name__ == "__main__":
    sys.exit(main())
