"""Why a guest does not have its disk, as xbbctl list says it, and how the daemon is."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.xenbus_bench import FakeFamily
from xbbd_bsd.accounts import Accounts, LimitError, Part
from xbbd_bsd.config import Config
from xbbd_bsd.findings import DAEMON, Finding, Kind, Severity
from xbbd_bsd.journal import Journal
from xbbd_bsd.limits import Limits, Need
from xbbd_bsd.native import IoUse
from xbbd_bsd.oids import Value
from xbbd_bsd.views import DaemonView, DeviceView
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import State


class Nothing:
    """A device that has nothing to show."""

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("ours", "guest", "failed", "waits", "reason"),
    [
        (State.CONNECTED, State.CONNECTED, "", "", ""),
        (State.INIT_WAIT, State.INITIALISING, "", "", ""),
        (State.INIT_WAIT, State.GONE, "", "", ""),
        (State.CLOSED, State.CLOSED, "no memory", "", "no memory"),
        (State.CLOSED, State.INITIALISING, "", "in use", "in use"),
        (State.CLOSING, State.CLOSING, "", "", "the guest is closing it"),
        (State.CLOSED, State.CLOSED, "", "", "the guest has closed it"),
        (State.CLOSED, State.GONE, "", "", "the guest is gone"),
        (State.CLOSED, State.INITIALISING, "", "", ""),
    ],
)
def test_why(
    monkeypatch: pytest.MonkeyPatch,
    ours: State,
    guest: State,
    failed: str,
    waits: str,
    reason: str,
) -> None:
    device = SimpleNamespace(
        identity=Identity("vbd", 5, 51712, "xbbd", 0),
        states=(ours, guest),
        closed_reason=failed,
        held_back=waits,
        frontend="",
    )
    journal = Journal(lambda severity, line: None, lambda: 0.0)
    family = FakeFamily()
    monkeypatch.setattr(family, "numbers", lambda unit: Nothing())
    view = DeviceView(device, family, journal)  # type: ignore[arg-type]
    assert view.stat(latency=False)["reason"] == reason
    assert view.group("xenbus")["closed_reason"] == failed


class Groups:
    """Values by group; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def group(self, name: str) -> Mapping[str, Value]:
        self.asked.append(name)
        groups: Mapping[str, Mapping[str, Value]] = {
            "medium": {"guest": "vm", "sectors": 8},
            "takeovers": {"takeovers": 2},
        }
        return groups[name]


def test_a_list_costs_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group once, and none that nobody wants anything of."""
    device = SimpleNamespace(
        identity=Identity("vbd", 5, 51712, "xbbd", 0),
        states=(State.CONNECTED, State.CONNECTED),
        closed_reason="",
        held_back="in use",
    )
    numbers = Groups()
    family = FakeFamily()
    monkeypatch.setattr(family, "numbers", lambda unit: numbers)
    journal = Journal(lambda severity, line: None, lambda: 0.0)
    view = DeviceView(device, family, journal)  # type: ignore[arg-type]
    common = {"domid": 5, "state": "Connected", "reason": "in use"}
    wanted = ("guest", "vdev", "sectors", "no_leaf")
    assert view.listed(wanted) == {**common, "guest": "vm", "sectors": 8}
    assert numbers.asked == ["medium"]
    assert view.listed(("takeovers", "guest")) == {**common, "guest": "vm", "takeovers": 2}
    assert numbers.asked == ["medium", "medium", "takeovers"]


LOST = Finding(Severity.ERROR, Kind.LOST, "/a", "writes may be lost", "check it")


class Lossy(FakeFamily):
    """A family that has lost something."""

    def findings(self) -> list[Finding]:
        return [LOST]


def daemon_view(monkeypatch: pytest.MonkeyPatch, connected: bool, short_of: str) -> DaemonView:
    monkeypatch.setattr("xbbd_bsd.views.shortage", lambda: short_of)
    refused: dict[str, Value] = {
        "configuration_refused": "x" if short_of else "",
        "configuration_refused_since": 78 if short_of else 0,
    }
    limits = Accounts(
        Limits(4, 4, 4, 30, 30, 1 << 30), bound_beyond=lambda threads, size: IoUse(9, 0, 0, 0)
    )
    return DaemonView(
        "test",
        Journal(lambda severity, line: None, lambda: 0.0),
        config=Config,
        places={},
        configuration=lambda: refused,
        devices=lambda: 0,
        clock=lambda: 0.0,
        families=[FakeFamily(), Lossy()],
        reload=lambda who: {},
        budget=lambda: (0, 0),
        limits=limits,
        store=lambda: (connected, 77.0),
    )


def test_how_the_daemon_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Itself first, then what its families say of what no device has."""
    well = daemon_view(monkeypatch, True, "")
    assert well.health() == [LOST]
    assert well.values()["threads"] == 9
    found = daemon_view(monkeypatch, False, "descriptors").health()
    assert [(one.kind, one.subject, one.when) for one in found] == [
        (Kind.STORE, DAEMON, 77.0),
        (Kind.CONFIGURATION, DAEMON, 78.0),
        (Kind.LIMIT, DAEMON, None),
        (Kind.LOST, "/a", None),
    ]
    assert "out of descriptors" in found[2].what


def test_a_limit_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since when, by the clock on the wall; the account goes by another."""
    view = daemon_view(monkeypatch, True, "")
    monkeypatch.setattr("xbbd_bsd.views.time.time", lambda: 1000.0)
    view._clock = lambda: 40.0
    view._limits._clock = lambda: 30.0
    with pytest.raises(LimitError):
        view._limits.take(("xnb", 9), Part.CONNECTION, 5, Need(event_channels=5))
    limit, _ = view.health()
    assert (limit.kind, limit.subject, limit.when) == (Kind.LIMIT, DAEMON, 990.0)
    assert limit.action.startswith("see max_event_channels in [daemon] of xbbd.conf")
    view._limits.forget(("xnb", 9))
    assert view.health() == [LOST]
