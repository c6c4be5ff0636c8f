"""Cards that are served by processes of their guests: whichever dies, no connection does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import PROCESSES, XVDA
from tests.sim.netmachine import NetMachine, addresses, running_netmachine
from tests.sim.test_net_takeover import PATIENT, kill, leave, start, streaming
from tests.sim.test_operator import xbbctl
from tests.waiting import GIVE_UP, eventually, lives
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow


def sockets(net: NetMachine) -> list[str]:
    return [name for name in os.listdir(net.chain.layout.run) if name.startswith("guest.")]


def files(net: NetMachine) -> list[str]:
    """What there is of cards in the daemon's directory."""
    return [name for name in os.listdir(net.chain.layout.run) if name.startswith("xnb.")]


@pytest.fixture
def net() -> Iterator[NetMachine]:
    """As ever, with a process for each guest; of these none may be left either."""
    with running_netmachine(PROCESSES) as running:
        yield running
        running.check_nothing_left()
        eventually(lambda: sockets(running) == [], "no process listens")
        assert files(running) == []


def process(net: NetMachine, device: str = "xnb.0") -> int:
    return int(xbbctl(net, "-n", f"dev.{device}.process"))


def kill_process(net: NetMachine) -> None:
    pid = process(net)
    assert pid not in (0, net.daemon.pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: process(net) not in (0, pid), "another process serves")


def test_the_daemon_is_killed_and_nobody_waits(net: NetMachine) -> None:
    """Frames go on while there is none, and the next one touches no ring."""
    guest = net.online(1, *PATIENT, "--queues", "2")
    net.check_ping(guest, "10.0.0.254")
    pid = process(net)
    with (
        streaming(net, guest, None, "10.0.0.254") as out,
        streaming(net, None, guest, addresses(1)[0]) as back,
    ):
        kill(net)
        for one in (out, back):
            for _ in range(2):
                one.event("progress", GIVE_UP)
        start(net)
        net.log_line("taken over: 2 queues, .*, in a process that has gone on")
        assert process(net) == pid
        out.event("progress", GIVE_UP)
    net.check_ping(None, addresses(1)[0])
    net.check_figures(guest)
    assert net.figures(guest)["backends_found"] == 0, "its backend was the same all the time"


@pytest.mark.parametrize("queues", [in_more(1), 3])
def test_its_process_is_killed_under_streams(net: NetMachine, queues: int) -> None:
    guest = net.online(1, *PATIENT, "--queues", str(queues))
    net.check_ping(guest, "10.0.0.254")
    with (
        streaming(net, guest, None, "10.0.0.254") as out,
        streaming(net, None, guest, addresses(1)[0]) as back,
    ):
        for _ in range(2):
            kill_process(net)
            out.event("progress", GIVE_UP)
            back.event("progress", GIVE_UP)
    net.log_line("the process of guest 1 has ended: ")
    net.log_line(f"(?s)(taken over: {queues} queue.*){{2}}")
    net.check_ping(guest, "10.0.0.254")
    net.check_figures(guest)
    assert net.node("/local/domain/0/backend/vif/1/0/state") == "4"


def test_both_are_killed(net: NetMachine) -> None:
    guest = net.online(1, *PATIENT)
    net.check_ping(guest, "10.0.0.254")
    pid = process(net)
    net.daemon.signal(signal.SIGSTOP)  # it must not see the first death
    os.kill(pid, signal.SIGKILL)
    kill(net)
    start(net)
    net.log_line("taken over: 1 queue")
    net.check_ping(None, addresses(1)[0])
    net.check_figures(guest)


def test_a_restart_leaves_it_at_work(net: NetMachine) -> None:
    guest = net.online(1, *PATIENT)
    pid = process(net)
    leave(net)
    net.check_ping(guest, "10.0.0.254")
    start(net)
    net.log_line("in a process that has gone on")
    assert process(net) == pid
    net.check_ping(guest, "10.0.0.254")


def test_each_guest_has_its_own(net: NetMachine, image: Path) -> None:
    net.online(1)
    net.online(2)
    disk = net.guest(3)
    net.attach(DiskOffer(3, XVDA, str(image)))
    disk.event("connected")
    pids = [process(net, name) for name in ("xnb.0", "xnb.1", "xbbd.0")]
    assert len({*pids, net.daemon.pid}) == 4
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: process(net) not in (0, pids[0]), "another process serves")
    assert [process(net, name) for name in ("xnb.1", "xbbd.0")] == pids[1:]
    net.check_ping(None, addresses(2)[0])


def test_what_is_shown_of_its_process(net: NetMachine) -> None:
    net.online(1, *PATIENT)
    (card,) = json.loads(xbbctl(net, "list", "-vj"))
    assert int(card["process"]) == process(net)
    assert 1000 < int(card["process_rss_kb"]) < 1 << 20
    assert (int(card["takeovers"]), int(card["process_age"]) >= 0) == (0, True)
    kill_process(net)
    (card,) = json.loads(xbbctl(net, "list", "-vj"))
    assert (int(card["process"]), int(card["takeovers"])) == (process(net), 1)


def test_five_deaths_in_a_minute_are_the_end(net: NetMachine) -> None:
    net.online(1, *PATIENT)
    for _ in range(4):
        kill_process(net)
    os.kill(process(net), signal.SIGKILL)
    net.log_line("cannot be taken over: its process has died 5 times in .*killed by signal 9")
    state = "/local/domain/0/backend/vif/1/0/state"
    eventually(lambda: net.node(state) in ("5", "6"), "the guest is told")


def test_the_guest_comes_and_goes(net: NetMachine) -> None:
    guest = net.online(1)
    for _ in range(3):
        guest.tell("close")
        guest.event("closed", GIVE_UP)
        guest.tell("open")
        guest.event("connected", GIVE_UP)
        net.check_ping(guest, "10.0.0.254")
    assert net.detach_card(1)
    net.cards.clear()
    eventually(lambda: net.chain.interfaces() == net.interfaces, "its interface is gone")
    eventually(lambda: sockets(net) == [], "so is its process")


def test_the_guest_dies_while_there_is_no_daemon(net: NetMachine) -> None:
    """Its process has its pages until the next daemon comes, and no longer."""
    guest = net.online(1, *PATIENT)
    kill(net)
    guest.signal(signal.SIGKILL)
    guest.wait()
    net.guests.remove(guest)
    net.chain.store.remove(net.cards.pop().backend)
    start(net)
    eventually(lambda: files(net) == [], "its segment is swept")
    eventually(lambda: net.mapped() == 0, "no grant mapped")
    eventually(lambda: net.chain.interfaces() == net.interfaces, "its interface is gone")


def test_a_guest_is_destroyed(net: NetMachine) -> None:
    guest = net.online(1)
    guest.signal(signal.SIGKILL)
    guest.wait()
    net.guests.remove(guest)
    net.chain.store.remove("/local/domain/1/device/vif/0")
    net.chain.detach(net.cards.pop())
    eventually(lambda: net.mapped() == 0, "no grant mapped")
    eventually(lambda: net.chain.interfaces() == net.interfaces, "its interface is gone")


def test_a_segment_that_nobody_can_read(net: NetMachine) -> None:
    """Whoever served it gives the card back."""
    guest = net.online(1)
    pid = process(net)
    kill(net)
    with open(f"{net.chain.layout.run}/xnb.0", "r+b") as segment:
        segment.seek(4)
        segment.write(b"\xff")
    start(net)
    net.log_line(r"must connect again \(.*map state segment .*: Invalid argument\)")
    eventually(lambda: net.mapped() == 0, "nobody serves it")
    eventually(lambda: not lives(pid), "its process ends")
    guest.signal(signal.SIGKILL)
    guest.wait()
    net.guests.remove(guest)


def test_its_interface_is_removed(net: NetMachine) -> None:
    guest = net.online(1)
    net.chain.dom0.run("ip", "link", "delete", "vif1.0")
    net.log_line("the interface is gone")
    state = "/local/domain/0/backend/vif/1/0/state"
    eventually(lambda: net.node(state) in ("5", "6"), "the guest is told")
    eventually(lambda: net.mapped() == 0, "nobody serves it")
    guest.tell("close")


def test_a_stop_closes_everything() -> None:
    with running_netmachine(PROCESSES) as net:
        guest = net.online(1)
        net.daemon.signal(signal.SIGTERM)
        guest.event("closed", GIVE_UP)
        assert net.daemon.wait() == 0
        assert (net.segments(), net.mapped()) == ([], 0)
        eventually(lambda: net.chain.interfaces() == net.interfaces, "its interface is gone")
