"""The command: its options, and end to end against a control server with canned answers."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_stat_sample import record
from tests.unit.test_stat_watch import FakeTime
from tests.waiting import GIVE_UP
from xbbd_bsd import xbbstat
from xbbd_bsd.control.protocol import Request, Values, Verb
from xbbd_bsd.control.server import ControlServer, Rights, Visitor
from xbbd_bsd.stat.gstat import Latency
from xbbd_bsd.stat.report import Form, Plan
from xbbd_bsd.xbbstat import main

SECOND = 1_000_000_000


class Daemon:
    """A control socket behind which every sample is a second after the one before."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.disks = 1
        self.pid = 77
        self.asked = 0
        self.latency_asked = 0
        self.loop = asyncio.new_event_loop()
        self.server: ControlServer | None = None
        self.thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        path = os.path.join(self.directory, "control")
        self.server = ControlServer(
            path, self.perform, self.loop, visitor=lambda _: Visitor(Rights.READ)
        )
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def stop(self) -> None:
        if self.server is not None and self.thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.server.close()
            self.server = None

    def close(self) -> None:
        self.stop()
        self.loop.close()

    def perform(self, request: Request) -> Iterator[Values]:
        if request.verb is Verb.GET:
            yield {"hw.xbbd.pid": self.pid, "hw.xbbd.uptime": 10}
            return
        assert request.verb is Verb.STAT
        self.asked += 1
        self.latency_asked += request.value == "latency"
        for unit in range(self.disks):
            yield {f"dev.xbbd.{unit}": self.device(unit, latency=request.value == "latency")}
        yield {"dev.xbbd.999": {"names": ["xbb999", "xbbi999"], "domid": 9, "state": "InitWait"}}

    def device(self, unit: int, *, latency: bool) -> dict[str, Any]:
        n = self.asked
        counts = record(
            start=n * 100 + 1, end=n * 100, busy_ns=n * SECOND // 4, busy_from_ns=n * SECOND,
            read=(n * 60, n * 60 * 4096, n * SECOND // 10),
            write=(n * 40, n * 40 * 8192, n * SECOND // 5),
        )  # fmt: skip
        found = {
            "names": [f"xbb{unit}", f"xbbi{unit}"], "domid": 3, "guest": "vm", "vdev": "xvda",
            "path": "/tank/vm", "state": "Connected", "now_ns": n * SECOND, "sectors": 2048,
            "inflight": 1, "xbb": counts, "xbbi": counts,
        }  # fmt: skip
        if latency:
            found["latency"] = {"read": {"100": n * 60}, "write": {}, "flush": {}, "discard": {}}
        return found


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    running = Daemon(str(short_path))
    yield running
    running.close()


def called(daemon: Daemon, *arguments: str, time: FakeTime | None = None) -> int:
    clock = (time or FakeTime()).clock()
    return main(["--state-dir", daemon.directory, *arguments], clock)


def process(daemon: Daemon, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "xbbd_bsd.xbbstat", "--state-dir", daemon.directory]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([*command, *arguments], **options)


def plan(*arguments: str) -> Plan:
    return xbbstat._plan(xbbstat._parser().parse_args(arguments))


def test_defaults() -> None:
    found = plan()
    assert (found.form, found.wait, found.count) == (Form.COLUMNS, 1.0, 1)
    assert (found.choice.most, found.choice.names, found.idle) == (4, (), True)


@pytest.mark.parametrize(
    ("arguments", "wait", "count"),
    [
        ("-x", 1.0, 1),
        ("-x -w 0.5", 0.5, None),
        ("-x -c 3", 1.0, None),
        ("-x -w 2 -c 3", 2.0, 3),
        ("-dxw 2", 2.0, None),
        ("-Iw3", 3.0, None),
        ("-x 5", 5.0, None),
        ("-x xbb0 5 2", 5.0, 2),
        ("xbb0 dev.xbbd.1 5 2", 5.0, 2),
        ("-x -w 1 -c 9 5 2", 5.0, 2),
        ("-i", 1.0, None),
        ("-C", 1.0, None),
        ("-C -c 4", 1.0, 4),
        ("-b", 1.0, 1),
        ("-b -w 7", 7.0, 1),
        ("-B", 1.0, None),
        ("-j", 1.0, 1),
        ("-j 1", 1.0, None),
    ],
)
def test_when(arguments: str, wait: float, count: int | None) -> None:
    found = plan(*arguments.split())
    assert found.wait == wait
    assert found.count == (3 if arguments == "-x -c 3" else count)


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ("", Form.COLUMNS),
        ("-d", Form.COLUMNS),
        ("-xz", Form.EXTENDED),
        ("-i", Form.SCREEN),
        ("-i -b", Form.BATCH),
        ("-B", Form.BATCH),
        ("-C", Form.CSV),
        ("-i -C", Form.CSV),
        ("-b -C", Form.CSV),
        ("-j", Form.JSON),
    ],
)
def test_forms(arguments: str, form: Form) -> None:
    assert plan(*arguments.split()).form is form


def test_what() -> None:
    found = plan("-i", "-a", "-d", "-o", "-l", "-f", "xbb0", "-s", "busy", "-n", "7", "-t", "xbbi")
    assert (found.deletes, found.others, found.latency) == (True, True, Latency.ALWAYS)
    assert (found.choice.active, found.choice.filter, found.choice.sort) == (True, "xbb0", "%busy")
    assert (found.choice.most, found.choice.types) == (7, (frozenset({"xbbi"}),))
    names = plan("dev.xbbd.1", "xbb0", "dev.xbbd.2", "xbbi7", "xbbi8").choice
    assert (names.names[0], names.most) == ("xbb1", 7)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("-w 0", "must be 0.001 at least"),
        ("-w nan", "must be 0.001 at least"),
        ("-w inf", "at most"),
        ("-w soon", "must be a number"),
        ("-c 0", "must be 1 at least"),
        ("-c 1.5", "must be a number"),
        ("-n -1", "must be 0 at least"),
        ("1 2 3", "drives come first"),
        ("1 xbb0", "must be a number"),
        ("da0", "must be like xbb0"),
        ("-f (", "invalid filter"),
        ("-s size", "cannot sort"),
        ("-t disk", "unknown match item"),
        ("-x -i", "exclude each other"),
        ("-x -C", "exclude each other"),
        ("-j -i", "exclude each other"),
        ("-i -I", "of iostat's"),
        ("-x -o", "of gstat's"),
        ("-x -l", "of gstat's"),
        ("-v", "is of -x"),
        ("-j -v", "has what it shows anyway"),
    ],
)
def test_what_makes_no_sense(
    arguments: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


def test_extended(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    time = FakeTime()
    assert called(daemon, "-x", "-w", "1", "-c", "2", "xbb0", time=time) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[2].split() == ["xbb0", "6", "4", "24.0", "32.0", "1.667", "5.000", "0.000",
                                "3.000", "1", "2", "0"]  # fmt: skip
    assert lines[5].split() == ["xbb0", "60", "40", "240.0", "320.0", "1.667", "5.000", "0.000",
                                "3.000", "1", "25", "0"]  # fmt: skip
    assert time.slept == [1.0]
    assert daemon.latency_asked == 0


def test_by_the_host(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink(daemon.directory, os.path.join(daemon.directory, "run"))
    assert main(["--host", f"sim:{daemon.directory}"], FakeTime().clock()) == 0
    assert capsys.readouterr().out.startswith("            xbb0            xbbi0\n")


def test_json(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(daemon, "-j", "-c", "2") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in found] == ["xbb0", "xbbi0"] * 2
    assert found[3]["read"]["latency_ms"]["p50"] == pytest.approx(0.026623)


@pytest.mark.parametrize("form", ["-x", "-xI", "-b", "-C"])
def test_who_serves_it(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    served = {"process": 4711, "process_rss_kb": 5300, "process_age": 70, "takeovers": 3}
    device = daemon.device
    monkeypatch.setattr(
        daemon, "device", lambda unit, latency: {**device(unit, latency=latency), **served}
    )
    for options, shown in (([form], False), ([form, "-v"], True)):
        assert called(daemon, *options, "-c", "1", "-w", "1") == 0
        words = re.split(r"[ ,\n]+", capsys.readouterr().out)
        assert ({"4711", "5300", "70", "3"} <= {*words}) is shown
        assert ("takeovers" in words) is shown


def test_two_hundred_disks(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.disks = 200
    assert called(daemon, "-x", "-c", "2", "-s", "busy") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 * (2 + 400)


def test_no_daemon(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["-x"], ["-x", "1"], ["-j"]):
        assert main(["--state-dir", str(short_path), *options], FakeTime().clock()) == 1
        assert capsys.readouterr().err.startswith("xbbstat: no xbbd listens at ")


def test_no_such_device(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(daemon, "xbb5") == 1
    assert capsys.readouterr() == ("", "xbbstat: xbb5: no such device\n")


def test_an_answer_that_is_none(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "device", lambda unit, latency: {"xbb": 5})
    assert called(daemon) == 1
    assert "unexpected answer" in capsys.readouterr().err


def test_the_daemon_restarts(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    time = FakeTime()
    sleep = time.sleep

    def restart(seconds: float) -> None:
        sleep(seconds)
        match len(time.slept):
            case 1:
                daemon.stop()
            case 3:
                daemon.asked = 0
                daemon.pid += 1
                daemon.start()

    time.sleep = restart  # type: ignore[method-assign]
    assert called(daemon, "-xI", "-w", "1", "-c", "3", "xbb0", time=time) == 0
    output = capsys.readouterr()
    reads = [line.split()[1] for line in output.out.splitlines() if line.startswith("xbb0")]
    assert reads == ["60.0", "60.0", "60.0"]
    assert len(time.slept) == 5
    assert output.err.count("\n") == 1
    assert output.err.endswith("is it running?; waiting\n")


def test_a_restart_between_two_samples(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    time = FakeTime()
    sleep = time.sleep

    def restart(seconds: float) -> None:
        sleep(seconds)
        daemon.pid += 1
        daemon.asked += 50

    time.sleep = restart  # type: ignore[method-assign]
    assert called(daemon, "-xI", "-c", "2", "xbb0", time=time) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[5].split()[1] == "3120.0"  # all there is, not the difference
    assert output.err == ""


def test_no_terminal(daemon: Daemon) -> None:
    with process(daemon, "-i", stdin=subprocess.DEVNULL) as child:
        output, errors = child.communicate(timeout=GIVE_UP)
    assert (child.returncode, output) == (1, "")
    assert errors == "xbbstat: -i needs a terminal; -b, -B, -C and -j do without\n"


@pytest.mark.parametrize("options", [["-x", "0.01"], ["-C", "-w", "0.01"], ["-j", "0.01"]])
def test_a_reader_that_leaves(daemon: Daemon, options: list[str]) -> None:
    with process(daemon, *options) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait(GIVE_UP) == 128 + signal.SIGPIPE
        assert child.stderr.read() == ""


@pytest.mark.parametrize("options", [["-x"], ["-j"], ["-b"], ["-C", "-c", "1"]])
def test_a_reader_that_was_never_there(daemon: Daemon, options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with process(daemon, *options, stdout=writer, env=environment) as child:
        os.close(writer)
        assert child.wait(GIVE_UP) == 128 + signal.SIGPIPE
        assert child.stderr is not None
        assert child.stderr.read() == ""


@pytest.mark.parametrize(("options", "status"), [(["-x"], 0), (["-B"], 130), (["-j"], 130)])
def test_an_interrupt(daemon: Daemon, options: list[str], status: int) -> None:
    with process(daemon, *options, "-w", "0.2") as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=GIVE_UP)
    assert (child.returncode, errors) == (status, "")


def test_a_full_disk_is_an_error(daemon: Daemon) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    command = [sys.executable, "-m", "xbbd_bsd.xbbstat", "--state-dir", daemon.directory, "-x"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=GIVE_UP
        )
    assert done.returncode == 1
    assert done.stderr.startswith("xbbstat: ")
    assert "Traceback" not in done.stderr


def test_no_control_character_reaches_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    xbbstat._warn("the daemon says \x1b[2J")
    assert capsys.readouterr().err == "xbbstat: the daemon says \\x1b[2J\n"
