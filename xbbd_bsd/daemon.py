"""xbbd(8): reads the options and the configuration, joins all parts, and waits for signals.

One thread and one asyncio loop; only the data path has threads of its own.
SIGTERM and SIGINT close all devices and leave, SIGUSR1 leaves them at work for the
next daemon, SIGHUP reads the configuration again.  What the parts do is not known here.
"""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Final

from xbbd_bsd import __version__, logs, program
from xbbd_bsd.accounts import Accounts, Taker
from xbbd_bsd.checks import Places, check_start, prepare, silent_store
from xbbd_bsd.conffile import CONFIG_FILE
from xbbd_bsd.config import Config, DaemonConfig
from xbbd_bsd.endpoints import Endpoints
from xbbd_bsd.errands import Threads
from xbbd_bsd.errors import Refused, XbbdError, in_words, one_line
from xbbd_bsd.events import (
    Path,
    ScanFailed,
    Started,
    StopFailed,
    Stopped,
    Stopping,
    StoreBack,
)
from xbbd_bsd.events import StoreLost as StoreLostEvent
from xbbd_bsd.families import families
from xbbd_bsd.guests.claims import Claims
from xbbd_bsd.guests.confinement import confinement_of
from xbbd_bsd.guests.service import GuestProcesses, Loss, Terms
from xbbd_bsd.guests.watch import Watch
from xbbd_bsd.host import Host
from xbbd_bsd.host.choice import platform
from xbbd_bsd.journal import Journal
from xbbd_bsd.limits import Limits
from xbbd_bsd.native import HvKind, bound_io, budget_used, name_thread, set_budget
from xbbd_bsd.native.link import Bounds
from xbbd_bsd.places import locked, make_directory
from xbbd_bsd.reload import Configuration
from xbbd_bsd.surroundings import Surroundings
from xbbd_bsd.takeovers import Leaving, Left, LeftBusy, ProcessesStay, ProcessLost
from xbbd_bsd.views import DaemonView, Devices
from xbbd_bsd.xenbus.bus import Bus
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost

READY: Final = b"\0"  # a detached daemon's word to whoever started it
STOP_SECONDS: Final = 5.0  # for guests to close, and again for requests to end
LEAVE_SECONDS: Final = 8.0  # for requests to end, if guests are to be left at work

_log = logging.getLogger("xbbd")


class Ending(Enum):
    """What a daemon has left when it ends."""

    CLEAN = "nothing"
    STUCK = "requests that do not end"
    LEFT = "guests at work, for the next one"


class Daemon:
    """All parts, from the store's connection to the last device's end."""

    def __init__(self, host: Host, config: Config, config_file: str | None, state_dir: str) -> None:
        """Connect to the store and serve; OperatorError, HostError.

        `config_file` None: the default, which may be absent.
        """
        host.check_kinds(config.daemon.kinds)
        self._host = host
        self._loop = asyncio.new_event_loop()
        self._ended: asyncio.Future[bool] = self._loop.create_future()
        self._stopping = self._leaving = False
        _set_budget(config)
        self._journal = Journal(logs.sink, time.monotonic, _switches(config), time.time)
        places = Places(state_dir, config.daemon.pidfile or os.path.join(state_dir, "xbbd.pid"))
        self._configuration = Configuration(
            config, config_file, places, host=host, journal=self._journal, wall=time.time
        )
        self._run_errands = Threads(self._loop, name_thread)
        self._guests = self._guest_processes(state_dir, wanted=config.guest.processes)
        self._limits = Accounts(
            Limits.of(config.daemon, host.resources),
            bound_beyond=bound_io if self._guests is None else self._guests.processes.bound,
            freed=self._try_again,
            journal=self._journal,
            clock=time.monotonic,
        )
        self._families = families(
            Surroundings(
                host=host,
                config=config,
                state_dir=state_dir,
                loop=self._loop,
                run=self._run_errands,
                guests=self._guests,
                limits=self._limits,
                journal=self._journal,
                try_again=lambda driver, units: self._bus.try_again(driver.name, units),
            )
        )
        each = tuple(dict.fromkeys(self._families.values()))
        self._store = Store(
            host.store_path,
            loop=self._loop,
            on_lost=self._store_lost,
            on_connected=self._store_back,
        )
        self._bus = Bus(self._store, self._families, loop=self._loop, journal=self._journal)
        view = DaemonView(
            host.name,
            self._journal,
            config=lambda: self._config,
            places={"state_dir": places.state_dir, "pidfile": places.pidfile},
            configuration=self._configuration.leaves,
            devices=lambda: len(self._bus.devices),
            clock=time.monotonic,
            families=each,
            reload=lambda who: self._configuration.read_again(self, who),
            budget=budget_used,
            limits=self._limits,
            store=lambda: (self._store.connected, self._store_since),
        )
        try:
            # All that may fail comes before the first guest hears of us.
            self._endpoints = Endpoints(
                view,
                Devices(self._bus, self._families, self._journal),
                {family.driver.name: family.driver for family in each},
                config=config.daemon,
                state_dir=state_dir,
                loop=self._loop,
                journal=self._journal,
            )
            try:
                self._store.connect()
                self._store_since = time.time()
                self._bus.serve(config.daemon.kinds)
            except StoreError as error:
                self._endpoints.close()
                raise silent_store(error) from None
        except XbbdError:
            self._store.close()
            self._loop.close()
            raise
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._leave)

    def _guest_processes(self, state_dir: str, *, wanted: bool) -> Claims | None:
        """None if there are to be none.  What they are started with is as configured then."""
        quotas = platform().quotas()

        def terms() -> Terms:
            daemon = self._config.daemon
            bounds = Bounds(
                io_threads=0,
                io_bytes=0,
                mappings=daemon.max_mappings,
                grants=daemon.max_grants,
                guest_grants=daemon.max_guest_grants,
            )
            return Terms(
                HvKind(self._host.hv),
                bounds,
                grant_path=self._host.grant_path,
                confinement=confinement_of(self._config.guest),
                place=lambda domid: quotas.place(domid, self._config.guest.cpu_percent),
            )

        def lost(loss: Loss) -> None:
            self._journal(ProcessLost(loss.domid, loss.how))

        processes = GuestProcesses(state_dir, terms)
        if not wanted and not processes.exist():
            return None
        if not wanted:  # nobody else can go on with what they serve
            self._journal(ProcessesStay())
        quotas.prepare(self._config.guest.cpu_percent)
        processes.prepare()
        return Claims(Watch(processes, self._loop, self._run_errands, lost))

    def _try_again(self, takers: Iterable[Taker]) -> None:
        """Something that these devices were refused was given back."""
        for driver, unit in takers:
            self._bus.try_again(driver, (unit,))

    @property
    def _config(self) -> Config:
        return self._configuration.config

    def run(self) -> Ending:
        """Until a signal ends it."""
        with logs.caught(self._journal, self._loop):
            return self._run_until_told()

    def _run_until_told(self) -> Ending:
        self._journal(Started(", ".join(self._config.daemon.kinds), self._host.name))
        clean = self._loop.run_until_complete(self._ended)
        if self._leaving:
            for family in dict.fromkeys(self._families.values()):
                family.leave()
        self._endpoints.close()
        if self._guests is not None:
            self._guests.close()
        if self._leaving:
            busy = ", ".join(device.name for device in self._bus.devices if not device.left)
            self._journal(LeftBusy(busy) if busy else Left())
            return Ending.LEFT
        if not clean:
            stuck = ", ".join(device.name for device in self._bus.devices)
            self._journal(StopFailed(stuck))
            return Ending.STUCK
        self._store.close()
        self._loop.close()
        self._journal(Stopped())
        return Ending.CLEAN

    def _leave(self) -> None:
        if self._stopping:
            return
        self._stopping = self._leaving = True
        self._journal(Leaving("SIGUSR1", len(self._bus.devices)))
        self._bus.leave(lambda: self._end(True))
        self._loop.call_later(LEAVE_SECONDS, self._end, False)

    def _stop(self, number: signal.Signals) -> None:
        if self._leaving:
            self._end(False)
        elif self._stopping:
            self._bus.hurry()  # asked twice: guests have had their time
            return
        self._stopping = True
        self._journal(Stopping(number.name, len(self._bus.devices), STOP_SECONDS))
        self._bus.stop(lambda: self._end(True))
        self._loop.call_later(STOP_SECONDS, self._bus.hurry)
        self._loop.call_later(2 * STOP_SECONDS, self._end, False)

    def _end(self, clean: bool) -> None:
        if not self._ended.done():
            self._ended.set_result(clean)

    def _reload(self) -> None:
        with suppress(Refused):  # which is logged
            self._configuration.read_again(self, "SIGHUP")

    # What a new configuration is applied to (reload.Parts).

    def closes(self, kinds: frozenset[str]) -> tuple[int, int, str]:
        """How many devices of these kinds there are, of how many guests, and what one is."""
        found = [device.identity for device in self._bus.devices if device.identity.kind in kinds]
        nouns = {self._families[identity.kind].driver.noun for identity in found}
        noun = nouns.pop() if len(nouns) == 1 else "device"
        return len(found), len({identity.domid for identity in found}), noun

    def listen(self, config: DaemonConfig) -> None:
        """Have the sockets for operators as it says; OperatorError, OSError."""
        self._endpoints.configure(config)

    def apply(self, config: Config) -> None:
        """Have everything else as it says."""
        _set_budget(config)
        self._limits.configure(Limits.of(config.daemon, self._host.resources))
        for family in dict.fromkeys(self._families.values()):
            family.configure(config)
        self._journal.switches = _switches(config)
        self._serve()

    def _serve(self) -> None:
        kinds = self._config.daemon.kinds
        try:
            if not self._stopping:
                self._bus.serve(kinds)
        except StoreLost:
            pass  # once more when the store is back
        except StoreError as error:
            self._journal(ScanFailed(", ".join(kinds), str(error)))

    def _store_lost(self, error: StoreLost) -> None:
        self._store_since = time.time()
        self._journal(StoreLostEvent(str(error)))

    def _store_back(self) -> None:
        self._store_since = time.time()
        self._journal(StoreBack())
        self._serve()
        self._bus.look()


def _set_budget(config: Config) -> None:
    """Have the data path keep no more than what is configured, whatever device it is for."""
    set_budget(
        mappings=config.daemon.max_mappings,
        grants=config.daemon.max_grants,
        guest_grants=config.daemon.max_guest_grants,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return program.run("xbbd", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _options(arguments)
    try:
        if options.test:
            check_start(options.file, options.host)
            return 0
        config, host, places = prepare(options.file, options.host)
        make_directory(places.state_dir)
        config_file = os.path.abspath(options.file) if options.file else None
        with locked(places.pidfile) as lock:
            if not options.foreground:
                return _serve_detached(host, config, config_file, places.state_dir, lock)
            (logs.to_syslog if options.syslog else logs.to_standard_error)()
            return _serve(host, config, config_file, places.state_dir, lock, options.report)
    except Exception as error:
        if options.report:
            _report(options.report, f"failed {in_words(error)}")
        raise


def _parser() -> argparse.ArgumentParser:
    parser = program.Parser(prog="xbbd", description="user-space Xen block backend")
    parser.add_argument(
        "-d", dest="foreground", action="store_true", help="stay in the foreground, log to stderr"
    )
    parser.add_argument(
        "-S", dest="syslog", action="store_true", help="log to syslog(3) in the foreground too"
    )
    parser.add_argument("-f", dest="file", help=f"configuration (default {CONFIG_FILE})")
    parser.add_argument(
        "-t", dest="test", action="store_true", help="check the configuration and exit"
    )
    parser.add_argument("--host", metavar="SPEC", help="sim:DIR for a simulated machine")
    parser.add_argument(
        "--report", metavar="FILE", help="with -d: say in a file what came of the start"
    )
    parser.add_argument("--version", action="version", version=f"xbbd {__version__}")
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.report and not options.foreground:
        parser.error("--report is for those who start it with -d; without -d it says so itself")
    return options


def _serve(
    host: Host,
    config: Config,
    config_file: str | None,
    state_dir: str,
    lock: int,
    report: str | None = None,
    ready: int = -1,
) -> int:
    """Serve until told to leave; say in a file `report` or on a descriptor that it has begun."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the loop takes it
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    # Every device needs a handful of descriptors.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    daemon = Daemon(host, config, config_file, state_dir)
    if ready >= 0:
        os.write(ready, READY)
        os.close(ready)
    if report:
        _report(report, f"serving {state_dir}")
    ending = daemon.run()
    if ending is Ending.CLEAN:
        return 0
    logging.shutdown()
    os.close(lock)  # which the next one shall have, also if a thread of ours keeps us
    # Not the usual way out: it would wait for requests that do not end.
    os._exit(ending is Ending.STUCK)


def _serve_detached(
    host: Host, config: Config, config_file: str | None, state_dir: str, lock: int
) -> int:
    """Serve in a process of its own session; return when it does, or cannot."""
    reader, writer = os.pipe()
    if os.fork() != 0:
        os.close(writer)
        with open(reader, "rb") as pipe:
            reason = pipe.read()
        if reason != READY:
            print(f"xbbd: {one_line(reason.decode()) or 'it ended at once'}", file=sys.stderr)
        os._exit(reason != READY)  # the lock is the other process's to give back
    os.close(reader)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)
    logs.to_syslog()
    try:
        return _serve(host, config, config_file, state_dir, lock, ready=writer)
    except Exception as error:
        if not isinstance(error, XbbdError):
            _log.exception("internal error, please report it")
        with suppress(OSError):  # whoever started us has long been told that all is well
            os.write(writer, in_words(error).encode("utf-8", "backslashreplace"))
        return 1


def _report(path: str, outcome: str) -> None:
    """Say in a file of one line what came of the start: our pid, and `outcome`.

    That is "serving" and the state directory, or "failed" and the reason.  Whoever
    looks sees the line before or the whole of this one.  That it cannot be written
    is no reason to serve nobody: whoever waits for it does not wait for ever.
    """
    line = f"{os.getpid()} {one_line(outcome)}\n"
    new = f"{path}.new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(new, flags, 0o644)
        try:
            os.write(file, line.encode("utf-8", "backslashreplace"))
        finally:
            os.close(file)
        os.rename(new, path)
    except OSError as error:
        _log.error("report %s: %s", path, error.strerror)


def _switches(config: Config) -> frozenset[Path]:
    return frozenset(Path(name) for name in config.daemon.log)


if __name__ == "__main__":
    sys.exit(main())
