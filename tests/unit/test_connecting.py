"""What is said of a server that is gone, as often as it is tried again."""

from __future__ import annotations

import os
from errno import ECONNREFUSED, EINVAL, ENOTCONN
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.slow_run import Clock, SlowRun
from xbbd_bsd.block import connecting
from xbbd_bsd.block.connecting import LONGEST_WAIT, Connecting
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.native import LinkState, StoreLink
from xbbd_bsd.storesaid import StoreBack, StoreLost


class Bench:
    """A ring that wants a connection, to a server that refuses it in these words."""

    def __init__(self) -> None:
        self.link = StoreLink(LinkState.WANTED, 0, 1, 0)
        self.refusal = "its server cannot be reached"
        self.attempts = 0
        self.told: list[Event] = []
        self._loop, self._run = Clock(), SlowRun()
        self._connecting = Connecting("xbbd0", self._loop, self._run, self.told.append)

    def begin(self) -> None:
        ring: Any = SimpleNamespace(link=lambda: self.link, sectors=8)
        disk: Any = SimpleNamespace(store=self, path="store:db")
        self._connecting.begin(ring, disk, lambda fd, export: None)

    def close(self) -> None:
        self._connecting.end()
        self._loop.close()

    def connect_again(self, disk: object, least: int) -> Any:
        self.attempts += 1
        raise OperatorError(self.refusal, ECONNREFUSED)

    def wait(self, seconds: float) -> None:
        """As its loop has it, whose timers are those of half a second."""
        end = self._loop.now + seconds
        while self._loop.now < end:
            self._loop.now += connecting.EVERY_SECONDS
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
            self._run.finish_all()

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.told if isinstance(event, StoreLost)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Bench()
    monkeypatch.setattr(connecting, "is_connected", lambda disk: True)
    monkeypatch.setattr(connecting, "kind_of", lambda store: store)
    made.begin()
    yield made
    made.close()


def test_each_reason_is_told_once(bench: Bench) -> None:
    """Why the connection ended, and why there is no other: not in turns, for as long as that is."""
    bench.link = StoreLink(LinkState.WANTED, ENOTCONN, 2, 0)
    bench.wait(10 * LONGEST_WAIT)
    assert bench.attempts > 5
    assert bench.reasons == [os.strerror(ENOTCONN), "its server cannot be reached"]
    bench.refusal = "it is read-only now"
    bench.wait(2 * LONGEST_WAIT)
    assert bench.reasons[2:] == ["it is read-only now"]


def test_the_next_end_is_told_again(bench: Bench) -> None:
    bench.link = StoreLink(LinkState.WANTED, ENOTCONN, 2, 0)
    bench.wait(60)
    bench.link = StoreLink(LinkState.READY, 0, 3, 0)
    bench.wait(1)
    assert isinstance(bench.told[-1], StoreBack)
    bench.told.clear()
    bench.link = StoreLink(LinkState.WANTED, EINVAL, 4, 0)
    bench.wait(60)
    assert bench.reasons == [os.strerror(EINVAL), "its server cannot be reached"]
