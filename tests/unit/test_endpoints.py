"""The sockets for operators, and what is left of a change that fails."""

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.players import DRIVERS, Daemon, Device, Devices
from xbbd_bsd.config import DaemonConfig
from xbbd_bsd.control import metrics
from xbbd_bsd.control.health import DaemonFacts
from xbbd_bsd.endpoints import Endpoints
from xbbd_bsd.errors import OperatorError

OURS = os.getegid()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> str:
    """A group whose name is "ours"."""
    monkeypatch.setattr("xbbd_bsd.endpoints.group_number", {"ours": OURS, None: None}.__getitem__)
    return "ours"


def endpoints(path: Path, loop: asyncio.AbstractEventLoop, config: DaemonConfig) -> Endpoints:
    nobody = Devices(dict)
    return Endpoints(Daemon(), nobody, DRIVERS, config=config, state_dir=str(path), loop=loop)


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_group_may_pass_and_connect(
    short_path: Path, loop: asyncio.AbstractEventLoop, group: str
) -> None:
    os.chmod(short_path, 0o700)
    running = endpoints(short_path, loop, DaemonConfig(group=group))
    assert (mode(short_path), mode(short_path / "control")) == (0o711, 0o660)
    running.configure(DaemonConfig())
    assert mode(short_path / "control") == 0o600
    running.close()
    assert os.listdir(short_path) == []


def test_a_directory_that_others_use_keeps_its_mode(
    short_path: Path, loop: asyncio.AbstractEventLoop, group: str
) -> None:
    os.chmod(short_path, 0o1777)
    running = endpoints(short_path, loop, DaemonConfig(group=group))
    running.configure(DaemonConfig())
    running.close()
    assert mode(short_path) == 0o1777


def test_what_cannot_be_changed_stays_as_it_was(
    short_path: Path,
    loop: asyncio.AbstractEventLoop,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("prometheus_client")
    old, new = short_path / "m1", short_path / "m2"
    running = endpoints(short_path, loop, DaemonConfig(metrics=str(old)))
    give_to = metrics.MetricsServer.give_to

    def refuse(server: metrics.MetricsServer, number: int | None) -> None:
        if number is not None and old.exists():
            raise PermissionError(1, "Operation not permitted")
        give_to(server, number)

    monkeypatch.setattr(metrics.MetricsServer, "give_to", refuse)
    for config in (
        DaemonConfig(metrics=str(new), group=group),
        DaemonConfig(metrics=str(old), group=group),
        DaemonConfig(metrics=str(short_path / "no-such" / "m"), group=group),
    ):
        with pytest.raises((OSError, OperatorError)):
            running.configure(config)
        assert sorted(os.listdir(short_path)) == ["control", "m1"]
        assert (mode(short_path / "control"), mode(old)) == (0o600, 0o600)
    running.close()
    assert os.listdir(short_path) == []


def test_nothing_is_left_of_what_cannot_begin(
    short_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    pytest.importorskip("prometheus_client")
    nowhere = str(short_path / "no-such" / "m")
    for config in (DaemonConfig(metrics=nowhere), DaemonConfig(group="no-such-group")):
        with pytest.raises(OperatorError):
            endpoints(short_path, loop, config)
        assert os.listdir(short_path) == []


def test_metrics_say_how_much_is_wrong(short_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """As the verb does, with the bound that it has if nobody says otherwise."""
    daemon, slow = Daemon(), Device(0)
    daemon.facts = DaemonFacts(store_connected=False, refused="x")
    slow.ages = [9.0, 11.0]
    running = Endpoints(
        daemon,
        Devices(lambda: {("xbbd", 0): slow}),
        DRIVERS,
        config=DaemonConfig(),
        state_dir=str(short_path),
        loop=loop,
    )
    snapshot = running._snapshot()
    assert snapshot["hw.xbbd"]["health"] == {"error": 1, "warning": 2}
    assert snapshot["hw.xbbd"]["version"] == "1.0"
    slow.ages = [9.0]
    assert running._snapshot()["hw.xbbd"]["health"] == {"error": 1, "warning": 1}
    running.close()
