"""The daemon's ways in for operators: the control socket, OpenMetrics, and who may use them.

What can be asked there is not known here, only who asks.  Control thread.
"""

from __future__ import annotations

import asyncio
import grp
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from xbbd_bsd.config import DaemonConfig, parse_address
from xbbd_bsd.control.server import ControlServer, Rights
from xbbd_bsd.control.tree import DaemonView, DeviceView, Tree
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host import control_path, platform
from xbbd_bsd.oids import DAEMON_ROOT, ROOT

if TYPE_CHECKING:
    from xbbd_bsd.control.metrics import MetricsServer


class Endpoints:
    """All sockets of a daemon that operators connect to."""

    def __init__(
        self,
        view: DaemonView,
        devices: Callable[[], Mapping[int, DeviceView]],
        *,
        config: DaemonConfig,
        state_dir: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Listen from now on; OperatorError, and nothing is left then."""
        self._view = view
        self._devices = devices
        self._state_dir = state_dir
        self._loop = loop
        self._group = group_number(config.group)
        self._address: str | None = None
        self._metrics: MetricsServer | None = None
        self._control = ControlServer(
            control_path(state_dir),
            Tree(view, devices).perform,
            loop,
            rights=self._rights,
            group=self._group,
        )
        try:
            self._let_in(self._group)
            self._serve_metrics(config.metrics)
        except (OSError, OperatorError) as error:
            self._control.close()
            raise OperatorError(str(error), error.errno or 0) from None

    def configure(self, config: DaemonConfig) -> None:
        """Use a new configuration; OperatorError or OSError, and the old one goes on."""
        group = group_number(config.group)
        if config.metrics != self._address:
            self._serve_metrics(config.metrics)
        if group != self._group:
            self._control.give_to(group)
            if self._metrics is not None:
                self._metrics.give_to(group)
            self._let_in(group)
            self._group = group

    def close(self) -> None:
        """Stop listening, and give all back."""
        self._control.close()
        if self._metrics is not None:
            self._metrics.close()

    def _serve_metrics(self, address: str | None) -> None:
        """At that address and no other any more; the old one stays if that cannot be."""
        new = None
        if address is not None:
            # Most daemons need none of what this pulls in.
            from xbbd_bsd.control.metrics import MetricsServer

            new = MetricsServer(
                parse_address(address), self._snapshot, self._loop, group=self._group
            )
        if self._metrics is not None:
            self._metrics.close()
        self._metrics, self._address = new, address

    def _snapshot(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {DAEMON_ROOT: self._view.values()}
        for unit, device in sorted(self._devices().items()):
            found[f"{ROOT}.{unit}"] = device.stat(latency=True)
        return found

    def _rights(self, channel: socket.socket) -> Rights:
        """What a client of the control socket may do."""
        peer = platform().peer(channel)
        if peer.uid in (0, os.geteuid()):
            return Rights.WRITE
        return Rights.READ if self._group in peer.gids else Rights.NONE

    def _let_in(self, group: int | None) -> None:
        """Let members of a group get at the sockets in our directory, and at nothing else."""
        if group is not None:
            os.chown(self._state_dir, -1, group)
            os.chmod(self._state_dir, 0o710)
        elif self._group is not None:
            os.chmod(self._state_dir, 0o700)


def group_number(name: str | None) -> int | None:
    """The number of a group; OperatorError if there is none of that name."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OperatorError(f"[daemon] group = {name!r}: there is no such group") from None
