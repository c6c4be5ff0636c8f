"""A daemon of another build leaves cards at work, and one of this goes on: nothing is reset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import earlier
from tests.sim.conftest import PROCESSES
from tests.sim.netmachine import addresses, running_netmachine
from tests.sim.test_net_processes import process, sockets
from tests.sim.test_net_takeover import PATIENT, leave, start, streaming
from tests.sim.test_upgrade import EARLIER, another_version, before, build_of, is_alive
from tests.waiting import GIVE_UP, eventually

__all__ = ["another_version", "before"]  # fixtures

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("before")
def test_here_and_back(another_version: Path) -> None:
    """Its rings are bound again, and that is all."""
    with running_netmachine(daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT)
        assert str(another_version) in build_of(net.daemon.pid)
        leave(net)
        start(net)
        net.log_line("taken over: 1 queue")
        net.check_ping(guest, "10.0.0.254")
        net.check_figures(guest)


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("queues", [1, 3])
def test_a_process_of_another_build_hands_over(another_version: Path, queues: int) -> None:
    with running_netmachine(PROCESSES, daemon=EARLIER) as net:
        guest = net.online(1, *PATIENT, "--queues", str(queues))
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
            net.log_line(r"(?s)(taken over: \d queues?.*){2}")
            for one in (out, back):
                one.event("progress", GIVE_UP)
        eventually(lambda: not any(map(is_alive, pids)), "the old processes have ended")
        assert str(earlier.ROOT) in build_of(process(net))
        net.check_ping(None, addresses(2)[0])
        net.check_figures(guest)
        assert "of no use" not in net.log()
        net.check_nothing_left()
        eventually(lambda: sockets(net) == [], "no process listens")
