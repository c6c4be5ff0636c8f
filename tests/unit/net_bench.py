"""A card's backend with fake interfaces, and a host that is one directory.

FakeTaps is verified: what tests/unit/test_net_taps.py says of taps it says of both.  Holds
no test.  One thread, that of pytest; the loop runs while something is waited for.
"""

import asyncio
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EBUSY, EINVAL, ENXIO, EOPNOTSUPP
from pathlib import Path

from tests.descriptors import open_descriptors
from tests.unit.family_bench import PORT, DirectoryHost, at_once
from tests.waiting import GIVE_UP
from xbbd_bsd.accounts import Accounts
from xbbd_bsd.charter import NODE
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Run
from xbbd_bsd.errors import HostError
from xbbd_bsd.events import Event
from xbbd_bsd.limits import Limits
from xbbd_bsd.native import HvKind, NetParams, NetState, bound_io, sim_mapped
from xbbd_bsd.native.front.netfront import Netfront, NetfrontParams
from xbbd_bsd.native.tap import MOST_NAME
from xbbd_bsd.net.backend import NetBackend
from xbbd_bsd.net.family import NetFamily
from xbbd_bsd.net.heritage import Heritage
from xbbd_bsd.net.queues import CRAFT, Taps
from xbbd_bsd.serving import Here, Serving
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue

IDENTITY = Identity("vif", 5, 0, "xnb", 0)
NAME = "vif5.0"
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
        self.stay = False  # there, though removed
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

    def is_there(self, name: str) -> bool:
        return name in self.there

    def remove(self, name: str) -> None:
        if name == "lo" or (name in self.there and self.stay):
            raise HostError(f"interface {name}: remove tap", EOPNOTSUPP if self.stay else EINVAL)
        tap = self.there.pop(name, None)
        while tap is not None and tap.queues:
            tap.queues.pop().close()

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


class Guest:
    """The guest's end of one queue, and a wire to the guest's side of its card."""

    def __init__(self, host: DirectoryHost) -> None:
        self.wire, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wire.settimeout(GIVE_UP)
        own.setblocking(False)
        self._own = own
        self._gone = False
        self.front = Netfront(
            NetfrontParams(
                host.domain_fd,
                host.listener.fileno(),
                PORT,
                HvKind.SIM,
                0,
                own.fileno(),
                patience_ms=int(GIVE_UP * 1000),
            )
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):  # its backend has gone, and that was it
            self.front.run()

    def nodes(self) -> dict[str, bytes]:
        """What it publishes."""
        return {
            "event-channel": b"%d" % PORT,
            "tx-ring-ref": b"%d" % self.front.tx_ref,
            "rx-ring-ref": b"%d" % self.front.rx_ref,
            "request-rx-copy": b"1",
            "feature-rx-notify": b"1",
            "feature-sg": b"1",
        }

    def stop(self) -> None:
        """Relay no more."""
        self.front.stop()
        self._thread.join()

    def close(self) -> None:
        if not self._gone:
            self._gone = True
            self.stop()
            self.front.close()
            self.wire.close()
            self._own.close()


class NetBench:
    """A card's backend, its guest, and the nodes on both sides."""

    def __init__(
        self,
        directory: Path,
        run: Run = at_once,
        taps: Taps | None = None,
        serving: Serving[NetParams, NetState] | None = None,
    ) -> None:
        """`run` does what may have to wait; `taps`: None for fake ones, `serving`: for here."""
        self._run = run
        self.host = DirectoryHost(directory, pages=1024)
        self.run = directory / "run"
        self.run.mkdir()
        self.loop = asyncio.new_event_loop()
        self.events: list[Event] = []
        self.fakes = FakeTaps()
        self.taps: Taps = self.fakes if taps is None else taps
        self.wakes = 0
        self.freed: list[int] = []
        self.serving = serving
        self.limits = Accounts(
            Limits.of(Config().daemon, self.host.resources),
            bound_beyond=bound_io,
            freed=lambda takers: self.freed.extend(unit for _, unit in takers),
            journal=self.events.append,
        )
        self.family = self.make(Config())
        self.backend = self.create(IDENTITY)
        self.backend_nodes: dict[str, bytes] = {"handle": b"0", "mac": MAC, "bridge": b"xenbr0"}
        self.guest = Guest(self.host)
        self.frontend_nodes = self.guest.nodes()

    def make(self, config: Config) -> NetFamily:
        return NetFamily(
            host=self.host,
            config=config,
            state_dir=str(self.run),
            loop=self.loop,
            run=self._run,
            serving=self.serving or Here(CRAFT, self.host, self.loop),
            taps=self.taps,
            heritage=Heritage(str(self.run), self.events.append),
            limits=self.limits,
            journal=self.events.append,
            try_again=self.freed.extend,
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
        connection = self.backend.connect(self.frontend_nodes.get)
        assert connection.nodes.keys() == {NODE}
        self.backend_nodes |= {name: of or b"" for name, of in connection.nodes.items()}
        return connection.text

    @property
    def queue(self) -> Queue:
        return self.backend.queue

    @property
    def wire(self) -> socket.socket:
        """The end of its interface that is a network's."""
        (queue,) = self.fakes.there[NAME].queues
        queue.settimeout(GIVE_UP)
        return queue

    def descriptors(self) -> set[int]:
        """Those that are open, without what fake interfaces have of queues that are closed."""
        assert all(tap.carrier in (True, False) for tap in self.fakes.there.values())
        return open_descriptors()

    def turn(self) -> None:
        """What was put off until the loop's next turn is done."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def drained(self) -> None:
        """Wait on the loop for the queue's own word."""
        before = self.wakes
        deadline = self.loop.time() + GIVE_UP
        while self.wakes == before:
            assert self.loop.time() < deadline
            self.loop.call_later(0.002, self.loop.stop)
            self.loop.run_forever()

    def down(self) -> None:
        if self.queue is Queue.RUNNING:
            self.backend.drain()
        if self.queue is Queue.DRAINING:
            self.drained()
        self.backend.disconnect()
        if self.backend.medium_open:
            self.backend.close()

    def die(self, config: Config | None = None) -> Path:
        """The daemon is gone at once, and another has begun; the segment that it left.

        As it was in its last moment: whatever it has given back since, nobody knows.
        """
        left = self.run / f"xnb.{IDENTITY.unit}"
        last, taps = left.read_bytes(), dict(self.fakes.there)
        beside = Path(f"{left}.interface")
        name = beside.read_bytes()
        self.down()
        self.backend.forget()
        self.turn()
        left.write_bytes(last)
        beside.write_bytes(name)
        self.fakes.there = taps
        self.follow(config)
        return left

    def follow(self, config: Config | None = None) -> None:
        """A daemon begins, and finds the card."""
        self.events.clear()
        self.family = self.make(config or Config())
        self.backend = self.create(IDENTITY)
        self.backend.introduce(self.backend_nodes.get, "vm", "/vm/1")

    def adopt(self) -> str:
        return self.backend.adopt(self.backend_nodes.get)

    def close(self) -> None:
        self.guest.close()
        self.down()
        self.backend.forget()
        self.turn()
        assert self.limits.idle
        assert self.fakes.names == []
        assert sim_mapped(self.host.domain_fd) == 0
        assert os.listdir(self.run) == []
        self.host.close()
        self.loop.close()
