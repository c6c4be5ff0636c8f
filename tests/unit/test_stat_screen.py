"""The full-screen view on a terminal that is none, and on a real one, a pty."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.unit.test_stat_sample import NEW, OLD, device, sample
from tests.unit.test_stat_watch import AWAY, FakeTime, Script, at
from tests.unit.test_xbbstat import Daemon, daemon
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stat.choice import Choice
from xbbd_bsd.stat.gstat import Line
from xbbd_bsd.stat.sample import Sample
from xbbd_bsd.stat.screen import show
from xbbd_bsd.stat.view import View
from xbbd_bsd.stat.watch import Watch

__all__ = ["daemon"]
START = View(Choice(), 1.0)


class FakeTerminal:
    """Keys from a list, one each time it is asked; "" is none until the time is up."""

    def __init__(
        self, time: FakeTime, keys: Sequence[str], sizes: Sequence[tuple[int, int]]
    ) -> None:
        self.time = time
        self.keys = list(keys)
        self.sizes = list(sizes)
        self.shots: list[list[str]] = []
        self.cursors: list[int | None] = []

    def size(self) -> tuple[int, int]:
        return self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]

    def draw(self, lines: Sequence[Line], cursor: int | None) -> None:
        self.shots.append([line.text for line in lines])
        self.cursors.append(cursor)

    def key(self, timeout: float) -> str | None:
        key = self.keys.pop(0)
        if key == "RESIZE":
            return ""
        if key:
            return key
        self.time.sleep(timeout)
        return None


def run(
    keys: Sequence[str],
    *answers: Sample | OperatorError,
    sizes: Sequence[tuple[int, int]] = ((80, 24),),
    view: View = START,
) -> FakeTerminal:
    time = FakeTime()
    terminal = FakeTerminal(time, keys, sizes)
    show(terminal, Watch(Script(*answers), time.clock()), view, time.clock())
    return terminal


def test_intervals_come_when_they_are_due() -> None:
    found = run(["", "", "q"], at(0, OLD), at(0.25, OLD), at(1.25, NEW))
    assert found.time.slept == [0.25, 1.0]
    assert [shot[0] for shot in found.shots] == [
        "dT: 0.000s  w: 1.000s",
        "dT: 0.250s  w: 1.000s",
        "dT: 1.000s  w: 1.000s",
    ]
    assert [len(shot) for shot in found.shots] == [2, 4, 4]
    assert found.shots[2][2].startswith("    3     90     40")


def test_keys_do_not_move_the_schedule() -> None:
    found = run(["", "d", "F", "", "q"], at(0, OLD), at(0.25, OLD), at(1.25, NEW))
    assert found.time.slept == [0.25, 1.0]
    assert "ms/d" in found.shots[2][1]


def test_who_serves_it_is_shown_while_it_is_wanted() -> None:
    found = run(["", "v", "v", "q"], at(0, OLD), at(0.25, OLD))
    assert ["takeovers" in shot[1] for shot in found.shots[1:4]] == [False, True, False]


def test_another_interval_begins_with_its_key() -> None:
    found = run(["", ">", "", "q"], at(0, OLD), at(0.25, OLD), at(2.25, NEW))
    assert found.time.slept == [0.25, 2.0]
    assert found.shots[-1][0] == "dT: 2.000s  w: 2.000s"


def test_a_filter_is_seen_while_it_is_typed() -> None:
    found = run(["", "f", "i", "ENTER", "q"], at(0, OLD), at(0.25, NEW))
    assert found.shots[3][0] == "Filter: i"
    assert found.cursors[3] == len("Filter: i")
    assert found.shots[4][0].endswith("filter: i")
    assert found.cursors[4] is None
    assert [line.split()[-2] for line in found.shots[4][2:]] == ["xbbi0"]


def test_what_a_filter_lacks_is_said_until_a_key() -> None:
    answers = (at(0, OLD), at(0.25, OLD), at(1.25, NEW), at(2.25, NEW))
    found = run(["", "f", "(", "ENTER", "", "", "x", "q"], *answers)
    said = [shot[0].startswith("Invalid filter, ") for shot in found.shots]
    assert said == [False] * 4 + [True] * 3 + [False]


def test_what_a_key_has_done_is_said_until_the_next_sample() -> None:
    found = run(["", "l", "", "q"], at(0, OLD), at(0.25, OLD), at(1.25, NEW))
    assert [shot[0].startswith("percentiles") for shot in found.shots] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "keys", [[], ["d"], ["o"], ["d", "o"], ["l", "d", "o"], ["l", "l", "d", "o"]]
)
def test_a_name_is_seen_whatever_is_shown(keys: list[str]) -> None:
    found = run(["", *keys, "q"], at(0, OLD), at(0.25, NEW))
    heading, *rows = found.shots[-1][1:]
    assert [re.split("[|] ", row)[1].split()[0] for row in rows] == ["xbb0", "xbbi0"]
    assert max(map(len, [heading, *rows])) <= 80
    for key, column in (("d", "d/s"), ("o", "o/s")):
        assert (column in heading) == (key in keys)
    assert {"L(q)", "ops/s", "r/s", "w/s", "%busy", "Name"} <= set(heading.split())


def test_a_sort_is_named() -> None:
    found = run(["s", "q"], at(0, OLD))
    assert found.shots[-1][0].endswith("  sort: %busy")


def test_the_daemon_goes_and_comes_back() -> None:
    answers = (at(0, OLD), at(0.25, OLD), AWAY, at(2.25, OLD), at(3.25, NEW))
    found = run(["", "", "", "", "q"], *answers)
    assert found.shots[2][0] == "no xbbd listens"
    assert len(found.shots[2]) == 4
    assert found.shots[3][0].startswith("dT: 0.250s")
    assert found.shots[4][0].startswith("dT: 1.000s")


def test_no_daemon_at_first() -> None:
    with pytest.raises(OperatorError, match="no xbbd listens"):
        run([], AWAY)


def test_another_size_is_drawn_at_once() -> None:
    many = [sample(*[device(at, OLD)] * 30) for at in (0, 0.25)]
    sizes = ((80, 24), (80, 24), (40, 5), (1, 1))
    found = run(["", "RESIZE", "RESIZE", "q"], *many, sizes=sizes)
    assert [len(shot) for shot in found.shots] == [2, 24, 5, 1]
    assert max(len(line) for line in found.shots[2]) == 40
    assert found.time.slept == [0.25]


def test_the_last_rows_stay_in_sight() -> None:
    many = [sample(*[device(at, OLD)] * 30) for at in (0, 0.25)]
    found = run(["", "END", "q"], *many)
    assert found.shots[-1][0].endswith("39-60 of 60")
    assert found.shots[-1][-1].split()[-2] == "xbbi29"
    assert len(found.shots[-1]) == 24


# On a pty: a terminal of which we understand as much as ncurses uses of a vt100.

SEQUENCE = re.compile(rb"\x1b(?:\[([?0-9;]*)([A-Za-z])|[()][A-Z0-9]|[A-Za-z=>78])")


class Screen:
    """80 by 24 characters."""

    def __init__(self) -> None:
        self.rows = [[" "] * 80 for _ in range(24)]
        self.x = self.y = 0
        self.unread = b""

    def feed(self, data: bytes) -> None:
        data, self.unread = self.unread + data, b""
        at = 0
        while at < len(data):
            if found := SEQUENCE.match(data, at):
                self._move(found[1] or b"", found[2] or b"")
                at = found.end()
                continue
            octet = data[at]
            if octet == 0x1B:  # the rest of it comes later
                self.unread = data[at:]
                return
            at += 1
            if octet == 0x0D:
                self.x = 0
            elif octet == 0x0A:
                self.y = min(23, self.y + 1)
            elif octet == 0x08:
                self.x = max(0, self.x - 1)
            elif octet >= 0x20 and self.x < 80:
                self.rows[self.y][self.x] = chr(octet)
                self.x += 1

    def _move(self, values: bytes, what: bytes) -> None:
        if b"?" in values:
            return
        numbers = [int(value or 0) for value in values.split(b";")] if values else [0]
        if what == b"H":
            self.y = min(24, max(1, numbers[0])) - 1
            self.x = min(80, max(1, numbers[-1] if len(numbers) > 1 else 1)) - 1
        elif what == b"J":
            self.rows[self.y + 1 :] = [[" "] * 80 for _ in range(23 - self.y)]
            self.rows[self.y][self.x :] = [" "] * (80 - self.x)
        elif what == b"K":
            first, end = (0, self.x + 1) if numbers[0] == 1 else (self.x, 80)
            self.rows[self.y][first:end] = [" "] * (end - first)
        elif what == b"C":
            self.x = min(79, self.x + max(1, numbers[0]))
        elif what == b"D":
            self.x = max(0, self.x - max(1, numbers[0]))
        elif what == b"A":
            self.y = max(0, self.y - max(1, numbers[0]))
        elif what == b"B":
            self.y = min(23, self.y + max(1, numbers[0]))

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]


class Session:
    """xbbstat -i on a terminal of its own."""

    def __init__(self, directory: str, term: str, *options: str) -> None:
        self.screen = Screen()
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        environment = {k: v for k, v in os.environ.items() if k not in ("LINES", "COLUMNS")}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "xbbd_bsd.xbbstat", "--state-dir", directory, "-i", *options],
            stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE, text=True,
            env={**environment, "TERM": term, "LC_ALL": "C"},
            start_new_session=True,
        )  # fmt: skip

    def read(self) -> None:
        while select.select([self.master], [], [], 0)[0]:
            self.screen.feed(os.read(self.master, 65536))

    def wait_for(self, row: int, pattern: str) -> str:
        def there() -> bool:
            self.read()
            return re.search(pattern, self.screen.lines()[row]) is not None

        try:
            eventually(there, f"{pattern} in row {row}")
        except AssertionError:
            raise AssertionError("\n".join(self.screen.lines())) from None
        return self.screen.lines()[row]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> int:
        def gone() -> bool:
            self.read()  # or it could not write its last words
            return self.child.poll() is not None

        eventually(gone, "xbbstat ends")
        assert termios.tcgetattr(self.slave) == self.before
        assert self.child.stderr is not None
        assert "Traceback" not in self.child.stderr.read()
        return self.child.returncode


@contextmanager
def session(daemon: Daemon, *options: str, term: str = "vt100") -> Iterator[Session]:
    running = Session(daemon.directory, term, *options)
    try:
        yield running
    finally:
        running.child.kill()
        running.child.wait(GIVE_UP)
        assert running.child.stderr is not None
        running.child.stderr.close()
        os.close(running.master)
        os.close(running.slave)


@pytest.mark.slow
def test_the_screen(daemon: Daemon) -> None:
    with session(daemon, "-w", "0.05") as running:
        running.wait_for(2, r"xbb0  vm:xvda$")
        lines = running.screen.lines()
        assert lines[0] == "dT: 1.000s  w: 0.050s"
        assert lines[1] == " L(q)  ops/s    r/s   kBps   ms/r    w/s   kBps   ms/w e/s   %busy Name"
        assert re.fullmatch(r"( +[0-9.]+){10}\| xbb0  vm:xvda", lines[2])
        assert re.fullmatch(r"( +[0-9.]+){10}\| xbbi0 vm:xvda", lines[3])
        assert lines[4:] == [""] * 20
        running.type(b"l")
        running.wait_for(1, r"r/s  p50/r  p99/r    w/s  p50/w  p99/w e/s   %busy Name$")
        running.type(b"fno such\r")
        running.wait_for(0, r"filter: no such$")
        running.wait_for(2, r"^$")
        running.type(b"F\x1b[A")
        running.wait_for(2, r"xbb0")
        running.type(b"q")
        assert running.ended() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_leaves_the_terminal_as_it_was(
    daemon: Daemon, number: signal.Signals, status: int
) -> None:
    with session(daemon, "-w", "30") as running:
        running.wait_for(2, r"xbb0")
        running.child.send_signal(number)
        assert running.ended() == status


@pytest.mark.slow
def test_another_size(daemon: Daemon) -> None:
    with session(daemon, "-w", "30") as running:
        running.wait_for(3, r"xbbi0")
        fcntl.ioctl(running.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 80, 0, 0))
        running.child.send_signal(signal.SIGWINCH)
        running.wait_for(0, r"1-1 of 2$")
        running.type(b"q")
        assert running.ended() == 0


@pytest.mark.slow
def test_a_terminal_that_nobody_knows(daemon: Daemon) -> None:
    with session(daemon, term="no-such-terminal") as running:
        eventually(lambda: running.child.poll() is not None, "xbbstat ends")
        assert running.child.returncode == 1
        assert running.child.stderr is not None
        assert "xbbstat: terminal no-such-terminal" in running.child.stderr.read()
