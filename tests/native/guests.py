"""Guests' processes with a frontend, a disk and the daemon's end in this process.

As ring.py has it for a queue in this process: no store and no daemon, real I/O.
Leaving the block ends the processes and asserts that they leave nothing behind.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.lab.dom0 import DOM0
from tests.native.ring import DEVICE, DOMAIN_PAGES, HV, SANITIZED
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import (
    MAX_SEGMENTS,
    Abi,
    DiskKind,
    Front,
    FrontParams,
    HvKind,
    Progress,
    QueueParams,
    State,
    Workload,
    sim_format,
    sim_mapped,
)
from xbbd_bsd.native.addition import DISKS
from xbbd_bsd.native.link import Bounds, Link
from xbbd_bsd.native.packets import listen_at
from xbbd_bsd.native.processes import Confinement, Ended, Processes, Started
from xbbd_bsd.native.remote import RemoteDevice

BOUNDS = Bounds(io_threads=64, io_bytes=1 << 28, mappings=4096, grants=4096, guest_grants=2048)
IDLE_SECONDS = 600


def near(path: Path) -> str:
    """A path that is short enough for a socket's name."""
    return min(os.path.relpath(path), str(path), key=len)


@dataclass
class Server:
    """The server of processes, and what it has said."""

    processes: Processes
    started: dict[int, Started] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)

    def listen(self) -> None:
        """Take the news that there is."""
        for item in self.processes.news():
            if isinstance(item, Started):
                self.started[item.serial] = item
            else:
                self.ended[item.pid] = item

    def wait_for(self, serial: int) -> int:
        """The process that was asked for by that number."""

        def has_come() -> bool:
            self.listen()
            return serial in self.started

        eventually(has_come, "a process is started")
        found = self.started[serial]
        assert found.errno == 0
        return found.pid

    def wait_end(self, pid: int) -> int:
        """The status that a process leaves with."""

        def has_ended() -> bool:
            self.listen()
            return pid in self.ended

        eventually(has_ended, "a process ends")
        return self.ended[pid].status


@contextmanager
def server() -> Iterator[Server]:
    """A server of processes."""
    processes = Processes()
    try:
        yield Server(processes)
    finally:
        processes.close()
        eventually(processes.reap, "the server ends")


@dataclass
class Worker:
    """A guest's process."""

    server: Server
    path: str
    pid: int

    def connect(self, *, idle_seconds: int = IDLE_SECONDS) -> Link:
        """Be its daemon; HostError, and nothing is open then."""
        link = Link.connect(self.path)
        try:
            link.meet(limit=GIVE_UP)
            link.hello(BOUNDS, idle_seconds=idle_seconds, limit=GIVE_UP)
        except HostError:
            link.close()
            raise
        return link

    def kill(self) -> None:
        """At once, and it has ended when this returns."""
        self.server.processes.kill(self.pid)
        self.server.wait_end(self.pid)

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return DOM0.descriptors(self.pid)

    @property
    def threads(self) -> list[str]:
        """The names of all."""
        return DOM0.thread_names(self.pid)


@contextmanager
def worker(
    found: Server, path: Path, *, confinement: Confinement | None = None, name: str = "tester"
) -> Iterator[Worker]:
    """A process of that server, which is killed at the end if it has not ended."""
    short = near(path)
    with listen_at(short) as listener:
        serial = found.processes.start(
            name,
            listener,
            hv=HV,
            idle_seconds=IDLE_SECONDS,
            confinement=confinement or Confinement(confined=not SANITIZED),
        )
        pid = found.wait_for(serial)
    made = Worker(found, short, pid)
    try:
        yield made
    finally:
        found.listen()
        if pid not in found.ended:
            made.kill()
        os.unlink(short)
        # A sanitizer has something to say by another status.
        assert found.ended[pid].status in (0, signal.SIGKILL)


@dataclass
class Disk:
    """A frontend's end of a device of so many rings, and what it is served with."""

    state: State
    file: Path
    domain_fd: int
    disk_fd: int
    fronts: list[Front]
    listeners: list[socket.socket]
    params: QueueParams
    stack: ExitStack

    def rings(self, *, adopt: bool = False) -> list[QueueParams]:
        """Parameters for all of them, each with a fresh event channel.

        The caller closes those; see `serve`.
        """
        made = []
        for number, front in enumerate(self.fronts):
            channel = socket.socket(socket.AF_UNIX)
            channel.connect(self.listeners[number].getsockname())
            channel.setblocking(False)
            made.append(
                replace(
                    self.params,
                    ring=number,
                    ring_refs=front.ring_refs,
                    event_fd=channel.detach(),
                    adopt=adopt,
                )
            )
        return made

    def serve(
        self,
        link: Link,
        number: int = 0,
        *,
        kept: tuple[int, ...] = (),
        adopt: bool = False,
        limit: float = GIVE_UP,
    ) -> RemoteDevice:
        """Have it served by a guest's process; `adopt`: another one has died."""
        rings = self.rings(adopt=adopt)
        try:
            return RemoteDevice.open(link, DISKS, number, rings, self.state, kept=kept, limit=limit)
        finally:
            for ring in rings:
                os.close(ring.event_fd)

    @property
    def writes(self) -> int:
        """How many have come so far, as its segment has them counted."""
        return self.state.counters()["wr_req"]

    @property
    def mapped(self) -> int:
        """How many grants of the guest's are mapped by anybody who lives."""
        return sim_mapped(self.domain_fd)

    def exercise(self, operations: int = 1500, ring: int = 0) -> Progress:
        """Random I/O against a model of the whole disk."""
        model = bytearray(self.file.read_bytes())
        progress = Progress()
        load = Workload(
            seed=1, sectors=len(model) // 512, depth=8, operations=operations, model=model,
            flush_every=50,
        )  # fmt: skip
        self.fronts[ring].exercise(load, progress)
        assert progress.mismatches == progress.errors == progress.bad_responses == 0
        assert self.file.read_bytes() == model
        return progress


def _params(domain_fd: int, disk_fd: int) -> QueueParams:
    """Of a plain ring, but for what each has of its own."""
    return QueueParams(
        grant_fd=domain_fd,
        event_fd=-1,
        disk_fd=disk_fd,
        wake_fd=-1,
        hv=HV,
        domid=1,
        remote_port=1,
        abi=Abi.NATIVE,
        ring_refs=(0,),
        disk_kind=DiskKind.DEVICE if DEVICE else DiskKind.FILE,
        read_only=False,
        sector_size=512,
        bounce=DEVICE,
        workers=4,
    )


@contextmanager
def disk(
    tmp_path: Path,
    name: str = "disk",
    *,
    rings: int = 1,
    size: int = 4 << 20,
    patience: float = 0,
    **params: object,
) -> Iterator[Disk]:
    """An empty disk and a frontend with so many rings, in a domain of its own.

    `patience`: seconds that the frontend waits for another backend when one goes;
    `params`: what is otherwise than of a plain ring, which the frontend goes by too.
    """
    with ExitStack() as stack:
        domain = tmp_path / f"{name}.domain"
        domain.mkdir()
        file = tmp_path / name
        file.touch()
        os.truncate(file, size)
        domain_fd = os.open(domain, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, domain_fd)
        disk_fd = os.open(file, os.O_RDWR)
        stack.callback(os.close, disk_fd)
        sim_format(domain_fd, DOMAIN_PAGES)
        asked = replace(_params(domain_fd, disk_fd), **params)  # type: ignore[arg-type]
        fronts, listeners = [], []
        for number in range(rings):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(near(domain / f"port{number}"))
            listener.listen()
            listener.setblocking(False)
            front = Front(
                FrontParams(
                    domain_fd,
                    listener.fileno(),
                    number + 1,
                    HvKind.SIM,
                    0,
                    Abi.NATIVE,
                    1,
                    32,
                    max_segments=asked.max_indirect_segments or MAX_SEGMENTS,
                    persistent=asked.max_persistent > 0,
                    patience_ms=int(patience * 1000),
                )
            )
            stack.callback(front.close)
            fronts.append(front)
            listeners.append(listener)
        path = str(tmp_path / f"{name}.state")
        State.create(path, rings=rings).close()
        state = State.open(path, writable=True)  # whoever serves it has it locked
        stack.callback(state.close)
        state.resize(size // 512)
        made = Disk(state, file, domain_fd, disk_fd, fronts, listeners, asked, stack)
        yield made
        eventually(lambda: made.mapped == 0, "nothing is mapped any more")


def lock_is_free(path: str) -> bool:
    """Whether nobody holds the lock on that file."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def wait_lost(link: Link) -> HostError:
    """Why a connection is none any more."""

    def is_lost() -> bool:
        link.receive()
        return link.lost is not None

    eventually(is_lost, "the connection is lost")
    assert link.lost is not None
    return link.lost


def readable(link: Link) -> bool:
    """Whether something has come, or does within as long as a test waits."""
    ready, _, _ = select.select([link], [], [], GIVE_UP)
    return bool(ready)
