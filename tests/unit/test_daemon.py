"""The daemon's own part: options, pid file, signals, reload, the way out."""

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.xenbus_bench import FakeFamily, ServerThread
from tests.waiting import GIVE_UP
from xbbd_bsd import daemon, logs
from xbbd_bsd.block.family import BlockFamily
from xbbd_bsd.config import Config, DaemonConfig, GuestConfig
from xbbd_bsd.daemon import Daemon, Ending, main
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import DiskGeometry, Links, MediumName, RingDescriptors
from xbbd_bsd.host.choice import detect, run_directory
from xbbd_bsd.host.resources import Resources
from xbbd_bsd.native import HvKind
from xbbd_bsd.net.family import NetFamily
from xbbd_bsd.places import locked
from xbbd_bsd.xenbus.states import Queue
from xbbd_bsd.xenstore.client import Store

# A host without guests: only the store is there.
HOSTED = """
import sys
from xbbd_bsd import checks, daemon
from xbbd_bsd.host.resources import Resources
class Host:
    name, hv, store_path, media = "test", 0, sys.argv.pop(1), {}
    transports = ("best", "map", "copy")
    resources = Resources(4096, 1000, 1 << 20, 1 << 30)
    def check_kinds(self, kinds): pass
checks.detect = lambda spec: Host()
sys.exit(daemon.main())
"""


class StoreOnly:
    """A host in which no guest ever offers a ring."""

    name = "test"
    hv = HvKind.SIM
    media: Mapping[str, MediumName] = {}
    transports: Collection[str] = ("best", "map", "copy")
    links = Links("vif", multi=True, offload="full", told=True)
    resources = Resources(4096, 1000, 1 << 20, 1 << 30)

    def __init__(self, store_path: str) -> None:
        self.store_path = store_path

    def check_kinds(self, kinds: Collection[str]) -> None:
        if kinds == ("vbd",):
            raise OperatorError("somebody else serves vbd")

    grant_path = ""

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        raise HostError("no rings here")

    def prepare_disk(self, fd: int) -> DiskGeometry:
        raise HostError("no disks here")

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        raise AssertionError

    def disk_size(self, fd: int) -> int:
        raise HostError("no disks here")


class Quotas:
    """What limits processor time, or not."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.prepared: list[int] = []
        self.asked: list[tuple[int, int]] = []

    def quotas(self) -> "Quotas":
        return self

    def prepare(self, percent: int) -> None:
        self.prepared.append(percent)
        if self.refusal:
            raise OperatorError(self.refusal)

    def place(self, domid: int, percent: int) -> None:
        self.asked.append((domid, percent))


@pytest.fixture
def server(short_path: Path) -> Iterator[ServerThread]:
    server = ServerThread(short_path)
    yield server
    server.stop()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "xbbd.conf"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}"\n')
    return path


def hosted(server: ServerThread, conf: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOSTED, server.socket, "-f", str(conf), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GIVE_UP
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.002)


def test_check_of_a_good_file_is_quiet(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", "-f", str(conf)]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[disk]\nworkers = 0\n", "2: [disk] workers = 0: must be a whole number, 1 to 64\n"),
        (
            "[disk\n",
            "1: is no TOML: Expected ']' at the end of a table declaration (column 6)\n",
        ),
    ],
)
def test_check_of_a_bad_file_says_where(
    conf: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    conf.write_text(text)
    assert main(["-t", "-f", str(conf)]) == 1
    assert capsys.readouterr() == ("", f"xbbd: {conf}:{message}")


def test_a_file_that_was_asked_for_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-t", "-f", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"xbbd: {tmp_path}/none: no such file\n"


@pytest.mark.parametrize("spec", ["xen", "sim", "sim:"])
def test_hosts_that_are_none(spec: str) -> None:
    with pytest.raises(OperatorError, match=f"^--host {spec}: must be sim:DIR, a simulated"):
        detect(spec)


@pytest.mark.skipif(os.path.exists("/dev/xen/gntdev"), reason="this computer has Xen")
def test_no_xen_is_said_plainly() -> None:
    with pytest.raises(OperatorError, match=r"Xen.* --host sim:DIR"):
        detect(None)


def test_places() -> None:
    assert run_directory(None) == "/var/run/xbbd"
    assert run_directory("sim:/tmp/m") == "/tmp/m/run"
    assert run_directory("sim:m") == f"{os.getcwd()}/m/run"


def test_what_somebody_else_serves_is_not_served(tmp_path: Path) -> None:
    config = Config(daemon=DaemonConfig(kinds=("vbd",)))
    with pytest.raises(OperatorError, match=r"^somebody else serves vbd$"):
        Daemon(StoreOnly("/nowhere"), config, None, str(tmp_path))


def test_without_a_store_it_says_so(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="XenStore does not answer: "):
        Daemon(StoreOnly(str(tmp_path / "none")), Config(), str(conf), str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(
    server: ServerThread, conf: Path, tmp_path: Path, number: signal.Signals
) -> None:
    running = Daemon(StoreOnly(server.socket), Config(), str(conf), str(tmp_path))
    running._loop.call_soon(os.kill, os.getpid(), number)
    assert running.run() is Ending.CLEAN


def test_each_guests_process_has_the_time_that_is_configured(
    server: ServerThread, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas = Quotas()
    monkeypatch.setattr(daemon, "platform", lambda: quotas)
    guest = GuestConfig(processes=True, user="root", cpu_percent=50)
    running = Daemon(StoreOnly(server.socket), Config(guest=guest), str(conf), str(tmp_path))
    assert quotas.prepared == [50], "before there is a server that has to be limited"
    assert running._guests is not None
    terms = running._guests.processes._terms()
    terms.place(7)
    assert quotas.asked == [(7, 50)]
    assert terms.confinement.cpu_percent == 50
    running._loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
    assert running.run() is Ending.CLEAN


def test_nobody_is_served_without_the_limit_that_is_configured(
    server: ServerThread, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "platform", lambda: Quotas("no control groups"))
    config = Config(guest=GuestConfig(processes=True, cpu_percent=50))
    with pytest.raises(OperatorError, match=r"^no control groups$"):
        Daemon(StoreOnly(server.socket), config, str(conf), str(tmp_path))


def test_reload_applies_the_difference(
    server: ServerThread, conf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xbbd")
    running = Daemon(StoreOnly(server.socket), Config(), str(conf), str(tmp_path))

    later = f"{tmp_path}/x"

    def hup(text: str) -> None:
        conf.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)

    steps: list[Callable[[], None]] = [
        lambda: hup(f"[disk]\nworkers = 3\n[daemon]\nkinds = ['vbd3']\npidfile = '{later}'\n"),
        lambda: hup("[disk]\nworkers = 0\nmax_queues = 9\n"),
        lambda: None,  # a line for each
        lambda: hup("[daemon]\nkinds = ['vbd']\n"),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
    ]

    def step() -> None:
        steps.pop(0)()

    class Next(logging.Handler):
        """Each line of the log lets the next thing happen."""

        def emit(self, record: logging.LogRecord) -> None:
            if steps:
                running._loop.call_soon(step)

    handler = Next()
    logging.getLogger("xbbd").addHandler(handler)
    assert running.run() is Ending.CLEAN
    logging.getLogger("xbbd").removeHandler(handler)
    assert [record.getMessage() for record in caplog.records] == [
        "serving vbd, vbd3 on test",
        'configuration read again: daemon.kinds ["vbd", "vbd3"] -> ["vbd3"];'
        f' daemon.pidfile none -> "{later}" (at the next start); disk.workers 8 -> 3,'
        " by SIGHUP",
        f"configuration not changed: {conf}:2: [disk] workers = 0: must be a whole number, 1 to 64",
        f"configuration not changed: {conf}:3: [disk] max_queues = 9:"
        " must be a whole number, 1 to 8",
        f'configuration not changed: {conf}:2: [daemon] kinds = ["vbd"]: somebody else serves vbd',
        "SIGTERM: leaving, 0 devices to close within 5 s",
        "stopped",
    ]
    assert running._config.disk.workers == 3
    for family in running._families.values():
        assert isinstance(family, BlockFamily | NetFamily)
        assert family.config.disk.workers == 3


def test_devices_that_hold_nothing_do_not_delay_the_end(
    server: ServerThread, conf: Path, tmp_path: Path
) -> None:
    running = Daemon(StoreOnly(server.socket), Config(), str(conf), str(tmp_path))
    toolstack = Store(server.socket, loop=running._loop)
    toolstack.connect()
    toolstack.write("/local/domain/5/device/vbd/1/state", b"1")
    toolstack.write("backend/vbd/5/1/state", b"1")
    toolstack.write("backend/vbd/5/1/frontend-id", b"5")
    toolstack.write("backend/vbd/5/1/frontend", b"/local/domain/5/device/vbd/1")

    def offered(path: str) -> None:
        if toolstack.get("backend/vbd/5/1/state") == b"2":
            os.kill(os.getpid(), signal.SIGTERM)

    toolstack.watch("backend/vbd/5/1/state", offered)
    began = running._loop.time()
    assert running.run() is Ending.CLEAN
    assert time.monotonic() - began < daemon.STOP_SECONDS
    assert not list(tmp_path.glob("xbbd.[0-9]*"))


@pytest.mark.slow
def test_one_daemon_a_pid_file(server: ServerThread, conf: Path, tmp_path: Path) -> None:
    first = hosted(server, conf, "-d")
    assert first.stderr is not None
    assert first.stderr.readline() == "xbbd: serving vbd, vbd3 on test\n"
    pidfile = tmp_path / "xbbd.pid"
    assert pidfile.read_text() == f"{first.pid}\n"
    second = hosted(server, conf, "-d")
    assert second.communicate(timeout=GIVE_UP)[1] == (
        f"xbbd: already running, pid {first.pid} ({pidfile})\n"
    )
    assert second.returncode == 1
    first.terminate()
    assert first.communicate(timeout=GIVE_UP)[1].splitlines() == [
        "xbbd: SIGTERM: leaving, 0 devices to close within 5 s",
        "xbbd: stopped",
    ]
    assert first.returncode == 0
    assert not pidfile.exists()


@pytest.mark.slow
def test_a_daemon_that_was_killed_leaves_no_lock(
    server: ServerThread, conf: Path, tmp_path: Path
) -> None:
    first = hosted(server, conf, "-d")
    assert first.stderr is not None
    first.stderr.readline()
    first.kill()
    first.communicate(timeout=GIVE_UP)
    assert (tmp_path / "xbbd.pid").exists()
    second = hosted(server, conf, "-d")
    assert second.stderr is not None
    assert second.stderr.readline() == "xbbd: serving vbd, vbd3 on test\n"
    second.terminate()
    second.communicate(timeout=GIVE_UP)
    assert second.returncode == 0


@pytest.mark.slow
def test_detached(server: ServerThread, conf: Path, tmp_path: Path) -> None:
    starter = hosted(server, conf)
    assert starter.communicate(timeout=GIVE_UP)[1] == ""
    assert starter.returncode == 0
    pidfile = tmp_path / "xbbd.pid"
    pid = int(pidfile.read_text())
    assert pid != starter.pid
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: not pidfile.exists())


@pytest.mark.slow
def test_detached_and_failing_at_once(server: ServerThread, conf: Path, tmp_path: Path) -> None:
    server.stop()
    starter = hosted(server, conf)
    error = starter.communicate(timeout=GIVE_UP)[1]
    server.start()
    assert error.startswith("xbbd: XenStore does not answer: ")
    assert starter.returncode == 1
    until(lambda: not (tmp_path / "xbbd.pid").exists())


def test_requests_that_do_not_end_do_not_keep_it(
    server: ServerThread,
    conf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    family = FakeFamily()
    monkeypatch.setattr(daemon, "families", lambda _: {"vbd": family, "vbd3": family})
    monkeypatch.setattr(daemon, "STOP_SECONDS", 0.02)
    running = Daemon(StoreOnly(server.socket), Config(), str(conf), str(tmp_path))
    toolstack = Store(server.socket, loop=running._loop)
    toolstack.connect()
    toolstack.write("/local/domain/5/device/vbd/1/state", b"3")
    toolstack.write("backend/vbd/5/1/physical-device-path", b"/dev/null")
    toolstack.write("backend/vbd/5/1/frontend-id", b"5")
    toolstack.write("backend/vbd/5/1/state", b"1")
    toolstack.write("backend/vbd/5/1/frontend", b"/local/domain/5/device/vbd/1")

    def connected(path: str) -> None:
        if toolstack.get("backend/vbd/5/1/state") == b"4":
            os.kill(os.getpid(), signal.SIGTERM)

    toolstack.watch("backend/vbd/5/1/state", connected)
    assert running.run() is Ending.STUCK
    assert caplog.messages[-1].startswith("giving up on xbbd0 (vbd/5/1): ")
    (backend,) = family.backends.values()
    assert backend.queue is Queue.DRAINING
    toolstack.close()
    running._store.close()
    running._loop.close()


def test_nobody_else_can_lock_the_pid_file(tmp_path: Path) -> None:
    """flock(2) needs no more than to read it; an old one may have been readable."""
    path = tmp_path / "xbbd.pid"
    path.touch(0o644)
    with locked(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_what_came_of_the_start(server: ServerThread, conf: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    running = hosted(server, conf, "-d", "--report", str(report))
    until(report.exists)
    assert report.read_text() == f"{running.pid} serving {tmp_path}\n"
    second = hosted(server, conf, "-d", "--report", str(report))
    assert "already running" in second.communicate(timeout=GIVE_UP)[1]
    assert report.read_text() == (
        f"{second.pid} failed already running, pid {running.pid} ({tmp_path}/xbbd.pid)\n"
    )
    assert os.listdir(tmp_path).count("report.new") == 0
    running.terminate()
    running.communicate(timeout=GIVE_UP)


@pytest.mark.slow
def test_a_report_that_cannot_be_written_keeps_nobody_from_being_served(
    server: ServerThread, conf: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "report.new").symlink_to(victim)
    running = hosted(server, conf, "-d", "--report", str(tmp_path / "report"))
    assert running.stderr is not None
    assert running.stderr.readline().startswith(f"xbbd: report {tmp_path}/report: ")
    assert running.stderr.readline() == "xbbd: serving vbd, vbd3 on test\n"
    running.terminate()
    running.communicate(timeout=GIVE_UP)
    assert victim.read_text() == "precious"


def test_a_report_is_for_the_foreground(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--report", "x"])
    assert "--report is for those who start it with -d" in capsys.readouterr().err


EVIL = "/tank/\x1b]0;owned\x07\udcff"
HARMLESS = "/tank/\\x1b]0;owned\\x07\\xff"


def test_no_control_character_reaches_terminal_or_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback keeps its lines on a terminal; syslog(3) has one line each."""
    try:
        raise OSError(5, "Input/output error", EVIL)
    except OSError:
        record = logging.LogRecord(
            "asyncio", logging.ERROR, "", 0, "task %s", (EVIL,), sys.exc_info()
        )
    text = logs.Plain("xbbd: %(message)s").format(record)
    assert text.startswith(f"xbbd: task {HARMLESS}\nTraceback (most recent call last):\n")
    assert all(line.isprintable() for line in text.split("\n"))
    sent: list[tuple[int, str]] = []
    monkeypatch.setattr("syslog.syslog", lambda *given: sent.append(given))
    monkeypatch.setattr("syslog.openlog", lambda *given: None)
    logs.Syslog().emit(record)
    ((priority, line),) = sent
    assert priority == 3  # LOG_ERR
    assert line.startswith(f"task {HARMLESS} | Traceback")
    assert line.isprintable()


def test_no_control_character_of_a_configuration_reaches_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-t", "-f", f"{tmp_path}/\x1b[2J"]) == 1
    assert capsys.readouterr().err == f"xbbd: {tmp_path}/\\x1b[2J: no such file\n"
