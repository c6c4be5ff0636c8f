"""What a hotplug script does for a network card, where there is none: the part any system has.

Bridges are the system's own, and joined by its own commands, which are run and waited for.
The daemon runs nothing, and knows no bridge.  Runs in xbbctl's process.
"""

import importlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from errno import ENOENT
from typing import Final, Protocol

from xbbd_bsd.errors import HostError, OperatorError, one_line, reason, shown
from xbbd_bsd.host.choice import system

LIMIT: Final = 60.0  # seconds for a command, and for a script
_WORDS: Final = 300  # characters of what it said


class Bridges(Protocol):
    """Bridges and hotplug scripts of an operating system."""

    @property
    def prefix(self) -> str:
        """What the interface of a guest's card is called before the numbers of both."""

    def mtu(self, bridge: str) -> int:
        """Of a bridge; OperatorError if there is none of that name."""

    def join(self, bridge: str, interface: str, mtu: int) -> None:
        """Make an interface one of a bridge's, and have it up; HostError."""

    def script(self, name: str) -> str:
        """The path of a hotplug script by its name or path; OperatorError."""

    def run_script(self, script: str, backend: str, interface: str, *, online: bool) -> None:
        """As the toolstack does, for the card with that directory of XenStore; HostError."""


def of_this_system() -> Bridges:
    """Those of the one we run on; OperatorError if it is not supported."""
    found: Bridges = importlib.import_module(f"xbbd_bsd.ctl.{system()}_bridges").BRIDGES
    return found


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What it wrote; HostError with its own words if it fails, or cannot be run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=None if environment is None else {**os.environ, **environment},
            timeout=LIMIT,
            check=False,
        )
    except OSError as error:
        raise HostError(f"{shown(command[0])}: {reason(error)}", error.errno or 0) from None
    except subprocess.TimeoutExpired:
        raise HostError(f"{_typed(command)}: not done after {LIMIT:g} seconds") from None
    if done.returncode:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        said = one_line(words[-1])[:_WORDS] if words else f"exit status {done.returncode}"
        raise HostError(f"{_typed(command)}: {said}")
    return done.stdout.decode("utf-8", "replace")


def find_script(script: str, directory: str) -> str:
    """The path of a script by its name in `directory`, or by its path; OperatorError."""
    path = os.path.join(directory, script)
    if not os.path.isfile(path):
        raise OperatorError(f"script {shown(path)}: there is no such file", ENOENT)
    if not os.access(path, os.X_OK):
        raise OperatorError(f"script {shown(path)}: it cannot be executed")
    return path


def no_bridge(bridge: str) -> OperatorError:
    """That there is nothing of that name."""
    return OperatorError(f"there is no bridge {bridge}: make it first, or name another", ENOENT)


def _typed(command: Sequence[str]) -> str:
    return " ".join(map(shown, command))
