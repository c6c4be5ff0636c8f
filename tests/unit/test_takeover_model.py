"""A model of what take-over counts on: one ring, its in-flight table, a backend that dies.

A backend takes requests, works and answers as the data plane does, store by store, and
may die before any store; the next one recovers from the table and the ring alone, and may
die at that, too.  The guest checks that each request is answered once, and only with what
is its own.  Orders of stores that are wrong must be found out, or this is no model.

Pure: the real order is in intake.c and answer.c, and tests/c/test_table.c looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SLOTS = 4
SECTORS = 3
DEATH = 0.04  # before a store
MOST_DEATHS = 40  # in a life: it shall come to an end
MOST_TURNS = 3000
OKAY, ERROR = 0, -1


class Order(Enum):
    """In which order a backend does things."""

    AS_DESIGNED = auto()
    FREE_BEFORE_PUSH = auto()  # an entry is free once its answer is put
    MALFORMED_LEFT_OUT = auto()  # what is refused is answered without an entry
    FREE_BEFORE_RING = auto()  # an entry is free before the ring says it is answered
    FREE_BEFORE_SEGMENT = auto()  # or before the segment does


class Kind(Enum):
    """What a guest asks."""

    READ = auto()
    WRITE = auto()
    MALFORMED = auto()


class Life(Enum):
    """Of an entry of the table (enum xbb_req_state)."""

    FREE = auto()
    ACCEPTED = auto()
    DISPATCHED = auto()
    DONE = auto()
    ANSWERED = auto()


class DeathError(Exception):
    """The backend is no more."""


class WrongError(Exception):
    """What must never happen has."""


def must(condition: bool, what: str) -> None:
    """Of all that a guest or a recovery counts on."""
    if not condition:
        raise WrongError(what)


@dataclass(frozen=True)
class Asked:
    """A slot with a request; a write stores its own id."""

    id: int
    kind: Kind
    sector: int


@dataclass(frozen=True)
class Reply:
    """A slot with a response; of a read, with what it found."""

    id: int
    status: int
    value: int


@dataclass
class Entry:
    """Of the table: outlives the backend."""

    state: Life = Life.FREE
    asked: Asked = field(default_factory=lambda: Asked(0, Kind.READ, 0))
    index: int = 0  # on the ring, of the request
    response: int = 0  # and of its response, once ANSWERED
    status: int = OKAY
    value: int = 0


@dataclass
class World:
    """What no death of a backend takes away: ring, segment, disk."""

    random: Random
    order: Order
    slots: list[Asked | Reply | None] = field(default_factory=lambda: [None] * SLOTS)
    req_prod: int = 0
    rsp_prod: int = 0
    table: list[Entry] = field(default_factory=lambda: [Entry() for _ in range(SLOTS)])
    said_req_cons: int = 0  # as the segment has them
    said_rsp_prod: int = 0
    disk: list[int] = field(default_factory=lambda: [0] * SECTORS)
    deaths: int = 0

    def store(self) -> None:
        """Before each store that others can find: it may be that nothing comes of it."""
        if self.deaths < MOST_DEATHS and self.random.random() < DEATH:
            raise DeathError


class Guest:
    """Asks, and checks what it is answered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: dict[int, Asked] = {}
        self.answered: set[int] = set()
        self.rsp_cons = 0
        self.left = world.random.randint(6, 14)
        self.durable = [0] * SECTORS  # the newest write of each sector that was answered
        self.least: dict[int, int] = {}  # what a read must find, at least

    @property
    def content(self) -> bool:
        """Whether it asks no more, and waits for nothing."""
        return not self.left and len(self.answered) == len(self.asked)

    def act(self) -> None:
        """Take all answers, and ask something."""
        world = self.world
        while self.rsp_cons != world.rsp_prod:
            self._take(world.slots[self.rsp_cons % SLOTS])
            self.rsp_cons += 1
        while self.left and world.req_prod - self.rsp_cons < SLOTS and world.random.random() < 0.7:
            kind = world.random.choice([Kind.WRITE, Kind.WRITE, Kind.READ, Kind.MALFORMED])
            asked = Asked(len(self.asked) + 1, kind, world.random.randrange(SECTORS))
            self.asked[asked.id] = asked
            self.least[asked.id] = self.durable[asked.sector]
            world.slots[world.req_prod % SLOTS] = asked
            world.req_prod += 1
            self.left -= 1

    def _take(self, slot: Asked | Reply | None) -> None:
        if not isinstance(slot, Reply):
            raise WrongError("a slot that is no response is published as one")
        must(slot.id in self.asked, f"a response to {slot.id}, which was never asked")
        must(slot.id not in self.answered, f"{slot.id} is answered twice")
        asked = self.asked[slot.id]
        refused = asked.kind is Kind.MALFORMED
        must(slot.status == (ERROR if refused else OKAY), f"{slot.id} has another's status")
        if asked.kind is Kind.READ:
            must(slot.value >= self.least[slot.id], f"{slot.id} has read what is no more")
        if asked.kind is Kind.WRITE:
            self.durable[asked.sector] = max(self.durable[asked.sector], slot.id)
        self.answered.add(slot.id)

    def check_end(self) -> None:
        """Nothing is owed, and each sector has the last write."""
        must(self.content, f"never answered: {sorted(self.asked.keys() - self.answered)}")
        for sector, found in enumerate(self.world.disk):
            writes = [
                asked.id
                for asked in self.asked.values()
                if asked.kind is Kind.WRITE and asked.sector == sector
            ]
            must(found == max(writes, default=0), f"sector {sector} has an older write")


class Backend:
    """One life of a backend, from taking over to death."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: list[Entry] = []
        self.started: list[Entry] = []
        self.answered: list[Entry] = []
        self.req_cons = 0
        self.rsp_prod_pvt = world.rsp_prod
        self._recover()

    def _recover(self) -> None:
        world, published = self.world, self.world.rsp_prod
        told = [entry for entry in world.table if entry.state is Life.ANSWERED]
        unsaid = published - world.said_rsp_prod
        must(0 <= unsaid <= len(told), "the ring has other responses than the table")
        owed = [
            entry
            for entry in world.table
            if entry.state is not Life.FREE
            and not (entry.state is Life.ANSWERED and entry.response < published)
        ]
        owed.sort(key=lambda entry: entry.index)
        self.req_cons = published + len(owed)  # one response for each that was read
        indices = [entry.index for entry in owed]
        must(len({*indices}) == len(indices), "two entries of one request")
        must(all(index < self.req_cons for index in indices), "a request that was not read")
        must(self.req_cons - world.said_req_cons in (0, 1), "others were read than the table has")

        # The segment knows of all responses before an entry forgets one.
        world.store()
        world.said_rsp_prod = published
        world.store()
        world.said_req_cons = self.req_cons
        for entry in told:
            if entry.response < published:
                world.store()
                entry.state = Life.FREE
        for entry in owed:
            if entry.state in (Life.ANSWERED, Life.DONE):
                self._respond(entry)
            else:
                world.store()
                entry.state = Life.ACCEPTED
                self.pending.append(entry)
        self.push()

    def _put(self, reply: Reply) -> None:
        self.world.store()
        self.world.slots[self.rsp_prod_pvt % SLOTS] = reply

    def _respond(self, entry: Entry) -> None:
        world = self.world
        world.store()
        entry.response = self.rsp_prod_pvt
        world.store()
        entry.state = Life.ANSWERED
        self._put(Reply(entry.asked.id, entry.status, entry.value))
        self.rsp_prod_pvt += 1
        self.answered.append(entry)
        if world.order is Order.FREE_BEFORE_PUSH:
            self._release()

    def _release(self) -> None:
        while self.answered:
            self.world.store()
            self.answered.pop().state = Life.FREE

    def push(self) -> None:
        """Publish what was answered."""
        world = self.world
        if world.order is Order.FREE_BEFORE_RING:
            self._release()
        world.store()
        world.rsp_prod = self.rsp_prod_pvt
        if world.order is Order.FREE_BEFORE_SEGMENT:
            self._release()
        world.store()
        world.said_rsp_prod = self.rsp_prod_pvt
        self._release()

    def gather(self) -> None:
        """Take what waits on the ring."""
        world = self.world
        while self.req_cons != world.req_prod:
            asked = world.slots[self.req_cons % SLOTS]
            if not isinstance(asked, Asked):
                raise WrongError("a response is read as a request")
            malformed = asked.kind is Kind.MALFORMED
            if malformed and world.order is Order.MALFORMED_LEFT_OUT:
                self.req_cons += 1
                self._put(Reply(asked.id, ERROR, 0))
                self.rsp_prod_pvt += 1
                continue
            free = [entry for entry in world.table if entry.state is Life.FREE]
            must(bool(free), "the table is full")
            self._enter(free[0], asked, malformed=malformed)

    def _enter(self, entry: Entry, asked: Asked, *, malformed: bool) -> None:
        world = self.world
        world.store()
        entry.asked, entry.index, entry.value = asked, self.req_cons, 0
        entry.status = ERROR if malformed else OKAY
        world.store()
        entry.state = Life.DONE if malformed else Life.ACCEPTED
        self.req_cons += 1
        world.store()
        world.said_req_cons = self.req_cons
        if malformed:
            self._respond(entry)
        else:
            self.pending.append(entry)

    def _may_start(self) -> Iterator[Entry]:
        """In order; what overlaps one that was started waits, if one of them writes."""
        while self.pending:
            asked = self.pending[0].asked
            others = [entry.asked for entry in self.started if entry.asked.sector == asked.sector]
            if any(Kind.WRITE in (asked.kind, other.kind) for other in others):
                return
            yield self.pending.pop(0)

    def work(self) -> bool:
        """Start what may, have one of them done; whether there was one."""
        world = self.world
        for entry in self._may_start():
            world.store()
            entry.state = Life.DISPATCHED
            self.started.append(entry)
        if not self.started:
            return False
        entry = self.started.pop(world.random.randrange(len(self.started)))
        world.store()
        if entry.asked.kind is Kind.WRITE:
            world.disk[entry.asked.sector] = entry.asked.id
        else:
            entry.value = world.disk[entry.asked.sector]
        world.store()
        entry.state = Life.DONE
        self._respond(entry)
        return True


def live(seed: int, order: Order) -> int:
    """A guest from its first request to its last answer; how often its backend died.

    WrongError if something happened that must not.
    """
    world = World(Random(seed), order)
    guest = Guest(world)
    backend: Backend | None = None
    for _ in range(MOST_TURNS):
        guest.act()
        if guest.content:
            break
        try:
            if backend is None:
                backend = Backend(world)
            backend.gather()
            if not backend.work() or world.random.random() < 0.5:
                backend.push()
        except DeathError:
            backend = None
            world.deaths += 1
    guest.check_end()
    return world.deaths


@pytest.mark.slow
@settings(max_examples=400)
@given(seed=st.integers(0, 2**64 - 1))
def test_each_request_is_answered_once_whenever_the_backend_dies(seed: int) -> None:
    live(seed, Order.AS_DESIGNED)


def test_backends_do_die() -> None:
    """Of these lives most have several deaths, or the others would prove nothing."""
    deaths = [live(seed, Order.AS_DESIGNED) for seed in range(50)]
    assert sum(died >= 2 for died in deaths) > 25
    assert max(deaths) < MOST_DEATHS


@pytest.mark.parametrize("order", [order for order in Order if order is not Order.AS_DESIGNED])
def test_another_order_is_found_out(order: Order) -> None:
    def goes_wrong(seed: int) -> bool:
        try:
            live(seed, order)
        except WrongError:
            return True
        return False

    assert sum(goes_wrong(seed) for seed in range(100)) >= 10
