"""What a guest's driver says that does not connect, against a store and as anything at all."""

import pytest

from tests.unit.xenbus_bench import DOMID, NUMBER, Bench, bench
from xbbd_bsd.events import GuestSays
from xbbd_bsd.xenbus.complaint import LENGTH, Complaint, complaint_node
from xbbd_bsd.xenbus.states import Facts, State
from xbbd_bsd.xenstore.client import StoreError

__all__ = ["bench"]

NODE = f"/local/domain/{DOMID}/error/device/vbd/{NUMBER}/error"
SAYS = GuestSays.text.partition("{")[0]


def said(bench: Bench) -> list[str]:
    return [line.partition(SAYS)[2] for line in bench.lines if SAYS in line]


def test_where_it_is() -> None:
    assert complaint_node("/local/domain/5/device/vbd/51712") == (
        "/local/domain/5/error/device/vbd/51712/error"
    )


def test_a_guest_that_closes_instead_of_connecting(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    bench.toolstack.write(NODE, b"22 reading info\x1b[2J")
    bench.guest(5)
    bench.until(lambda: bool(said(bench)))
    assert said(bench) == ["22 reading info\\x1b[2J"]
    bench.guest(6)
    bench.rest()
    assert len(said(bench)) == 1, "once"


def test_one_that_was_connected_has_nothing_to_explain(bench: Bench) -> None:
    bench.up()
    bench.toolstack.write(NODE, b"of an earlier life")
    bench.guest(5)
    bench.rest()
    assert said(bench) == []


def test_one_that_gives_up_after_us(bench: Bench) -> None:
    """We are Connected by then; Linux's frontend only now looks at the disk."""
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.guest(3)
    bench.state(4)
    bench.toolstack.write(NODE, b"12 xlvbd_add")
    bench.guest(5)
    bench.until(lambda: bool(said(bench)))
    assert said(bench) == ["12 xlvbd_add"]


def test_one_that_says_nothing(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    bench.guest(6)
    bench.state(6)
    assert said(bench) == []


def test_a_long_story_is_cut(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    bench.toolstack.write(NODE, b"x" * 3000)
    bench.guest(6)
    bench.until(lambda: bool(said(bench)))
    assert said(bench) == ["x" * LENGTH + "..."]


def test_a_store_that_refuses_costs_nobody_anything(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = bench.store.get

    def refuse(path: str) -> bytes | None:
        if path == NODE:
            raise StoreError(13, "Permission denied")
        return get(path)

    monkeypatch.setattr(bench.store, "get", refuse)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    bench.guest(5)
    bench.state(5)
    bench.guest(6)
    bench.state(6)
    assert said(bench) == []
    assert not [line for line in bench.lines if "refuses" in line]


def test_found_leaving_by_a_daemon_that_has_just_begun(bench: Bench) -> None:
    bench.toolstack.write(NODE, b"no")
    heard: list[str] = []
    frontend = bench.front()
    for ours, wanted in ((State.INIT_WAIT, ["no"]), (State.CONNECTED, [])):
        heard.clear()
        complaint = Complaint(bench.store, heard.append)
        complaint.look(Facts(ours, State.CLOSING), frontend)
        complaint.look(Facts(ours, State.CLOSED), frontend)
        assert heard == wanted
