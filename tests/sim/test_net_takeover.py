"""A daemon that goes under guests with cards, and the next one: a pause, no connection reset."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.circumstances import in_more
from tests.sim.netmachine import NetMachine, addresses, net, running_netmachine
from tests.waiting import GIVE_UP
from xbbd_bsd.sim.chain import Guest

__all__ = ["net"]  # a fixture

pytestmark = pytest.mark.slow

PATIENT = ("--patience", f"{GIVE_UP:.0f}")
SIZE = 240 << 20


def kill(net: NetMachine) -> None:
    net.daemon.signal(signal.SIGKILL)
    net.daemon.wait()


def leave(net: NetMachine) -> None:
    """As `service xbbd restart` has it do."""
    net.daemon.signal(signal.SIGUSR1)
    assert net.daemon.wait() == 0
    net.log_line("left, for the next one to go on")


def start(net: NetMachine) -> None:
    net.daemon = net.chain.start_daemon()


WAYS = {"killed": kill, "left": leave}


@contextmanager
def streaming(
    net: NetMachine, sender: Guest | None, receiver: Guest | None, to: str
) -> Iterator[Guest]:
    """A stream that must be whole afterwards; it yields its sender, which says how far it is."""
    limit = ("--limit", f"{GIVE_UP:.0f}")
    inlet = net.chain.traffic(receiver, "receive", "0", *limit)
    port = str(inlet.event("listening", GIVE_UP)["port"])
    outlet = net.chain.traffic(
        sender, "send", to, port, "--bytes", str(SIZE), "--progress", "--rate", "200", *limit
    )
    outlet.event("progress", GIVE_UP)
    yield outlet
    sent, received = outlet.event("sent", GIVE_UP), inlet.event("received", GIVE_UP)
    assert sent["bytes"] == SIZE
    assert sent["sha256"] == received["sha256"]
    outlet.wait()
    inlet.wait()


@pytest.mark.parametrize("go", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("queues", [in_more(1), 3])
def test_under_streams(net: NetMachine, go: Callable[[NetMachine], None], queues: int) -> None:
    guest = net.online(1, *PATIENT, "--queues", str(queues))
    net.check_ping(guest, "10.0.0.254")
    with (
        streaming(net, guest, None, "10.0.0.254") as out,
        streaming(net, None, guest, addresses(1)[0]) as back,
    ):
        for n in (1, 2):
            go(net)
            assert net.mapped() == 0
            assert net.segments() == ["xnb.0"]
            assert "vif1.0" in net.chain.interfaces()
            start(net)
            net.log_line(rf"(?s)(taken over: {queues} queue.*){{{n}}}")
            out.event("progress", GIVE_UP)
            back.event("progress", GIVE_UP)
    net.check_ping(guest, "10.0.0.254")
    net.check_figures(guest)
    assert net.figures(guest)["backends_found"] > 0
    assert net.node("/local/domain/0/backend/vif/1/0/state") == "4"


def test_a_guest_at_rest(net: NetMachine) -> None:
    """It has nothing to tell, and is there when somebody asks."""
    guest = net.online(1, *PATIENT)
    net.check_ping(guest, "10.0.0.254")
    kill(net)
    start(net)
    net.log_line("taken over: 1 queue")
    net.check_ping(None, addresses(1)[0])
    net.check_ping(guest, "10.0.0.254")
    net.check_figures(guest)


def test_the_guest_dies_while_nobody_serves(net: NetMachine) -> None:
    guest = net.online(1, *PATIENT)
    kill(net)
    guest.signal(signal.SIGKILL)
    guest.wait()
    net.guests.remove(guest)
    start(net)
    net.log_line(r"vif/1/0")
    net.chain.detach(net.cards.pop())


def test_the_daemon_stops_with_its_cards() -> None:
    """Asked to end, it closes them: their interfaces go."""
    with running_netmachine() as net:
        guest = net.online(1)
        net.daemon.signal(signal.SIGTERM)
        guest.event("closed", GIVE_UP)
        assert net.daemon.wait() == 0
        assert net.segments() == []
