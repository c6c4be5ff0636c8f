"""Work by threads, one thing at a time for a device."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.unit.slow_run import Told
from tests.waiting import GIVE_UP
from xbbd_bsd.errands import HUNG_SECONDS, Errands, Outcome, Pending, Threads
from xbbd_bsd.errors import HostError, OperatorError


@pytest.fixture
def told() -> Iterator[Told]:
    found = Told()
    yield found
    found.run.finish_all()
    found.loop.close()


def open_it(told: Told, key: object = "a", dropped: list[str] | None = None) -> str:
    gone = [] if dropped is None else dropped
    return told.errands.ask("open", key, lambda: f"disk {key}", gone.append)


def test_who_asks_waits_until_it_is_done(told: Told) -> None:
    for _ in range(3):
        with pytest.raises(Pending):
            open_it(told)
    assert told.run.waiting == ["open"], "asked again it is the same work"
    assert told.wakes == 0
    told.run.finish()
    assert told.wakes == 1
    assert open_it(told) == "disk a"
    assert told.errands.busy is None
    with pytest.raises(Pending):
        open_it(told)
    assert told.run.waiting == ["open"], "taken is taken"


def test_what_the_work_raises_is_raised(told: Told) -> None:
    def fail() -> str:
        raise OperatorError("no such disk")

    with pytest.raises(Pending):
        told.errands.ask("open", 1, fail, lambda value: None)
    told.run.finish()
    with pytest.raises(OperatorError, match="no such disk"):
        told.errands.ask("open", 1, fail, lambda value: None)


def test_one_thing_at_a_time(told: Told) -> None:
    """However often a guest comes and goes while its disk hangs: one thread."""
    dropped: list[str] = []
    for n in range(5):
        with pytest.raises(Pending):
            open_it(told, n, dropped)
        told.errands.abandon()
        with pytest.raises(Pending):
            told.errands.post("close", lambda: None, lambda outcome: None)
    assert told.run.waiting == ["open"]
    told.run.finish()
    assert told.run.waiting == ["undoing: open"]
    told.run.finish()
    assert dropped == ["disk 0"]
    with pytest.raises(Pending):
        open_it(told, 9, dropped)
    told.run.finish()
    assert open_it(told, 9, dropped) == "disk 9"


def test_what_is_wanted_again_is_kept(told: Told) -> None:
    dropped: list[str] = []
    with pytest.raises(Pending):
        open_it(told, 1, dropped)
    told.errands.abandon()
    with pytest.raises(Pending):
        open_it(told, 1, dropped)
    told.run.finish()
    assert (open_it(told, 1, dropped), dropped) == ("disk 1", [])


def test_what_nobody_takes_is_given_back(told: Told) -> None:
    """In time for what is asked for instead, which waits for that."""
    dropped: list[str] = []
    with pytest.raises(Pending):
        open_it(told, 1, dropped)
    told.run.finish()
    with pytest.raises(Pending):
        open_it(told, 2, dropped)
    assert told.run.waiting == ["undoing: open"]
    told.run.finish()
    assert dropped == ["disk 1"]
    with pytest.raises(Pending):
        open_it(told, 2, dropped)
    told.run.finish()
    told.errands.abandon()
    told.run.finish()
    assert dropped == ["disk 1", "disk 2"]
    assert told.errands.busy is None


def test_what_fails_leaves_nothing_to_give_back(told: Told) -> None:
    dropped: list[object] = []
    with pytest.raises(Pending):
        told.errands.ask("open", 1, lambda: 1 // 0, dropped.append)
    told.errands.abandon()
    told.run.finish()
    assert (dropped, told.run.waiting) == ([], [])


def test_nobody_can_do_it(told: Told) -> None:
    told.run.refuses = True
    with pytest.raises(HostError, match="no thread"):
        open_it(told)
    with pytest.raises(HostError, match="no thread"):
        told.errands.post("close", lambda: None, lambda outcome: None)
    told.run.refuses = False
    dropped: list[str] = []
    with pytest.raises(Pending):
        open_it(told, 1, dropped)
    told.run.finish()
    told.run.refuses = True
    told.errands.abandon()
    with pytest.raises(HostError, match="no thread"):
        open_it(told, 2, dropped)
    told.run.refuses = False
    with pytest.raises(Pending):
        open_it(told, 2, dropped)
    told.run.finish()
    assert dropped == ["disk 1"], "not lost, only later"


def test_what_is_posted_is_told_once(told: Told) -> None:
    outcomes: list[Outcome] = []
    told.errands.post("measure", lambda: 7, outcomes.append)
    with pytest.raises(Pending):
        told.errands.wait()
    told.errands.abandon()
    told.run.finish()
    assert [outcome.get() for outcome in outcomes] == [7]
    told.errands.wait()
    assert told.wakes == 1


def test_what_takes_long_is_told(told: Told) -> None:
    told.errands.post("measure", lambda: None, lambda outcome: None)
    told.pass_time(HUNG_SECONDS / 2)
    assert told.hangs == []
    told.pass_time(HUNG_SECONDS)
    assert told.hangs == [("measure", None)]
    assert told.errands.busy == ("measure", HUNG_SECONDS * 1.5)
    told.run.finish()
    assert told.hangs[1:] == [("measure", HUNG_SECONDS * 1.5)]
    told.errands.post("measure", lambda: None, lambda outcome: None)
    told.run.finish()
    told.pass_time(2 * HUNG_SECONDS)
    assert len(told.hangs) == 2


def test_threads() -> None:
    """The loop goes on while one waits, and hears of it on its own thread."""
    loop = asyncio.new_event_loop()
    may_end = threading.Event()
    seen: list[object] = []

    def work() -> str:
        assert threading.current_thread().daemon, "nobody waits for it when the program ends"
        assert may_end.wait(GIVE_UP)
        return threading.current_thread().name

    def then(outcome: Outcome) -> None:
        seen.extend((outcome.get(), threading.current_thread() is threading.main_thread()))
        loop.stop()

    errands = Errands(Threads(loop), loop, lambda: None, lambda what, seconds: None, "xbbd7")
    errands.post("wait", work, then)
    loop.call_soon(may_end.set)
    loop.run_forever()
    assert seen == ["xbbd7 wait", True]
    loop.close()


def test_a_thread_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    loop = asyncio.new_event_loop()
    with pytest.raises(HostError, match="no thread for opening the disk") as error:
        Threads(loop)("opening the disk", lambda: None, lambda outcome: None, "xbbd7")
    assert error.value.passes
    loop.close()
