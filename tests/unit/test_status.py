"""xbbctl health: what it prints and how it ends, against a real control socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import test_xbbctl
from tests.unit.players import Device
from tests.unit.test_xbbctl import Running
from xbbd_bsd import xbbctl
from xbbd_bsd.block.health import DiskFacts, Loss, SharedFacts
from xbbd_bsd.control.health import DaemonFacts
from xbbd_bsd.control.protocol import DENIED
from xbbd_bsd.control.server import Rights
from xbbd_bsd.ledger import Errors

daemon = test_xbbctl.daemon
WRITES = Errors({"write": 3}, "no room\x1b[2J", 5, 1_000_000_000.0)


def give(device: Device, monkeypatch: pytest.MonkeyPatch, facts: DiskFacts) -> None:
    monkeypatch.setattr(device, "facts", lambda: facts)


def test_one_line_if_all_is_well(daemon: Running) -> None:
    assert daemon.run("health") == (0, "all is well: 2 disks\n", "")
    del daemon.devices[1]
    assert daemon.run("health") == (0, "all is well: 1 disk\n", "")
    assert daemon.run("health", "xbbd0") == (0, "all is well: 1 disk\n", "")
    daemon.devices.clear()
    assert daemon.run("health") == (0, "no devices\n", "")


def test_what_is_not(daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.leaves.facts = DaemonFacts(store_connected=False)
    daemon.leaves.shared = SharedFacts(losses=[Loss("/a\n\udcff", "a flush failed")])
    give(daemon.devices[1], monkeypatch, DiskFacts(1, "vm1", "xvda", "/b", errors=WRITES))
    status, out, error = daemon.run("health")
    assert (status, error) == (1, "")
    lines = out.splitlines()
    assert lines[0].startswith("error: xbbd: XenStore is lost: ")
    assert lines[1] == "    see whether xenstored runs, and why not"
    assert lines[2] == (
        "error: /a\\x0a\\xff: writes may be lost, a flush failed: it is not opened again"
    )
    assert lines[4].startswith("error: xbbd1 (vm1 xvda): 3 writes failed since that was last")
    assert "the last: no room\\x1b[2J (2001-09-0" in lines[4]
    assert lines[5].endswith("xbbctl clear xbbd1")
    assert len(lines) == 6


def test_a_disk_alone(daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.leaves.facts = DaemonFacts(store_connected=False)
    give(daemon.devices[1], monkeypatch, DiskFacts(1, errors=WRITES))
    assert daemon.run("health", "xbbd0") == (0, "all is well: 1 disk\n", "")
    status, out, _ = daemon.run("health", "xbb1")
    assert (status, out.count("\n")) == (1, 2)


def test_warnings_count(daemon: Running) -> None:
    daemon.leaves.facts = DaemonFacts(refused="x")
    status, out, _ = daemon.run("health")
    assert (status, out.startswith("warning: xbbd: the configuration was refused")) == (1, True)


def test_what_guests_do_to_themselves(daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told if it is asked for, and nothing is wrong for it."""
    facts = DiskFacts(1, guest_errors=Errors({"malformed": 2}))
    give(daemon.devices[1], monkeypatch, facts)
    assert daemon.run("health") == (0, "all is well: 2 disks\n", "")
    status, out, _ = daemon.run("health", "-v")
    assert status == 0
    assert out.splitlines()[:2] == [
        "all is well: 2 disks",
        "notice: xbbd1: the guest asked for what cannot be: 2 malformed requests",
    ]
    found = json.loads(daemon.run("health", "-j")[1])
    assert found["well"]
    assert found["findings"]["dev.xbbd.1"][0]["severity"] == "notice"


def test_how_old_requests_may_be(daemon: Running) -> None:
    daemon.devices[0].ages = [10.5]
    assert daemon.run("health")[0] == 1
    assert daemon.run("health", "--age", "11")[0] == 0
    daemon.devices[0].ages = [0.5]
    assert daemon.run("health")[0] == 0
    assert daemon.run("health", "--age", "0.25")[0] == 1


def test_as_json(daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(daemon.run("health", "-j")[1]) == {
        "well": True,
        "disks": 2,
        "cards": 0,
        "findings": {"hw.xbbd": [], "dev.xbbd.0": [], "dev.xbbd.1": []},
    }
    give(daemon.devices[1], monkeypatch, DiskFacts(1, errors=WRITES))
    status, out, _ = daemon.run("-j", "health")
    found = json.loads(out)
    assert (status, found["well"], found["disks"]) == (1, False, 2)
    (finding,) = found["findings"]["dev.xbbd.1"]
    assert (finding["kind"], finding["when"]) == ("errors", 1_000_000_000.0)


def test_a_time_that_cannot_be(daemon: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has written to the segment."""
    errors = Errors({"write": 3}, when=1.8e19)
    give(daemon.devices[1], monkeypatch, DiskFacts(1, errors=errors))
    status, out, error = daemon.run("health")
    assert (status, error) == (1, "")
    assert out.startswith("error: xbbd1: 3 writes failed since that was last cleared\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("health", "xbbd7"), "no disk xbbd7"),
        (("health", "disk"), "disk: no device of xbbd, write xbbdN or xnbN as in xbbctl list"),
    ],
)
def test_what_is_not_known_is_not_well(daemon: Running, words: tuple[str, ...], error: str) -> None:
    assert daemon.run(*words) == (2, "", f"xbbctl: {error}\n")


def test_who_may_not_ask(daemon: Running) -> None:
    daemon.rights = Rights.READ
    assert daemon.run("health")[0] == 0
    daemon.rights = Rights.NONE
    assert daemon.run("health") == (2, "", f"xbbctl: {DENIED}\n")


def test_a_daemon_that_is_not_there(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert xbbctl.main(["--state-dir", str(short_path), "health"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("is it running?\n")
