"""A whole machine as processes: store and domains, daemon, guests, and a toolstack.

What the demo, the NBD export, the bench and the tests run.  Everything started
here is stopped here, in every case, and the directory removed.  Children are
process groups of their own, so an interrupt from the terminal reaches only us,
who stop them in order.  The caller's thread; its own loop for the toolstack's
connection to the store.
"""

import asyncio
import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from xbbd_bsd import toolstack
from xbbd_bsd.errors import HostError
from xbbd_bsd.sim.hypervisor import Layout, layout
from xbbd_bsd.toolstack import DiskOffer, Offer
from xbbd_bsd.xenstore.client import Store

LIMIT = 20.0  # seconds for anything that should take a fraction of one


class Process:
    """A child whose output is a log file or lines that we read."""

    def __init__(self, name: str, command: Sequence[str], log: str, *, talks: bool) -> None:
        """`talks`: its standard output and input are ours; its errors go to the log."""
        self.name = name
        self.log = log
        with open(log, "ab") as errors:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
                bufsize=0,
                process_group=0,
            )
        self._unread = b""
        self.usage: resource.struct_rusage | None = None

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.child.pid

    def line(self, limit: float = LIMIT) -> str:
        """Its next line of output; HostError at its end, or after `limit` seconds."""
        assert self.child.stdout is not None
        end = time.monotonic() + limit
        while b"\n" not in self._unread:
            left = end - time.monotonic()
            ready, _, _ = select.select([self.child.stdout], [], [], max(left, 0))
            if not ready:
                raise HostError(f"{self.name} has said nothing for {limit:.0f} s")
            data = os.read(self.child.stdout.fileno(), 65536)
            if not data:
                raise HostError(f"{self.name} has ended\n{self.tail()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode("utf-8", "replace")

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(line.encode() + b"\n")

    def end_input(self) -> None:
        """Close its standard input."""
        assert self.child.stdin is not None
        self.child.stdin.close()

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.child.returncode is None:
            os.kill(self.pid, number)

    def wait(self, limit: float = LIMIT) -> int:
        """Its exit status (negative: the signal), and its resource usage; HostError if late."""
        end = time.monotonic() + limit
        while self.child.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.child.returncode = os.waitstatus_to_exitcode(status)
                self.usage = usage
            elif time.monotonic() > end:
                raise HostError(f"{self.name} does not end\n{self.tail()}")
            else:
                time.sleep(0.005)
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()
        return self.child.returncode

    def stop(self, limit: float = LIMIT) -> int:
        """Ask it to end, insist if it does not; its exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(limit)
        except HostError:
            self.signal(signal.SIGKILL)
            return self.wait(limit)

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(f"  {self.name}: {line}" for line in file.readlines()[-lines:])


class Guest(Process):
    """A guest process, which answers with JSON lines."""

    def event(self, wanted: str, limit: float = LIMIT) -> dict[str, Any]:
        """Skip to the next event of that name; HostError if the guest fails or is silent."""
        while True:
            event: dict[str, Any] = json.loads(self.line(limit))
            if event["event"] == wanted:
                return event
            if event["event"] == "failed":
                raise HostError(f"{self.name}: {event['command']}: {event['text']}")

    def next_event(self, limit: float = LIMIT) -> dict[str, Any]:
        """Whatever it says next."""
        event: dict[str, Any] = json.loads(self.line(limit))
        return event


P = TypeVar("P", bound=Process)


class Chain:
    """The processes of one machine, and dom0's view of its store."""

    dom0_prefix: Sequence[str] = ()
    """What to put before a command so that it runs where the daemon does."""

    def __init__(self, config: str = "") -> None:
        """`config`: text of the daemon's configuration.  Nothing runs before `with`."""
        self._config = config
        self._stack = contextlib.ExitStack()
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        self.directory = tempfile.mkdtemp(prefix="xbbd-")
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        with self._stack:
            self.layout: Layout = layout(os.path.join(self.directory, "m"))
            os.mkdir(self.layout.directory)
            self.config_file = os.path.join(self.directory, "xbbd.conf")
            with open(self.config_file, "w", encoding="utf-8") as file:
                file.write(self._config)
            self.machine = self._start(
                Process, "machine", "xbbd_bsd.sim", "machine", self.layout.directory, talks=True
            )
            self.machine.line()
            self.loop = asyncio.new_event_loop()
            self._stack.callback(self.loop.close)
            self.store = Store(self.layout.store_socket(0), loop=self.loop)
            self.store.connect()
            self._stack.callback(self.store.close)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start_daemon(self, module: str = "xbbd_bsd.daemon") -> Process:
        """xbbd in the foreground, on this machine; `module` is its program."""
        return self._start(
            Process, "xbbd", module, "-d", "-f", self.config_file,
            "--host", f"sim:{self.layout.directory}", talks=False, prefix=self.dom0_prefix,
        )  # fmt: skip

    def start_guest(self, domid: int, vdev: int, *options: str) -> Guest:
        """A guest, alive but without its disk."""
        guest = self._start(
            Guest, f"guest {domid}", "xbbd_bsd.sim", "guest", self.layout.directory,
            str(domid), str(vdev), *options, talks=True,
        )  # fmt: skip
        guest.event("alive")
        return guest

    def attach(self, disk: DiskOffer) -> None:
        """As `xl block-attach`; HostError with the backend's reason."""
        if not toolstack.attach(self.store, self.loop, disk):
            raise HostError(f"{disk.backend}: {toolstack.refusal(self.store, disk)}")

    def detach(self, device: Offer) -> bool:
        """As `xl block-detach --force`: whether the backend closed by itself."""
        return toolstack.detach(self.store, self.loop, device, force=True)

    def tails(self) -> str:
        """The ends of all logs."""
        return "".join(process.tail() for process in self.processes)

    def _start(
        self,
        cls: type[P],
        name: str,
        module: str,
        *arguments: str,
        talks: bool = False,
        prefix: Sequence[str] = (),
    ) -> P:
        log = os.path.join(self.directory, f"{name.replace(' ', '-')}.log")
        command = [*prefix, sys.executable, "-m", module, *arguments]
        process = cls(name, command, log, talks=talks)
        self.processes.append(process)
        self._stack.callback(process.stop, 5.0)
        return process
