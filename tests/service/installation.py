"""rc.d/xbbd installed in a directory, under a stand-in for rc.subr, with the real daemon.

What the stand-ins know of rc.subr and daemon(8) is in rc.subr and supervisor.py
beside this file.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import eventually
from xbbd_bsd.sim.chain import Chain

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPT = ROOT / "rc.d" / "xbbd"

LEAVING = "Stopping xbbd, with its guests left at work.\n"

COMMAND = f"""#!{sys.executable}
import sys
from tests.service import syslog
sys.modules["syslog"] = syslog
from xbbd_bsd.daemon import main
sys.exit(main())
"""

CONTROL = f"""#!{sys.executable}
import sys
from xbbd_bsd.xbbctl import main
sys.exit(main())
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
        self.hold_forked = directory / "hold-forked"
        self.config.write_text("")
        for name in ("bin", "run"):
            (directory / name).mkdir()
        self.script = self.install("rc", 0o755, self.relocated())
        self.install("rc.subr", 0o644, (HERE / "rc.subr").read_text())
        supervisor = (HERE / "supervisor.py").read_text()
        self.install("daemon", 0o755, f"#!{sys.executable}\n{supervisor}")
        self.install("bin/xbbd", 0o755, COMMAND)
        self.install("bin/xbbctl", 0o755, CONTROL)
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
            "SUPERVISOR_HOLD_FORKED": str(self.hold_forked),
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

    def shorten_leave(self, seconds: int) -> None:
        """Have the script wait no longer than that for xbbd to leave."""
        old, new = "xbbd_leave_seconds=15\n", f"xbbd_leave_seconds={seconds}\n"
        text = self.script.read_text()
        assert old in text
        self.install(self.script.name, 0o755, text.replace(old, new))

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
