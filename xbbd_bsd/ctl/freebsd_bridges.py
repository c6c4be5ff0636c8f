"""Bridges of FreeBSD, by ifconfig(8), and its hotplug scripts as libxl runs them
(libxl_freebsd.c).

Runs in xbbctl's process.
"""

import re
from typing import Final

from xbbd_bsd.ctl.bridges import find_script, no_bridge, run
from xbbd_bsd.errors import HostError, OperatorError

SCRIPTS: Final = "/usr/local/etc/xen/scripts"


class FreeBSDBridges:
    """As vif-bridge of tools/hotplug/FreeBSD does it."""

    prefix = "xnb"

    def mtu(self, bridge: str) -> int:
        """Of a bridge; OperatorError if it is none."""
        try:
            shown = run(("ifconfig", bridge))
        except HostError as error:
            if "does not exist" in str(error):
                raise no_bridge(bridge) from None
            raise
        found = re.search(r"\bmtu (\d+)$", shown, re.M)
        if found is None or not re.search(r"^\tgroups:.*\bbridge\b", shown, re.M):
            raise OperatorError(f"{bridge} is an interface, but no bridge")
        return int(found[1])

    def join(self, bridge: str, interface: str, mtu: int) -> None:
        """Make the interface one of a bridge's, and have it up; HostError."""
        run(("ifconfig", interface, "mtu", str(mtu)))
        run(("ifconfig", bridge, "addm", interface))
        run(("ifconfig", interface, "up"))

    def script(self, name: str) -> str:
        """The path of a hotplug script; OperatorError."""
        return find_script(name, SCRIPTS)

    def run_script(self, script: str, backend: str, interface: str, *, online: bool) -> None:
        """For a backend's directory, as a full path of XenStore; HostError."""
        run(
            (script, backend, "add" if online else "remove"),
            {"iface_dev": interface, "emulated": "0"},
        )


BRIDGES: Final = FreeBSDBridges()
