"""rc.d/xbbd under a stand-in for rc.subr, with the real daemon on a simulated machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.service.installation import LEAVING, ROOT, SCRIPT, Service
from tests.unit.test_conftext import MISTAKES, WRONG_LINES
from tests.waiting import eventually
from xbbd_bsd.host import control_path

PORTED = ROOT / "port" / "sysutils" / "xbbd" / "files" / "xbbd.in"

# A ps(1) that never sees xbbd, as if each one had ended before anybody could look.
TOO_LATE = """#!/bin/sh
shown=$({ps} "$@") || exit
case $shown in
*/bin/xbbd*) case $shown in daemon:*) ;; *) exit 1 ;; esac ;;
esac
echo "$shown"
"""

# As xbbd that does not get as far as to say something: "die" ends at once, "hang"
# neither serves nor ends, nor hears a signal if it is "deaf".
BROKEN = f"""#!{sys.executable}
import os, signal, sys
if "-t" not in sys.argv:
    if "MODE" == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if "MODE" == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    while True:
        signal.pause()
"""


@pytest.mark.slow
def test_from_start_to_stop(service: Service, shell: str, like: str) -> None:
    assert service("status", 1) == "xbbd is not running.\n"
    assert service("start") == "Starting xbbd.\n"
    service.until_served()
    supervisor, child = service.supervisor, service.child
    assert service("status") == f"xbbd is running as pid {supervisor}.\n"
    assert service.protected.read_text() == f"-d -i -p {supervisor}\n"

    service.config.write_text("[disk]\nworkers = 3\n")
    assert service("reload") == "disk.workers: 8 -> 3\n"
    assert "configuration read again: disk.workers 8 -> 3" in service.log_text()

    assert service("stop").startswith("Stopping xbbd.\n")
    assert service.gone(child), "stop has not waited for xbbd"
    assert service.gone(supervisor)
    assert not list((service.directory / "run").iterdir())
    assert service("status", 1) == "xbbd is not running.\n"
    assert "not running? (check " in service("stop", 1)
    assert service("faststop") == ""
    assert "not running? (check " in service("reload", 1)
    assert service.served() == 1
    assert f"daemon.info xbbd[{child}]: serving vbd, vbd3 on sim:" in service.log_text()


@pytest.mark.slow
def test_a_start_returns_when_it_serves(service: Service, shell: str, like: str) -> None:
    service("start")
    assert service.served() == 1
    state_dir = service.chain.layout.run
    assert service.report_file.read_text() == f"{service.child} serving {state_dir}\n"
    service("restart")
    assert service.served() == 2
    service("stop")


@pytest.mark.slow
def test_a_start_that_fails_says_why_and_leaves_nothing(
    service: Service, shell: str, like: str
) -> None:
    """A check takes whoever holds the pid file, and lives, for the daemon that it is about."""
    with (service.directory / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(f"{os.getpid()}\n")
        held.flush()
        service.config.write_text(f'[daemon]\npidfile = "{held.name}"\n')
        said = service("start", 1)
    reason = f"already running, pid {os.getpid()} ({held.name})"
    assert f"WARNING: xbbd has not started: {reason}\n" in said
    assert said.endswith(f"({held.name})\n"), "protect(1) was given nobody"
    assert not list((service.directory / "run").iterdir())
    assert service("status", 1) == "xbbd is not running.\n"
    assert service.served() == 0
    assert re.search(r"^daemon\.err xbbd\[\d+\]: xbbd: already running", service.log_text(), re.M)
    service.config.write_text("")
    service("start")
    assert service.served() == 1
    service("stop")


@contextlib.contextmanager
def held_by_somebody(service: Service) -> Iterator[str]:
    """A pid file that is not the daemon's."""
    with (service.directory / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(f"{os.getpid()}\n")
        held.flush()
        yield f'[daemon]\npidfile = "{held.name}"\n'


@contextlib.contextmanager
def taken_port(service: Service) -> Iterator[str]:
    """An address for metrics where somebody else listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f'[daemon]\nmetrics = "127.0.0.1:{taken.getsockname()[1]}"\n'


@contextlib.contextmanager
def nothing_there(service: Service) -> Iterator[str]:
    """What does not exist on this host."""
    yield f'[daemon]\ngroup = "no-such-group"\npidfile = "{service.directory}/none/x.pid"\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (held_by_somebody, "already running, pid"),
        (taken_port, "Address already in use"),
        (nothing_there, "there is no such group"),
    ],
)
def test_a_configuration_it_cannot_start_with_stops_nothing(
    service: Service,
    fault: Callable[[Service], contextlib.AbstractContextManager[str]],
    message: str,
    shell: str,
) -> None:
    if fault is taken_port:
        pytest.importorskip("prometheus_client")
    service("start")
    pids = service.supervisor, service.child
    with fault(service) as text:
        service.config.write_text(text)
        said = service("restart", 1)
        assert message in said
        assert "Stopping" not in said
    assert (service.supervisor, service.child) == pids
    assert not service.gone(pids[1])
    assert service.served() == 1
    service.config.write_text("[disk]\nworkers = 3\n")
    assert LEAVING in service("restart")
    assert service.served() == 2
    service("stop")


@pytest.mark.slow
def test_what_the_daemon_has_is_not_taken(service: Service) -> None:
    """Neither its port nor its pid file, though both are in use when it is asked."""
    pytest.importorskip("prometheus_client")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f'[daemon]\nmetrics = "127.0.0.1:{port}"\npidfile = "{service.directory}/x.pid"\n'
    service.config.write_text(text)
    service("start")
    assert LEAVING in service("restart")
    elsewhere = service.directory / "state"
    service.config.write_text(f'{text}state_dir = "{elsewhere}"\n')
    assert LEAVING in service("restart")
    assert service.report_file.read_text() == f"{service.child} serving {elsewhere}\n"
    service.config.write_text(f'{text}state_dir = "{elsewhere}"\n[disk]\nworkers = 3\n')
    assert service("reload") == "disk.workers: 8 -> 3\n"
    service("stop")


@pytest.mark.slow
def test_a_reload_without_the_control_socket(service: Service) -> None:
    """By the signal, whose verdict is in the log; but not with a file that is bad."""
    service("start")
    child = service.child
    os.unlink(control_path(service.chain.layout.run))
    service.config.write_text("[disk]\nworkers = 0\n")
    assert "[disk] workers = 0: must be" in service("reload", 1)
    assert "configuration" not in service.log_text()
    service.config.write_text("[disk]\nworkers = 3\n")
    assert service("reload") == ""
    service.until_logged("configuration read again: disk.workers 8 -> 3")
    assert service.child == child
    service("stop")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("die", "it ends at once, see its log"),
        ("hang", "it does not serve after 2 s"),
        ("deaf", "it does not serve after 2 s"),
    ],
)
def test_a_start_that_comes_to_nothing_ends(
    service: Service, mode: str, reason: str, like: str
) -> None:
    service.install("bin/xbbd", 0o755, BROKEN.replace("MODE", mode))
    service.shorten_leave(2)
    if mode == "die":
        service.install("bin/ps", 0o755, TOO_LATE.format(ps=shutil.which("ps")))
    timeout = "30" if mode == "die" else "2"
    service.set_rc_conf(xbbd_enable="YES", xbbd_start_timeout=timeout)
    pids: list[int] = []

    def note() -> bool:
        with contextlib.suppress(OSError, ValueError):
            pids[:] = [service.supervisor, service.child]
        return len(pids) == 2

    watcher = threading.Thread(target=eventually, args=(note, "both pids"))
    watcher.start()
    said = service("start", 1)
    watcher.join()
    assert f"WARNING: xbbd has not started: {reason}\n" in said
    assert ("; killing it\n" in said) is (mode == "deaf")
    assert not list((service.directory / "run").iterdir())
    eventually(lambda: all(map(service.gone, pids)), f"{pids} gone")


@pytest.mark.parametrize("value", ["", "x", "-1", "0", "1h", "99999999"])
def test_a_time_limit_is_a_number_of_seconds(service: Service, value: str) -> None:
    service.set_rc_conf(xbbd_enable="YES", xbbd_start_timeout=value)
    if value:
        said = service("start", 1)
        assert f'xbbd_start_timeout="{value}" is no number of seconds' in said
        assert not list((service.directory / "run").iterdir())
    else:
        service("start")  # empty is unset, as everywhere in rc.conf
        service("stop")


@pytest.mark.slow
def test_a_time_limit_that_is_none_stops_nothing(service: Service) -> None:
    service("start")
    pids = service.supervisor, service.child
    service.set_rc_conf(xbbd_enable="YES", xbbd_start_timeout="1h")
    said = service("restart", 1)
    assert 'xbbd_start_timeout="1h" is no number of seconds' in said
    assert "Stopping" not in said
    assert (service.supervisor, service.child) == pids
    assert not service.gone(pids[1])
    service("stop")


@pytest.mark.slow
def test_each_line_of_the_log_has_its_severity(service: Service) -> None:
    service("start")
    child = service.child
    service.config.write_text("[disk]\nworkers = 0\n")
    os.kill(child, signal.SIGHUP)
    service.until_logged(f"daemon.err xbbd[{child}]: configuration not changed: ")
    service.config.write_text("")
    service("stop")
    assert f"daemon.info xbbd[{child}]: stopped\n" in service.log_text()


@pytest.mark.slow
def test_status_says_why_it_does_not_serve_again(service: Service, like: str) -> None:
    service("start")
    supervisor, child = service.supervisor, service.child
    service.hold.touch()
    with (service.directory / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        service.config.write_text(f'[daemon]\npidfile = "{held.name}"\n')
        os.kill(child, signal.SIGKILL)
        eventually(lambda: service.gone(child), "the first is gone")
        service.hold.unlink()
        service.until_logged("already running, pid unknown")
        service.hold.touch()
        eventually(lambda: service.gone(service.child), "the second is gone")
        assert service("status", 1) == (
            f"xbbd is running as pid {supervisor}.\nIt has ended and is about to be started"
            f" again: already running, pid unknown ({held.name})\n"
        )
    service.config.write_text("")
    service.hold.unlink()
    service.until_served(2)
    eventually(lambda: "serving" in service.report_file.read_text(), "the report")
    assert service("status") == f"xbbd is running as pid {supervisor}.\n"
    service("stop")


@pytest.mark.slow
def test_two_starts_are_one(service: Service) -> None:
    service("start")
    service.until_served()
    pids = service.supervisor, service.child
    assert service("start", 1) == f"xbbd already running?  (pid={pids[0]}).\n"
    assert f"xbbd already runs as pid {pids[1]}; stop it first" in service("faststart", 1)
    assert (service.supervisor, service.child) == pids
    service("stop")
    assert service.served() == 1


@pytest.mark.slow
def test_pid_files_of_the_dead_are_no_hindrance(service: Service) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    service.supervisor_file.write_text(f"{dead.pid}\n")
    service.child_file.write_text(f"{os.getpid()}\n")  # reused by somebody else
    assert service("status", 1) == "xbbd is not running.\n"
    assert "not running?" in service("stop", 1)
    service("start")
    service.until_served()
    service("stop")


@pytest.mark.slow
def test_a_bad_configuration_does_not_start(service: Service) -> None:
    service.config.write_text("[disk]\nworkers = 0\n")
    said = service("start", 1)
    assert f"xbbd: {service.config}:2: [disk] workers = 0: must be a whole number" in said
    assert "failed precmd routine for xbbd" in said
    assert not list((service.directory / "run").iterdir())
    service.set_rc_conf(xbbd_enable="YES", xbbd_config=f"{service.directory}/none")
    assert f"xbbd: {service.directory}/none: no such file" in service("start", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("argument", "program"), [("reload", "xbbctl"), ("restart", "xbbd")])
def test_a_bad_configuration_stops_nothing(service: Service, argument: str, program: str) -> None:
    """And all that is wrong is on the terminal, whoever found it."""
    service("start")
    service.until_served()
    pids = service.supervisor, service.child
    service.config.write_text(MISTAKES)
    found = re.findall(rf"^{program}: {service.config}:(\d+): ", service(argument, 1), re.M)
    assert list(map(int, found)) == WRONG_LINES
    assert (service.supervisor, service.child) == pids
    assert not service.gone(pids[1])
    logged = len(re.findall("configuration not changed: ", service.log_text()))
    assert logged == (20 if argument == "reload" else 0)
    service("stop")


@pytest.mark.slow
def test_after_a_crash_it_is_started_again(service: Service, like: str) -> None:
    service("start")
    service.until_served()
    supervisor, first = service.supervisor, service.child
    service.hold.touch()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: service.gone(first), "the first is gone")
    said = service("status", 1)
    assert said == (
        f"xbbd is running as pid {supervisor}.\n"
        "It has ended and is about to be started again, see its log.\n"
    )
    assert "about to be started again" in service("reload", 1)
    service.hold.unlink()
    service.until_served(2)
    assert service.child != first
    assert service("status") == f"xbbd is running as pid {supervisor}.\n"
    service("reload")
    service.until_logged("configuration read again")
    service("stop")
    assert service.served() == 2


@pytest.mark.slow
def test_stop_between_two_starts(service: Service, like: str) -> None:
    service("start")
    service.until_served()
    supervisor, child = service.supervisor, service.child
    service.hold.touch()
    os.kill(child, signal.SIGKILL)
    eventually(lambda: service.gone(child), "xbbd is gone")
    release = threading.Timer(1.5, service.hold.unlink)
    release.start()
    assert service("stop").startswith("Stopping xbbd.\n")
    release.join()
    assert service.gone(supervisor)
    assert not list((service.directory / "run").glob("*.pid"))
    assert service("status", 1) == "xbbd is not running.\n"


@pytest.mark.slow
def test_without_its_supervisor_it_serves_and_can_be_stopped(service: Service) -> None:
    service("start")
    service.until_served()
    supervisor, child = service.supervisor, service.child
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: service.gone(supervisor), "daemon(8) is gone")
    assert f"xbbd already runs as pid {child}; stop it first" in service("start", 1)
    assert not service.gone(child)
    assert service("stop").startswith("Stopping xbbd.\n")
    assert service.gone(child)
    service("start")
    service.until_served(2)
    service("stop")


@pytest.mark.slow
def test_only_if_enabled(service: Service) -> None:
    service.set_rc_conf()
    assert "Set xbbd_enable to YES" in service("start")
    assert not list((service.directory / "run").iterdir())
    service("onestart")
    service.until_served()
    service("onestop")


def test_what_it_says_of_itself(service: Service) -> None:
    assert service("rcvar") == (
        '# xbbd : User-space block backend for Xen guests\n#\nxbbd_enable="YES"\n'
    )
    assert service("extracommands") == "reload\n"
    assert "unknown directive 'frobnicate'" in service("frobnicate", 1)


def test_rcorder_finds_its_place() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert lines[2:5] == ["# PROVIDE: xbbd", "# REQUIRE: xencommons", "# KEYWORD: shutdown"]


def test_the_port_has_the_same_script() -> None:
    ours = SCRIPT.read_text().replace("/usr/local", "%%PREFIX%%")
    assert PORTED.read_text() == ours, (
        f"sed 's|/usr/local|%%PREFIX%%|g' rc.d/xbbd > {PORTED.relative_to(ROOT)}"
    )
