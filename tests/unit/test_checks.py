"""What this host refuses of a configuration, and what of it is the daemon's own."""

import fcntl
import grp
import os
import pwd
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests.unit.test_daemon import StoreOnly
from xbbd_bsd import checks
from xbbd_bsd.checks import Places, Running, check_start, faults, find_running, prepare
from xbbd_bsd.conftext import examine
from xbbd_bsd.errors import HostError, OperatorError, Refused
from xbbd_bsd.host import NoXen


class Elsewhere(StoreOnly):
    """A host on which nobody minds, and whose store is away."""

    def check_kinds(self, kinds: Collection[str]) -> None:
        if "vbd" in kinds:
            raise OperatorError("the kernel serves vbd")


def found(text: str, places: Places, host: StoreOnly | None = None, **more: object) -> list[str]:
    reading = examine(text, "f")
    assert reading.faults == ()
    return [str(fault) for fault in faults(reading, places, host, **more)]  # type: ignore[arg-type]


def of(text: str) -> Places:
    return Places.of(examine(text, "f").config, "sim:/nowhere")


@pytest.fixture
def places(short_path: Path) -> Places:
    return Places(str(short_path), str(short_path / "xbbd.pid"))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_places() -> None:
    assert of("") == Places("/nowhere/run", "/nowhere/run/xbbd.pid")
    assert of("[daemon]\nstate_dir = '/a'") == Places("/a", "/a/xbbd.pid")
    assert of("[daemon]\nstate_dir = '/a'\npidfile = '/b'") == Places("/a", "/b")


def test_nothing_to_say(places: Places) -> None:
    assert found("", places) == []
    assert found("[daemon]\nkinds = ['vbd3']", places, Elsewhere("")) == []


def test_kinds_that_this_host_has_not(places: Places) -> None:
    assert found("[daemon]\nkinds = ['vbd']", places, Elsewhere("")) == [
        'f:2: [daemon] kinds = ["vbd"]: the kernel serves vbd'
    ]
    (line,) = found("", places, Elsewhere(""))
    assert line == '[daemon] kinds = ["vbd", "vbd3"]: the kernel serves vbd', "by default, no line"


def test_ways_of_data_that_this_host_has_not(places: Places) -> None:
    """No guest could connect: the data path refuses them too."""
    host = Elsewhere("")
    host.transports = ("best", "map")
    text = (
        "[daemon]\nkinds = ['vbd3']\n[disk]\ntransport = 'copy'\n[[override]]\npath = 'x'\n"
        "workers = 1\n[[override]]\npath = '/y'\ntransport = 'copy'\n[[override]]\npath = '/z'\n"
        "transport = 'map'\n"
    )
    reading = examine(text, "f")
    assert len(reading.faults) == 1
    assert list(map(str, faults(reading, places, host))) == [
        'f:4: [disk] transport = "copy": this host has only "best", "map"',
        'f:10: [[override]] 2 transport = "copy": this host has only "best", "map"',
    ]
    assert faults(reading, places, None) == ()


def test_groups(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = grp.getgrgid(os.getegid()).gr_name
    assert found(f"[daemon]\ngroup = '{ours}'", places) == []
    assert found("[daemon]\ngroup = 'no-such-group'", places) == [
        'f:2: [daemon] group = "no-such-group": there is no such group'
    ]
    other = next(group for group in grp.getgrall() if group.gr_gid != os.getegid())
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getgroups", list)
    (line,) = found(f"[daemon]\ngroup = '{other.gr_name}'", places)
    assert line.endswith("only root, or one of its members, can give sockets to it")


def test_processors_of_guests_processes(places: Places) -> None:
    """Whether or not they are used yet: another start may do that."""
    assert found("[guest]\ncpus = '0'", places) == []
    for more in ("", "processes = false\n", f"processes = true\nuser = '{user()}'\n"):
        (line,) = found(f"[guest]\n{more}cpus = '0,1023'", places)
        assert line.endswith('[guest] cpus = "0,1023": there is no processor 1023')
        assert line.startswith(f"f:{2 + more.count(chr(10))}:")


class Quotas:
    """Of a system on which only process 4711 could limit others."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []

    def quotas(self) -> "Quotas":
        return self

    def check(self, pid: int | None) -> None:
        self.asked.append(pid)
        if pid != 4711:
            raise OperatorError("not here")


def test_limits_of_processor_time(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the daemon in question, which is not always who asks."""
    quotas = Quotas()
    monkeypatch.setattr(checks, "platform", lambda: quotas)
    text = "[guest]\ncpu_percent = 50\n"
    said = "f:2: [guest] cpu_percent = 50: not here"
    assert found("[guest]\ncpu_percent = 0", places) == []
    assert found(text, places) == [said]
    assert found(text, places, pid=4711) == []
    assert quotas.asked == [None, 4711]
    path = tmp_path / "f"
    path.write_text(text)
    monkeypatch.setattr(checks, "detect", lambda _: Elsewhere(""))
    monkeypatch.setattr(checks, "check_host", lambda _: None)
    monkeypatch.setattr(checks, "check_not_locked", lambda *_: None)
    for attempt in (prepare, check_start):
        with pytest.raises(Refused, match=r"cpu_percent = 50: not here"):
            attempt(str(path), "sim:/nowhere")
    monkeypatch.setattr(checks, "find_running", lambda *_: Running(places, None))
    for owner in ("unknown", None, "4711"):
        monkeypatch.setattr(checks, "owner_of", {places.pidfile: owner}.get)
        with pytest.raises(Refused) as refused:
            check_start(str(path), "sim:/nowhere")
        assert any("cpu_percent" in line for line in refused.value.lines) == (owner != "4711")
    assert quotas.asked[2:] == [os.getpid(), None, None, None, 4711]


def user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def test_state_dir(tmp_path: Path) -> None:
    text = f"[daemon]\nstate_dir = '{tmp_path}/a/b'"
    (line,) = found(text, of(text))
    assert line == f'f:2: [daemon] state_dir = "{tmp_path}/a/b": No such file or directory'
    long = tmp_path / ("x" * 120)
    text = f"[daemon]\nstate_dir = '{long}'"
    (line,) = found(text, of(text))
    assert line.endswith("too long a path for the control socket in it")


def test_a_default_is_looked_at_where_there_is_a_host(tmp_path: Path) -> None:
    there = Places(f"{tmp_path}/a/b", f"{tmp_path}/a/b/xbbd.pid")
    assert found("", there) == []
    (line,) = found("[daemon]\nkinds = ['vbd3']", there, Elsewhere(""))
    assert line == f'[daemon] state_dir = "{tmp_path}/a/b": No such file or directory'


def test_pid_files(tmp_path: Path) -> None:
    head = f"[daemon]\nstate_dir = '{tmp_path}/run'\npidfile = "
    text = f"{head}'{tmp_path}/none/x.pid'"
    (line,) = found(text, of(text))
    assert line == (
        f'f:3: [daemon] pidfile = "{tmp_path}/none/x.pid": its directory: No such file or directory'
    )
    text = f"{head}'{tmp_path}/run/x.pid'"
    assert found(text, of(text)) == [], "a start makes its directory"
    for name in ("control", "xbbd.12", "lost.a", "../run/control"):
        text = f"{head}'{tmp_path}/run/{name}'"
        (line,) = found(text, of(text))
        assert line.endswith("is another file of ours")


def test_what_is_kept_is_not_looked_at(tmp_path: Path) -> None:
    text = f"[daemon]\nstate_dir = '{tmp_path}/a/b'\npidfile = '{tmp_path}/a/x'"
    assert len(found(text, of(text))) == 2
    assert found(text, of(text), kept=of(text)) == []
    (line,) = found(text, of(text), kept=Places(f"{tmp_path}/a/b", "/"))
    assert " pidfile = " in line


def test_metrics(places: Places, short_path: Path, taken: int) -> None:
    pytest.importorskip("prometheus_client")

    def refusal(address: str, running: Running | None = None) -> str:
        lines = found(f'[daemon]\nmetrics = "{address}"', places, running=running)
        assert os.listdir(short_path) == before
        return lines[0].removeprefix(f'f:2: [daemon] metrics = "{address}": ') if lines else ""

    stale, busy = short_path / "stale", short_path / "busy"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    (short_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(busy))
        listener.listen()
        before = os.listdir(short_path)
        assert refusal(f"127.0.0.1:{taken}") == "Address already in use"
        assert refusal(str(busy)) == "Address already in use"
        assert refusal(str(stale)) == ""
        assert refusal(str(short_path / "new")) == ""
        assert refusal(str(short_path / "file")) == "there is something else of that name"
        assert refusal(str(short_path / "no" / "x")) == "No such file or directory"
        assert refusal(str(short_path / ("x" * 120))) == "AF_UNIX path too long"
        for name in ("control", "xbbd.0", "lost.x"):
            assert refusal(str(short_path / name)) == "is another file of ours"
        assert refusal(places.pidfile) == "is another file of ours"
        for address in (f"127.0.0.1:{taken}", str(busy)):
            assert refusal(address, running=Running(places, address)) == ""
            assert refusal(address, running=Running(places, None)) == "", "it does not say"
            assert refusal(address, running=Running(places, "")) == "Address already in use"


def test_metrics_without_their_library(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    (line,) = found("[daemon]\nmetrics = '127.0.0.1:9531'", places)
    assert "metrics need the Python package prometheus_client: install" in line


def test_a_key_that_is_wrong_is_not_looked_at_as_well(tmp_path: Path) -> None:
    """Or its default would be blamed for what stands there."""
    reading = examine("[daemon]\nstate_dir = 'run'\npidfile = 1\nkinds = ['x']", "f")
    assert len(reading.faults) == 3
    nowhere = Places(f"{tmp_path}/a/b", f"{tmp_path}/a/b/xbbd.pid")
    assert faults(reading, nowhere, Elsewhere("")) == ()


def test_defaults_are_not_blamed_for_what_could_not_be_read(tmp_path: Path) -> None:
    """A line that is no TOML may have been the key."""
    nowhere = Places(f"{tmp_path}/a/b", f"{tmp_path}/a/b/xbbd.pid")
    for text in ("[daemon]\nkinds = [vbd3]", "[daemon\nkinds = ['vbd3']"):
        reading = examine(text, "f")
        assert len(reading.faults) == 1
        assert faults(reading, nowhere, Elsewhere("")) == ()
    reading = examine("[daemon]\nlog = [data]\nkinds = ['vbd']", "f")
    (fault,) = faults(reading, nowhere, Elsewhere(""))
    assert str(fault) == 'f:3: [daemon] kinds = ["vbd"]: the kernel serves vbd'


def test_the_state_directory_by_another_way(tmp_path: Path) -> None:
    """As /run/xbbd, which Linux has as /var/run/xbbd too, and not before it is started."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    head = f"[daemon]\nstate_dir = '{tmp_path}/link/x'\n"
    text = f"{head}pidfile = '{tmp_path}/run/x/our.pid'"
    assert found(text, of(text)) == []
    text = f"{head}pidfile = '{tmp_path}/run/x/control'"
    (line,) = found(text, of(text))
    assert line.endswith("is another file of ours")


def test_all_at_once_for_a_start_and_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same lines, but that a check asks further."""
    path = tmp_path / "f"
    path.write_text(f"[daemon]\nstate_dir = '{tmp_path}/a/b'\ngroup = 'nosuch'\n[disk]\nwork = 1\n")
    monkeypatch.setattr(checks, "detect", lambda _: Elsewhere(str(tmp_path / "none")))
    lines = []
    for attempt in (prepare, check_start):
        with pytest.raises(Refused) as raised:
            attempt(str(path), None)
        lines.append([line.removeprefix(f"{path}:") for line in raised.value.lines])
    assert [line.split(":")[0] for line in lines[0]] == [
        "2",
        "3",
        "5",
        '[daemon] kinds = ["vbd", "vbd3"]',
    ]
    assert lines[1][:4] == lines[0]
    (more,) = lines[1][4:]
    assert more.startswith("XenStore does not answer: ")
    assert "Errno" not in more


def test_a_computer_without_xen_is_no_fault_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_xen(_: str | None) -> StoreOnly:
        raise NoXen("no Xen here")

    def xen_that_is_broken(_: str | None) -> StoreOnly:
        raise HostError("no driver")

    path = tmp_path / "f"
    path.write_text("")
    monkeypatch.setattr(checks, "detect", no_xen)
    check_start(str(path), None)
    with pytest.raises(Refused, match=r"^no Xen here$"):
        prepare(str(path), None)
    monkeypatch.setattr(checks, "detect", xen_that_is_broken)
    for attempt in (prepare, check_start):
        with pytest.raises(Refused, match=r"^no driver$"):
            attempt(str(path), None)


def test_a_pid_file_that_somebody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the daemon's to be started again if he lives, whether he answers or not."""
    monkeypatch.setattr(checks, "_lives", {77: False, 78: True}.__getitem__)
    pidfile = tmp_path / "x.pid"
    places = Places(str(tmp_path / "run"), str(pidfile))
    assert find_running(places, None, "f") is None
    with pidfile.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("78\n")
        held.flush()
        running = find_running(places, None, "f")
        assert running == Running(places, None)
        checks.check_not_locked(places, running)
        held.seek(0)
        held.write("77\n")
        held.flush()
        running = find_running(places, None, "f")
        assert running is None
        with pytest.raises(OperatorError, match=r"^already running, pid 77 \("):
            checks.check_not_locked(places, running)
        with pytest.raises(OperatorError, match="already running"):
            checks.check_not_locked(places, Running(Places("/", "/other"), ""))


def test_which_daemon_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one where the file says, or the usual one if that file is its own."""
    usual = {
        "hw.xbbd.state_dir": "/sim/run",
        "hw.xbbd.pidfile": "/sim/run/xbbd.pid",
        "hw.xbbd.metrics": "/m",
        "hw.xbbd.configuration_file": "/f",
    }
    answers = {"/sim/run": usual}
    monkeypatch.setattr(checks, "_answering", answers.get)
    running = Running(Places("/sim/run", "/sim/run/xbbd.pid"), "/m")
    assert find_running(running.places, "sim:/sim", "/other") == running
    elsewhere = Places(str(tmp_path), str(tmp_path / "x"))
    assert find_running(elsewhere, "sim:/sim", "/f") == running
    assert find_running(elsewhere, "sim:/sim", "/other") is None
    assert find_running(elsewhere, None, "/f") is None
