"""A block backend with a real queue, a frontend in this process, a host that is one directory.

Holds no test.  One thread, that of pytest; the loop runs while something is waited for.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Mapping
from errno import EBUSY
from pathlib import Path

from tests.waiting import GIVE_UP
from xbbd_bsd.accounts import Accounts
from xbbd_bsd.block.backend import BlockBackend
from xbbd_bsd.block.entry import tap_params
from xbbd_bsd.block.family import BlockFamily
from xbbd_bsd.block.heritage import Heritage
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.rings import CRAFT
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Outcome, Run
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.host import DiskGeometry, Links, MediumName, RingDescriptors, path_itself
from xbbd_bsd.host.choice import platform
from xbbd_bsd.host.resources import Resources, resources
from xbbd_bsd.limits import Limits
from xbbd_bsd.native import Abi, Front, FrontParams, HvKind, bound_io, sim_format, sim_mapped
from xbbd_bsd.serving import Here
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue

PORT = 3
IDENTITY = Identity("vbd", 5, 51712, "xbbd", 0)


def at_once(
    what: str, work: Callable[[], object], then: Callable[[Outcome], None], whose: str
) -> None:
    """Work done by the thread that wants it (errands.Run)."""
    try:
        outcome = Outcome(work())
    except Exception as error:
        outcome = Outcome(error=error)
    then(outcome)


class DirectoryHost:
    """One simulated domain, number 5, with one event channel."""

    name = "test"
    hv = HvKind.SIM
    store_path = ""
    media: Mapping[str, MediumName] = {"physical-device-path": path_itself}
    transports = ("best", "map", "copy")
    links = Links("vif", multi=True, offload="full", told=True)
    locked = False
    holds = False  # a lock is a descriptor of its own
    gone = 0  # errno that a disk gives which is gone

    def __init__(self, directory: Path, pages: int = 512) -> None:
        """`pages`: of the domain's memory."""
        self.on_lock: Callable[[int], None] = lambda fd: None
        domain = directory / "domain"
        domain.mkdir()
        self.domain_fd = os.open(domain, os.O_RDONLY | os.O_DIRECTORY)
        sim_format(self.domain_fd, pages)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(domain / "port"))
        self.listener.listen()
        self.listener.setblocking(False)

    @property
    def resources(self) -> Resources:
        return resources(event_channels=4096, threads=platform().most_threads())

    def check_kinds(self, kinds: Collection[str]) -> None:
        raise AssertionError("a family is not asked")

    grant_path = ""

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        if (domid, port) != (5, PORT):
            raise GuestError(f"domain {domid} has no event channel {port}")
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(self.listener.getsockname())
        grants = os.dup(self.domain_fd) if grants < 0 else grants
        return RingDescriptors(grants, channel.detach())

    def prepare_disk(self, fd: int) -> DiskGeometry:
        return platform().prepare_disk(fd)

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        if self.locked:
            raise OperatorError("another program uses it", EBUSY)
        self.on_lock(fd)
        return os.dup(fd) if self.holds else None

    def disk_size(self, fd: int) -> int:
        if self.gone:
            raise HostError("ioctl", self.gone)
        return platform().disk_size(fd)

    def close(self) -> None:
        self.listener.close()
        os.close(self.domain_fd)


class Bench:
    """A block backend, its frontend, and the nodes between them."""

    def __init__(self, directory: Path, run: Run = at_once) -> None:
        """`run` does what may have to wait."""
        self._run = run
        self.host = DirectoryHost(directory)
        self.run = directory / "run"
        self.run.mkdir()
        self.disk = directory / "disk"
        self.disk.touch()
        os.truncate(self.disk, 1 << 20)
        self.loop = asyncio.new_event_loop()
        self.events: list[Event] = []
        self.freed: list[int] = []
        self.limits = Accounts(
            Limits.of(Config().daemon, self.host.resources),
            bound_beyond=bound_io,
            freed=lambda takers: self.freed.extend(unit for _, unit in takers),
            journal=self.events.append,
        )
        self.family = self.make(Config())
        self.wakes = 0
        self.backend = self.create(IDENTITY)
        self.backend_nodes = {"physical-device-path": os.fsencode(self.disk), "mode": b"w"}
        self.front = self.make_front()
        self.frontend_nodes = {
            "event-channel": b"%d" % PORT,
            "ring-ref": b"%d" % self.front.ring_refs[0],
            "protocol": b"x86_64-abi",
        }

    def make(self, config: Config) -> BlockFamily:
        marks = Marks(str(self.run))
        return BlockFamily(
            {"vbd": self.host.media, "vbd3": {"params": tap_params}},
            host=self.host,
            config=config,
            state_dir=str(self.run),
            loop=self.loop,
            run=self._run,
            serving=Here(CRAFT, self.host, self.loop),
            sharing=Sharing(),
            marks=marks,
            heritage=Heritage(str(self.run), marks, self.events.append),
            limits=self.limits,
            journal=self.events.append,
            try_again=self.freed.extend,
        )

    def create(self, identity: Identity) -> BlockBackend:
        return self.family.create(identity, self.wake, self.events.append)

    def make_front(self) -> Front:
        listener = self.host.listener.fileno()
        return Front(
            FrontParams(
                self.host.domain_fd,
                listener,
                PORT,
                HvKind.SIM,
                0,
                Abi.X86_64,
                1,
                32,
                patience_ms=int(GIVE_UP * 1000),
            )
        )

    def wake(self) -> None:
        self.wakes += 1

    def queue(self) -> Queue:
        return self.backend.queue

    def open(self) -> str:
        self.backend.introduce(self.backend_nodes.get, "vm", "/vm/1")
        self.backend.capabilities(self.backend_nodes.get)
        return self.backend.open(self.backend_nodes.get)

    def connect(self) -> dict[str, bytes | None]:
        return dict(self.backend.connect(self.frontend_nodes.get).nodes)

    def drained(self) -> None:
        """Wait on the loop for the queue's own word."""
        before = self.wakes
        deadline = self.loop.time() + GIVE_UP
        while self.wakes == before:
            assert self.loop.time() < deadline
            self.loop.call_later(0.002, self.loop.stop)
            self.loop.run_forever()

    def down(self) -> None:
        if self.backend.queue is Queue.RUNNING:
            self.backend.drain()
        if self.backend.queue is Queue.DRAINING:
            self.drained()
        self.backend.disconnect()
        self.backend.close()

    def die(self, config: Config | None = None, run: Run | None = None) -> Path:
        """The daemon is gone at once, and another has begun; the segment that it left.

        As it was in its last moment: whatever it has given back since, nobody knows.
        `run`: how the next one does what may have to wait, if not as this one did.
        """
        left = self.run / f"xbbd.{IDENTITY.unit}"
        last = left.read_bytes()
        self.down()
        self.backend.forget()
        left.write_bytes(last)
        self._run = run or self._run
        self.follow(config)
        return left

    def follow(self, config: Config | None = None) -> None:
        """A daemon begins, and finds the device."""
        self.events.clear()
        self.family = self.make(config or Config())
        self.backend = self.create(IDENTITY)
        self.backend.introduce(self.backend_nodes.get, "vm", "/vm/1")

    def adopt(self) -> str:
        return self.backend.adopt(self.backend_nodes.get)

    def close(self) -> None:
        self.down()
        self.backend.forget()
        assert self.limits.idle
        assert sim_mapped(self.host.domain_fd) == 0
        assert os.listdir(self.run) == []
        self.front.close()
        self.host.close()
        self.loop.close()
