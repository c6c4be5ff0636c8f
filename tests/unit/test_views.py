"""Why a guest does not have its disk, as xbbctl list says it."""

from types import SimpleNamespace

import pytest

from xbbd_bsd.journal import Journal
from xbbd_bsd.ledger import Ledger
from xbbd_bsd.views import DeviceView
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import State


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
def test_why(ours: State, guest: State, failed: str, waits: str, reason: str) -> None:
    device = SimpleNamespace(
        identity=Identity("vbd", 5, 51712, 0),
        states=(ours, guest),
        closed_reason=failed,
        held_back=waits,
        frontend="",
    )
    journal = Journal(lambda severity, line: None, lambda: 0.0)
    view = DeviceView(device, None, dict, journal, Ledger(), dict)  # type: ignore[arg-type]
    assert view.stat(latency=False)["reason"] == reason
    assert view.group("xenbus")["closed_reason"] == failed
