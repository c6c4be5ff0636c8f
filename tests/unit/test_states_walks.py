"""The table of joint states, in walks against a model of a device."""

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbbd_bsd.xenbus.states import Action, Decision, Facts, Failure, Queue, State, decide

S = State
ALIVE = (S.INITIALISED, S.CONNECTED)
USING = (*ALIVE, S.CLOSING)


@dataclass
class World:
    """A model of a device and all who act on it, checking each deed of the table."""

    ours: State = S.INITIALISING
    guest: State = S.INITIALISING
    present: bool = True
    online: bool = True
    announced: bool = False
    named: bool = True
    medium: bool = False
    queue: Queue = Queue.NONE
    failure: Failure = Failure.NONE
    withdrawn: bool = False
    held_back: bool = False
    adoptable: bool = False
    stopping: bool = False
    overdue: bool = False
    forgotten: bool = False
    open_fails: bool = False
    connect_fails: bool = False
    adopt_fails: bool = False
    waiting: bool = False  # the guest has requests with whoever serves it, or served it

    def facts(self) -> Facts:
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(Facts)
                 if hasattr(self, field.name)}  # fmt: skip
        if not self.present:
            shown |= {"ours": S.UNKNOWN, "guest": S.GONE, "online": False, "named": False}
        facts = Facts(**shown)
        return dataclasses.replace(facts, guest_ready=facts.guest in ALIVE)

    def settle(self) -> int:
        """Obey the table until it rests; how many steps that took."""
        for step in range(33):
            if self.forgotten:
                return step
            if (
                self.ours is S.CONNECTED
                and self.queue is Queue.FAILED
                and self.failure is (Failure.NONE)
            ):
                self.failure = Failure.CONNECTION
            decision = decide(self.facts())
            if decision is None:
                return step
            self.obey(decision)
        raise AssertionError(f"no rest: {self}")

    def obey(self, decision: Decision) -> None:
        match decision.action:
            case Action.PUBLISH:
                assert self.present
                assert not self.stopping
                self.announced = True
                self.adoptable = self.waiting = False  # it is begun anew
            case Action.OPEN:
                assert self.named
                assert not self.medium
                if self.open_fails:
                    self.failure = Failure.ATTACH
                    return
                self.medium = True
            case Action.CONNECT:
                assert self.medium
                assert self.queue is Queue.NONE
                assert self.guest in ALIVE
                assert decision.next is S.CONNECTED
                if self.connect_fails:
                    self.failure = Failure.CONNECTION
                    return
                self.queue = Queue.RUNNING
                self.waiting = True
            case Action.ADOPT:
                assert self.adoptable
                assert self.queue is Queue.NONE
                assert self.guest in USING
                assert not self.held_back
                assert decision.next is None
                self.adoptable = False
                if self.adopt_fails:
                    self.failure = Failure.CONNECTION
                    return
                self.medium, self.queue = True, Queue.RUNNING
            case Action.DRAIN:
                if self.adoptable and self.queue is Queue.NONE:
                    assert self.guest not in USING  # whoever serves it still gives it back
                    self.adoptable = self.waiting = False
                else:
                    assert self.queue is Queue.RUNNING
                    self.queue = Queue.DRAINING
            case Action.DISCONNECT:
                assert self.queue in (Queue.DRAINED, Queue.FAILED)
                self.queue, self.waiting = Queue.NONE, False
            case Action.CLOSE:
                assert self.queue is Queue.NONE
                assert self.medium
                self.medium = False
            case Action.FAIL:
                self.failure = Failure.REPORTED_ATTACH
                self.online = False
            case Action.REPORT | Action.REFUSE | Action.ABANDON:
                self.failure = Failure.REPORTED_CONNECTION
            case Action.RESET:
                assert self.failure.reported
                self.failure = Failure.NONE
                self.withdrawn = False
            case Action.FORGET:
                assert not self.medium
                assert self.queue is Queue.NONE
                self.forgotten = True
            case Action.NONE:
                assert decision.next is not None
        if decision.next is not None:
            assert self.present, "a state was written to nodes that are gone"
            assert decision.next is not self.ours
            if decision.next is S.CLOSED:
                assert not self.medium
                assert self.queue is Queue.NONE
            if decision.next is S.CONNECTED:
                assert decision.action is Action.CONNECT
            self.ours = decision.next

    def happen(self, event: str) -> None:
        """Something that others do."""
        kind, _, detail = event.partition(" ")
        match kind:
            case "guest":
                self.guest = State[detail]
            case "drained" if self.queue is Queue.DRAINING:
                self.queue = Queue.DRAINED
            case "fault" if self.queue in (Queue.RUNNING, Queue.DRAINING):
                self.queue = Queue.FAILED
            case "detach" if self.present:
                self.online = False
                self.ours = S.CLOSING
                self.withdrawn = self.failure is Failure.REPORTED_ATTACH
            case "delete":
                self.present = False
                self.guest = S.GONE
            case "offer":
                self.present = self.online = self.named = True
                self.ours = S.INITIALISING
                self.guest = S.INITIALISING
            case "write" if self.present:
                self.ours = State[detail]
            case "hotplug":
                self.named = True
            case "open":
                self.open_fails = detail == "fails"
            case "connect":
                self.connect_fails = detail == "fails"
            case "adopt":
                self.adopt_fails = detail == "fails"
            case "wait" if self.present:
                self.held_back = True
            case "try":
                self.held_back = False
            case "stop":
                self.stopping = True
            case "die":
                self.die()

    def die(self) -> None:
        """This daemon is killed and another follows: what the kernel had of it is gone."""
        self.adoptable = self.adoptable or self.queue is not Queue.NONE
        self.medium, self.queue, self.failure = False, Queue.NONE, Failure.NONE
        self.announced = self.withdrawn = self.held_back = self.stopping = self.overdue = False

    def run(self, *events: str) -> "World":
        self.settle()
        for event in events:
            if self.forgotten:
                break
            self.happen(event)
            self.settle()
        return self


EVENTS = st.sampled_from(
    [f"guest {state.name}" for state in State]
    + [f"write {state.name}" for state in State if state is not S.GONE]
    + ["drained", "fault", "detach", "delete", "offer", "hotplug", "open fails", "open works"]
    + ["connect fails", "connect works", "die", "die", "adopt fails", "adopt works"]
    + ["wait", "try"]
)
WORLDS = st.builds(
    World,
    ours=st.sampled_from([state for state in State if state is not S.GONE]),
    guest=st.sampled_from(list(State)),
    online=st.booleans(),
    named=st.booleans(),
)
WALKS = st.lists(EVENTS, max_size=25)
walks = settings(max_examples=1000, deadline=None)


def test_attach_serve_detach() -> None:
    world = World().run("guest INITIALISED")
    assert (world.ours, world.queue, world.medium) == (S.CONNECTED, Queue.RUNNING, True)
    world.run("guest CONNECTED", "detach")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    world.run("guest CLOSING", "drained")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    world.run("guest CLOSED")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.DRAINING)
    world.run("drained")
    assert (world.ours, world.medium) == (S.CLOSED, False)
    assert world.run("delete").forgotten


def test_a_guest_that_refuses_to_close_keeps_its_ring() -> None:
    world = World().run("guest INITIALISED", "guest CONNECTED", "detach", "guest CLOSING")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    # The toolstack gives up and puts things back as they were.
    world.online = True
    world.run("write CONNECTED")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    world.run("guest CONNECTED", "write CONNECTED")
    assert (world.ours, world.queue) == (S.CONNECTED, Queue.RUNNING)


def test_a_guest_that_starts_over_while_it_is_closing_is_served_again() -> None:
    world = World().run("guest INITIALISED", "guest CONNECTED", "guest CLOSING")
    world.run("guest INITIALISING", "drained", "guest INITIALISED")
    assert (world.ours, world.queue, world.medium) == (S.CONNECTED, Queue.RUNNING, True)


def test_a_disk_that_does_not_open() -> None:
    world = World(open_fails=True).run()
    assert (world.ours, world.online, world.failure) == (
        S.CLOSING,
        False,
        Failure.REPORTED_ATTACH,
    )
    assert world.run("detach").ours is S.CLOSED


def test_a_daemon_that_dies_under_a_guest_is_followed() -> None:
    world = World().run("guest INITIALISED", "guest CONNECTED", "die")
    assert (world.ours, world.queue, world.medium) == (S.CONNECTED, Queue.RUNNING, True)
    world.run("wait", "die", "die")
    assert (world.ours, world.queue, world.adoptable) == (S.CONNECTED, Queue.RUNNING, False)
    world.run("detach", "die")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    world.run("guest CLOSING", "guest CLOSED", "die")
    assert (world.ours, world.queue) == (S.CLOSED, Queue.NONE)


def test_a_take_over_that_fails_ends_the_connection() -> None:
    world = World(adopt_fails=True).run("guest INITIALISED", "guest CONNECTED", "die")
    assert (world.ours, world.queue, world.failure) == (
        S.CLOSING,
        Queue.NONE,
        Failure.REPORTED_CONNECTION,
    )


def test_a_take_over_that_has_to_wait() -> None:
    world = World().run("guest INITIALISED", "guest CONNECTED")
    world.happen("die")
    world.held_back = True
    world.settle()
    assert (world.ours, world.queue, world.adoptable) == (S.CONNECTED, Queue.NONE, True)
    world.run("try")
    assert (world.ours, world.queue) == (S.CONNECTED, Queue.RUNNING)


@pytest.mark.slow
@walks
@given(WORLDS, WALKS)
def test_no_guest_that_waits_is_forgotten_by_the_next_daemon(
    world: World, events: list[str]
) -> None:
    """After any walk, who still uses a connection that we say is there has one."""
    world.run(*events, "adopt works", "die", "try")
    waits = world.waiting and world.guest in USING and world.present
    if waits and world.ours is S.CONNECTED and not world.forgotten:
        assert world.queue is Queue.RUNNING


@pytest.mark.slow
@walks
@given(WORLDS, WALKS)
def test_after_any_walk_the_toolstack_can_remove_it(world: World, events: list[str]) -> None:
    world.run(*events, "delete", "drained")
    assert world.forgotten


@pytest.mark.slow
@walks
@given(WORLDS, WALKS)
def test_after_any_walk_a_new_offer_serves_the_guest(world: World, events: list[str]) -> None:
    world.run(*events)
    if world.forgotten:
        world = World()
    world.run("try", "open works", "connect works", "offer", "drained", "guest INITIALISED")
    assert (world.ours, world.queue, world.medium) == (S.CONNECTED, Queue.RUNNING, True)
    assert world.failure is Failure.NONE


@pytest.mark.slow
@walks
@given(WORLDS, WALKS)
def test_after_any_walk_the_daemon_can_leave(world: World, events: list[str]) -> None:
    world.run(*events, "stop")
    world.overdue = True
    world.run("drained")
    assert world.forgotten
    assert not world.medium
    assert world.queue is Queue.NONE


@pytest.mark.slow
@walks
@given(WORLDS, WALKS)
def test_after_any_walk_a_detach_of_a_dead_guest_ends_closed(
    world: World, events: list[str]
) -> None:
    world.run(*events)
    if world.forgotten or not world.present:
        return
    world.run("guest GONE", "detach", "drained")
    assert world.ours is S.CLOSED
    assert not world.medium
