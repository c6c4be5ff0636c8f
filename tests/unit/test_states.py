"""The table of joint states, row by row; walks through it are in test_states_walks.py."""

import dataclasses

import pytest
from hypothesis import given
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
        named=True,
        medium=True,
        queue=Queue.RUNNING,
        guest_ready=True,
    )
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def left(ours: State = S.CONNECTED, guest: State = S.CONNECTED, **changes: object) -> Facts:
    """A device that an earlier daemon served, with changes."""
    return dataclasses.replace(Facts(ours, guest, adoptable=True), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        # up
        (Facts(S.INITIALISING, S.INITIALISING), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (Facts(S.INITIALISING, S.CLOSED), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (Facts(S.INITIALISING, S.GONE), None),
        (Facts(S.INIT_WAIT, S.INITIALISING, announced=True), None),
        (
            Facts(S.INIT_WAIT, S.INITIALISING, announced=True, named=True),
            Decision(Action.OPEN, None),
        ),
        (
            Facts(S.INIT_WAIT, S.INITIALISED, announced=True, named=True, guest_ready=True),
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
        (up(ours=S.INIT_WAIT, queue=Queue.NONE, medium=False, held_back=True), None),
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
        # and so, while its guest waits
        (left(), Decision(Action.ADOPT, None)),
        (left(guest=S.INITIALISED), Decision(Action.ADOPT, None)),
        (left(guest=S.CLOSING), Decision(Action.ADOPT, None)),
        (left(S.CLOSING), Decision(Action.ADOPT, None)),
        (left(S.CLOSING, guest=S.CLOSING), Decision(Action.ADOPT, None)),
        (left(medium=True), Decision(Action.ADOPT, None)),
        (left(online=False), Decision(Action.ADOPT, None)),
        (left(held_back=True), None),
        (left(S.CLOSING, held_back=True), None),
        (left(guest=S.CLOSED), Decision(Action.DRAIN, S.CLOSING)),
        (left(guest=S.INITIALISING), Decision(Action.DRAIN, S.CLOSING)),
        (left(guest=S.GONE), Decision(Action.DRAIN, S.CLOSING)),
        (left(S.CLOSING, guest=S.CLOSED), Decision(Action.DRAIN, None)),
        (left(S.CLOSING, guest=S.CLOSED, held_back=True), Decision(Action.DRAIN, None)),
        (left(S.CLOSED, guest=S.INITIALISING), Decision(Action.PUBLISH, S.INIT_WAIT)),
        (left(S.INIT_WAIT), Decision(Action.PUBLISH, None)),
        (left(queue=Queue.RUNNING), None),
        (left(queue=Queue.DRAINED), Decision(Action.NONE, S.CLOSING)),
        (left(failure=Failure.CONNECTION), Decision(Action.REPORT, S.CLOSING)),
        (left(failure=Failure.REPORTED_CONNECTION), Decision(Action.ABANDON, S.CLOSING)),
        (left(S.CLOSING, failure=Failure.REPORTED_CONNECTION), None),
        (left(present=False), Decision(Action.FORGET, None)),
        (left(stopping=True), Decision(Action.ADOPT, None)),
        (left(stopping=True, held_back=True), None),
        (left(stopping=True, overdue=True), Decision(Action.ABANDON, S.CLOSING)),
        (
            left(stopping=True, overdue=True, held_back=True),
            Decision(Action.ABANDON, S.CLOSING),
        ),
        (left(S.CLOSING, stopping=True, overdue=True), Decision(Action.FORGET, None)),
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


FACTS = st.builds(
    Facts,
    ours=st.sampled_from([state for state in State if state is not S.GONE]),
    guest=st.sampled_from(list(State)),
    present=st.booleans(),
    online=st.booleans(),
    announced=st.booleans(),
    named=st.booleans(),
    medium=st.booleans(),
    queue=st.sampled_from(list(Queue)),
    guest_ready=st.booleans(),
    failure=st.sampled_from(list(Failure)),
    withdrawn=st.booleans(),
    held_back=st.booleans(),
    adoptable=st.booleans(),
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
