"""The queue of watch events: nothing forgotten, nothing without bound, nobody held up."""

from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.xenstore.pending import PendingEvents

events = st.lists(st.tuples(st.sampled_from([b"1", b"2"]), st.sampled_from("abcdef")))


def drain(pending: PendingEvents) -> list[tuple[bytes, str]]:
    taken = []
    while pending:
        taken += pending.take()
    return taken


def test_equal_events_are_merged_and_order_is_kept() -> None:
    pending = PendingEvents()
    for path in ["a/1", "a/2", "a/1"]:
        pending.add(b"1", path, "a")
    assert drain(pending) == [(b"1", "a/1"), (b"1", "a/2")]


def test_an_event_after_its_like_was_taken_is_kept() -> None:
    pending = PendingEvents()
    pending.add(b"1", "a", "a")
    assert pending.take() == [(b"1", "a")]
    pending.add(b"1", "a", "a")
    assert pending.take() == [(b"1", "a")]


def test_a_flood_becomes_one_event_of_the_watched_path() -> None:
    pending = PendingEvents(limit=3)
    for number in range(4):
        pending.add(b"1", f"a/{number}", "a")
    assert drain(pending) == [(b"1", "a")]


def test_a_busy_watch_does_not_hold_up_another() -> None:
    pending = PendingEvents()
    for number in range(9):
        pending.add(b"1", f"a/{number}", "a")
    pending.add(b"2", "b", "b")
    assert pending.take() == [(b"1", "a/0"), (b"2", "b")]


@given(events, st.integers(1, 4))
def test_every_event_is_answered_within_the_bound(
    added: list[tuple[bytes, str]], limit: int
) -> None:
    pending = PendingEvents(limit)
    for token, path in added:
        pending.add(token, path, "root")
        assert len(pending) <= 2 * limit
    taken = drain(pending)
    assert len(taken) == len(set(taken))
    for token, path in added:
        assert (token, path) in taken or (token, "root") in taken
    assert {token for token, _ in taken} == {token for token, _ in added}
