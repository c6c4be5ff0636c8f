"""Whether this host can do what a configuration says: what a start would stumble over.

Asked before a start, by `xbbd -t`, and before a running daemon takes a new file, so
that all three refuse the same in the same words, and all of it at once.  It looks
and changes nothing.  What a text may say at all is conftext.py's business.  The main
thread, or the control thread.
"""

import asyncio
import grp
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from xbbd_bsd.conffile import CONFIG_FILE, read_file
from xbbd_bsd.config import Config, parse_address
from xbbd_bsd.conftext import Fault, Reading
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.errors import HostError, OperatorError, XbbdError, reason
from xbbd_bsd.guests.confinement import check_cpus, check_user
from xbbd_bsd.host import Host, NoXen, control_path
from xbbd_bsd.host.choice import detect, platform, run_directory
from xbbd_bsd.oids import DAEMON_ROOT
from xbbd_bsd.places import already_running, check_directory, check_pidfile, owner_of
from xbbd_bsd.tomltext import spelled
from xbbd_bsd.xenstore.client import Store, StoreError

_OURS: Final = re.compile(r"control|[a-z]+\.[0-9]+|lost\..*|rates\..*", re.DOTALL)  # in state_dir


@dataclass(frozen=True, slots=True)
class Places:
    """Where a daemon has its state and its pid file."""

    state_dir: str
    pidfile: str

    @classmethod
    def of(cls, config: Config, host: str | None) -> "Places":
        """Those of a configuration; `host` as of the option --host."""
        state_dir = config.daemon.state_dir or run_directory(host)
        return cls(state_dir, config.daemon.pidfile or os.path.join(state_dir, "xbbd.pid"))


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon that the check is for, if it runs: what it has is not taken by others.

    `metrics`: where it serves them, "" for nowhere; None: it does not say.
    """

    places: Places
    metrics: str | None


def prepare(file: str | None, spec: str | None) -> tuple[Config, Host, Places]:
    """The configuration to start with, whom to serve, and where; `spec` as of the option --host.

    Refused with all that is in the way, as far as nobody has to be asked for it.
    """
    reading = read_file(file)
    places = Places.of(reading.config, spec)
    host: Host | None = None
    found: list[Fault] = []
    try:
        host = detect(spec)
    except XbbdError as error:
        found.append(Fault("", 0, str(error)))
    reading.refuse(*faults(reading, places, host, pid=os.getpid()), *found)
    assert host is not None
    return reading.config, host, places


def check_start(file: str | None, spec: str | None) -> None:
    """That a start would go well in place of the daemon that may run now; Refused.

    More is asked than by a start, which will find out by itself.  Without a Xen here
    there is none to ask, and no fault in that.
    """
    reading = read_file(file)
    places = Places.of(reading.config, spec)
    running = find_running(places, spec, os.path.abspath(file or CONFIG_FILE))
    host: Host | None = None
    found: list[Fault] = []

    def look(check: Callable[[], object]) -> None:
        try:
            check()
        except XbbdError as error:
            found.append(Fault("", 0, str(error)))

    try:
        host = detect(spec)
        look(lambda: check_host(host))
        look(lambda: check_not_locked(places, running))
    except NoXen:
        pass
    except XbbdError as error:
        found.append(Fault("", 0, str(error)))
    pid = _pid_of(running)
    reading.refuse(*faults(reading, places, host, running=running, pid=pid), *found)


def faults(
    reading: Reading,
    places: Places,
    host: Host | None,
    *,
    running: Running | None = None,
    kept: Places | None = None,
    pid: int | None = None,
) -> tuple[Fault, ...]:
    """What this host refuses of a configuration.

    `host` None: there is none here, so that only what the file names is looked at.
    `kept`: what a daemon has now; as long as it has that nobody asks whether it could.
    `pid`: the daemon's, None if there is none yet.
    """
    config = reading.config.daemon
    found: list[Fault] = []

    def look(key: str, value: object, check: Callable[[], object], section: str = "daemon") -> None:
        try:
            check()
        except XbbdError as error:
            found.append(reading.fault((section, key), value, str(error)))

    def is_meant(key: str) -> bool:
        """Not where something else stands: its default would be blamed for that."""
        return reading.says(key) or reading.is_silent(key)

    def is_asked(key: str) -> bool:
        return host is not None or reading.says(key)

    if host is not None:
        for place, transport in reading.transports():
            if transport not in host.transports:
                ways = ", ".join(map(spelled, host.transports))
                found.append(reading.fault(place, transport, f"this host has only {ways}"))
    if host is not None and is_meant("kinds"):
        look("kinds", config.kinds, lambda: host.check_kinds(config.kinds))
    if is_meant("state_dir"):
        if is_asked("state_dir") and (kept is None or kept.state_dir != places.state_dir):
            look("state_dir", places.state_dir, lambda: _check_state_dir(places))
        moved = kept is None or kept.pidfile != places.pidfile
        if is_meant("pidfile") and is_asked("pidfile") and moved:
            look("pidfile", places.pidfile, lambda: _check_pidfile(places))
    if config.group is not None:
        look("group", config.group, lambda: _check_group(config.group))
    guest = reading.config.guest
    if guest.processes:
        look("user", guest.user, lambda: check_user(guest.user), "guest")
    if guest.cpus:
        look("cpus", guest.cpus, lambda: check_cpus(guest.cpus, platform().processors()), "guest")
    if guest.cpu_percent:
        look("cpu_percent", guest.cpu_percent, lambda: platform().quotas().check(pid), "guest")
    if config.metrics is not None:
        look("metrics", config.metrics, lambda: _check_metrics(config.metrics, places, running))
    return tuple(found)


def check_host(host: Host) -> None:
    """That a host has what any daemon needs, XenStore above all; HostError."""
    _ = host.resources
    loop = asyncio.new_event_loop()
    store = Store(host.store_path, loop=loop)
    try:
        store.connect()
    except StoreError as error:
        raise silent_store(error) from None
    finally:
        store.close()
        loop.close()


def silent_store(error: StoreError) -> HostError:
    """That there is no XenStore to speak to."""
    return HostError(f"XenStore does not answer: {reason(error)}", error.errno or 0)


def find_running(places: Places, host: str | None, file: str) -> Running | None:
    """The daemon that was started with a configuration, or an older state of it.

    It answers where the file says that its socket is, or, with that file as its own,
    at the usual place.  One that has the pid file and does not answer is given all the
    benefit of the doubt: it may be stuck, and about to be started again.
    """
    found = _answering(places.state_dir)
    if found is not None:
        return _running(found)
    owner = owner_of(places.pidfile)
    if owner is not None and re.fullmatch("[0-9]{1,9}", owner) and _lives(int(owner)):
        return Running(places, None)
    usual = run_directory(host)
    found = _answering(usual) if usual != places.state_dir else None
    if found is not None and found.get(f"{DAEMON_ROOT}.configuration_file") == file:
        return _running(found)
    return None


def check_not_locked(places: Places, running: Running | None) -> None:
    """That nobody but the daemon in question has the pid file; OperatorError."""
    if running is not None and running.places.pidfile == places.pidfile:
        return
    owner = owner_of(places.pidfile)
    if owner is not None:
        raise already_running(owner, places.pidfile)


def _answering(state_dir: str) -> Mapping[str, Any] | None:
    with suppress(OperatorError):
        return ask(control_path(state_dir), Request(Verb.GET, DAEMON_ROOT))
    return None


def _running(leaves: Mapping[str, Any]) -> Running:
    state_dir, pidfile, metrics = (
        str(leaves.get(f"{DAEMON_ROOT}.{name}", "")) for name in ("state_dir", "pidfile", "metrics")
    )
    return Running(Places(state_dir, pidfile), metrics)


def _pid_of(running: Running | None) -> int | None:
    """As its pid file has it."""
    owner = owner_of(running.places.pidfile) if running is not None else None
    return int(owner) if owner is not None and re.fullmatch("[0-9]{1,9}", owner) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _check_state_dir(places: Places) -> None:
    check_directory(places.state_dir)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:  # one as long as the control socket
            probe.connect(control_path(places.state_dir)[:-1] + "_")
        except OSError as error:
            if error.errno is None:
                raise OperatorError("too long a path for the control socket in it") from None


def _check_pidfile(places: Places) -> None:
    name = _name_in_state_dir(places.pidfile, places)
    if name is not None and _OURS.fullmatch(name):
        raise OperatorError("is another file of ours")
    if name is None or os.path.isdir(places.state_dir):  # else it will be made
        check_pidfile(places.pidfile)


def _check_group(name: str | None) -> None:
    try:
        number = grp.getgrnam(name or "").gr_gid
    except KeyError:
        raise OperatorError("there is no such group") from None
    if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
        raise OperatorError("only root, or one of its members, can give sockets to it")


def _check_metrics(value: str | None, places: Places, running: Running | None) -> None:
    # Most daemons need none of what this pulls in.
    from xbbd_bsd.control import families, metrics

    families.library()
    address = parse_address(value)
    if isinstance(address, str):
        name = _name_in_state_dir(address, places)
        ours = name is not None and _OURS.fullmatch(name)
        if ours or _place(address) == _place(places.pidfile):
            raise OperatorError("is another file of ours")
        if name is not None and not os.path.isdir(places.state_dir):
            return  # it will be made
    if running is None or running.metrics not in (None, value):
        metrics.check(address)


def _name_in_state_dir(path: str, places: Places) -> str | None:
    """What a file is called there; None if it is elsewhere."""
    directory, name = _place(path)
    return name if directory == os.path.realpath(places.state_dir) else None


def _place(path: str) -> tuple[str, str]:
    """Where a file is or will be, whatever links lead there, as /var/run on Linux; its name."""
    directory, name = os.path.split(os.path.normpath(path))
    return os.path.realpath(directory), name
