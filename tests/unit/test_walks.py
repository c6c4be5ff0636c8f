"""Random walks of both sides through the life of a device, each to an end that must be right.

A walk is a list of steps of the guest, the toolstack, the queue's threads, the disk, XenStore and
whoever starts and stops the daemon; a step that makes no sense where the walk has come does
nothing.  Some steps are not waited for, and some ("at N") come just before the daemon's N-th next
request to the store.  Walked are the real Bus and Device.  The family is a fake one; the store is
the embedded one's tree without its sockets, since with them thousands of walks take minutes.

XBBD_TEST_SEED makes other walks.  One that failed is walked again by `World(Loop()).walk([...])`.
"""

import os
import random
import re
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from errno import EBUSY
from typing import Final, TypeVar

import pytest

from tests.unit.tree_store import DOM0, HOME, Loop, OnTree, TreeStore
from tests.unit.xenbus_bench import FakeBackend, FakeFamily
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.journal import Journal
from xbbd_bsd.sim import storetree
from xbbd_bsd.xenbus.bus import Bus
from xbbd_bsd.xenbus.family import Changes, Connection, Identity, Nodes
from xbbd_bsd.xenbus.states import Queue

T = TypeVar("T")

SEED: Final = os.environ.get("XBBD_TEST_SEED", "1")
# In parts, none of which takes long on a slow machine.
WALKS: Final = int(os.environ.get("XBBD_TEST_WALKS", "3000"))
PARTS: Final = 8

BACK: Final = f"{HOME}/backend/vbd/5/51712"
FRONT: Final = "/local/domain/5/device/vbd/51712"
BLAMES: Final = {"guest": GuestError, "operator": OperatorError, "host": HostError}
COMPLAINTS: Final = re.compile("internal error|XenStore refuses|cannot look for")
KEY: Final = ("vbd", 5, 51712)
NOTHING: Final = (Queue.NONE, False)
ALIVE: Final = (b"3", b"4")

OFFER: Final = f"offer frontend={FRONT} frontend-id=5 online=1 state=1"
RING: Final = "guest ring-ref=8"
MEDIUM: Final = "set physical-device-path=/dev/a"
DETACH: Final = "set online=0 state=5"
REMOVE: Final = f"remove {BACK} {FRONT}"
# Of each of these lists, an element is drawn and all its steps are taken; what is said more often
# is done more often.
ANY_TIME: Final = (
    [f"guest state={state}" for state in (1, 3, 4, 5, 6)] * 2
    + [OFFER, "drained", "drained", "heal", "back", "set online=1", RING, MEDIUM] * 2
    + [f"guest state={state}" for state in [*range(9), "junk"]]
    + ["guest state", "guest ring-ref", f"remove {BACK}", f"remove {FRONT}", REMOVE, DETACH]
    + ["set online=0", "set state=5", "set state=1", "set physical-device-path=/dev/b", "news"]
    + [f"set frontend=/local/domain/{rest}" for rest in ("6/device/vbd/51712", "5/other")]
    + ["set frontend-id=6", "set frontend-id=5", "fault guest", "fault host", "lose", "lose-commit"]
    + ["fault guest slowly", "fault host slowly", "fail capabilities host", f"set frontend={FRONT}"]
    + [f"fail {deed} {blame}" for deed in ("open", "connect") for blame in BLAMES]
)  # fmt: skip
CLOSES: Final = "guest state=5, settle, drained, settle, guest state=6, settle, drained, settle"
COMES: Final = f"heal, guest state=1, settle, {RING}, {MEDIUM}, guest state=3, settle"
BETWEEN_TURNS = ["stop", "hurry", "start", "start", "crash", f"{OFFER}, {MEDIUM}, {COMES}"]
BETWEEN_TURNS += [f"{DETACH}, {CLOSES}", *4 * [f"{CLOSES}, {COMES}, guest state=4, settle, news"]]
DIES: Final = f"{COMES}, guest state=4, settle, crash"
BETWEEN_TURNS += [DIES, DIES, f"{DIES}, busy", f"{DIES}, fail adopt host", "crash, busy"]
ANSWERS: Final[dict[bytes | None, list[str]]] = {  # of a guest, to our state
    b"1": ["guest state=1"], b"2": [RING, "guest state=3"], b"4": ["guest state=4"],
    b"5": ["guest state=5", "guest state=6"], b"6": ["guest state=6", "guest state=1"],
}  # fmt: skip
ENDINGS: Final = ("detach", "detach without driver", "connect", "connect", "leave", "remove")


class Backend(FakeBackend):
    """A fake backend that lets nothing pass that would harm a real one."""

    ending = False  # who served it before was about to end that

    def open(self, backend: Nodes) -> str:
        if (medium := backend("physical-device-path")) is None:
            raise OperatorError("node physical-device-path is missing")
        assert (self.queue, self.medium_open) == NOTHING
        return super().open({"physical-device-path": medium}.get)

    def connect(self, frontend: Nodes) -> Connection:
        if frontend("ring-ref") is None:
            raise GuestError("frontend node ring-ref is missing")
        assert (self.queue, self.medium_open) == (Queue.NONE, True)
        self.news = {}
        return super().connect(lambda name: None)

    def adopt(self, backend: Nodes) -> str:
        assert (self.queue, self.medium_open) == NOTHING
        assert self.adoptable
        text = super().adopt(backend)
        if self.ending:
            self.queue = Queue.DRAINING
        return text

    @property
    def leaves(self) -> bool:
        """Whether one who follows has something to go on with."""
        return self.adoptable or self.queue in (Queue.RUNNING, Queue.DRAINING)

    def capabilities(self, backend: Nodes) -> Changes:
        self.adoptable = False
        return super().capabilities(backend)

    def drain(self) -> None:
        assert self.queue is not Queue.NONE or self.adoptable
        # Its threads may have ended it a moment ago.
        if self.queue in (Queue.RUNNING, Queue.NONE):
            super().drain()

    def disconnect(self) -> None:
        super().disconnect()
        self.fault = None


class Family(FakeFamily):
    """Makes such a backend when there is none."""

    backend: Backend | None = None

    def __init__(self, before: Backend | None) -> None:
        """`before`: what the daemon had that has died."""
        super().__init__()
        self._ending = False
        if before is not None and before.leaves:
            self.left[KEY] = 0
            self._ending = before.queue is Queue.DRAINING or (before.adoptable and before.ending)

    def create(
        self, identity: Identity, wake: Callable[[], None], journal: Callable[[Event], None]
    ) -> Backend:
        assert self.backend is None or self.backend.deeds[-1] == "forget"
        self.backend = Backend(self, identity, wake)
        self.backend.ending = self._ending
        self.claim(self.backend)
        return self.backend


class World:
    """One walk: a store, a daemon, and all the others."""

    def __init__(self, loop: Loop) -> None:
        self.lines: list[str] = []
        self._loop = loop
        self._tree = storetree.Tree()
        self._calls = 0
        self._ambushes: list[tuple[int, str]] = []  # number of the call, step
        self._others = OnTree(self._tree, lambda: None, lambda: self.store.tell())
        self._asked = False  # the toolstack asks for the disk back
        self._tree.write(DOM0, "/local/domain/5/name", b"vm")  # it lives all the time
        self._start(None)

    def _start(self, before: Backend | None) -> None:
        """A new daemon; what an earlier one had, the kernel has taken back.

        `before`: what that one did not give back itself.
        """
        self._ambushes.clear()
        self.family = Family(before)
        self.store = TreeStore(self._loop, self._tree, self._called)
        # By this clock, no line is left out for being one of many.
        journal = Journal(lambda _, line: self.lines.append(line), lambda: 1e3 * len(self.lines))
        self.bus = Bus(self.store, {"vbd": self.family}, loop=self._loop, journal=journal)
        self.bus.serve(["vbd"])
        self._leaving = self._left = False

    def _called(self) -> None:
        self._calls += 1
        for call, step in [*self._ambushes]:
            if call <= self._calls:
                self._ambushes.remove((call, step))
                self.walk([step])

    def node(self, name: str, directory: str = BACK) -> bytes | None:
        node = self._tree.get(f"{directory}/{name}")
        return node.value if node is not None else None

    @property
    def guest(self) -> bytes | None:
        """The guest's state, None also if the toolstack's nodes do not lead to it."""
        leads = (self.node("frontend"), self.node("frontend-id")) == (FRONT.encode(), b"5")
        return self.node("state", FRONT) if leads else None

    @property
    def held(self) -> tuple[Queue, bool]:
        backend = self.family.backend
        return (backend.queue, backend.medium_open) if backend is not None else NOTHING

    def walk(self, steps: Iterable[str]) -> None:
        for step in steps:
            kind, *details = step.split(" ", 2 if step.startswith("at ") else -1)
            match kind:
                case "at":
                    self._ambushes.append((self._calls + int(details[0]), details[1]))
                case "turn":
                    self._loop.turn()
                case "settle":
                    self.settle()
                case "guest":
                    self._put(FRONT, details)
                case "offer" | "set" | "remove":
                    self._toolstack(kind, details)
                case "fail":
                    self.family.errors[details[0]] = BLAMES[details[1]](f"no {details[0]}", 5)
                case "busy":
                    self.family.errors["adopt"] = HostError("has not ended", EBUSY)
                case "heal":
                    self.family.errors.clear()
                    self.bus.try_again("xbbd", (0,))
                case "lose":
                    self.store.up = False
                case "lose-commit":
                    self.store.loses_commit = True
                case "back" if not self.store.up:
                    self.store.up = True
                    for watch in self.store.watches:
                        self.store._event(watch.path, watch.token)
                    self._loop.call_soon(self.bus.look)
                case "stop" if not self._leaving:
                    self._leaving = True
                    self.bus.stop(lambda: setattr(self, "_left", True))
                case "hurry" if self._leaving:
                    self.bus.hurry()
                case "start" if self._left:
                    self._start(None)
                case "crash":
                    self.store.up = False  # for what still runs of it
                    self._start(self.family.backend)
                case _ if self.family.backend is not None:
                    self._queue(self.family.backend, kind, details)

    def _put(self, directory: str, nodes: Iterable[str]) -> None:
        """As in "state=4", or "state" to remove it."""
        for name, given, value in (f"{directory}/{node}".partition("=") for node in nodes):
            if given:
                self._others.write(name, value.encode())
            else:
                self._others.remove(name)

    def _toolstack(self, kind: str, details: list[str]) -> None:
        if kind == "remove":
            for directory in details:
                self._others.remove(directory)
        elif kind == "offer" or self.node("frontend") is not None:
            self._put(BACK, details)
        if self.node("frontend") is None or {"online=1", "state=1"} & {*details}:
            self._asked = False
        elif {"online=0", "state=5"} <= {*details}:
            self._asked = self.store.up  # what nobody could hear has to be asked again

    def _queue(self, backend: Backend, kind: str, details: list[str]) -> None:
        match kind, backend.queue:
            case "drained", Queue.DRAINING:
                end = Queue.DRAINED if backend.fault is None else Queue.FAILED
                backend.finish(end, backend.fault)
            case "fault", Queue.RUNNING | Queue.DRAINING:
                end = Queue.DRAINING if "slowly" in details else Queue.FAILED
                backend.finish(end, BLAMES[details[0]]("its queue failed"))
            case "news", Queue.RUNNING:
                backend.news = {"sectors": b"16"}
                backend.wake()

    def settle(self) -> None:
        """Run the loop until it rests; then all must be as it should."""
        assert any(not self._loop.turn() for _ in range(300)), "no rest"
        (queue, disk), ours, guest = self.held, self.node("state"), self.guest
        assert len(self.bus.devices) <= 1
        assert self.bus.devices or self.held == NOTHING
        assert len(self.store.watches) <= (not self._leaving) + 2 * len(self.bus.devices)
        if self._leaving or not self.store.up:
            return
        if self.node("frontend") is None:
            assert queue is Queue.DRAINING or not self.bus.devices
            assert self._tree.get(BACK) is None
            return
        if self._asked:
            waits = guest in (*ALIVE, b"5") or queue is Queue.DRAINING
            assert ours == b"6" or (ours == b"5" and waits), "the toolstack asks for the disk"
        medium = self.node("physical-device-path") is not None
        backend = self.family.backend
        waits_for_another = (
            backend is not None
            and backend.adoptable
            and "adopt" in self.family.errors
            and guest in (*ALIVE, b"5")
        )
        rests: dict[tuple[bytes | None, Queue], bool] = {
            (b"1", Queue.NONE): guest is None and not disk,
            (b"2", Queue.NONE): disk == medium and guest in (b"1", b"2", *ALIVE[2 * disk :]),
            (b"4", Queue.RUNNING): disk and guest in ALIVE,
            (b"4", Queue.NONE): waits_for_another,
            (b"5", Queue.RUNNING): guest in (*ALIVE, b"5"),  # it may refuse to close
            **{(state, Queue.NONE): not disk for state in (b"5", b"6")},
            **{(state, Queue.DRAINING): disk for state in (b"1", b"2", b"5")},
        }
        assert rests.get((ours, queue)), f"ours {ours!r}, guest {guest!r}, {self.held}"

    def rest(self, *steps: str) -> None:
        """Let each step have all its effect, and the queue end if it is about to."""
        for step in steps:
            self.walk([step, "settle"])
            if self.held[0] is Queue.DRAINING:
                self.walk(["drained", "settle"])

    def end(self, ending: str) -> None:
        """Make peace, then bring the walk to this end and after that to the last one."""
        self._ambushes.clear()
        self.store.loses_commit = False
        self.rest("back")
        if self._leaving or ending == "leave":
            self.rest("stop", "hurry")
            assert self._left
            assert not self.store.watches
            self.rest("start")
        if self.node("frontend") is None:
            self.rest(OFFER)
        if ending == "connect":
            self.connect()
        elif ending in ("detach", "detach without driver"):
            self.rest(DETACH, *(CLOSES.split(", ") if ending == "detach" else ["guest state=1"]))
            assert (self.node("state"), self.held) == (b"6", NOTHING)
        self.rest(REMOVE)
        assert not [line for line in self.lines if COMPLAINTS.search(line)]
        assert not self.bus.devices
        deeds = self.family.backend.deeds if self.family.backend is not None else ["forget"]
        assert (deeds.count("forget"), deeds[-1]) == (1, "forget")
        assert self._tree.get(BACK) is None
        assert [watch.path for watch in self.store.watches] == ["backend/vbd"]

    def connect(self) -> None:
        """All is well again, and a well-behaved guest comes to be served."""
        self.rest("heal", f"set frontend={FRONT} frontend-id=5 online=1")
        if self.node("hotplug-status") == b"error":
            self.rest("set state=1")
        self.rest(MEDIUM)
        for _ in range(8):  # answers, more than it takes from anywhere
            if (self.node("state"), self.guest) != (b"4", b"4"):
                self.rest(*ANSWERS[self.node("state")])
        assert (self.node("state"), self.guest) == (b"4", b"4")
        assert (self.node("hotplug-status"), *self.held) == (b"connected", Queue.RUNNING, True)


def drawn(draw: random.Random) -> list[str]:
    """A walk of 5 to 40 steps, more often few than many; some are several."""
    walk = [OFFER, RING, MEDIUM] if draw.random() < 0.9 else []
    for _ in range(min(draw.randint(5, 40) for _ in range(3))):
        if draw.random() < 0.15:
            walk.append(f"at {draw.randint(1, 30)} {draw.choice(ANY_TIME)}")
        else:
            walk += draw.choice(ANY_TIME + BETWEEN_TURNS).split(", ")
        walk += draw.choice([["settle"], ["settle"], ["turn"], []])
    return walk


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_walk_ends_well(part: int) -> None:
    connections = adoptions = 0
    walks = range(WALKS * part // PARTS, WALKS * (part + 1) // PARTS)
    with closing(Loop()) as loop:
        for number in walks:
            draw = random.Random(f"{SEED}/{number}")
            walk, ending, world = drawn(draw), draw.choice(ENDINGS), World(loop)
            try:
                world.walk(walk)
                world.end(ending)
            except AssertionError as error:
                which = f"seed {SEED}, walk {number}: {walk}, then {ending}"
                raise AssertionError("\n".join([str(error), which, *world.lines])) from error
            connections += sum("connected: ring" in line for line in world.lines)
            adoptions += sum("taken over: a ring" in line for line in world.lines)
    assert connections > len(walks) / 2, "few walks come far"
    assert adoptions > len(walks) / 50, "few daemons die under a guest"


@pytest.mark.parametrize("also", ["turn", "fail capabilities host", "fail open host", COMES])
def test_the_toolstack_is_heard_whenever_it_asks_for_the_disk(also: str) -> None:
    """Also while the disk is opened or the ring connected, which takes long or fails.

    After our report of a failure and before our watch on the state it is not: nobody
    could tell whose Closing it is, and xl goes on by itself after a while.
    """
    heard = []
    with closing(Loop()) as loop:
        for call in range(1, 45):
            steps = [OFFER, MEDIUM, "guest state=1", f"at {call} {DETACH}", *also.split(", ")]
            with suppress(AssertionError):
                World(loop).walk([*steps, "settle"])
                heard.append(call)
    assert len(heard) >= (43 if also.startswith("fail") else 44), heard
