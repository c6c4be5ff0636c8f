"""rc.d/xbbd under a stand-in for rc.subr, with the real daemon on a simulated machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from tests.service.installation import ROOT, SCRIPT, Service
from tests.waiting import eventually

PORTED = ROOT / "port" / "sysutils" / "xbbd" / "files" / "xbbd.in"

# As xbbd that does not get as far as to say something: "die" ends at once, "hang"
# neither serves nor ends, nor hears SIGTERM if it is "deaf".
BROKEN = f"""#!{sys.executable}
import os, signal, sys
if "-t" not in sys.argv:
    if "MODE" == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if "MODE" == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
    assert service("reload") == ""
    service.until_logged("configuration read again: disk.workers 8 -> 3")

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
    assert service.report_file.read_text() == f"{service.child} serving\n"
    service("restart")
    assert service.served() == 2
    service("stop")


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["start", "restart"])
def test_a_start_that_fails_says_why_and_leaves_nothing(
    service: Service, argument: str, shell: str, like: str
) -> None:
    """A pid file that somebody holds is found out only when the configuration is good."""
    if argument == "restart":
        service("start")
    with (service.directory / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("77\n")
        held.flush()
        service.config.write_text(f'[daemon]\npidfile = "{held.name}"\n')
        said = service(argument, 1)
    assert f"WARNING: xbbd has not started: already running, pid 77 ({held.name})\n" in said
    assert said.endswith(f"({held.name})\n"), "protect(1) was given nobody"
    assert not list((service.directory / "run").iterdir())
    assert service("status", 1) == "xbbd is not running.\n"
    served = service.served()
    assert served == (argument == "restart")
    assert re.search(r"^daemon\.err xbbd\[\d+\]: xbbd: already running", service.log_text(), re.M)
    service.config.write_text("")
    service("start")
    assert service.served() == served + 1
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
    assert said.endswith(f"WARNING: xbbd has not started: {reason}\n")
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
def test_restart_is_another_process(service: Service, like: str) -> None:
    service("start")
    service.until_served()
    child = service.child
    said = service("restart")
    assert said.startswith("Stopping xbbd.\n")
    assert said.endswith("Starting xbbd.\n")
    assert service.gone(child)
    service.until_served(2)
    assert "already running" not in service.log_text(), "the new one met the old one"
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
    assert f"xbbd: {service.config}: [disk] workers = 0: must be a whole number" in said
    assert "failed precmd routine for xbbd" in said
    assert not list((service.directory / "run").iterdir())
    service.set_rc_conf(xbbd_enable="YES", xbbd_config=f"{service.directory}/none")
    assert f"xbbd: {service.directory}/none: no such file" in service("start", 1)


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["reload", "restart"])
def test_a_bad_configuration_stops_nothing(service: Service, argument: str) -> None:
    service("start")
    service.until_served()
    pids = service.supervisor, service.child
    service.config.write_text("[disk\n")
    assert f"xbbd: {service.config}: Expected ']'" in service(argument, 1)
    assert (service.supervisor, service.child) == pids
    assert not service.gone(pids[1])
    assert "configuration" not in service.log_text()
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
