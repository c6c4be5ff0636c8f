"""xbbctl by sysctl's manners, against a real control socket with devices that are none."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.players import NAMES, Device, tree_of
from tests.unit.players import Daemon as DaemonLeaves
from xbbd_bsd import xbbctl
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.control import protocol
from xbbd_bsd.control.server import ControlServer, Rights, Visitor
from xbbd_bsd.ctl.daemon import device_name
from xbbd_bsd.errors import OperatorError, Refused


class Running:
    """A daemon's control socket, and the command."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        self.leaves = DaemonLeaves()
        self.devices = {0: Device(5), 1: Device(1234567, rings=(0,))}
        self.rights = Rights.WRITE
        self.loop = asyncio.new_event_loop()
        self.leaves = DaemonLeaves()
        tree = tree_of(self.leaves, self.devices)
        self.server = ControlServer(
            str(directory / "control"),
            tree.perform,
            self.loop,
            visitor=lambda _: Visitor(self.rights, "root (uid 0)"),
            verbs=DRIVER.verbs,
        )
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, *words: str) -> tuple[int, str, str]:
        """Status, output, errors."""
        status = xbbctl.main(["--state-dir", str(self.directory), *words])
        printed = self.capsys.readouterr()
        return status, printed.out, printed.err

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.server.close()
        self.loop.run_until_complete(asyncio.sleep(0))  # what was being accepted
        self.loop.close()


@pytest.fixture
def daemon(short_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Running]:
    running = Running(short_path, capsys)
    yield running
    running.close()


FLUSH = "dev.xbbd.0.flush_interval"
TEXT = "send a real flush for N flush requests"


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ((FLUSH,), f"{FLUSH}: 0\n"),
        (("-e", FLUSH), f"{FLUSH}=0\n"),
        (("-n", FLUSH), "0\n"),
        (("-N", FLUSH), f"{FLUSH}\n"),
        (("-d", FLUSH), f"{FLUSH}: {TEXT}\n"),
        (("-t", FLUSH), f"{FLUSH}: integer\n"),
        (("-dt", FLUSH), f"{FLUSH}: integer: {TEXT}\n"),
        (("-nd", FLUSH), f"{TEXT}\n"),
        (("-d", f"{FLUSH}=8"), f"{FLUSH}: {TEXT}\n"),
        (("-h", "dev.xbbd.1.wr_req"), "dev.xbbd.1.wr_req: 1,234,567\n"),
        (("-j", FLUSH), json.dumps({FLUSH: 0}, indent=2) + "\n"),
        ((FLUSH, "hw.xbbd.devices"), f"{FLUSH}: 0\nhw.xbbd.devices: 2\n"),
        (("hw.xbbd.devices", "-n", FLUSH), "2\n0\n"),
        (("-W", "hw.xbbd"), "hw.xbbd.log.data: 0\n"),
        (("-T", "-N", "dev.xbbd.0"), f"{FLUSH}\ndev.xbbd.0.disable_flush\ndev.xbbd.0.workers\n"),
        (("-WTt", "dev.xbbd.0.wr_req"), ""),
        (("-i", "nothing", "-n", FLUSH), "0\n"),
    ],
)
def test_values(daemon: Running, words: tuple[str, ...], out: str) -> None:
    assert daemon.run(*words) == (0, out, "")


def test_everything(daemon: Running) -> None:
    status, out, _ = daemon.run("-aN")
    assert status == 0
    assert out.splitlines() == [
        "hw.xbbd.version",
        "hw.xbbd.devices",
        "hw.xbbd.log.data",
        *(f"dev.xbbd.0.{name}" for name in NAMES),
        *(f"dev.xbbd.1.{name}" for name in NAMES),
        "dev.xbbd.1.ring.0.req_cons",
    ]
    described = json.loads(daemon.run("-adj")[1])
    assert list(described) == out.splitlines()
    assert described[FLUSH] == {
        "type": "integer",
        "writable": True,
        "tunable": True,
        "description": TEXT,
    }


def test_assignments(daemon: Running) -> None:
    assert daemon.run(f"{FLUSH}=8") == (0, f"{FLUSH}: 0 -> 8\n", "")
    assert daemon.run(f"{FLUSH}= 0x10", "-e") == (0, f"{FLUSH}=8 -> 16\n", "")
    assert daemon.run("-n", f"{FLUSH}=2", "dev.xbbd.1.wr_req=0") == (
        0,
        "16 -> 2\n1234567 -> 0\n",
        "",
    )
    assert daemon.run("-n", f'{FLUSH}="7"', f"{FLUSH}:6") == (0, "2 -> 7\n7 -> 6\n", "")
    assert daemon.run("-j", f"{FLUSH}=3") == (0, json.dumps({FLUSH: 3}, indent=2) + "\n", "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("nothing",), "unknown oid 'nothing'"),
        (("nothing=1",), "unknown oid 'nothing'"),
        ((f"{FLUSH}=x",), "invalid integer 'x'"),
        ((f"{FLUSH}=",), f"{FLUSH}: empty numeric value"),
        ((f"{FLUSH}=99",), "flush_interval=99: must be 0 to 98"),
        (("hw.xbbd.version=2",), "oid 'hw.xbbd.version' is read only"),
        (("dev.xbbd.0=2",), "oid 'dev.xbbd.0' isn't a leaf node"),
        (("-T", f"{FLUSH}=1"), "Can't set variables when using -T or -W"),
        (("resize", "xbbd7"), "no disk xbbd7"),
        (("log", "disk"), "disk: no device of xbbd, write xbbdN or xnbN as in xbbctl list"),
    ],
)
def test_errors(daemon: Running, words: tuple[str, ...], error: str) -> None:
    assert daemon.run(*words) == (1, "", f"xbbctl: {error}\n")


def test_a_file_that_is_not_there(daemon: Running, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert daemon.run("-f", str(absent)) == (
        1, "", f"xbbctl: {absent}: No such file or directory\n"
    )  # fmt: skip


def test_a_file_that_is_no_text(daemon: Running, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"\xff\n")
    assert daemon.run("-f", str(image)) == (1, "", f"xbbctl: {image}: it is no text in UTF-8\n")


def test_one_error_does_not_stop_the_rest(daemon: Running) -> None:
    assert daemon.run("nothing", f"{FLUSH}=1", "-n") == (
        1, "0 -> 1\n", "xbbctl: unknown oid 'nothing'\n"
    )  # fmt: skip
    assert daemon.run("-q", "nothing", FLUSH) == (1, f"{FLUSH}: 1\n", "")


def test_a_file_comes_first(daemon: Running, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text(f"# comment\n\n{FLUSH}=4 # more\n{FLUSH}\nnothing=1\n {FLUSH} = 5\n")
    assert daemon.run("-f", str(file), f"{FLUSH}=6") == (
        1,
        f"{FLUSH}: 0 -> 4\n{FLUSH}: 4\n{FLUSH}: 4 -> 5\n{FLUSH}: 5 -> 6\n",
        "xbbctl: unknown oid 'nothing' at line 5\n",
    )
    assert daemon.run("-aN", "-f", str(file))[1].startswith("hw.xbbd.version\n"), "only all"
    assert daemon.devices[0].values["tunables"]["flush_interval"] == 6
    file.write_bytes(b"\xff")
    assert daemon.run("-f", str(file))[0] == 1


def test_only_root_writes(daemon: Running) -> None:
    daemon.rights = Rights.READ
    assert daemon.run(FLUSH) == (0, f"{FLUSH}: 0\n", "")
    assert daemon.run(f"{FLUSH}=8") == (
        1, "", f"xbbctl: {FLUSH}=8: Operation not permitted: only root may\n"
    )  # fmt: skip
    assert daemon.run("resize", "0")[0] == 1
    assert daemon.run(FLUSH) == (0, f"{FLUSH}: 0\n", "")
    daemon.rights = Rights.NONE
    assert daemon.run(FLUSH) == (1, "", f"xbbctl: {protocol.DENIED}\n")


def test_no_daemon(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert xbbctl.main(["--state-dir", str(short_path), "-a"]) == 1
    expected = f"xbbctl: no xbbd listens at {short_path}/control: is it running?\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("tool", [0, 2])
def test_a_daemon_of_another_version(
    daemon: Running, monkeypatch: pytest.MonkeyPatch, tool: int
) -> None:
    line = protocol.Request(protocol.Verb.GET).encode().replace(b": 1,", b": %d," % tool)
    monkeypatch.setattr(protocol.Request, "encode", lambda _: line)
    assert daemon.run("-a") == (
        1,
        "",
        f"xbbctl: the daemon speaks version 1 of the control protocol, not {tool}:"
        " restart it, or use its own tools\n",
    )


@pytest.mark.parametrize("words", [(), ("-Nn", "x"), ("-d",)])
def test_usage(daemon: Running, words: tuple[str, ...]) -> None:
    status, out, error = daemon.run(*words)
    assert (status, out) == (1, "")
    assert error.startswith("usage: xbbctl [-dehijNnqtTW] [-f FILE] NAME[=VALUE] ...")


def test_reload(daemon: Running) -> None:
    """What has changed, or everything that is wrong, whatever it has in it."""
    assert daemon.run("reload") == (0, "disk.workers: 8 -> 3\n", "")
    assert json.loads(daemon.run("reload", "-j")[1]) == {
        "disk.workers": {"before": "8", "after": "3", "note": ""}
    }
    daemon.leaves.changes = {"daemon.kinds": ("a", "\x1b", "closes 2 disks of 1 guest")}
    assert daemon.run("reload")[1] == "daemon.kinds: a -> \\x1b (closes 2 disks of 1 guest)\n"
    daemon.leaves.changes = {}
    assert daemon.run("reload") == (0, "nothing has changed\n", "")
    daemon.leaves.changes = Refused(["f:1: one", "f:2: two"])
    assert daemon.run("reload") == (1, "", "xbbctl: f:1: one\nxbbctl: f:2: two\n")
    daemon.rights = Rights.READ
    assert daemon.run("reload") == (
        1,
        "",
        "xbbctl: reload: Operation not permitted: only root may\n",
    )


def test_verbs(daemon: Running) -> None:
    assert daemon.run("resize", "dev.xbbd.1") == (1, "", "xbbctl: xbbd1: no disk is open\n")
    daemon.devices[1].values["medium"]["sectors"] = 8
    assert daemon.run("resize", "xbbd1") == (0, "dev.xbbd.1.sectors: 8 -> 16\n", "")
    assert daemon.run("-j", "resize", "1") == (0, '{"dev.xbbd.1.sectors": 16}\n', "")
    assert daemon.devices[1].looks == 3
    assert daemon.run("clear", "/disk") == (0, "", "")
    message = "xbbctl: /other: it is not known to have lost anything\n"
    assert daemon.run("clear", "/other") == (1, "", message)
    assert daemon.run("inflight") == (0, "DEVICE  RING\nxbbd0      0\nxbbd1      0\n", "")
    assert json.loads(daemon.run("inflight", "-j", "xbb1")[1]) == {"dev.xbbd.1": [{"ring": 0}]}
    _, out, _ = daemon.run("-j", "log", "xbbi0")
    assert json.loads(out) == [{"time": 1.5, "severity": "info", "text": "found"}]
    assert daemon.run("log")[1].endswith(":00.500 info    serving\n")
    assert daemon.run("list") == (
        0,
        "NAME   GUEST  VDEV  MODE  MIB  STATE      PATH\n"
        "xbbd0  7                    0  Connected\n"
        "xbbd1  7                    0  Connected\n",
        "",
    )
    daemon.devices.clear()
    assert daemon.run("list") == (0, "", "")
    assert daemon.run("list", "-j") == (0, "[]\n", "")


def test_a_disk_that_does_not_answer_is_seen(daemon: Running) -> None:
    daemon.devices[0].values["medium"]["hung_seconds"] = 12
    first, second = daemon.run("list")[1].splitlines()[1:]
    assert "Connected, hung 12 s" in first
    assert "hung" not in second
    assert json.loads(daemon.run("list", "-j")[1])[0]["hung"] == 12


@pytest.mark.parametrize("word", ["3", "xbbd3", "xbb3", "xbbi3", "dev.xbbd.3"])
def test_spellings_of_a_device(word: str) -> None:
    assert device_name(word) == "dev.xbbd.3"


@pytest.mark.parametrize("word", ["", "-3", "xbbd", "vbd3", "dev.xbbd.3.mode", "3x"])
def test_no_devices(word: str) -> None:
    with pytest.raises(OperatorError, match="no disk of xbbd"):
        device_name(word)


def test_paths_that_are_no_text(daemon: Running) -> None:
    """Nothing raw reaches a terminal; to programs the name is told whole."""
    name = b"/x\xff\x1b[2J\n"
    daemon.devices[0].values["medium"]["path"] = os.fsdecode(name)
    command = [sys.executable, "-m", "xbbd_bsd.xbbctl", "--state-dir", str(daemon.directory)]
    for words in (("list",), ("-a",)):
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1",
                       "PYTHONIOENCODING": "utf-8:strict"}  # fmt: skip
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "/x\\xff\\x1b[2J\\x0a\n" in done.stdout
        assert done.stdout.replace("\n", "").isprintable()
    (row, _) = json.loads(daemon.run("list", "-j")[1])
    assert os.fsencode(row["path"]) == name
    assert daemon.run("log", "a\x1b") == (
        1, "", "xbbctl: a\\x1b: no device of xbbd, write xbbdN or xnbN as in xbbctl list\n"
    )  # fmt: skip
    assert daemon.run("a\x1b")[2] == "xbbctl: unknown oid 'a\\x1b'\n"


def test_no_control_character_of_a_value_reaches_a_terminal(daemon: Running) -> None:
    path = "/tank/\x1b]0;owned\x07\n\u202e"
    daemon.devices[0].values["medium"]["path"] = path
    for words in (("-a",), ("dev.xbbd.0.path",), ("-n", "dev.xbbd.0.path"), ("evil\x1b[2J",)):
        _, out, errors = daemon.run(*words)
        assert all(line.isprintable() for line in (out + errors).splitlines())
    assert daemon.run("-n", "dev.xbbd.0.path")[1] == (
        "/tank/\\x1b]0;owned\\x07\\x0a\\xe2\\x80\\xae\n"
    )
    assert json.loads(daemon.run("-j", "dev.xbbd.0.path")[1]) == {"dev.xbbd.0.path": path}


def test_a_reader_that_has_enough(daemon: Running) -> None:
    """As in xbbctl -a | head -1."""
    command = [sys.executable, "-m", "xbbd_bsd.xbbctl", "--state-dir", str(daemon.directory), "-a"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("attach", "--limit", "x", "1", "/x", "xvda"), "--limit: x: must be seconds, more than 0"),
        (("attach", "--limit", "0", "1", "/x", "xvda"), "more than 0 and up to 86400"),
        (("--host", "\x1bm", "list"), "--host: \\x1bm: must be sim:DIR, a simulated machine"),
        (("-a", "--host", "m"), "--host: m: must be sim:DIR"),
        (("log", "-n", "-1"), "argument -n"),
        (("log", "-n", "513"), "must be a number of lines, 0 to 512"),
        (("attach", "--mode", "x", "1", "/x", "xvda"), "'ro'"),
    ],
)
def test_what_is_allowed_is_said(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as status:
        xbbctl.main(words)
    assert status.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", xbbctl.VERBS)
def test_help_of_every_verb(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert xbbctl.main(["help"]) == 0
    assert f"\n    {verb} " in capsys.readouterr().out
    assert xbbctl.main(["help", verb]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: xbbctl {verb} ")
    with pytest.raises(SystemExit) as status:
        xbbctl.main([verb, "--help"])
    assert (status.value.code, capsys.readouterr().out) == (0, said)


def test_disks_of_a_guest_and_what_was_set_by_hand(daemon: Running) -> None:
    daemon.devices[1].values["medium"] |= {"guest": "web", "vdev": "xvda"}
    daemon.devices[1].values["tunables"]["flush_interval"] = 8
    for word in ("web", "xbbd1"):
        assert len(daemon.run("list", word)[1].splitlines()) == 2
    assert len(daemon.run("list", "7")[1].splitlines()) == 3
    assert daemon.run("list", "db") == (1, "", "xbbctl: guest db has no device of xbbd\n")
    _, out, _ = daemon.run("list", "-v")
    assert out.splitlines()[-1] == "    flush_interval: 8 (configured: 0)"
    assert out.count("configured") == 1
    rows = json.loads(daemon.run("list", "-vj")[1])
    assert [row["set_by_hand"] for row in rows] == [{}, {"flush_interval": [8, 0]}]


def test_who_serves_it_and_take_overs_are_for_the_curious(daemon: Running) -> None:
    served = {"process": 4711, "process_rss_kb": 5300, "process_age": 70}
    daemon.devices[1].values["medium"] |= served
    daemon.devices[1].values["takeovers"] = {"takeovers": 3}
    assert "TAKEOVERS" not in daemon.run("list")[1]
    assert "4711" not in daemon.run("list")[1]
    head, first, last = daemon.run("list", "-v")[1].splitlines()
    assert head.split()[-5:] == ["PROCESS", "RSS_KB", "AGE", "TAKEOVERS", "PATH"]
    at = head.index("TAKEOVERS") + len("TAKEOVERS")
    assert first[:at].split()[-4:] == ["0", "0", "0", "0"]
    assert last[:at].split()[-4:] == ["4711", "5300", "70", "3"]
    rows = json.loads(daemon.run("list", "-j")[1])
    assert [{name: row[name] for name in served} for row in rows] == [
        dict.fromkeys(served, 0),
        served,
    ]
    assert [row["takeovers"] for row in json.loads(daemon.run("list", "-j")[1])] == [0, 3]


def test_what_was_set_by_hand_is_marked(daemon: Running) -> None:
    daemon.run(f"{FLUSH}=8")
    for words, out in (
        (("-W", FLUSH), f"{FLUSH}: 8 (configured: 0)\n"),
        (("-eW", FLUSH), f"{FLUSH}=8 # configured: 0\n"),
        (("-nW", FLUSH), "8\n"),
        ((FLUSH,), f"{FLUSH}: 8\n"),
        (("-jW", FLUSH), json.dumps({FLUSH: 8}, indent=2) + "\n"),
    ):
        assert daemon.run(*words) == (0, out, "")


def test_what_is_written_by_e_and_w_is_read_by_f(daemon: Running, tmp_path: Path) -> None:
    daemon.run(f"{FLUSH}=8")
    file = tmp_path / "tuned"
    file.write_text(daemon.run("-eTW", "dev.xbbd.0")[1])
    daemon.run(f"{FLUSH}=0")
    assert daemon.run("-f", str(file))[0] == 0
    assert daemon.devices[0].values["tunables"]["flush_interval"] == 8


def test_who_did_it_is_the_daemons_word(daemon: Running) -> None:
    daemon.run(f"{FLUSH}=8")
    assert daemon.devices[0].noted == [("flush_interval=8", "root (uid 0)")]


def test_lines_of_the_log(daemon: Running) -> None:
    assert daemon.run("log", "-n", "0", "xbbd0") == (0, "", "")
    assert len(daemon.run("log", "-n", "5", "xbbd0")[1].splitlines()) == 1
    assert daemon.run("log", "-f", "-n", "2", "-j", "xbbd0") == (
        0, '{"text": "line 0"}\n{"text": "line 1"}\n', ""
    )  # fmt: skip
    assert daemon.run("log", "xbbd7") == (1, "", "xbbctl: no disk xbbd7\n")


def test_a_daemon_that_is_short_of_something_says_so(daemon: Running) -> None:
    assert daemon.run("list")[2] == ""
    leaves = DaemonLeaves()
    leaves.leaves["shortage"] = "file descriptors"
    daemon.server._perform = tree_of(leaves, daemon.devices).perform
    status, out, said = daemon.run("list")
    assert (status, said) == (0, "xbbctl: the daemon is out of file descriptors\n")
    assert out.startswith("NAME")
