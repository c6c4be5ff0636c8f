"""Rows of the table that differ from those below them in one thing only, and what a Facts is."""

import dataclasses

import pytest

from xbbd_bsd.xenbus.states import (
    TABLE,
    Action,
    Decision,
    Facts,
    Queue,
    State,
    decide,
    draw_diagram,
)

S = State
STOPPED = (Queue.DRAINING, Queue.DRAINED, Queue.FAILED)


def test_what_nobody_has_said_is_not_so() -> None:
    """But that our nodes are there and the device is wanted, which is how an offer begins."""
    facts = Facts(S.INITIALISING, S.INITIALISING)
    values = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    true = {name for name, value in values.items() if value is True}
    assert true == {"present", "online"}
    assert facts.queue is Queue.NONE


@pytest.mark.parametrize("queue", Queue)
@pytest.mark.parametrize("medium", [False, True])
def test_a_device_holds_its_medium_and_its_queue(medium: bool, queue: Queue) -> None:
    facts = Facts(S.CLOSING, S.CLOSED, medium=medium, queue=queue)
    assert facts.holding is (medium or queue is not Queue.NONE)


def test_a_connection_without_a_queue_was_lost_whatever_the_guest_says() -> None:
    for guest in S:
        if guest not in (S.RECONFIGURING, S.RECONFIGURED):
            facts = Facts(S.CONNECTED, guest, medium=True)
            assert decide(facts) == Decision(Action.ABANDON, S.CLOSING), guest


ORPHANS = [(ours, guest) for ours in (S.CONNECTED, S.CLOSING)
           for guest in (S.INITIALISED, S.CONNECTED, S.CLOSING)]  # fmt: skip


@pytest.mark.parametrize("ours", S)
@pytest.mark.parametrize("guest", S)
def test_whoever_may_still_have_requests_is_taken_over(ours: State, guest: State) -> None:
    """And nobody else: a guest that is through, or begins anew, waits for no answer."""
    decision = decide(Facts(ours, guest, adoptable=True))
    adopts = decision is not None and decision.action is Action.ADOPT
    assert adopts == ((ours, guest) in ORPHANS)
    assert not adopts or decision == Decision(Action.ADOPT, None), "no state is written"


@pytest.mark.parametrize(("ours", "guest"), ORPHANS)
def test_a_take_over_is_begun_unless_it_is_held_back_or_too_late(ours: State, guest: State) -> None:
    facts = Facts(ours, guest, adoptable=True)
    assert decide(dataclasses.replace(facts, held_back=True)) is None
    late = dataclasses.replace(facts, stopping=True, overdue=True)
    for changed in (late, dataclasses.replace(late, held_back=True)):
        plain = dataclasses.replace(changed, adoptable=False, held_back=False)
        assert decide(changed) == decide(plain), "as if there were nothing to adopt"
    for queue in Queue:
        if queue is not Queue.NONE:
            mine = dataclasses.replace(facts, queue=queue)
            assert decide(mine) == decide(dataclasses.replace(mine, adoptable=False)), queue


@pytest.mark.parametrize("guest", [S.INITIALISED, S.CONNECTED])
def test_news_are_told_by_a_queue_that_runs(guest: State) -> None:
    facts = Facts(S.CONNECTED, guest, medium=True, queue=Queue.RUNNING, news=True)
    assert decide(facts) == Decision(Action.TELL, None)
    assert decide(dataclasses.replace(facts, news=False)) is None
    for queue in STOPPED:
        stopped = dataclasses.replace(facts, queue=queue)
        assert decide(stopped) == Decision(Action.NONE, S.CLOSING), queue


def test_a_connected_device_is_not_forgotten_when_the_daemon_stops() -> None:
    """It holds nothing, and its nodes say otherwise: that is put right first."""
    facts = Facts(S.CONNECTED, S.CONNECTED, stopping=True)
    assert decide(facts) == Decision(Action.ABANDON, S.CLOSING)


@pytest.mark.parametrize("ours", [S.CLOSING, S.CLOSED])
def test_a_disk_that_is_held_is_closed_before_anything_else(ours: State) -> None:
    for guest in (S.GONE, S.CLOSED, S.INITIALISING, S.INITIALISED):
        assert decide(Facts(ours, guest, medium=True)) == Decision(Action.CLOSE, None), guest


def test_a_device_is_closed_once_no_driver_uses_it() -> None:
    using = (S.INITIALISED, S.CONNECTED, S.CLOSING)
    for guest in S:
        expected = None if guest in using else Decision(Action.NONE, S.CLOSED)
        assert decide(Facts(S.CLOSING, guest)) == expected, guest


def test_no_row_does_nothing_and_leaves_the_state() -> None:
    for row in TABLE:
        assert row.action is not Action.NONE or row.next not in (None, *row.ours)


def test_the_diagram_begins_and_ends_with_the_toolstack() -> None:
    lines = draw_diagram().splitlines()
    assert lines[1] == "    [*] --> Initialising: the toolstack"
    assert lines[-1] == "    Closed --> [*]: the toolstack"
