"""A card's backend with fake interfaces, and a host that is one directory.

FakeTaps is verified: what tests/unit/test_net_taps.py says of taps it says of both.  Holds
no test.  One thread, that of pytest; the loop runs while something is waited for.
"""

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EBUSY, EINVAL, ENXIO, EOPNOTSUPP
from pathlib import Path

from tests.unit.family_bench import PORT, DirectoryHost, at_once
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Run
from xbbd_bsd.errors import HostError
from xbbd_bsd.events import Event
from xbbd_bsd.native.tap import MOST_NAME
from xbbd_bsd.net.backend import NetBackend
from xbbd_bsd.net.family import NetFamily
from xbbd_bsd.net.heritage import Heritage
from xbbd_bsd.xenbus.family import Identity

IDENTITY = Identity("vif", 5, 0, "xnb", 0)
MAC = b"00:16:3e:01:02:03"


@dataclass
class FakeTap:
    """An interface, and the other ends of its queues."""

    multi: bool
    up: bool = False
    mtu: int = 1500
    queues: list[socket.socket] = field(default_factory=list)
    opened: int = 0  # queues, so far

    @property
    def carrier(self) -> bool:
        """Whether a queue is open."""
        still = []
        for queue in self.queues:
            with suppress(BlockingIOError):
                if queue.recv(1, socket.MSG_PEEK) == b"":
                    queue.close()
                    continue
            still.append(queue)
        self.queues = still
        return bool(still)


class FakeTaps:
    """Interfaces that are in nobody's network."""

    def __init__(self) -> None:
        self.there: dict[str, FakeTap] = {"lo": FakeTap(multi=False, up=True)}
        self.stubborn = False  # they cannot be removed
        self.broken = 0  # errno of opening one

    def open(self, name: str, *, multi: bool) -> int:
        if self.broken:
            raise HostError(f"interface {name}: open tap", self.broken)
        if name == "lo" or not 0 < len(name) <= MOST_NAME:
            raise HostError(f"interface {name}: Invalid argument", EINVAL)
        tap = self.there.setdefault(name, FakeTap(multi))
        if tap.multi != multi:
            raise HostError(f"interface {name}: Invalid argument", EINVAL)
        if tap.carrier and not multi:
            raise HostError(f"interface {name}: Device or resource busy", EBUSY)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        tap.queues.append(theirs)
        tap.opened += 1
        return ours.detach()

    def remove(self, name: str) -> None:
        if name == "lo" or (name in self.there and self.stubborn):
            raise HostError(
                f"interface {name}: remove tap", EOPNOTSUPP if self.stubborn else EINVAL
            )
        tap = self.there.pop(name, None)
        for queue in tap.queues if tap is not None else ():
            queue.close()

    def bring_up(self, name: str) -> None:
        self._find(name).up = True

    def is_up(self, name: str) -> bool:
        return name in self.there and self.there[name].up

    def set_mtu(self, name: str, mtu: int) -> None:
        self._find(name).mtu = mtu

    def _find(self, name: str) -> FakeTap:
        if name not in self.there:
            raise HostError(f"interface {name}: No such device or address", ENXIO)
        return self.there[name]

    @property
    def names(self) -> list[str]:
        """Of those that somebody has made."""
        return sorted(self.there.keys() - {"lo"})


class NetBench:
    """A card's backend, and the nodes on both sides of it."""

    def __init__(self, directory: Path, run: Run = at_once) -> None:
        """`run` does what may have to wait."""
        self._run = run
        self.host = DirectoryHost(directory)
        self.run = directory / "run"
        self.run.mkdir()
        self.loop = asyncio.new_event_loop()
        self.events: list[Event] = []
        self.taps = FakeTaps()
        self.wakes = 0
        self.family = self.make(Config())
        self.backend = self.create(IDENTITY)
        self.backend_nodes: dict[str, bytes] = {
            "handle": b"0",
            "mac": MAC,
            "bridge": b"xenbr0",
        }
        self.frontend_nodes: dict[str, bytes] = {
            "event-channel": b"%d" % PORT,
            "tx-ring-ref": b"8",
            "rx-ring-ref": b"9",
            "request-rx-copy": b"1",
            "feature-rx-notify": b"1",
            "feature-sg": b"1",
        }

    def make(self, config: Config) -> NetFamily:
        return NetFamily(
            host=self.host,
            config=config,
            state_dir=str(self.run),
            loop=self.loop,
            run=self._run,
            taps=self.taps,
            heritage=Heritage(str(self.run), self.events.append),
            journal=self.events.append,
        )

    def create(self, identity: Identity) -> NetBackend:
        return self.family.create(identity, self.wake, self.events.append)

    def wake(self) -> None:
        self.wakes += 1

    def offer(self) -> dict[str, bytes | None]:
        self.backend.introduce(self.backend_nodes.get, "vm", "/vm/1")
        return dict(self.backend.capabilities(self.backend_nodes.get))

    def open(self) -> str:
        self.offer()
        return self.backend.open(self.backend_nodes.get)

    def connect(self) -> str:
        return self.backend.connect(self.frontend_nodes.get).text

    def close(self) -> None:
        if self.backend.medium_open:
            self.backend.close()
        self.backend.forget()
        assert self.taps.names == []
        assert os.listdir(self.run) == []
        self.host.close()
        self.loop.close()
