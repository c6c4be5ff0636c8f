"""Nothing reaches the log but through the journal, whoever speaks, on whatever thread."""

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from xbbd_bsd import logs
from xbbd_bsd.events import Defect, Event, LibrarySays
from xbbd_bsd.journal import BURST, Journal


class Caught:
    """What the journal was given."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.events: list[Event] = []

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()


@pytest.fixture
def caught() -> Iterator[Caught]:
    found = Caught()
    with logs.caught(found.events.append, found.loop):
        yield found
    found.loop.close()


def test_libraries_and_warnings(caught: Caught) -> None:
    logging.getLogger("pyxs").warning("odd %s\n\x1b", "packet")
    logging.getLogger("pyxs").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("do not", ResourceWarning, stacklevel=1)
    first, second = caught.events
    assert first == LibrarySays("pyxs", "odd packet | \\x1b")
    assert isinstance(second, LibrarySays)
    assert "ResourceWarning: do not" in second.words


def test_an_error_in_a_callback_of_the_loop(caught: Caught) -> None:
    caught.loop.call_soon(lambda: 1 // 0)
    caught.turn()
    (event,) = caught.events
    assert isinstance(event, Defect)
    assert event.where == "asyncio"
    assert "ZeroDivisionError" in event.trace
    assert str(event).isprintable()


def test_other_threads_speak_on_the_loops(caught: Caught, monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        logging.getLogger("metrics").warning("Too many open files")
        raise ValueError("no")

    thread = threading.Thread(target=main, name="xbbd metrics")
    thread.start()
    thread.join()
    assert caught.events == []
    caught.turn()
    first, second = caught.events
    assert first == LibrarySays("metrics", "Too many open files")
    assert isinstance(second, Defect)
    assert second.where == "thread xbbd metrics"
    assert "ValueError: no" in second.trace


def test_a_destructor(caught: Caught) -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError("no")

    Bad()
    (event,) = caught.events
    assert "ValueError: no" in str(event)


def test_afterwards_all_is_as_it_was() -> None:
    before = (threading.excepthook, sys.unraisablehook, list(logging.getLogger().handlers))
    loop = asyncio.new_event_loop()
    with logs.caught(lambda _: None, loop):
        pass
    loop.close()
    assert before == (
        threading.excepthook, sys.unraisablehook, list(logging.getLogger().handlers)
    )  # fmt: skip


def test_a_flood_is_limited_and_the_journal_does_not_hear_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.new_event_loop()
    journal = Journal(logs.sink, lambda: 0.0)
    with logs.caught(journal, loop):
        for _ in range(5 * BURST):
            logging.getLogger("asyncio").error("socket.accept() out of system resource")
    loop.close()
    assert journal.left_out == 4 * BURST
    assert sum(record.name == "xbbd" for record in caplog.records) == BURST
