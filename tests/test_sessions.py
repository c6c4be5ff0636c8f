"""What README and the manual pages type into a shell, typed into one, line by line.

Every example that can run on a machine without Xen does, in a fresh directory, against the
simulated machine, and what the document shows of its output is compared: `...` stands for
what varies, and for any number of lines where it is one.  What cannot run here is listed with
the reason, so that a new example has to be put into one list or the other.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, plain
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.sim.nbd import nbdkit_command
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow

XVDA = 51712
BASH = shutil.which("bash")
COMMANDS = ("xbbctl", "xbbd", "xbbstat")


class Place(Enum):
    """What is there before the first line."""

    NOTHING = "a directory with the .venv of the clone"
    MACHINE = "a simulated machine without a daemon"
    DISKS = "a machine, guests vm1 and vm2, and a disk that vm1 uses"


@dataclass(frozen=True)
class Typed:
    """How an example is run.

    `stays`: lines that do not end by themselves, which another terminal has.  `ends`: what
    ends a line, once `seen` is shown or in a file: a key, or an interrupt.  `busy`: the
    guest uses its disk meanwhile.  `files`: disks that an example before it has made.
    """

    place: Place = Place.DISKS
    stays: tuple[str, ...] = ()
    ends: str | None = None
    seen: str = ""
    file: str = ""
    files: tuple[str, ...] = ()
    busy: bool = False
    needs: Callable[[], object] | None = None


INTERRUPT = "\x03"

# By document and first line.
TYPED: dict[tuple[str, str], Typed] = {
    ("README.md", 'export PATH="$PWD/.venv/bin:$PATH"'): Typed(Place.NOTHING),
    (
        "README.md",
        ".venv/bin/python -m xbbd_bsd.sim nbd disk.img --run 'nbdinfo \"$uri\"'",
    ): Typed(Place.NOTHING, files=("disk.img",), needs=nbdkit_command),
    ("README.md", "xbbctl attach vm1 /vm/data.img xvdb"): Typed(),
    ("xbbctl.8", "xbbctl dev.xbbd.0"): Typed(),
    ("xbbctl.8", "xbbctl -adW"): Typed(),
    ("xbbctl.8", "# xbbctl dev.xbbd.0.flush_interval=8"): Typed(),
    ("xbbctl.8", "xbbctl dev.xbbd.0.reqs_received=0"): Typed(),
    ("xbbctl.8", "xbbctl -eTW dev.xbbd.0 > tuned"): Typed(),
    ("xbbctl.8", "xbbctl attach vm1 /tank/vm1-data.img xvdb"): Typed(),
    ("xbbctl.8", "xbbctl inflight xbbd0"): Typed(),
    ("xbbctl.8", "xbbctl health"): Typed(),
    ("xbbd-troubles.7", "xbbctl health"): Typed(),
    ("xbbd.4", "# xbbctl dev.xbbd.0.devstat.xbbi.end_count dev.xbbd.0.devstat.xbb.end_count"): (
        Typed()
    ),
    ("xbbd.8", "xbbd -d"): Typed(Place.MACHINE, stays=("xbbd -d",)),
    ("xbbd.8", "xbbd -d --host sim:/tmp/m"): Typed(
        Place.MACHINE, stays=("xbbd -d --host sim:/tmp/m",)
    ),
    ("xbbd.conf.5", "xbbctl attach --mode 'w!' vm2 /dev/zvol/tank/quorum xvdb"): Typed(),
    ("xbbstat.8", "# xbbstat -x -I"): Typed(),
    ("xbbstat.8", "xbbstat -x -z -w 1"): Typed(ends=INTERRUPT, seen="xbbi0 ", busy=True),
    ("xbbstat.8", "xbbstat -i -s %busy"): Typed(ends="q", seen="xbbi0"),
    ("xbbstat.8", "xbbstat -C -w 1 -c 60 -f '^vm1:' > vm1.csv"): Typed(
        ends=INTERRUPT, seen=",xbbi0,", file="vm1.csv"
    ),
}

XEN = "wants a Xen host"
FREEBSD = "wants a FreeBSD; tests/service has the script and the ports"
CARDS = "wants a bridge, and to make interfaces; tests/sim/test_card_commands.py has both"
SHOWN = "is nothing to type"
ELSEWHERE: dict[tuple[str, str], str] = {
    ("README.md", "make demo"): "tests/sim/test_demo.py runs it",
    ("README.md", "make demo-net"): CARDS,
    ("README.md", "xbbctl attach vm1 bridge=xenbr0"): CARDS,
    ("README.md", "cp -R port/* /usr/ports/"): FREEBSD,
    (
        "README.md",
        "echo 'hint.xbbd.0.disabled=\"1\"' >> /boot/loader.conf && kenv hint.xbbd.0.disabled=1",
    ): FREEBSD,
    (
        "README.md",
        "python3 -m venv /usr/local/lib/xbbd && /usr/local/lib/xbbd/bin/pip install .",
    ): "writes into this computer; tests/service/test_systemd.py has the unit",
    (
        "README.md",
        "disk = [ 'format=raw,vdev=xvda,access=rw,backendtype=tap,target=/dev/zvol/tank/vm1' ]",
    ): SHOWN,
    ("xbbd.4", 'hint.xbbd.0.disabled="1"'): SHOWN,
    ("xbbd.4", "kenv hint.xbbd.0.disabled=1"): FREEBSD,
    ("xbbd.4", "dtrace -p `cat /var/run/xbbd/xbbd.pid` \\"): FREEBSD,
    ("xbbd.8", 'hint.xbbd.0.disabled="1"'): SHOWN,
    ("xbbd.8", '{"version": 1, "verb": "get", "name": "dev.xbbd.0"}'): SHOWN,
    ("xbbd.8", '{"values": {"dev.xbbd.0.flush_interval": 0}}'): SHOWN,
    ("xbbd.8", '{"ok": false, "error": "unknown oid \'dev.xbbd.7\'", "errno": "ENOENT"}'): SHOWN,
    ("xbbd.8", "sysrc xbbd_enable=YES"): FREEBSD,
    ("xbbctl.8", 'xbbd-watch mail -s "xbbd" root'): "tests/sim/test_traces.py has the script",
    ("xbbctl.8", "xbbctl log -f"): "tests/sim/test_traces.py follows the log",
    ("xbbctl.8", "disk.workers: 8 -> 16"): SHOWN,
    ("xbbctl.8", "xbbctl attach vm1 bridge=xenbr0,mac=00:16:3e:01:02:03"): CARDS,
    ("xbbstat.8", "            input            xnb0          output"): SHOWN,
    ("xbbstat.8", "xbbstat -w 1 xnb0"): CARDS,
    ("xnb.4", 'hint.xnb.0.disabled="1"'): SHOWN,
    ("xnb.4", "[daemon]"): SHOWN,
    ("xnb.4", "kenv hint.xnb.0.disabled=1"): FREEBSD,
    ("xnb.4", "blacklist xen-netback"): SHOWN,
    ("xnb.4", 'cloned_interfaces="bridge0"'): SHOWN,
    ("xnb.4", "vif = [ 'type=vif,mac=00:16:3e:01:02:03,bridge=bridge0' ]"): SHOWN,
    ("xnb.4", "vif = [ 'type=vif,backend=net,bridge=bridge0,script=vif-own' ]"): SHOWN,
    ("xnb.4", "xbbctl attach vm1 bridge=xenbr0"): CARDS,
    ("xnb.4", "xbbctl health xnb0"): CARDS,
    ("xbbd.8", "xbbd -t && service xbbd reload"): FREEBSD,
    ("xbbd.conf.5", "[store.db]"): "tests/sim/test_store.py has one",
    ("xbbd.conf.5", 'disk = [ "vdev=xvda,access=rw,script=block-xbbd,target=store:db" ]'): SHOWN,
    ("xbbd.conf.5", "qemu-storage-daemon \\"): "tests/sim/test_store.py runs one",
    ("xbbd.conf.5", "nbdkit -U /run/db.sock nbd uri=nbds://server/db \\"): SHOWN,
    ("xbbd.8", '{"values": {"time": 1.5, "severity": "warning",'): SHOWN,
    ("xbbd.8", 'disk = [ "vdev=xvda,access=rw,backendtype=tap,target=/tank/vm.img" ]'): SHOWN,
    ("xbbd.8", "xl block-attach vm1 \\"): XEN,
    ("xbbd.conf.5", "[[override]]"): SHOWN,
    ("xbbd.conf.5", "[group.gold]"): SHOWN,
    ("xbbd.conf.5", "[daemon]"): SHOWN,
    (
        "xbbd.conf.5",
        "xbbd: xbbd.conf:2: [disk] workers = 65: must be a whole number, 1 to 64",
    ): SHOWN,
}


# What the documents show.


def blocks() -> list[tuple[str, list[str]]]:
    """Every example: document, and its lines."""
    readme = (ROOT / "README.md").read_text()
    readme = re.sub(r"^```.*?^```$", "", readme, flags=re.M | re.S)
    found = [
        ("README.md", [line[4:] for line in text.splitlines()])
        for text in re.findall(r"(?:^ {4}\S.*\n)+", readme, re.M)
    ]
    for path in PAGES:
        for text in re.findall(r"^\.Bd .*\n([^.](?:.|\n)*?)^\.Ed$", path.read_text(), re.M):
            found.append((path.name, [unescaped(line) for line in text.splitlines()]))
    return found


def unescaped(line: str) -> str:
    """A line of mdoc, with what it is indented by."""
    return line[: len(line) - len(line.lstrip())] + plain(line)


def test_every_example_is_in_one_of_the_lists() -> None:
    firsts = {(document, lines[0]) for document, lines in blocks()}
    assert TYPED.keys() | ELSEWHERE.keys() == firsts
    assert not TYPED.keys() & ELSEWHERE.keys()


def test_what_runs_elsewhere_is_there() -> None:
    for reason in ELSEWHERE.values():
        for path in re.findall(r"tests/[\w/.]*\w", reason):
            assert (ROOT / path).exists(), path


def steps(lines: list[str]) -> list[tuple[str, list[str] | None]]:
    """Commands, each with the output that is shown; None where none is."""
    if not any(line.startswith("# ") for line in lines):
        joined = "\n".join(lines).replace("\\\n", " ")
        return [(line, None) for line in joined.splitlines()]
    found: list[tuple[str, list[str] | None]] = []
    for line in lines:
        if line.startswith("# "):
            found.append((line[2:], []))
        else:
            shown = found[-1][1]
            assert shown is not None
            shown.append(line)
    return found


def as_shown(shown: list[str], printed: str) -> bool:
    """Whether an output is what a document shows of it."""
    pattern = ""
    for line in shown:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(map(re.escape, line.rstrip().split("..."))) + r" *\n"
    return re.fullmatch(pattern, printed) is not None


def test_what_is_compared() -> None:
    assert steps(["# a", "b", "c ...", "# d"]) == [("a", ["b", "c ..."]), ("d", [])]
    assert steps(["a", "b \\", "    c"]) == [("a", None), ("b      c", None)]
    assert as_shown(["b", "c ..."], "b\nc 17\n")
    assert as_shown(["b", "...", "c"], "b\n1\n2\nc\n")
    assert not as_shown(["b", "c ..."], "b\nd 17\n")
    assert not as_shown([], "anything\n")


# A terminal for each.


class Shell:
    """bash, line by line, in a directory of its own."""

    def __init__(self, here: Path, environment: dict[str, str]) -> None:
        assert BASH is not None
        self._child = subprocess.Popen(
            [BASH, "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=here,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self._lines = 0

    def type(self, line: str) -> tuple[int, str]:
        """Exit status and output of a line."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._lines += 1
        mark = f"@end of line {self._lines}@"
        self._child.stdin.write(f"{line}\necho \"{mark[:4]}\"'{mark[4:]}' $?\n".encode())
        printed, end = "", time.monotonic() + GIVE_UP
        while (match := re.search(rf"^{mark} (\d+)\n", printed, re.M)) is None:
            left = end - time.monotonic()
            assert left > 0, f"{line}: has not ended\n{printed}"
            if select.select([self._child.stdout], [], [], left)[0]:
                data = os.read(self._child.stdout.fileno(), 65536)
                assert data, f"{line}: the shell has ended\n{printed}"
                printed += data.decode(errors="replace")
        return int(match[1]), printed[: match.start()]

    def finish(self) -> str:
        """End what it has left running; what that had to say."""
        return self.type("kill $(jobs -p) 2>/dev/null; wait")[1]

    def close(self) -> None:
        """End it; harmless if it has ended."""
        self._child.kill()
        self._child.communicate()


def show(command: str, here: Path, environment: dict[str, str], how: Typed) -> tuple[int, str]:
    """A command on a terminal, ended as it says once it shows what is wanted of it."""
    assert BASH is not None
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.chdir(here)
            os.execve(BASH, ["bash", "--norc", "--noprofile", "-c", command], environment)
        finally:
            os._exit(127)
    printed = b""
    ended = False

    def seen() -> bool:
        nonlocal printed, ended
        if not ended and select.select([fd], [], [], 0)[0]:
            try:
                printed += os.read(fd, 65536)
            except OSError:  # Linux: the other end is closed
                ended = True
        text = printed.decode(errors="replace")
        if how.file:
            text = contents(here / how.file)
        return how.seen in text or ended

    try:
        eventually(seen, f"{command} shows {how.seen}", GIVE_UP)
        assert not ended, printed.decode(errors="replace")
        assert how.ends is not None
        os.write(fd, how.ends.encode())
        deadline = time.monotonic() + GIVE_UP
        status = 0
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                pid = 0
                break
            assert time.monotonic() < deadline, f"{command} does not end"
            if select.select([fd], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    printed += os.read(fd, 65536)
        return os.waitstatus_to_exitcode(status), printed.decode(errors="replace")
    finally:
        os.close(fd)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@dataclass
class Stage:
    """Where an example runs: a directory, and what its paths become."""

    here: Path
    environment: dict[str, str]
    machine: str

    def here_of(self, text: str) -> str:
        """A command or an output, with our paths for those of the document."""
        for path in ("/tank/", "/vm/", "/dev/zvol/"):
            text = re.sub(rf"(?<![\w.]){path}", f"{self.here}{path}", text)
        return text.replace("/tmp/m", self.machine)


def prepare(here: Path, machine: str | None) -> Stage:
    """A directory with disks, and the commands in PATH; those of a machine, if there is one."""
    (here / "bin").mkdir()
    for path in ("tank/vm.img", "tank/vm1-data.img", "vm/data.img", "dev/zvol/tank/quorum"):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_bytes(bytes(1 << 20))
    (here / ".venv").symlink_to(sys.prefix)
    paths = [str(here / "bin"), os.environ["PATH"]]
    for name in COMMANDS:
        module = "daemon" if name == "xbbd" else name
        host = "" if machine is None else f"--host 'sim:{machine}' "
        program = here / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m xbbd_bsd.{module} {host}"$@"\n')
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": ":".join(paths),
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "LINES": "24",
        "COLUMNS": "80",
    }
    return Stage(here, environment, machine or str(here / "m"))


class Disks:
    """A machine with a daemon, guests vm1 and vm2, and a disk that vm1 has."""

    def __init__(self, chain: Chain, directory: Path) -> None:
        self.there = prepare(directory, chain.layout.directory)
        daemon = chain.start_daemon()
        eventually(lambda: "serving" in contents(daemon.log), "the daemon serves")
        self._guest, _ = (chain.start_guest(domid, XVDA) for domid in (1, 2))
        for domid in (1, 2):
            chain.store.write(f"/local/domain/{domid}/name", b"vm%d" % domid)
        chain.attach(DiskOffer(1, XVDA, str(directory / "tank/vm.img"), kind="vbd3"))
        self._guest.event("connected")
        self._guest.tell("exercise operations=200 verify=0")
        self._guest.event("exercised")
        self._busy = False

    def keep_busy(self) -> None:
        """From now on the guest uses its disk."""
        if not self._busy:
            self._guest.tell("exercise seconds=600 depth=1 verify=0")
            self._guest.event("begun")
            self._busy = True


@pytest.fixture(scope="module")
def disks() -> Iterator[Disks]:
    """One for all examples that want some."""
    with tempfile.TemporaryDirectory(prefix="x-") as directory, Chain() as chain:
        yield Disks(chain, Path(directory))


@contextlib.contextmanager
def stage(how: Typed, disks: Callable[[], Disks]) -> Iterator[Stage]:
    """The place of an example."""
    if how.place is Place.DISKS:
        found = disks()
        if how.busy:
            found.keep_busy()
        yield found.there
        return
    with tempfile.TemporaryDirectory(prefix="x-") as directory:
        if how.place is Place.MACHINE:
            with Chain() as chain:
                yield prepare(Path(directory), chain.layout.directory)
            return
        there = prepare(Path(directory), None)
        for name in how.files:
            (there.here / name).write_bytes(bytes(1 << 20))
        yield there
        if pid := contents(Path(there.machine, "run", "xbbd.pid")):
            eventually(lambda: not alive(int(pid)), "the daemon has ended")


def contents(path: str | Path) -> str:
    """Of a file; nothing if it is not there yet."""
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


RUN = [(document, lines) for document, lines in blocks() if (document, lines[0]) in TYPED]


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("document", "lines"), RUN, ids=[f"{document}-{lines[0]}" for document, lines in RUN]
)
def test_an_example(request: pytest.FixtureRequest, document: str, lines: list[str]) -> None:
    how = TYPED[document, lines[0]]
    if how.needs is not None:
        try:
            how.needs()
        except OperatorError as error:
            pytest.skip(str(error))
    if how.place is Place.NOTHING and not Path(sys.prefix, "bin", "xbbd").exists():
        pytest.skip("xbbd is not installed where this Python is")
    with stage(how, lambda: request.getfixturevalue("disks")) as there:
        shell = Shell(there.here, there.environment)
        try:
            for line, shown in steps(lines):
                command = there.here_of(line)
                if how.ends is not None:
                    status, printed = show(command, there.here, there.environment, how)
                    assert status in (0, 130), printed
                elif line in how.stays:
                    status, printed = shell.type(f"{command} >log 2>&1 &")
                    eventually(lambda: "serving" in contents(there.here / "log"), line)
                else:
                    status, printed = shell.type(command)
                assert status in (0, 130) if how.ends else status == 0, f"{line}: {printed}"
                assert "Traceback" not in printed, printed
                if shown is not None:
                    wanted = [there.here_of(text) for text in shown]
                    assert as_shown(wanted, printed), f"{line}: {printed}"
            left = shell.finish()
            assert "Traceback" not in left, left
        finally:
            shell.close()
