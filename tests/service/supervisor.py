"""A stand-in for FreeBSD's daemon(8), with the options and habits that rc.d/xbbd depends on.

Two habits, since they differ: as in FreeBSD 13, SIGTERM is handed on and daemon(8)
leaves at once; as in 14, it stays until the command has ended, and does not hear
SIGTERM while it waits to start the command again.  SUPERVISOR_LIKE says which.
That wait is at least as long as there is a file SUPERVISOR_HOLD, for tests; as long
as there is SUPERVISOR_HOLD_FORKED what it has forked is not the command yet.  That
writes its pid itself, while ps(1) shows it as daemon(8).
What goes to syslogd is written to the file SUPERVISOR_SYSLOG, with facility and
priority, which are the same for all that the command writes, tag and pid.
What it does not know it refuses.  Runs with the standard library alone.
"""

import fcntl
import getopt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

LIKE = os.environ["SUPERVISOR_LIKE"]
PRIORITIES = {"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
FACILITIES = {"daemon", "user", *(f"local{number}" for number in range(8))}


def main() -> None:
    """Options, pid files, and away from the foreground."""
    try:
        pairs, command = getopt.getopt(sys.argv[1:], "cfHSp:P:rR:o:s:l:t:m:T:")
    except getopt.GetoptError as error:
        sys.exit(f"daemon: {error}")
    options = dict(pairs)
    known = {"-c", "-f", "-r", "-R", "-S", "-l", "-s", "-T", "-t", "-p", "-P"}
    if not command or set(options) - known:
        sys.exit(f"daemon: not known here: {sys.argv[1:]}")
    if options.get("-s", "notice") not in PRIORITIES:
        print("daemon: unrecognized syslog priority", file=sys.stderr)
        sys.exit(4)
    if options.get("-l", "daemon") not in FACILITIES:
        print("daemon: unrecognized syslog facility", file=sys.stderr)
        sys.exit(5)
    files = {key: lock(options[key]) for key in ("-p", "-P") if key in options}
    if os.fork():
        os._exit(0)
    os.setsid()
    if "-c" in options:
        os.chdir("/")
    if "-f" in options:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
    for file in files.values():
        os.set_inheritable(file, True)
    write(files.get("-P"), os.getpid())
    state = json.dumps({"options": options, "files": files, "command": command})
    # As setproctitle(3) would have it, ps(1) shows "daemon: ...".  Python finds its
    # library by the name it was called with, so it needs to be told.
    home = f"{sys.base_prefix}:{sys.base_exec_prefix}"
    arguments = ["daemon:", "-S", __file__, "--title--", state]
    os.execve(sys.executable, arguments, os.environ | {"PYTHONHOME": home})


def lock(path: str) -> int:
    """A pid file, opened and locked as pidfile(3) does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"daemon: process already running, pid: {os.read(file, 20).decode()}")
        sys.exit(3)
    os.ftruncate(file, 0)
    return file


def write(file: int | None, pid: int) -> None:
    """Write a pid to its file."""
    if file is not None:
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d" % pid, 0)


class Supervisor:
    """Runs the command, and runs it again."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.options: dict[str, str] = state["options"]
        self.files: dict[str, int] = state["files"]
        self.command: list[str] = state["command"]
        self.restarts = "-r" in self.options or "-R" in self.options
        self.child: subprocess.Popen[bytes] | None = None
        del os.environ["PYTHONHOME"]
        signal.signal(signal.SIGTERM, self.terminate)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if LIKE == "14" else signal.SIG_DFL)
        for file in self.files.values():
            os.set_inheritable(file, False)

    def run(self) -> None:
        """Until it may leave."""
        while True:
            self.child = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=self.forked,
            )
            log = threading.Thread(target=self.listen, args=(self.child,), daemon=True)
            log.start()
            self.child.wait()
            log.join()
            self.child = None
            if not self.restarts:
                self.leave()
            time.sleep(float(self.options.get("-R", 1)))
            while os.path.exists(os.environ["SUPERVISOR_HOLD"]):
                time.sleep(0.01)

    def forked(self) -> None:
        """In the child, which SIGTERM ends by then."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        write(self.files.get("-p"), os.getpid())
        while os.path.exists(os.environ["SUPERVISOR_HOLD_FORKED"]):
            time.sleep(0.01)

    def terminate(self, *_: object) -> None:
        """SIGTERM."""
        if self.child is None and LIKE == "14":
            return
        if self.child is not None and self.restarts:
            self.child.send_signal(signal.SIGTERM)
        self.restarts = False
        if LIKE == "13":
            self.leave()

    def leave(self) -> None:
        """Take the pid files along."""
        for key in self.files:
            os.unlink(self.options[key])
        os._exit(1)

    def listen(self, child: subprocess.Popen[bytes]) -> None:
        """To the log, line by line."""
        assert child.stdout is not None
        with open(os.environ["SUPERVISOR_SYSLOG"], "ab", buffering=0) as log:
            for line in child.stdout:
                facility = self.options.get("-l", "daemon")
                priority = self.options.get("-s", "notice")
                tag = self.options.get("-T", "daemon")
                log.write(f"{facility}.{priority} {tag}[{os.getpid()}]: ".encode() + line)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--title--"]:
        Supervisor(json.loads(sys.argv[2])).run()
    else:
        main()
