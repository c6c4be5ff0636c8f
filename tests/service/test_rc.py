"""rc.d/xbbd under a stand-in for rc.subr, with the real daemon on a simulated machine.

What the stand-ins know of rc.subr and daemon(8) is in rc.subr and supervisor.py
beside this file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from xbbd_bsd.sim.chain import Chain

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPT = ROOT / "rc.d" / "xbbd"
PORTED = ROOT / "port" / "sysutils" / "xbbd" / "files" / "xbbd.in"

COMMAND = f"""#!{sys.executable}
import sys
from tests.service import syslog
sys.modules["syslog"] = syslog
from xbbd_bsd.daemon import main
sys.exit(main())
"""

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

# Refuses what protect(1) refuses: an option without a value, a process that is none.
PROTECT = """#!/bin/sh
for last; do :; done
kill -s 0 "$last" || exit 1
echo "$@" >> "$PROTECTED"
"""

# As pwait(1): until the process is gone, or a second has passed.
PWAIT = """#!/bin/sh
[ "$1 $2" = "-t 1" ] || exit 64
tries=20
while [ "$tries" -gt 0 ] && kill -s 0 "$3" 2>/dev/null; do
	sleep 0.05
	tries=$((tries - 1))
done
"""


class Service:
    """An installation in a directory: the script, its surroundings, a machine."""

    def __init__(self, directory: Path, chain: Chain, shell: str, like: str) -> None:
        self.directory = directory
        self.shell = shell
        self.chain = chain
        self.config = Path(chain.config_file)
        self.log = directory / "syslog"
        self.supervisor_file = directory / "run" / "xbbd-supervisor.pid"
        self.child_file = directory / "run" / "xbbd-child.pid"
        self.report_file = directory / "run" / "xbbd-start"
        self.protected = directory / "protected"
        self.hold = directory / "hold"
        self.config.write_text("")
        for name in ("bin", "run"):
            (directory / name).mkdir()
        self.script = self.install("rc", 0o755, self.relocated())
        self.install("rc.subr", 0o644, (HERE / "rc.subr").read_text())
        supervisor = (HERE / "supervisor.py").read_text()
        self.install("daemon", 0o755, f"#!{sys.executable}\n{supervisor}")
        self.install("bin/xbbd", 0o755, COMMAND)
        self.install("bin/protect", 0o755, PROTECT)
        self.install("bin/pwait", 0o755, PWAIT)
        self.rc_conf = self.install("rc.conf", 0o644, "")
        self.set_rc_conf(xbbd_enable="YES")
        self.environment = {
            "HOME": os.environ.get("HOME", "/"),
            "PATH": f"{directory}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RC_CONF": str(self.rc_conf),
            "PROTECTED": str(self.protected),
            "SUPERVISOR_HOLD": str(self.hold),
            "SUPERVISOR_LIKE": like,
            "SUPERVISOR_SYSLOG": str(self.log),
        }

    def relocated(self) -> str:
        """The script with all its paths below our directory."""
        text = SCRIPT.read_text()
        for old, new in (
            (". /etc/rc.subr", f". {self.directory}/rc.subr"),
            ('"/usr/sbin/daemon"', f'"{self.directory}/daemon"'),
            ('"/var/run/', f'"{self.directory}/run/'),
            ('"/usr/local/bin/', f'"{self.directory}/bin/'),
        ):
            assert old in text
            text = text.replace(old, new)
        return text

    def install(self, name: str, mode: int, text: str) -> Path:
        """A file of ours."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def set_rc_conf(self, **variables: str) -> None:
        """What the administrator has set; xbbd serves the simulated machine in any case."""
        variables.setdefault("xbbd_flags", f"--host sim:{self.chain.layout.directory}")
        variables.setdefault("xbbd_config", str(self.config))
        lines = [f'{name}="{value}"\n' for name, value in variables.items()]
        self.rc_conf.write_text("".join(lines))

    def __call__(self, argument: str, status: int = 0) -> str:
        """`service xbbd ARGUMENT`: all it says; it must end with `status`."""
        # To a file, since a pipe would be held open by whatever it leaves behind.
        said = self.directory / "said"
        with said.open("wb") as output:
            done = subprocess.run(
                [self.shell, str(self.script), argument],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.environment, timeout=180,
            )  # fmt: skip
        text = said.read_text()
        assert done.returncode == status, text
        return text

    def served(self) -> int:
        """How often a daemon has begun to serve."""
        return len(re.findall(r"^daemon\.info xbbd\[\d+\]: serving ", self.log_text(), re.M))

    def log_text(self) -> str:
        """What syslogd was given."""
        return self.log.read_text() if self.log.exists() else ""

    def until_served(self, times: int = 1) -> None:
        """Wait for a daemon that serves."""
        eventually(lambda: self.served() == times, f"served {times} times: {self.log_text()}")

    def until_logged(self, text: str) -> None:
        """Wait for something in the log."""
        eventually(lambda: text in self.log_text(), f"{text} in {self.log_text()}")

    @property
    def supervisor(self) -> int:
        """The pid of daemon(8)."""
        return int(self.supervisor_file.read_text())

    @property
    def child(self) -> int:
        """The pid of xbbd."""
        return int(self.child_file.read_text())

    def gone(self, pid: int) -> bool:
        """Whether a process is no more."""
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True)
        return shown.stdout.strip()[:1] in (b"", b"Z")

    def clean(self) -> None:
        """End what a failed test has left."""
        for file in (self.supervisor_file, self.child_file):
            if file.exists() and (text := file.read_text()) and not self.gone(int(text)):
                os.kill(int(text), signal.SIGKILL)


@pytest.fixture(params=["sh", "dash"])
def shell(request: pytest.FixtureRequest) -> str:
    """A shell; FreeBSD's own sh(1) is a sibling of dash."""
    name = str(request.param)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    if name != "sh" and os.path.samefile(found, shutil.which("sh") or ""):
        pytest.skip(f"sh is {name} here")
    return found


@pytest.fixture(params=["13", "14"])
def like(request: pytest.FixtureRequest) -> str:
    """The FreeBSD whose daemon(8) it is."""
    return str(request.param)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """A machine without a daemon, for one service after the other."""
    with Chain() as chain:
        yield chain


@pytest.fixture
def service(request: pytest.FixtureRequest, chain: Chain, tmp_path: Path) -> Iterator[Service]:
    """A service that has not been started."""
    values = {
        name: request.getfixturevalue(name) if name in request.fixturenames else default
        for name, default in (("shell", "sh"), ("like", "14"))
    }
    found = Service(tmp_path, chain, values["shell"], values["like"])
    try:
        yield found
    finally:
        found.clean()


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
