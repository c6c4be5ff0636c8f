"""A configuration that is checked, and read again, with a real daemon and a guest at work."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine
from tests.sim.test_operator import busy, end, tool, values, xbbctl
from tests.unit.test_conftext import MISTAKES, WRONG_LINES
from tests.waiting import eventually
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow


def written(machine: Machine, text: str) -> str:
    """The daemon's configuration, with another text."""
    path = Path(machine.chain.config_file)
    path.write_text(text)
    return str(path)


def lines_named(text: str, program: str, path: str) -> list[int]:
    return list(map(int, re.findall(rf"^{program}: {re.escape(path)}:(\d+): .*$", text, re.M)))


def test_twenty_mistakes_at_once(machine: Machine, image: Path) -> None:
    """A check names them all with their lines; so does a reload, and nothing changes."""
    guest = busy(machine, image, "depth=4")
    path = written(machine, MISTAKES)
    before = values(machine, "hw.xbbd")

    checked = tool(machine, "daemon", "-t", "-f", path)
    assert (checked.returncode, checked.stdout) == (1, "")
    assert lines_named(checked.stderr, "xbbd", path) == WRONG_LINES
    assert len(checked.stderr.splitlines()) == len(WRONG_LINES) == 20

    reloaded = tool(machine, "xbbctl", "reload")
    assert (reloaded.returncode, reloaded.stdout) == (1, "")
    assert lines_named(reloaded.stderr, "xbbctl", path) == WRONG_LINES
    reasons = [
        [line.partition(": ")[2] for line in text.splitlines()]
        for text in (checked.stderr, reloaded.stderr)
    ]
    assert reasons[0] == reasons[1], "in the same words"

    after = values(machine, "hw.xbbd")
    assert after["hw.xbbd.configuration_refused"] == "; ".join(reasons[0])
    assert after["hw.xbbd.configuration_refused_since"] > 0
    assert after["hw.xbbd.disk.workers"] == before["hw.xbbd.disk.workers"]
    assert machine.log().count("configuration not changed: ") == 20

    written(machine, "[disk]\nworkers = 3\n")
    assert tool(machine, "daemon", "-t", "-f", path).stderr == ""
    assert xbbctl(machine, "reload") == "disk.workers: 8 -> 3\n"
    after = values(machine, "hw.xbbd")
    assert after["hw.xbbd.configuration_refused"] == ""
    assert after["hw.xbbd.configuration_refused_since"] == 0
    assert after["hw.xbbd.configuration_file"] == path
    end(guest)


def test_a_check_says_what_a_start_says(machine: Machine) -> None:
    """Of what this host cannot do; each fault by both, while the daemon runs."""
    pytest.importorskip("prometheus_client")
    open_to_all = Path(machine.chain.directory) / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = written(
            machine,
            f'[daemon]\ngroup = "no-such-group"\npidfile = "{open_to_all}/x/x.pid"\n'
            f'metrics = "127.0.0.1:{taken.getsockname()[1]}"\nstate_dir = "{open_to_all}"\n',
        )
        said = [
            tool(machine, "daemon", *words, "-f", path).stderr.splitlines()
            for words in (["-t"], ["-d"])
        ]
        reloaded = tool(machine, "xbbctl", "reload")
    assert said[0] == said[1]
    assert lines_named("\n".join(said[0]), "xbbd", path) == [2, 3, 4, 5]
    assert reloaded.returncode == 1
    assert reloaded.stderr.replace("xbbctl: ", "xbbd: ").splitlines() == said[0]
    assert os.listdir(open_to_all) == []
    written(machine, "")
    assert xbbctl(machine, "reload") == "nothing has changed\n"


def test_a_check_of_what_runs_is_quiet(machine: Machine) -> None:
    """Its port, its pid file and its directory are its own; without a store it could not start."""
    pytest.importorskip("prometheus_client")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = written(machine, f'[daemon]\nmetrics = "127.0.0.1:{port}"\n')
    assert xbbctl(machine, "reload") == f'daemon.metrics: none -> "127.0.0.1:{port}"\n'
    checked = tool(machine, "daemon", "-t", "-f", path)
    assert (checked.returncode, checked.stderr) == (0, "")
    machine.daemon.stop()
    elsewhere = tool(machine, "daemon", "-t", "-f", path, "--host", f"sim:{path}.d")
    assert elsewhere.returncode == 1
    assert "XenStore does not answer: " in elsewhere.stderr


def test_a_kind_that_is_left_out(machine: Machine, image: Path) -> None:
    """Closes its disks, and says first how many."""
    machine.connected(image)
    other = image.with_name("other.img")
    other.write_bytes(bytes(1 << 20))
    guest = machine.guest(2)
    machine.attach(DiskOffer(2, XVDA, str(other), kind="vbd3"))
    guest.event("connected")
    written(machine, '[daemon]\nkinds = ["vbd"]\n')
    told = json.loads(xbbctl(machine, "reload", "-j"))
    assert told == {
        "daemon.kinds": {
            "before": '["vbd", "vbd3"]',
            "after": '["vbd"]',
            "note": "closes 1 disk of 1 guest",
        }
    }
    text = machine.log()
    line = "vbd3 is not served any more: closes 1 disk of 1 guest"
    assert text.index(line) < text.index("configuration read again: ")
    eventually(lambda: values(machine)["hw.xbbd.devices"] == 1, "one disk is left")
