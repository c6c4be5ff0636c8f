"""What an operator changes leaves a trace, and whoever wants to know hears of it at once."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.test_operator import tool, xbbctl
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.errors import HostError
from xbbd_bsd.host import control_path
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ME = rf"\S+ \(uid {os.geteuid()}\)"


@contextmanager
def following(machine: Machine, *words: str) -> Iterator[Path]:
    """xbbctl log -f, and the file where its output goes."""
    path = Path(machine.chain.directory) / "followed"
    host = f"sim:{machine.chain.layout.directory}"
    with path.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host", host, "log", "-f", *words],
            stdout=out, stderr=out, cwd=ROOT,
        )  # fmt: skip
        try:
            yield path
        finally:
            child.kill()
            child.wait(GIVE_UP)


@pytest.fixture
def still() -> Iterator[Machine]:
    """A machine that looks at no size by itself."""
    with running_machine("[disk]\nresize_interval = 0\n") as running:
        yield running


def test_every_change_says_who_and_what_was_before(still: Machine, image: Path) -> None:
    machine, guest = still, still.guest(1)
    done = xbbctl(machine, "attach", "1", str(image), "xvda")
    machine.offers.append(DiskOffer(1, XVDA, str(image), kind="vbd3"))
    assert done == "xbbd0\n"
    guest.event("connected")
    with following(machine, "-n", "0", "-j") as followed:
        name = "dev.xbbd.0.flush_interval"

        def heard() -> list[dict[str, object]]:
            return [json.loads(line) for line in followed.read_text().splitlines()]

        def set_and_heard() -> bool:  # the command may not have begun to follow
            ask(control_path(machine.chain.layout.run), Request(Verb.SET, name, 7))
            return bool(heard())

        eventually(set_and_heard, "a line is followed")
        assert xbbctl(machine, f"{name}=8") == f"{name}: 7 -> 8\n"
        os.truncate(image, 5 << 20)
        assert xbbctl(machine, "resize", "xbbd0") == "dev.xbbd.0.sectors: 8192 -> 10240\n"
        xbbctl(machine, "hw.xbbd.log.data=1")
        device = r"xbbd0 \(vbd3/1/51712\): "
        for line in (
            rf"{device}{ME}: attached {image} to guest 1 as xvda, mode w",
            rf"{device}flush_interval: 7 -> 8, set by {ME}",
            rf"{device}sectors: 8192 -> 10240, looked at for {ME}",
            rf"hw\.xbbd\.log\.data: 0 -> 1, set by {ME}",
        ):
            machine.log_line(line)
        eventually(lambda: heard()[-1]["event"] == "SwitchSet", "all is heard")
        found = next(event for event in heard() if event["fields"].get("after") == 8)  # type: ignore[attr-defined]
        assert (found["device"], found["event"], found["severity"]) == ("xbbd0", "ValueSet", "info")
        fields = found["fields"]
        assert isinstance(fields, dict)
        assert re.fullmatch(ME, str(fields.pop("who")))
        assert fields == {"name": "flush_interval", "before": 7, "after": 8}
    marked = xbbctl(machine, "-W", name, "hw.xbbd.log")
    assert f"{name}: 8 (configured: 0)\n" in marked
    assert "hw.xbbd.log.data: 1 (configured: 0)\n" in marked
    assert "hw.xbbd.log.control: 0\n" in marked
    assert xbbctl(machine, "-eW", name) == f"{name}=8 # configured: 0\n"
    assert "    flush_interval: 8 (configured: 0)\n" in xbbctl(machine, "list", "-v")
    assert tool(machine, "xbbctl", "list", "9").stderr == "xbbctl: guest 9 has no device of xbbd\n"
    assert len(xbbctl(machine, "list", "1").splitlines()) == 2
    xbbctl(machine, "detach", "xbbd0")
    machine.log_line(rf"{ME}: detached xvda from guest 1$")


def test_a_path_however_long_leaves_a_trace(machine: Machine, image: Path) -> None:
    """A request has no room for 1800 characters that JSON writes with six."""
    machine.guest(1)
    directory = image.parent.joinpath(*(["\N{GREEK SMALL LETTER OMEGA}" * 100] * 9))
    directory.mkdir(parents=True)
    disk = image.rename(directory / "disk.img")
    assert xbbctl(machine, "attach", "1", str(disk), "xvda") == "xbbd0\n"
    machine.offers.append(DiskOffer(1, XVDA, str(disk), kind="vbd3"))
    machine.log_line(
        rf"{ME}: attached {image.parent}/.*\.\.\..*/disk\.img to guest 1 as xvda, mode w"
    )
    assert tool(machine, "xbbctl", "attach", "1", f"{disk}-2", "xvdb").returncode == 1
    machine.log_line(rf"{ME}: did not attach {image.parent}/.*\.\.\.")


def test_a_line_of_the_log_as_people_read_it(machine: Machine) -> None:
    with following(machine) as followed:
        eventually(lambda: "serving" in followed.read_text(), "the lines before")
        xbbctl(machine, "hw.xbbd.log.data=1")
        eventually(lambda: "log.data: 0 -> 1" in followed.read_text(), "the line after")
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info    ", followed.read_text())
    assert len(xbbctl(machine, "log", "-n", "1").splitlines()) == 1
    assert xbbctl(machine, "log", "-n", "0") == ""


def test_a_cdrom_says_that_it_is_read_only(machine: Machine, image: Path) -> None:
    machine.guest(1)
    done = tool(
        machine, "xbbctl", "-j", "attach", "--cdrom", "--mode", "rw", "1", str(image), "hdc"
    )
    machine.offers.append(DiskOffer(1, 5632, str(image), kind="vbd3"))
    assert (done.returncode, done.stderr) == (0, "xbbctl: a CD-ROM is attached read-only\n")
    found = json.loads(done.stdout)
    assert (found["device"], found["mode"], found["vdev"]) == ("xbbd0", "r", "hdc")
    assert machine.node("backend/vbd3/1/5632/mode") == "r"


def test_what_a_guest_says_that_takes_no_disk(machine: Machine, image: Path) -> None:
    """The guest here is none but for its nodes: it closes before the disk is opened."""
    machine.guest(1, "--hold")
    store, offered = machine.chain.store, DiskOffer(1, XVDA + 16, str(image), kind="vbd")
    machine.offers.append(offered)

    machine.daemon.signal(signal.SIGSTOP)  # who would look at the disk first
    child = subprocess.Popen(
        [sys.executable, "-m", "xbbd_bsd.xbbctl", "--host",
         f"sim:{machine.chain.layout.directory}",
         "attach", "--kind", "vbd", "1", str(image) + "-none", "xvdb"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    eventually(lambda: store.get(f"{offered.frontend}/state") == b"1", "it is offered")
    store.write(f"/local/domain/1/error/device/vbd/{XVDA + 16}/error", b"19 no\x1b driver")
    store.write(f"{offered.frontend}/state", b"5")
    machine.daemon.signal(signal.SIGCONT)
    _, said = child.communicate(timeout=GIVE_UP)
    assert child.returncode == 1
    assert "unable to open" in said or "and says: 19 no\\x1b driver\n" in said
    machine.log_line(r"the guest does not connect, and says: 19 no\\x1b driver")


def commands_in(directory: Path) -> Path:
    """A directory with the commands of a script that watches."""
    commands = directory / "bin"
    commands.mkdir()
    (commands / "xbbctl").write_text(
        f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m xbbd_bsd.xbbctl "$@"\n'
    )
    (commands / "tell").write_text('#!/bin/sh\nread -r line\necho "$@ $line" >>"$1"\n')
    for file in commands.iterdir():
        file.chmod(0o755)
    return commands


def test_a_script_that_cannot_watch_says_why_once(temporary: Path, tmp_path: Path) -> None:
    commands, said = commands_in(tmp_path), tmp_path / "said"
    with said.open("w") as file:
        script = subprocess.Popen(
            ["sh", "-c", 'sleep() { echo pause >&2; command sleep "$1"; }; . "$0"',
             str(ROOT / "etc" / "xbbd-watch"), "-o", f"--state-dir={temporary}", "true"],
            env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}",
                 "XBBD_WATCH_PAUSE": "0"},
            stderr=file, process_group=0,
        )  # fmt: skip
    try:
        eventually(lambda: said.read_text().count("pause\n") > 1, "it tries again", 60)
    finally:
        os.killpg(script.pid, 9)
        script.wait(GIVE_UP)
    lines = [line for line in said.read_text().splitlines() if line != "pause"]
    assert lines == [f"xbbctl: no xbbd listens at {temporary}/control: is it running?"]


def test_a_script_hears_of_what_matters(machine: Machine, image: Path) -> None:
    commands = commands_in(Path(machine.chain.directory))
    told = Path(machine.chain.directory) / "told"
    script = subprocess.Popen(
        [str(ROOT / "etc" / "xbbd-watch"), "-e", "ValueSet|SwitchSet",
         "-o", f"--host=sim:{machine.chain.layout.directory}", str(commands / "tell"), str(told)],
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "XBBD_WATCH_PAUSE": "1"},
        process_group=0,
    )  # fmt: skip
    try:
        machine.connected(image)
        path = control_path(machine.chain.layout.run)

        def hears() -> bool:
            ask(path, Request(Verb.SET, "hw.xbbd.log.data", 0))
            return told.exists()

        eventually(hears, "the script follows", 60)
        ask(path, Request(Verb.SET, "dev.xbbd.0.flush_interval", 3))
        eventually(lambda: "ValueSet" in told.read_text(), "the command runs", 60)
    finally:
        os.killpg(script.pid, 9)
        script.wait(GIVE_UP)
    lines = told.read_text().splitlines()
    assert {" ".join(line.split()[1:3]) for line in lines} == {"SwitchSet -", "ValueSet xbbd0"}
    (last,) = [line for line in lines if " ValueSet " in line]
    assert json.loads(last[last.index("{") :])["fields"]["after"] == 3


def test_out_of_descriptors(machine: Machine, image: Path) -> None:
    """Clients that follow the log hold all there are, for as long as they like."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("prlimit is not installed (util-linux)")
    guest = machine.connected(image)
    held = machine.holds()["descriptors"]
    subprocess.run(
        [prlimit, f"--nofile={held + 10}:", "--pid", str(machine.daemon.pid)], check=True
    )
    path = control_path(machine.chain.layout.run)
    with ExitStack() as silent:
        for _ in range(12):
            channel = silent.enter_context(socket.socket(socket.AF_UNIX))
            channel.connect(path)
            channel.sendall(Request(Verb.EVENTS).encode())
        machine.log_line("the control socket accepts nobody just now: Too many open files")
        done = tool(machine, "xbbctl", "list")
        assert done.returncode == 0
        assert "Connected" in done.stdout
        assert done.stderr == (
            "xbbctl: the daemon is out of file descriptors of the process (limits -n, ulimit -n)\n"
        )
        guest.tell("exercise operations=500")
        assert guest.event("exercised")["errors"] == 0
    eventually(lambda: tool(machine, "xbbctl", "list").stderr == "", "it is over")
    log = machine.log()
    assert "Traceback" not in log
    assert "out of system resource" not in log
    assert len(log.splitlines()) < 80
    subprocess.run([prlimit, "--nofile=1024:", "--pid", str(machine.daemon.pid)], check=True)


def test_forty_descriptors_and_31_disks(tmp_path: Path) -> None:
    """All are refused in words, and whoever asks is answered."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("prlimit is not installed (util-linux)")
    with running_machine() as machine:
        subprocess.run([prlimit, "--nofile=40:", "--pid", str(machine.daemon.pid)], check=True)
        machine.guest(1)
        refused: list[str] = []
        for number in range(31):
            disk = tmp_path / f"{number}.img"
            disk.write_bytes(bytes(4096))
            try:
                machine.attach(DiskOffer(1, _vdev(number), str(disk), kind="vbd3"))
            except HostError as error:
                refused.append(str(error))
        assert 0 < len(refused) < 31
        assert all("Too many open files" in reason for reason in refused)
        assert tool(machine, "xbbctl", "list").returncode == 0
        subprocess.run([prlimit, "--nofile=1024:", "--pid", str(machine.daemon.pid)], check=True)


def _vdev(number: int) -> int:
    return XVDA + 16 * number if number < 16 else (1 << 28) + (number << 8)


def test_lines_on_a_terminal_have_their_time(machine: Machine) -> None:
    """And only there: a log has it from syslogd."""
    assert machine.daemon.stop() == 0
    reader, writer = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "xbbd_bsd.daemon", "-d", "-f", machine.chain.config_file,
         "--host", f"sim:{machine.chain.layout.directory}"],
        stderr=writer, stdin=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    os.close(writer)
    shown = b""
    try:
        while b"serving" not in shown:
            assert select.select([reader], [], [], GIVE_UP)[0]
            shown += os.read(reader, 4096)
    finally:
        child.terminate()
        child.wait(GIVE_UP)
        os.close(reader)
    assert re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} xbbd: serving vbd, vbd3 on ", shown)
