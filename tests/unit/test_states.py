"""The table of joint states: row by row, and in walks against a model of a device."""

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbbd_bsd.xenbus.states import (
    TABLE,
    Action,
    Decision,
    Facts,
    Failure,
    Queue,
    State,
    decide,
    draw,
    draw_diagram,
    parse_state,
)

S = State
ALIVE = (S.INITIALISED, S.CONNECTED)


@pytest.mark.parametrize(
    ("node", "state"),
    [
        (b"0", S.UNKNOWN),
        (b"1", S.INITIALISING),
        (b"4", S.CONNECTED),
        (b"8", S.RECONFIGURED),
        (None, S.GONE),
        (b"", S.UNKNOWN),
        (b"-1", S.UNKNOWN),
        (b"9", S.UNKNOWN),
        (b"04", S.UNKNOWN),
        (b"4\n", S.UNKNOWN),
        (b"\xff" * 4096, S.UNKNOWN),
    ],
)
def test_state_nodes(node: bytes | None, state: State) -> None:
    assert parse_state(node) is state


def test_states_have_the_names_of_xenbus_h() -> None:
    assert [state.label for state in State] == [
        "Gone",
        "Unknown",
        "Initialising",
        "InitWait",
        "Initialised",
        "Connected",
        "Closing",
        "Closed",
        "Reconfiguring",
        "Reconfigured",
    ]
    assert S.INIT_WAIT.node == b"2"


def up(**changes: object) -> Facts:
    """A device that is connected, with changes."""
    facts = Facts(
        S.CONNECTED,
        S.CONNECTED,
        announced=True,
        medium=True,
        disk=True,
        queue=Queue.RUNNING,
        guest_ready=True,
    )
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        # up
        (Facts(S.INITIALISING, S.INITIALISING), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (Facts(S.INITIALISING, S.CLOSED), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (Facts(S.INITIALISING, S.GONE), None),
        (Facts(S.INIT_WAIT, S.INITIALISING, announced=True), None),
        (
            Facts(S.INIT_WAIT, S.INITIALISING, announced=True, medium=True),
            Decision(Action.OPEN, None),
        ),
        (
            Facts(S.INIT_WAIT, S.INITIALISED, announced=True, medium=True, guest_ready=True),
            Decision(Action.OPEN, None),
        ),
        (up(ours=S.INIT_WAIT, queue=Queue.NONE), Decision(Action.CONNECT, S.CONNECTED)),
        (up(ours=S.INIT_WAIT, queue=Queue.NONE, guest_ready=False), None),
        (up(), None),
        (up(guest=S.INITIALISED), None),
        # the guest leaves
        (up(guest=S.CLOSING), Decision(Action.NONE, S.CLOSING)),
        (up(ours=S.CLOSING, guest=S.CLOSING), None),
        (up(ours=S.CLOSING, guest=S.CLOSED), Decision(Action.DRAIN, None)),
        (up(ours=S.CLOSING, guest=S.INITIALISING), Decision(Action.DRAIN, None)),
        (up(ours=S.CLOSING, guest=S.CLOSING, overdue=True), Decision(Action.DRAIN, None)),
        (up(guest=S.CLOSING, queue=Queue.FAILED), Decision(Action.NONE, S.CLOSING)),
        (up(guest=S.CLOSED), Decision(Action.DRAIN, S.CLOSING)),
        (up(guest=S.UNKNOWN), Decision(Action.DRAIN, S.CLOSING)),
        (up(guest=S.GONE), Decision(Action.DRAIN, S.CLOSING)),
        (up(guest=S.INITIALISING), Decision(Action.DRAIN, S.CLOSING)),
        (up(ours=S.CLOSING, guest=S.CLOSING, queue=Queue.DRAINING), None),
        (
            up(ours=S.CLOSING, guest=S.CLOSING, queue=Queue.DRAINED),
            Decision(Action.DISCONNECT, None),
        ),
        (
            up(ours=S.CLOSING, guest=S.CLOSING, queue=Queue.NONE),
            Decision(Action.CLOSE, None),
        ),
        (Facts(S.CLOSING, S.CLOSING), None),
        (Facts(S.CLOSING, S.CLOSED), Decision(Action.NONE, S.CLOSED)),
        (Facts(S.CLOSING, S.GONE), Decision(Action.NONE, S.CLOSED)),
        # and comes back
        (Facts(S.CLOSED, S.CLOSED), None),
        (Facts(S.CLOSED, S.INITIALISING), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (Facts(S.CLOSED, S.INITIALISED), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (Facts(S.CLOSED, S.CONNECTED), None),
        (Facts(S.CLOSED, S.INITIALISING, online=False), None),
        (
            Facts(S.CLOSED, S.INITIALISING, failure=Failure.REPORTED_CONNECTION),
            Decision(Action.RESET, None),
        ),
        # and cannot have its disk just now
        (up(ours=S.INIT_WAIT, queue=Queue.NONE, held_back=True), None),
        (up(ours=S.INIT_WAIT, queue=Queue.NONE, disk=False, held_back=True), None),
        (
            up(ours=S.INIT_WAIT, guest=S.CLOSED, queue=Queue.NONE, held_back=True),
            Decision(Action.NONE, S.CLOSING),
        ),
        (Facts(S.CLOSED, S.INITIALISING, held_back=True), None),
        (
            Facts(S.INITIALISING, S.INITIALISING, held_back=True),
            Decision(Action.PUBLISH, S.INIT_WAIT),
        ),
        # the toolstack removes it
        (up(ours=S.CLOSING, online=False), None),
        (up(ours=S.CLOSING, online=False, guest=S.GONE), Decision(Action.DRAIN, None)),
        (Facts(S.CLOSING, S.INITIALISING, online=False), Decision(Action.NONE, S.CLOSED)),
        (Facts(S.CLOSING, S.CONNECTED, online=False), None),
        (Facts(S.INIT_WAIT, S.GONE, announced=True), Decision(Action.NONE, S.CLOSING)),
        (Facts(S.UNKNOWN, S.GONE, present=False), Decision(Action.FORGET, None)),
        (up(ours=S.UNKNOWN, present=False), Decision(Action.DRAIN, None)),
        (up(ours=S.UNKNOWN, present=False, queue=Queue.DRAINING), None),
        (
            up(ours=S.UNKNOWN, present=False, queue=Queue.FAILED),
            Decision(Action.DISCONNECT, None),
        ),
        (up(ours=S.UNKNOWN, present=False, queue=Queue.NONE), Decision(Action.CLOSE, None)),
        # failures
        (
            Facts(S.INIT_WAIT, S.INITIALISING, failure=Failure.ATTACH),
            Decision(Action.FAIL, S.CLOSING),
        ),
        (
            up(queue=Queue.FAILED, failure=Failure.CONNECTION),
            Decision(Action.REPORT, S.CLOSING),
        ),
        (
            up(ours=S.CLOSING, queue=Queue.FAILED, failure=Failure.REPORTED_CONNECTION),
            Decision(Action.DISCONNECT, None),
        ),
        (Facts(S.CLOSING, S.INITIALISING, failure=Failure.REPORTED_ATTACH), None),
        (
            Facts(S.CLOSING, S.INITIALISING, failure=Failure.REPORTED_ATTACH, withdrawn=True),
            Decision(Action.NONE, S.CLOSED),
        ),
        (
            Facts(S.CLOSING, S.CLOSED, failure=Failure.REPORTED_ATTACH),
            Decision(Action.NONE, S.CLOSED),
        ),
        (
            Facts(S.INITIALISING, S.INITIALISING, failure=Failure.REPORTED_ATTACH),
            Decision(Action.RESET, None),
        ),
        (up(ours=S.INITIALISING), Decision(Action.DRAIN, None)),
        (up(ours=S.INITIALISING, queue=Queue.NONE), Decision(Action.CLOSE, None)),
        (up(queue=Queue.DRAINING), Decision(Action.NONE, S.CLOSING)),
        (up(guest=S.RECONFIGURING), Decision(Action.REFUSE, S.CLOSING)),
        # found so at our start
        (Facts(S.CONNECTED, S.CONNECTED), Decision(Action.ABANDON, S.CLOSING)),
        (Facts(S.INIT_WAIT, S.INITIALISED), Decision(Action.PUBLISH, None)),
        (Facts(S.CLOSING, S.CONNECTED), None),
        # the daemon leaves
        (up(stopping=True), Decision(Action.NONE, S.CLOSING)),
        (up(ours=S.CLOSING, stopping=True), None),
        (up(ours=S.CLOSING, stopping=True, overdue=True), Decision(Action.DRAIN, None)),
        (
            up(ours=S.CLOSING, stopping=True, queue=Queue.DRAINED),
            Decision(Action.DISCONNECT, None),
        ),
        (
            up(ours=S.INIT_WAIT, queue=Queue.NONE, stopping=True),
            Decision(Action.CLOSE, None),
        ),
        (Facts(S.INIT_WAIT, S.INITIALISED, stopping=True), Decision(Action.FORGET, None)),
        (Facts(S.CLOSING, S.CONNECTED, stopping=True), Decision(Action.FORGET, None)),
        (Facts(S.CLOSING, S.CLOSING, stopping=True), None),
        (
            Facts(S.CLOSING, S.CLOSING, stopping=True, overdue=True),
            Decision(Action.FORGET, None),
        ),
        (Facts(S.CLOSING, S.CLOSED, stopping=True), Decision(Action.NONE, S.CLOSED)),
        (Facts(S.CLOSED, S.CLOSED, stopping=True), Decision(Action.FORGET, None)),
    ],
)
def test_decisions(facts: Facts, decision: Decision | None) -> None:
    assert decide(facts) == decision


@dataclass
class World:
    """A model of a device and all who act on it, checking each deed of the table."""

    ours: State = S.INITIALISING
    guest: State = S.INITIALISING
    present: bool = True
    online: bool = True
    announced: bool = False
    medium: bool = True
    disk: bool = False
    queue: Queue = Queue.NONE
    failure: Failure = Failure.NONE
    withdrawn: bool = False
    stopping: bool = False
    overdue: bool = False
    forgotten: bool = False
    open_fails: bool = False
    connect_fails: bool = False

    def facts(self) -> Facts:
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(Facts)
                 if hasattr(self, field.name)}  # fmt: skip
        if not self.present:
            shown |= {"ours": S.UNKNOWN, "guest": S.GONE, "online": False, "medium": False}
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
            case Action.OPEN:
                assert self.medium
                assert not self.disk
                if self.open_fails:
                    self.failure = Failure.ATTACH
                    return
                self.disk = True
            case Action.CONNECT:
                assert self.disk
                assert self.queue is Queue.NONE
                assert self.guest in ALIVE
                assert decision.next is S.CONNECTED
                if self.connect_fails:
                    self.failure = Failure.CONNECTION
                    return
                self.queue = Queue.RUNNING
            case Action.DRAIN:
                assert self.queue is Queue.RUNNING
                self.queue = Queue.DRAINING
            case Action.DISCONNECT:
                assert self.queue in (Queue.DRAINED, Queue.FAILED)
                self.queue = Queue.NONE
            case Action.CLOSE:
                assert self.queue is Queue.NONE
                assert self.disk
                self.disk = False
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
                assert not self.disk
                assert self.queue is Queue.NONE
                self.forgotten = True
            case Action.NONE:
                assert decision.next is not None
        if decision.next is not None:
            assert self.present, "a state was written to nodes that are gone"
            assert decision.next is not self.ours
            if decision.next is S.CLOSED:
                assert not self.disk
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
                self.present = self.online = self.medium = True
                self.ours = S.INITIALISING
                self.guest = S.INITIALISING
            case "write" if self.present:
                self.ours = State[detail]
            case "hotplug":
                self.medium = True
            case "open":
                self.open_fails = detail == "fails"
            case "connect":
                self.connect_fails = detail == "fails"
            case "stop":
                self.stopping = True

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
    + ["connect fails", "connect works"]
)
WORLDS = st.builds(
    World,
    ours=st.sampled_from([state for state in State if state is not S.GONE]),
    guest=st.sampled_from(list(State)),
    online=st.booleans(),
    medium=st.booleans(),
)
WALKS = st.lists(EVENTS, max_size=25)
walks = settings(max_examples=1000, deadline=None)


def test_attach_serve_detach() -> None:
    world = World().run("guest INITIALISED")
    assert (world.ours, world.queue, world.disk) == (S.CONNECTED, Queue.RUNNING, True)
    world.run("guest CONNECTED", "detach")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    world.run("guest CLOSING", "drained")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.RUNNING)
    world.run("guest CLOSED")
    assert (world.ours, world.queue) == (S.CLOSING, Queue.DRAINING)
    world.run("drained")
    assert (world.ours, world.disk) == (S.CLOSED, False)
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
    assert (world.ours, world.queue, world.disk) == (S.CONNECTED, Queue.RUNNING, True)


def test_a_disk_that_does_not_open() -> None:
    world = World(open_fails=True).run()
    assert (world.ours, world.online, world.failure) == (
        S.CLOSING,
        False,
        Failure.REPORTED_ATTACH,
    )
    assert world.run("detach").ours is S.CLOSED


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
    world.run("open works", "connect works", "offer", "drained", "guest INITIALISED")
    assert (world.ours, world.queue, world.disk) == (S.CONNECTED, Queue.RUNNING, True)
    assert world.failure is Failure.NONE


@pytest.mark.slow
@walks
@given(WORLDS, WALKS)
def test_after_any_walk_the_daemon_can_leave(world: World, events: list[str]) -> None:
    world.run(*events, "stop")
    world.overdue = True
    world.run("drained")
    assert world.forgotten
    assert not world.disk
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
    assert not world.disk


FACTS = st.builds(
    Facts,
    ours=st.sampled_from([state for state in State if state is not S.GONE]),
    guest=st.sampled_from(list(State)),
    present=st.booleans(),
    online=st.booleans(),
    announced=st.booleans(),
    medium=st.booleans(),
    disk=st.booleans(),
    queue=st.sampled_from(list(Queue)),
    guest_ready=st.booleans(),
    failure=st.sampled_from(list(Failure)),
    withdrawn=st.booleans(),
    held_back=st.booleans(),
    stopping=st.booleans(),
    overdue=st.booleans(),
)


@given(FACTS)
def test_a_decision_always_changes_something(facts: Facts) -> None:
    decision = decide(facts)
    if decision is not None and decision.action is Action.NONE:
        assert decision.next is not None
        assert decision.next is not facts.ours


def test_the_drawn_table_has_every_row() -> None:
    lines = draw().splitlines()
    assert len(lines) == 2 + len(TABLE)
    assert all(line.count("|") == 6 for line in lines)
    assert "| Initialising | not Gone | always | publish capabilities | InitWait |" in lines


def test_the_diagram_has_every_way_between_our_states() -> None:
    diagram = draw_diagram()
    assert diagram.startswith("stateDiagram-v2\n")
    assert "    InitWait --> Connected: connect the ring\n" in diagram
    left = "guest Gone, Unknown, Closing, Closed"
    assert f"    InitWait --> Closing: report the guest's state / {left}\n" in diagram
