"""Which host it is: the only run-time look at the platform, and what --host may say.

What `detect` returns is passed on as a value, and nothing else asks where it is.  It
knows every host there is, and none of them knows it.  Control thread.
"""

import importlib
import os
import sys
from typing import Final

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host import Host, Platform

SIMULATED: Final = "sim:"


def system() -> str:
    """What we run on, "freebsd" or "linux"; OperatorError if it is neither."""
    found = "freebsd" if sys.platform.startswith("freebsd") else sys.platform
    if found not in ("freebsd", "linux"):
        raise OperatorError(f"{found} is not supported, only FreeBSD and Linux are")
    return found


def platform() -> Platform:
    """That operating system; OperatorError as of `system`."""
    found: Platform = importlib.import_module(f"xbbd_bsd.host.{system()}").PLATFORM
    return found


def detect(spec: str | None) -> Host:
    """The host that `spec` names: "sim:DIR" for a simulated machine, None for this machine's Xen.

    OperatorError if there is no such thing.
    """
    if spec is None:
        return platform().xen()
    check_spec(spec)
    from xbbd_bsd.sim.hypervisor import SimHost

    return SimHost(_directory(spec), platform())


def check_spec(spec: str) -> str:
    """What names a host, as it is; OperatorError if it names none."""
    if not spec.startswith(SIMULATED) or spec == SIMULATED:
        raise OperatorError(
            f"--host {spec}: must be sim:DIR, a simulated machine; without --host it is this one"
        )
    return spec


def run_directory(spec: str | None) -> str:
    """Where a daemon on that host keeps its state segments and pid file by default.

    OperatorError if there is no such host.
    """
    return "/var/run/xbbd" if spec is None else os.path.join(_directory(spec), "run")


def _directory(spec: str) -> str:
    return os.path.abspath(check_spec(spec).removeprefix(SIMULATED))
