"""The daemon under test and the toolstack's side of it, in a real dom0.

Holds no test.  It asks the kernel and Xen what the daemon holds, not the
daemon.  One thread, that of pytest; the store's loop runs while it waits.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh, wait_for
from tests.waiting import at_rest
from xbbd_bsd import toolstack
from xbbd_bsd.ctl import disks
from xbbd_bsd.native import RingView, State
from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.vdev import vdev_number
from xbbd_bsd.xenstore.client import Store, Transaction

LIMIT = 180.0  # seconds; the lab is an emulated machine, on one that may be busy
START_LIMIT = 240.0  # seconds that a daemon gets, whose modules are read first


def eventually(holds: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Wait until `holds`, looking every few milliseconds."""
    wait_for(what, holds, limit, 0.02)


def command(*words: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """Run a command of dom0 that may fail; all it printed is `stdout`."""
    return subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )


def active_grants() -> dict[int, set[int]]:
    """Grants that somebody has mapped or copies, by domain, as Xen itself knows them.

    Those of console and store, which every PV guest has, are left out.
    """
    sh("xl", "dmesg", "-c")
    sh("xl", "debug-keys", "g")
    found: dict[int, set[int]] = {}
    domain = -1
    for line in sh("xl", "dmesg").splitlines():
        if head := re.search(r"grant-table for remote d(\d+)", line):
            domain = int(head[1])
        elif entry := re.search(r"\[0x([0-9a-f]+)\]", line):
            ref = int(entry[1], 16)
            if ref > 1:  # GNTTAB_RESERVED_CONSOLE and _XENSTORE
                found.setdefault(domain, set()).add(ref)
    return found


@dataclass(frozen=True)
class Holdings:
    """What a daemon's process holds, as the kernel knows it."""

    descriptors: int
    threads: int
    mappings: int  # of grants, in its address space
    ports: int  # event channels of all processes named alike


class Service:
    """The daemon as a process of dom0."""

    def __init__(self, directory: Path, config: str = "") -> None:
        """`config` is text for the section [disk]; nothing runs before `start`."""
        self.directory = directory
        self.log_file = directory / "xbbd.log"
        self.config = directory / "xbbd.conf"
        self._daemon = ""
        self._write(config)
        self.child: subprocess.Popen[bytes] | None = None
        self.base: Holdings | None = None
        self._mark = 0

    def start(self, tree: Path | None = None) -> None:
        """Run it, of that tree; the first time, note what it holds while no disk is attached."""
        before = len(self.log())
        with self.log_file.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "xbbd_bsd.daemon", "-d", "-f", str(self.config)],
                stdout=log,
                stderr=log,
                cwd=tree,  # where "-m" looks first
            )
        child = self.child
        eventually(
            lambda: "serving" in self.log()[before:] or child.poll() is not None,
            "the daemon serves",
            START_LIMIT,
        )
        assert child.poll() is None, self.log()[before:]
        if self.base is None:
            self.base = at_rest(self.pid, self.holdings)

    def configure(self, config: str) -> None:
        """Give the running daemon other text for the section [disk]."""
        before = len(self.log())
        self._write(config)
        os.kill(self.pid, signal.SIGHUP)
        eventually(lambda: "configuration" in self.log()[before:], "the configuration is read")

    def begin_anew(self, daemon: str) -> None:
        """Another one in its place, with that text for [daemon]; no disk is attached."""
        assert self.signal(signal.SIGTERM) == 0, self.log()
        before, self._daemon = self._daemon, daemon
        self._write("")
        self.base = None
        try:
            self.start()
        except Exception:  # whoever comes next wants one that begins
            self._daemon = before
            self._write("")
            raise

    def _write(self, config: str) -> None:
        self.config.write_text(
            f'[daemon]\nstate_dir = "{self.directory}/run"\n{self._daemon}\n[disk]\n{config}\n'
        )

    @property
    def pid(self) -> int:
        """Its process number."""
        assert self.child is not None
        return self.child.pid

    def log(self) -> str:
        """All it has logged, over all its lives."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def mark(self) -> None:
        """Let `log_line` look only at what is logged from now on."""
        self._mark = len(self.log())

    def log_line(self, pattern: str) -> None:
        """Wait for a line in its log."""
        eventually(
            lambda: re.search(pattern, self.log()[self._mark :]) is not None, f"log: {pattern}"
        )

    def signal(self, number: signal.Signals) -> int:
        """Send it a signal that it shall end of; its exit status (negative: the signal)."""
        assert self.child is not None
        os.kill(self.child.pid, number)
        return self.child.wait(LIMIT)

    def devices(self) -> list[str]:
        """Its state segments, one a device."""
        run = self.directory / "run"
        names = os.listdir(run) if run.exists() else []
        return sorted(name for name in names if re.fullmatch(r"xbbd\.\d+", name))

    def ring(self, unit: int = 0) -> RingView:
        """What was negotiated for a device."""
        state = State.open(str(self.directory / "run" / f"xbbd.{unit}"))
        try:
            return state.ring()
        finally:
            state.close()

    def counters(self, unit: int = 0) -> dict[str, int]:
        """The counters of a device."""
        state = State.open(str(self.directory / "run" / f"xbbd.{unit}"))
        try:
            return state.counters()
        finally:
            state.close()

    def holdings(self) -> Holdings:
        """What its process holds now."""
        return Holdings(
            DOM0.descriptors(self.pid),
            DOM0.threads(self.pid),
            DOM0.grant_mappings(self.pid),
            DOM0.ports(),
        )

    def check_idle(self) -> None:
        """No disk is attached: it must hold what it held at the beginning, and say no wrong."""
        if self.child is not None and self.child.poll() is None:
            eventually(lambda: not self.devices(), "no state segment left")
            eventually(
                lambda: self.holdings() == self.base, f"{self.base} held, not {self.holdings()}"
            )
        assert "internal error" not in self.log(), self.log()
        assert "Traceback" not in self.log(), self.log()


class Toolstack:
    """What xl 4.19 would do for disks of kind vbd3: the nodes by hand."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = Store(DOM0.store, loop=self.loop)
        self.store.connect()

    def attach(
        self, domid: int, path: Path | str, vdev: str = "xvda", mode: str = "w"
    ) -> DiskOffer:
        """Offer a disk; HostError with the backend's reason, and nothing left."""
        offer = DiskOffer(domid, vdev_number(vdev), str(path), mode=mode, kind="vbd3")
        disks.attach_disk(self.store, self.loop, offer, LIMIT)
        return offer

    def detach(self, offer: DiskOffer, limit: float = LIMIT) -> bool:
        """Take it back; False if that was by force."""
        return toolstack.detach(self.store, self.loop, offer, limit, force=True)

    def remove_frontend(self, offer: DiskOffer, guest: DomU) -> None:
        """Remove the frontend's nodes, and wait until the guest is through with them.

        The bus's link goes before the driver is through (bus_remove_device() in
        Linux) and writes its last Closed, the device's directory after.
        """
        self.store.remove(offer.frontend)
        guest.run("while [ -e /sys/devices/vbd-51712 ]; do usleep 50000; done", check=True)

    def offer_again(self, offer: DiskOffer, guest: DomU) -> None:
        """Write the frontend's nodes, which were removed, and wait for the disk xvda.

        The guest's driver comes last: one that finds the new device before we have
        left Closed closes it again.
        """
        guest.run("echo 0 >/sys/bus/xen/drivers_autoprobe", check=True)
        self.store.mkdir(offer.frontend)
        self.store.set_permissions(offer.frontend, [f"n{offer.domid}", "r0"])

        def body(transaction: Transaction) -> None:
            for name, value in offer.frontend_nodes().items():
                transaction.write(f"{offer.frontend}/{name}", value)

        self.store.transaction(body)
        eventually(lambda: self.node(f"{offer.backend}/state") == "2", "backend InitWait")
        guest.run("until [ -e /sys/bus/xen/devices/vbd-51712 ]; do usleep 50000; done", check=True)
        guest.run("echo vbd-51712 >/sys/bus/xen/drivers/vbd/bind", check=True)
        guest.run("echo 1 >/sys/bus/xen/drivers_autoprobe", check=True)
        guest.wait_disk("xvda")

    def node(self, path: str) -> str | None:
        """A node as text."""
        value = self.store.get(path)
        return None if value is None else value.decode()

    def disks(self) -> list[str]:
        """The backend directories of all disks there are."""
        found = []
        for kind in ("vbd", "vbd3"):
            for domid in self._list(f"backend/{kind}"):
                found += [
                    f"{kind}/{domid}/{vdev}" for vdev in self._list(f"backend/{kind}/{domid}")
                ]
        return found

    def remove_all(self) -> None:
        """Remove every disk by force: what a test that failed has left."""
        for disk in self.disks():
            frontend = self.store.get(f"backend/{disk}/frontend")
            self.store.remove(f"backend/{disk}")
            if frontend is not None:
                self.store.remove(frontend.decode())

    def _list(self, path: str) -> list[str]:
        return self.store.list(path) if self.store.get(path) is not None else []

    def close(self) -> None:
        """Leave the store."""
        self.store.close()
        self.loop.close()
