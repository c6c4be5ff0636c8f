"""A Ceph of one monitor and one OSD, on this computer's own address, in a directory.

Debian's packages ceph-mon, ceph-osd and ceph-common must be there.  It is up after some ten
seconds, and whatever it starts ends with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import GIVE_UP, eventually

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "rbd")
POOL = "xbbd"
LONGEST = 120.0  # seconds, for one command

CONFIGURATION = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = v2:127.0.0.1:{port}
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
mon data = {directory}/mon
osd data = {directory}/osd
run dir = {directory}/run
admin socket = {directory}/run/$name.$pid.asok
pid file = {directory}/run/$name.pid
log file = {directory}/run/$name.log
crash dir = {directory}/run
osd objectstore = bluestore
bluestore block size = 8589934592
bluestore block create = true
bluestore fsck on mount = false
osd memory target = 939524096
osd op num shards = 1
osd op num threads per shard = 2
osd numa auto affinity = false
mon osd down out interval = 3600
mon osd min down reporters = 1
osd heartbeat grace = 600
"""


def require_ceph() -> None:
    """Skip where it is not wanted, or not installed."""
    if os.environ.get("XBBD_TEST_CEPH") != "yes":
        pytest.skip("a cluster of Ceph is for make test-ceph")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' '.join(missing)}: not installed (make test-ceph does it)")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Cluster:
    """One that runs, from `start` to `stop`."""

    def __init__(self, directory: Path) -> None:
        """`directory`: with a name that is short enough for sockets."""
        self.directory = directory
        self.conf = directory / "ceph.conf"
        self._port = free_port()
        self._fsid = str(uuid.uuid4())
        self._osd_uuid = str(uuid.uuid4())
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("mon", "osd", "run"):
            (self.directory / name).mkdir()
        self.conf.write_text(
            CONFIGURATION.format(fsid=self._fsid, port=self._port, directory=self.directory)
        )
        monmap = self.directory / "monmap"
        address = f"[v2:127.0.0.1:{self._port}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", self._fsid, monmap)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
        self._launch("mon", "ceph-mon", "-i", "a")
        self.ceph("mon", "stat")
        self.ceph("osd", "new", self._osd_uuid)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", self._osd_uuid)
        self.start_osd()
        self.ceph("osd", "pool", "create", POOL, "8", "8", "replicated")

    def start_osd(self) -> None:
        """The one there is; what it had is in files."""
        self._launch("osd", "ceph-osd", "-i", "0")
        eventually(lambda: "1 up" in self.ceph("osd", "stat"), "the OSD is up")

    def signal_osd(self, number: signal.Signals) -> None:
        self._processes["osd"].send_signal(number)

    def kill_osd(self) -> None:
        """At once."""
        self._end("osd", signal.SIGKILL)

    def stop(self) -> None:
        for name in [*self._processes]:
            self._processes[name].send_signal(signal.SIGCONT)
            self._end(name, signal.SIGKILL)

    def ceph(self, *words: str) -> str:
        """What ceph(8) says; CalledProcessError."""
        return self._run("ceph", "--connect-timeout", "60", *words)

    def rbd(self, *words: str) -> str:
        """What rbd(8) says; CalledProcessError."""
        return self._run("rbd", *words)

    def create(self, name: str, size: int, *words: str) -> None:
        """An image of so many bytes, a multiple of 1 MiB."""
        self.rbd("create", "--size", str(size >> 20), f"{POOL}/{name}", *words)

    def content(self, name: str) -> bytes:
        """All that an image has."""
        done = subprocess.run(
            ["rbd", "-c", self.conf, "--no-progress", "export", f"{POOL}/{name}", "-"],
            capture_output=True,
            check=True,
            timeout=LONGEST,
        )
        return done.stdout

    def _run(self, program: str, *words: str | Path) -> str:
        command: Sequence[str | Path] = [program, "-c", self.conf, *words]
        if program == "monmaptool":
            command = [program, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def _launch(self, name: str, program: str, *words: str) -> None:
        with open(self.directory / "run" / f"{name}.out", "ab") as said:
            self._processes[name] = subprocess.Popen(
                ["nice", program, "-c", self.conf, *words, "-f"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def _end(self, name: str, number: signal.Signals) -> None:
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(GIVE_UP)


@contextmanager
def running_cluster(directory: Path) -> Iterator[Cluster]:
    """One that is up."""
    require_ceph()
    cluster = Cluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
