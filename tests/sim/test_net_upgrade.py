"""A daemon of another version leaves cards at work, and one of this goes on: nothing is reset."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.sim import earlier
from tests.sim.conftest import PROCESSES
from tests.sim.netmachine import NetMachine, addresses, running_netmachine
from tests.sim.test_net_processes import files, process, sockets
from tests.sim.test_net_takeover import PATIENT, kill, leave, start, streaming
from tests.sim.test_operator import xbbctl
from tests.sim.test_upgrade import EARLIER, another_version, before, build_of
from tests.waiting import GIVE_UP, eventually, lives

__all__ = ["another_version", "before"]  # fixtures

pytestmark = pytest.mark.slow


def start_other(net: NetMachine) -> None:
    net.daemon = net.chain.start_daemon(EARLIER)


def shown(net: NetMachine, leaf: str) -> int:
    return int(xbbctl(net, "-n", f"dev.xnb.0.{leaf}"))


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("queues", [1, 3])
def test_here_and_back(another_version: Path, queues: int) -> None:
    """Streams go on, with counters that do; what stands in the store is each one's own."""
    with running_netmachine(daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT, "--queues", str(queues))
        assert str(another_version) in build_of(net.daemon.pid)
        sent = 0
        with (
            streaming(net, guest, None, "10.0.0.254") as out,
            streaming(net, None, guest, addresses(1)[0]) as back,
        ):
            for n, begin in enumerate((start, start_other, start), 1):
                leave(net)
                assert net.segments() == ["xnb.0"]
                begin(net)
                net.log_line(rf"(?s)(taken over: {queues} queue.*){{{n}}}")
                out.event("progress", GIVE_UP)
                back.event("progress", GIVE_UP)
                # What is said of progress may have been said before.
                eventually(lambda: shown(net, "tx_packets") > sent, "packets go on")  # noqa: B023
                sent = shown(net, "tx_packets")
        net.check_figures(guest)
        assert "of no use" not in net.log()
        kill(net)  # and what stands in the store is this version's by now
        start(net)
        net.log_line(r"(?s)(taken over.*){4}")
        net.check_ping(guest, "10.0.0.254")


@pytest.mark.usefixtures("before")
def test_after_a_death_another_version_is_an_obstacle_that_is_said() -> None:
    """The guest gets its card anew: its driver closes, and connects again."""
    with running_netmachine(daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT)
        kill(net)
        start(net)
        net.log_line("xnb.0: left by an earlier daemon, and of no use: ")
        guest.event("closed", GIVE_UP)
        guest.tell("open")
        guest.event("connected", GIVE_UP)
        net.check_ping(guest, "10.0.0.254")


@pytest.mark.more
def test_a_process_of_another_build_with_the_same_segments_hands_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the segment says all, and not what lies beside it; nor is that needed if it dies."""
    monkeypatch.setenv(earlier.DIRECTORY, str(earlier.of_another_build(tmp_path)))
    with running_netmachine(PROCESSES, daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT)
        other = net.online(2, *PATIENT)
        pids = [process(net, name) for name in ("xnb.0", "xnb.1")]
        with streaming(net, guest, None, "10.0.0.254") as out:
            leave(net)
            os.kill(pids[1], signal.SIGKILL)
            start(net)
            net.log_line(r"(?s)(taken over: 1 queue.*){2}")
            out.event("progress", GIVE_UP)
        assert not set(pids) & {process(net, name) for name in ("xnb.0", "xnb.1")}
        eventually(lambda: not any(map(lives, pids)), "the old processes have ended")
        net.check_ping(other, "10.0.0.254")
        net.check_figures(guest, other)


@pytest.mark.usefixtures("before")
def test_a_process_of_another_version_has_died_meanwhile() -> None:
    with running_netmachine(PROCESSES, daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT)
        pid = process(net)
        leave(net)
        os.kill(pid, signal.SIGKILL)
        start(net)
        net.log_line(r"must connect again \(another version left requests unanswered\)")
        guest.event("closed", GIVE_UP)
        guest.tell("open")
        guest.event("connected", GIVE_UP)
        net.check_ping(guest, "10.0.0.254")


@pytest.mark.usefixtures("before")
def test_a_process_of_another_version_hands_over(another_version: Path) -> None:
    """A card with several queues, while it has streams, and one with a single one."""
    with running_netmachine(PROCESSES, daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT, "--queues", "3")
        net.online(2, *PATIENT)
        pids = [process(net, name) for name in ("xnb.0", "xnb.1")]
        assert all(str(another_version) in build_of(pid) for pid in pids)
        with (
            streaming(net, guest, None, "10.0.0.254") as out,
            streaming(net, None, guest, addresses(1)[0]) as back,
        ):
            leave(net)
            for one in (out, back):  # nobody waits
                one.event("progress", GIVE_UP)
            start(net)
            net.log_line(r"xnb0 \(vif/1/0\): taken over: 3 queues")
            net.log_line(r"xnb1 \(vif/2/0\): taken over: 1 queue")
            for one in (out, back):
                one.event("progress", GIVE_UP)
        eventually(lambda: not any(map(lives, pids)), "the old processes have ended")
        assert str(earlier.ROOT) in build_of(process(net))
        net.check_ping(None, addresses(2)[0])
        net.check_figures(guest)
        assert "of no use" not in net.log()
        net.check_nothing_left()
        eventually(lambda: sockets(net) == [], "no process listens")
        assert files(net) == []
