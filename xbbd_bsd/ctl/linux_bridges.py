"""Bridges of Linux, by ip(8), and its hotplug scripts as libxl runs them (libxl_linux.c).

Runs in xbbctl's process.
"""

import re
from typing import Final

from xbbd_bsd.ctl.bridges import find_script, no_bridge, run
from xbbd_bsd.errors import HostError, OperatorError

SCRIPTS: Final = "/etc/xen/scripts"
# The highest there is: a bridge takes the lowest of its ports' for its own.
_ADDRESS: Final = "fe:ff:ff:ff:ff:ff"


class LinuxBridges:
    """As vif-bridge and vif-common.sh do it."""

    prefix = "vif"

    def mtu(self, bridge: str) -> int:
        """Of a bridge; OperatorError if it is none."""
        # Not by sysfs, which may be of another network name space.
        try:
            shown = run(("ip", "-d", "link", "show", "dev", bridge))
        except HostError as error:
            if "does not exist" in str(error):
                raise no_bridge(bridge) from None
            raise
        found = re.search(r" mtu (\d+) ", shown)
        if found is None or not re.search(r"^ +bridge ", shown, re.M):
            raise OperatorError(f"{bridge} is an interface, but no bridge")
        return int(found[1])

    def join(self, bridge: str, interface: str, mtu: int) -> None:
        """Make the interface one of a bridge's, and have it up; HostError."""
        run(("ip", "link", "set", "dev", interface, "address", _ADDRESS))
        # It is of the guest: this host has no address there, and makes none.
        run(("ip", "link", "set", "dev", interface, "addrgenmode", "none"))
        run(("ip", "link", "set", "dev", interface, "mtu", str(mtu), "master", bridge, "up"))

    def script(self, name: str) -> str:
        """The path of a hotplug script; OperatorError."""
        return find_script(name, SCRIPTS)

    def run_script(self, script: str, backend: str, interface: str, *, online: bool) -> None:
        """For a backend's directory, as a full path of XenStore; HostError."""
        run(
            (script, "online" if online else "offline", "type_if=vif"),
            {
                "script": script,
                "XENBUS_TYPE": "vif",
                "XENBUS_PATH": backend.removeprefix("/local/domain/0/"),
                "XENBUS_BASE_PATH": "backend",
                "netdev": "",
                "vif": interface,
            },
        )


BRIDGES: Final = LinuxBridges()
