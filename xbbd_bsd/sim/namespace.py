"""A network name space of our own, in which processes run and interfaces are made.

Of Linux.  A process that does nothing holds it; when that ends, which it does with us,
all that is in there goes.  Nothing of the host's network is touched.  The caller's
thread.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError, reason

PROGRAMS: Final = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
}
"""What it takes, and the package of Debian that has it."""

_HOLD: Final = "import sys; print(flush=True); sys.stdin.read()"


def lacking() -> str:
    """What is missing for cards without Xen, in words; "" if nothing is."""
    if not sys.platform.startswith("linux"):
        return "network name spaces, which only Linux has"
    if os.geteuid() != 0:
        return "root, to make interfaces in name spaces of its own (the host's are not touched)"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"{program} (on Debian: apt-get install {package})"
    if not os.path.exists("/dev/net/tun"):
        return "/dev/net/tun (modprobe tun)"
    return ""


def need() -> None:
    """OperatorError if something is lacking."""
    what = lacking()
    if what:
        raise OperatorError(f"this needs {what}")


class Namespace:
    """One, for as long as it is not closed."""

    def __init__(self) -> None:
        """Make it; HostError."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-S", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            self.close()
            raise HostError("unable to make a network name space")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """A process that is in it."""
        return self._holder.pid

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs in there."""
        return inside(self.pid)

    def run(self, *command: str) -> str:
        """Run a command in there; what it prints.  HostError with what it says."""
        return run((*self.prefix, *command))

    def close(self) -> None:
        """Let it go, once no other process is in it."""
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream is not None:
                stream.close()
        self._holder.wait()


def inside(pid: int) -> tuple[str, ...]:
    """What to put before a command so that it runs in the name space of a process."""
    return ("nsenter", f"--net=/proc/{pid}/ns/net")


def run(command: Sequence[str]) -> str:
    """What a command prints; HostError with what it says if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"{command[0]}: {reason(error)}", error.errno or 0) from None
    if done.returncode:
        raise HostError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
