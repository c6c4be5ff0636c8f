"""The ring's thread dozes in Xen while a guest's requests come one at a time (core/doze.c)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU
from tests.real.service import Service, Toolstack, eventually
from tests.real.test_io import attached
from tests.real.test_operator import tool

pytestmark = pytest.mark.skipif(DOM0.name != "linux", reason="there is no such call, and no count")

# Microseconds; ten times as long is not too long for a doze, however slow this machine is, and
# to look around for it soon turns out not to pay.
LONG = 1000
# What the tests take of dom0's processor is others' need as well, which is looked at a second
# after the first doze of a while.
SHORT, LOOKED_AT = 0.8, 3.0  # seconds


def switches(service: Service) -> int:
    """How often the ring's thread went to sleep so far, as the kernel has it."""
    for task in Path(f"/proc/{service.pid}/task").iterdir():
        if (task / "comm").read_text().startswith("xbbd0 ring0"):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    return int(line.split()[1])
    raise AssertionError("no such thread")


def sleeps(service: Service, guest: DomU, seconds: float) -> float:
    """How often it went to sleep for each of many requests that come one at a time."""
    before = switches(service), service.counters()["reqs_received"]
    guest.run(
        "fio --name=d --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=1"
        " --rw=randread --bs=4k --size=24M --time_based"
        f" --runtime={round(1000 * seconds)}ms >/dev/null",
        timeout=120,
        check=True,
    )
    after = switches(service), service.counters()["reqs_received"]
    assert after[1] - before[1] > 100
    return (after[0] - before[0]) / (after[1] - before[1])


def test_it_is_awake_for_a_guest_that_comes_back_soon(
    service: Service, toolstack: Toolstack, guest: DomU, ram_disk: str
) -> None:
    """Unless that is not wished; and all that it took for it is given back (nothing_left)."""
    with attached(toolstack, guest, ram_disk):
        tool(service, "xbbctl", f"dev.xbbd.0.poll_max_us={LONG}")
        eventually(lambda: sleeps(service, guest, SHORT) < 0.3, "it dozes", 120)
        assert any(
            os.readlink(fd) == "/dev/xen/privcmd"
            for fd in Path(f"/proc/{service.pid}/fd").iterdir()
        )
        tool(service, "xbbctl", "dev.xbbd.0.poll_max_us=0")
        assert sleeps(service, guest, SHORT) > 0.7


def test_it_keeps_no_processor_from_others(
    service: Service, toolstack: Toolstack, guest: DomU, ram_disk: str
) -> None:
    """Once it is seen that somebody in dom0 wants it."""
    with attached(toolstack, guest, ram_disk):
        tool(service, "xbbctl", f"dev.xbbd.0.poll_max_us={LONG}")
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            eventually(
                lambda: sleeps(service, guest, LOOKED_AT) > 0.5, "it sleeps as others do", 60
            )
        finally:
            busy.kill()
            busy.wait()
