"""What an operator does to a running daemon, in a whole machine: look, tune, find out why."""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.soak import FAULTS, build_faulty_disk
from tests.waiting import eventually
from xbbd_bsd.block.oids import DRIVER, RING
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.host import control_path
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer, offer, see_opened

pytestmark = pytest.mark.slow


def tool(machine: Machine, name: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command of ours on that machine."""
    return subprocess.run(
        [sys.executable, "-m", f"xbbd_bsd.{name}", "--host",
         f"sim:{machine.chain.layout.directory}", *words],
        capture_output=True, text=True, check=False, timeout=180, **more,
    )  # fmt: skip


def xbbctl(machine: Machine, *words: str) -> str:
    """xbbctl, which must go well; what it prints."""
    done = tool(machine, "xbbctl", *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def values(machine: Machine, name: str = "") -> dict[str, Any]:
    return ask(control_path(machine.chain.layout.run), Request(Verb.GET, name))


def busy(machine: Machine, image: Path, words: str, *options: str) -> Guest:
    """A guest that exercises its disk until it is told to stop."""
    guest = machine.connected(image, *options)
    guest.tell(f"exercise seconds=120 sectors=4096 {words}")
    guest.event("begun")
    return guest


def end(guest: Guest) -> dict[str, Any]:
    """Stop the exercise, which must have gone well."""
    guest.signal(signal.SIGTERM)
    result = guest.event("exercised")
    assert result["errors"] == result["mismatches"] == 0
    return result


def test_the_whole_tree_under_load(machine: Machine, image: Path) -> None:
    guest = busy(machine, image, "depth=16 flush_every=20", "--queues", "2")
    found = json.loads(xbbctl(machine, "-aj"))
    below = {name.removeprefix("dev.xbbd.0.") for name in found if name.startswith("dev.")}
    device = {leaf.name for group in DRIVER.groups.values() for leaf in group}
    assert below == device | {f"ring.{n}.{leaf.name}" for n in (0, 1) for leaf in RING}
    assert found["dev.xbbd.0.queues"] == 2
    assert found["dev.xbbd.0.xenbus_connection_state"] == "Connected"
    assert found["hw.xbbd.devices"] == 1
    lines = xbbctl(machine, "-a").splitlines()
    assert sum(": " in line or line.endswith(":") for line in lines) >= len(found)
    end(guest)


def test_one_real_flush_of_eight(machine: Machine, image: Path) -> None:
    guest = busy(machine, image, "flush_every=3 depth=1")
    assert xbbctl(machine, "dev.xbbd.0.flush_interval=8") == "dev.xbbd.0.flush_interval: 0 -> 8\n"

    def flushes() -> tuple[int, int]:
        counters = values(machine, "dev.xbbd.0")
        return counters["dev.xbbd.0.f_req"], counters["dev.xbbd.0.flushes_done"]

    before = flushes()
    eventually(lambda: flushes()[0] >= before[0] + 800, "many flushes")
    after = flushes()
    asked, done = (late - early for late, early in zip(after, before, strict=True))
    # Two counters are not read at one moment.
    assert asked / 8 - 8 <= done <= asked / 8 + 8
    end(guest)


def test_records_are_what_the_guest_counted(machine: Machine, image: Path) -> None:
    guest = machine.connected(image)
    some = "flush_every=10 discard_every=10 barrier_every=10"
    guest.tell(f"exercise operations=5000 depth=8 verify=0 {some}")
    result = guest.event("exercised")
    record = ask(control_path(machine.chain.layout.run), Request(Verb.STAT, "", "latency"))
    stat = record["dev.xbbd.0"]
    for which in ("xbb", "xbbi"):
        assert stat[which]["read"]["bytes"] == 512 * result["sectors_read"]
        assert stat[which]["write"]["bytes"] == 512 * result["sectors_written"]
        assert stat[which]["start_count"] == stat[which]["end_count"]
    asked = stat["xbbi"]
    assert asked["read"]["operations"] == result["reads"]
    assert asked["write"]["operations"] == result["writes"] + result["barriers"]
    assert asked["flush"]["operations"] == result["flushes"]
    assert asked["discard"]["operations"] == result["discards"]
    assert asked["tag_ordered"] == result["barriers"] + result["flushes"]
    for operation in ("read", "write", "flush", "discard"):
        assert sum(stat["latency"][operation].values()) == asked[operation]["operations"]


def test_requests_in_flight_have_an_age(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that takes 20 ms for each, so that there are some whenever one looks."""
    faults = tmp_path / "faults"
    slow = FAULTS.pack(0, 0, 0, 65536, 20_000, 0, 0, 0, 0)
    faults.write_bytes(slow.ljust(mmap.PAGESIZE, b"\0"))
    monkeypatch.setenv("XBBD_FAULTS", str(faults))
    monkeypatch.setenv("LD_PRELOAD", str(build_faulty_disk(tmp_path)))
    with running_machine() as machine:
        guest = busy(machine, image, "depth=32 min_sectors=80 max_sectors=88")
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            found[:] = json.loads(xbbctl(machine, "inflight", "-j"))["dev.xbbd.0"]
            return bool(found)

        eventually(seen, "a request in flight")
        assert found == sorted(found, key=lambda request: -request["age_us"])
        for request in found:
            assert request["operation"] in ("read", "write")
            assert request["age_us"] >= 0
        end(guest)


def test_why_a_disk_was_refused_can_be_asked(machine: Machine, image: Path) -> None:
    guest = machine.guest(1)
    absent = image.with_name("absent")
    refused = tool(machine, "xbbctl", "attach", "1", str(absent), "xvda")
    assert refused.returncode == 1
    machine.attach(DiskOffer(1, XVDA, str(image)))
    guest.event("connected")
    log = xbbctl(machine, "log")
    assert f"error   xbbd0 (vbd3/1/51712): attach failed: unable to open {absent}" in log
    assert "we InitWait, guest Initialised: connect the ring" in xbbctl(machine, "log", "xbbd0")
    assert "connect the ring" not in log
    assert xbbctl(machine, "hw.xbbd.log.control=1") == "hw.xbbd.log.control: 0 -> 1\n"
    guest.tell("close")
    machine.log_line(r"guest Clos\w+: drain")


def listed(machine: Machine) -> tuple[str, dict[str, Any]]:
    """The only line of `xbbctl list`, and what there is behind it."""
    _, line = xbbctl(machine, "list").splitlines()
    (found,) = json.loads(xbbctl(machine, "list", "-j"))
    return line, found


def test_what_is_known_of_a_disk_before_its_guest_connects_and_after(
    machine: Machine, image: Path
) -> None:
    """Its size, and why the guest does not have it."""
    guest = machine.guest(1)
    offer(machine.chain.store, DiskOffer(1, XVDA, str(image)))
    machine.offers.append(DiskOffer(1, XVDA, str(image)))
    guest.signal(signal.SIGSTOP)
    assert see_opened(machine.chain.store, machine.chain.loop, machine.offers[0])
    line, found = listed(machine)
    assert (found["state"], found["MiB"], found["reason"]) == ("InitWait", 4, "")
    assert line.endswith(str(image))
    guest.signal(signal.SIGCONT)
    guest.event("connected")
    guest.tell("close")
    guest.event("closed")
    eventually(lambda: listed(machine)[1]["state"] == "Closed", "it is closed")
    line, found = listed(machine)
    assert (found["MiB"], found["reason"]) == (4, "the guest has closed it")
    assert line.endswith(f"{image} (the guest has closed it)")
    guest.tell("open")
    guest.event("connected")
    guest.tell("lie")
    eventually(lambda: "ring" in listed(machine)[1]["reason"], "what is wrong with it")
    (reason,) = values(machine, "dev.xbbd.0.closed_reason").values()
    assert reason == listed(machine)[1]["reason"]


@pytest.mark.parametrize("deed", ["delete", "replace", "truncate"])
def test_a_disk_that_vanishes_under_its_guest(image: Path, deed: str) -> None:
    state = {"delete": "gone", "replace": "another", "truncate": "truncated"}[deed]
    with running_machine("[disk]\nresize_interval = 1\n") as machine:
        guest = machine.connected(image)
        assert values(machine, "dev.xbbd.0.path_state") == {"dev.xbbd.0.path_state": ""}
        kept = image.with_name("kept")
        kept.hardlink_to(image)
        if deed == "truncate":
            os.truncate(image, 2 << 20)
        else:
            image.unlink()
        if deed == "replace":
            image.write_bytes(bytes(4 << 20))
        machine.log_line(rf"xbbd0 .*{re.escape(str(image))} (is gone|is another|has become)")
        assert values(machine, "dev.xbbd.0.path_state") == {"dev.xbbd.0.path_state": state}
        guest.tell("exercise operations=500 sectors=4096")
        assert guest.event("exercised")["mismatches"] == 0
        if deed == "truncate":
            os.truncate(image, 4 << 20)
        else:
            kept.replace(image)
        machine.log_line("is the guest's disk again, whole")


def test_since_when_the_store_is_lost(machine: Machine) -> None:
    def store() -> tuple[int, int]:
        found = values(machine, "hw.xbbd")
        return found["hw.xbbd.store_connected"], found["hw.xbbd.store_since"]

    connected, since = store()
    assert connected == 1
    assert time.time() - 300 < since <= time.time()
    pid = int(Path(machine.chain.layout.store_pid).read_text())
    machine.chain.store.close()
    machine.chain.machine.signal(signal.SIGSTOP)  # who would start another one at once
    lost_at = int(time.time())
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: store()[0] == 0, "it is lost")
    assert lost_at <= store()[1] <= time.time()
    machine.chain.machine.signal(signal.SIGCONT)
    eventually(lambda: store()[0] == 1, "it is back")
    assert lost_at <= store()[1] <= time.time()


def test_a_disk_in_use_is_refused_unless_that_is_meant(machine: Machine, image: Path) -> None:
    machine.connected(image)
    machine.guest(2)
    for mode in ("r", "w"):
        refused = tool(machine, "xbbctl", "attach", "2", str(image), "xvda", "--mode", mode)
        assert refused.returncode == 1
        assert "in use by xbbd0 (vbd/1/51712), writable; if that is meant" in refused.stderr
    machine.offers.append(DiskOffer(2, XVDA, str(image), kind="vbd3"))
    xbbctl(machine, "attach", "2", str(image), "xvda", "--mode", "w!")
    machine.guests[1].event("connected")
    listed = json.loads(xbbctl(machine, "list", "-j"))
    assert [(disk["name"], disk["path"]) for disk in listed] == [
        ("xbbd0", str(image)), ("xbbd1", str(image)),
    ]  # fmt: skip


def test_overrides_and_their_change(image: Path) -> None:
    text = f"""
    [disk]
    flush_interval = 1
    [[override]]
    path = "{image.parent}/*"
    flush_interval = 2
    max_queues = 1
    """
    with running_machine(text) as machine:
        machine.connected(image, "--queues", "4")
        assert xbbctl(machine, "-n", "dev.xbbd.0.flush_interval", "dev.xbbd.0.queues") == "2\n1\n"
        xbbctl(machine, "dev.xbbd.0.poll_max_us=7")
        config = Path(machine.chain.config_file)
        config.write_text(text.replace("flush_interval = 2", "flush_interval = 3"))
        machine.daemon.signal(signal.SIGHUP)
        machine.log_line("configuration read again: override ")
        names = ("dev.xbbd.0.flush_interval", "dev.xbbd.0.poll_max_us")
        assert xbbctl(machine, "-n", *names) == "3\n7\n"
        config.write_text("[[override]]\nworkers = 0\n")
        machine.daemon.signal(signal.SIGHUP)
        machine.log_line("configuration not changed: ")
        assert xbbctl(machine, "-n", *names) == "3\n7\n"


def scrape(path: Path) -> str:
    """What Prometheus gets."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(20)
        channel.connect(str(path))
        channel.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        with channel.makefile("rb") as answer:
            return answer.read().decode()


def test_metrics_come_and_go_with_the_configuration(image: Path, temporary: Path) -> None:
    pytest.importorskip("prometheus_client")
    first, second = temporary / "a", temporary / "b"
    with running_machine() as machine:
        guest = busy(machine, image, "depth=4")
        config = Path(machine.chain.config_file)

        def configure(text: str, line: str) -> None:
            config.write_text(text)
            machine.daemon.signal(signal.SIGHUP)
            machine.log_line(line)

        configure(f'[daemon]\nmetrics = "{first}"\n', "daemon.metrics none -> ")
        text = scrape(first)
        assert re.match(r"HTTP/1\.[01] 200 ", text)
        assert f'path="{image}"' in text
        configure(f'[daemon]\nmetrics = "{second}"\n', 'daemon.metrics "/.*" -> "/')
        assert not first.exists()
        assert "xbbd" in scrape(second)
        nowhere = first.parent / "no-such" / "a"
        configure(f'[daemon]\nmetrics = "{nowhere}"\n', "configuration not changed: ")
        assert "xbbd" in scrape(second)
        configure("", 'daemon.metrics "/.*" -> none')
        assert not second.exists()
        end(guest)


def test_a_start_that_fails_has_touched_no_device(machine: Machine, image: Path) -> None:
    """Or the toolstack would believe in a disk that nobody serves."""
    pytest.importorskip("prometheus_client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Path(machine.chain.config_file)
        config.write_text(f'[daemon]\nmetrics = "127.0.0.1:{taken.getsockname()[1]}"\n')
        assert machine.daemon.stop() == 0
        backend = DiskOffer(1, XVDA, str(image), kind="vbd3")
        machine.offers.append(backend)
        machine.guest(1)
        offer(machine.chain.store, backend)
        failed = machine.chain.start_daemon()
        assert failed.wait() == 1
    assert "Address already in use" in Path(failed.log).read_text()
    assert machine.node(f"{backend.backend}/state") == "1"
    assert sorted(os.listdir(machine.chain.layout.run)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
def test_a_reload_that_is_refused_changes_nothing(image: Path, temporary: Path) -> None:
    pytest.importorskip("prometheus_client")
    with running_machine() as machine:
        machine.connected(image)
        config = Path(machine.chain.config_file)
        config.write_text(
            f'[daemon]\nmetrics = "{temporary}/m"\ngroup = "no-such-group"\n'
            "[disk]\nflush_interval = 5\n"
        )
        machine.daemon.signal(signal.SIGHUP)
        machine.log_line("configuration not changed: .*there is no such group")
        assert not (temporary / "m").exists()
        assert xbbctl(machine, "-n", "dev.xbbd.0.flush_interval", "hw.xbbd.metrics") == "0\n\n"


def test_what_stays_mapped_of_a_guest_is_configured(image: Path) -> None:
    """For all its disks and rings together, at the start and while it runs."""
    with running_machine("[daemon]\nmax_guest_grants = 48\n") as machine:
        persistent = ("--queues", "4", "--persistent", "--max-segments", "64")
        guest = machine.connected(image, *persistent)
        state = machine.state()

        def kept() -> int:
            return sum(state.ring(number).grants_persistent for number in range(4))

        def exercise() -> None:
            guest.tell("exercise operations=3000 depth=8 max_sectors=88")
            result = guest.event("exercised")
            assert result["errors"] == result["mismatches"] == 0

        exercise()
        assert 0 < kept() <= 48
        assert xbbctl(machine, "-n", "hw.xbbd.max_guest_grants") == "48\n"
        in_use = values(machine)
        assert 0 < in_use["hw.xbbd.grants"] <= 48
        assert in_use["hw.xbbd.mappings"] > 4  # each ring is one
        Path(machine.chain.config_file).write_text("[daemon]\nmax_guest_grants = 0\n")
        machine.daemon.signal(signal.SIGHUP)
        eventually(lambda: kept() == 0, "what must not stay is given back")
        exercise()
        assert kept() == 0
        assert sum(state.counters(number)["kva_shortages"] for number in range(4)) == 0
        state.close()
