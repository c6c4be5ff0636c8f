"""Cards by xbbctl and xbbstat: real interfaces, a real bridge and real traffic, in name spaces."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.waiting import eventually
from xbbd_bsd.sim import namespace
from xbbd_bsd.sim.netchain import NetChain, ping
from xbbd_bsd.xenstore.client import StoreError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(namespace.lacking()), reason=f"needs {namespace.lacking()}"),
]

MAC = "00:16:3e:01:02:03"


@pytest.fixture
def chain() -> Iterator[NetChain]:
    """A machine with a daemon, a bridge that has an address, and a guest that has no card yet."""
    with NetChain() as running:
        running.add_bridge("10.0.0.254/24", mtu=1400)
        running.start_daemon()
        yield running


def tool(chain: NetChain, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours, in dom0."""
    command = [sys.executable, "-m", f"xbbd_bsd.{name}", "--host"]
    return subprocess.run(
        [*chain.dom0.prefix, *command, f"sim:{chain.layout.directory}", *words],
        capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip


def said(chain: NetChain, name: str, *words: str) -> str:
    """The same, which must go well; what it prints."""
    done = tool(chain, name, *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_card_from_attach_to_detach(chain: NetChain) -> None:
    """The guest reaches dom0 by it; what it sent is the input, as netstat has it."""
    guest = chain.start_netguest(1, 0, "--address", "10.0.0.1/24")
    chain.store.write("/local/domain/1/name", b"web")
    assert said(chain, "xbbctl", "attach", "web", f"mac={MAC}") == "xnb0\n"
    shown = chain.dom0.run("ip", "link", "show", "dev", "vif1.0")
    assert (" master xenbr0 " in shown, " mtu 1400 " in shown) == (True, True)
    assert guest.event("connected")["mac"] == MAC
    assert ping(chain, guest, "10.0.0.254", "--count", "5")["received"] > 0
    (told,) = map(json.loads, said(chain, "xbbstat", "-j", "xnb0").splitlines())
    for side in ("input", "output"):
        assert told[side]["packets"] >= 5
        assert told[side]["bytes"] >= 5 * 42
        assert told[side]["errors"] == 0
    counters = told["counters"]
    assert counters["tx_sweeps"] > 0
    assert counters["rx_sweeps"] > 0
    moved = counters["grants_mapped_total"] + counters["grants_copied_total"]
    assert moved > 0
    assert counters["grants_unmapped_total"] == counters["grants_mapped_total"]
    leaves = json.loads(said(chain, "xbbctl", "-j", "dev.xnb.0"))
    data_path, dump_rings = leaves["dev.xnb.0.data_path"], leaves["dev.xnb.0.dump_rings"]
    assert data_path in ("map", "copy")
    assert "rsp_prod_pvt" in dump_rings
    unit_test_results = leaves["dev.xnb.0.unit_test_results"]
    assert re.fullmatch(r"\n\d+ Tests Passed", unit_test_results)
    line = said(chain, "xbbstat", "xnb0").splitlines()[-1].split()
    assert int(line[0]) >= told["input"]["packets"]
    (row,) = json.loads(said(chain, "xbbctl", "list", "-j", "web"))
    assert (row["state"], row["interface"], row["bridge"]) == ("Connected", "vif1.0", "xenbr0")
    assert said(chain, "xbbctl", "health", "xnb0") == "all is well: 1 card\n"
    log = said(chain, "xbbctl", "log", "xnb0")
    assert f"attached a card to guest 1 as vif0, {MAC}, bridge xenbr0" in log
    assert said(chain, "xbbctl", "inflight", "xnb0") == ""
    assert tool(chain, "xbbstat").stdout == "", "disks, unless cards are asked for"
    said(chain, "xbbctl", "detach", "web", MAC)
    guest.event("closed")
    eventually(lambda: "vif1.0" not in chain.interfaces(), "the interface is gone")
    assert tool(chain, "xbbctl", "detach", "web", "vif0").stderr == (
        "xbbctl: guest 1 has no card vif0\n"
    )


def test_what_can_be_said_of_a_card(chain: NetChain) -> None:
    chain.start_netguest(1, 7)
    before = chain.interfaces()
    first = json.loads(said(chain, "xbbctl", "attach", "-j", "1", "bridge=,mtu=9000,vifname=web1"))
    assert (first["device"], first["handle"], first["interface"]) == ("xnb0", 0, "web1")
    assert " mtu 9000 " in chain.dom0.run("ip", "link", "show", "dev", "web1")
    said(chain, "xbbctl", "attach", "1", f"mac={MAC}")
    for words, error in (
        (("bridge=br9",), "there is no bridge br9: make it first"),
        ((f"mac={MAC}",), f"{MAC} is the address of guest 1's card vif1 already"),
        (("vifname=web1",), "interface web1 is xnb0's"),
    ):
        refused = tool(chain, "xbbctl", "attach", "1", *words)
        assert refused.returncode == 1
        assert error in refused.stderr
    rows = json.loads(said(chain, "xbbctl", "list", "-j"))
    assert [(row["name"], row["vdev"]) for row in rows] == [("xnb0", "vif0"), ("xnb1", "vif1")]
    assert len(said(chain, "xbbstat", "-j", "-t", "xnb").splitlines()) == 2
    said(chain, "xbbctl", "detach", "xnb0")
    said(chain, "xbbctl", "detach", "1", "vif1")
    eventually(lambda: chain.interfaces() == before, "no interface is left")
    with pytest.raises(StoreError):
        chain.store.list("/local/domain/0/backend/vif/1")
