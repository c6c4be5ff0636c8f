"""The daemon's ways in for operators: the control socket, OpenMetrics, and who may use them.

What can be asked there is not known here, only who asks.  Control thread.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xbbd_bsd.config import DaemonConfig, parse_address
from xbbd_bsd.control.health import counted, examine
from xbbd_bsd.control.server import ControlServer, Rights, Visitor
from xbbd_bsd.control.tree import DaemonView, Devices, Tree
from xbbd_bsd.errors import OperatorError, in_words
from xbbd_bsd.events import Event
from xbbd_bsd.host import control_path
from xbbd_bsd.host.choice import platform
from xbbd_bsd.oids import DAEMON_ROOT, Driver
from xbbd_bsd.tomltext import spelled

if TYPE_CHECKING:
    from xbbd_bsd.control.metrics import MetricsServer


class Endpoints:
    """All sockets of a daemon that operators connect to."""

    def __init__(
        self,
        view: DaemonView,
        devices: Devices,
        drivers: Mapping[str, Driver],
        *,
        config: DaemonConfig,
        state_dir: str,
        loop: asyncio.AbstractEventLoop,
        journal: Callable[[Event], None] = lambda _: None,
    ) -> None:
        """Listen from now on; OperatorError, and nothing is left then."""
        self._view = view
        self._tree = Tree(view, devices, drivers)
        self._state_dir = state_dir
        self._loop = loop
        self._group = group_number(config.group)
        # Of those who may write; asked now, since a directory service may take its time.
        self._names = {uid: _user(uid) for uid in (0, os.geteuid())}
        self._address: str | None = None
        self._metrics: MetricsServer | None = None
        self._control = ControlServer(
            control_path(state_dir),
            self._tree.perform,
            loop,
            visitor=self._visitor,
            group=self._group,
            journal=journal,
            verbs=[verb for driver in drivers.values() for verb in driver.verbs],
        )
        try:
            self._let_in(self._group)
            self._metrics = self._metrics_at(config.metrics, self._group)
            self._address = config.metrics
        except (OSError, OperatorError) as error:
            self._control.close()
            raise OperatorError(in_words(error), error.errno or 0) from None

    def configure(self, config: DaemonConfig) -> None:
        """Use a new configuration; OperatorError or OSError, and the old one goes on."""
        group = group_number(config.group)
        moved = config.metrics != self._address
        metrics = self._metrics_at(config.metrics, group) if moved else self._metrics
        if group != self._group:
            try:
                self._give_to(group, metrics)
            except OSError:
                if moved and metrics is not None:
                    metrics.close()
                with suppress(OSError):
                    self._give_to(self._group, self._metrics)
                raise
        if moved and self._metrics is not None:
            self._metrics.close()
        self._group, self._metrics, self._address = group, metrics, config.metrics

    def _give_to(self, group: int | None, metrics: MetricsServer | None) -> None:
        self._let_in(group)
        self._control.give_to(group)
        if metrics is not None:
            metrics.give_to(group)

    def close(self) -> None:
        """Stop listening, and give all back."""
        self._control.close()
        if self._metrics is not None:
            self._metrics.close()

    def _metrics_at(self, address: str | None, group: int | None) -> MetricsServer | None:
        if address is None:
            return None
        # Most daemons need none of what this pulls in.
        from xbbd_bsd.control.metrics import MetricsServer

        return MetricsServer(parse_address(address), self._snapshot, self._loop, group=group)

    def _snapshot(self) -> dict[str, Mapping[str, Any]]:
        devices = list(self._tree.devices())
        examined = examine(self._view.health(), devices)
        health = counted(finding for _, findings in examined for finding in findings)
        found: dict[str, Mapping[str, Any]] = {
            DAEMON_ROOT: {**self._view.values(), "health": health}
        }
        for node, device in devices:
            found[node] = device.stat(latency=True)
        return found

    def _visitor(self, channel: socket.socket) -> Visitor:
        """Who a client of the control socket is, and what it may do."""
        peer = platform().peer(channel)
        if peer.uid in (0, os.geteuid()):
            return Visitor(Rights.WRITE, self._names.get(peer.uid, f"uid {peer.uid}"))
        return Visitor(Rights.READ if self._group in peer.gids else Rights.NONE)

    def _let_in(self, group: int | None) -> None:
        """Have members of a group pass through our directory; what is in it has modes of its own.

        Only ever permits more: the directory may be an old one, or not ours alone.
        """
        mode = stat.S_IMODE(os.stat(self._state_dir).st_mode)
        if group is not None and mode & 0o011 != 0o011:
            os.chmod(self._state_dir, mode | 0o011)


def _user(uid: int) -> str:
    """A user in words."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def group_number(name: str | None) -> int | None:
    """The number of a group; OperatorError if there is none of that name."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OperatorError(f"[daemon] group = {spelled(name)}: there is no such group") from None
