"""A file that is read again: what applies, what is refused, and what is remembered of that."""

import logging
import os
from pathlib import Path

import pytest

from tests.unit.test_daemon import StoreOnly
from xbbd_bsd import checks
from xbbd_bsd.checks import Places
from xbbd_bsd.config import Config, DaemonConfig
from xbbd_bsd.errors import OperatorError, Refused
from xbbd_bsd.events import Severity
from xbbd_bsd.journal import Journal
from xbbd_bsd.reload import Configuration


class Parts:
    """What it is applied to: two disks of kind vbd3, and sockets that may refuse."""

    def __init__(self) -> None:
        self.refusal: OperatorError | OSError | None = None
        self.done: list[str] = []
        self.log: list[str] = []

    def closes(self, kinds: frozenset[str]) -> tuple[int, int, str]:
        return (2, 1, "disk") if "vbd3" in kinds else (0, 0, "device")

    def listen(self, config: DaemonConfig) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.done.append("listen")

    def apply(self, config: Config) -> None:
        self.done.append("apply")
        self.log.append("(applied)")


class Bench:
    """A configuration, its file, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "f"
        self.parts = Parts()
        self.now = 1000.9
        places = Places(str(directory), str(directory / "xbbd.pid"))
        journal = Journal(self.note, lambda: 0.0, frozenset(), lambda: 0.0)
        self.configuration = Configuration(
            Config(),
            str(self.file),
            places,
            host=StoreOnly(""),
            journal=journal,
            wall=lambda: self.now,
        )

    def note(self, severity: Severity, line: str) -> None:
        self.parts.log.append(f"{logging.getLevelName(severity)} {line}")

    def reload(self, text: str) -> dict[str, tuple[str, str, str]]:
        self.file.write_text(text)
        return dict(self.configuration.read_again(self.parts, "bob (uid 3)"))

    def refused(self, text: str) -> tuple[str, ...]:
        before = self.configuration.config
        self.parts.done.clear()
        with pytest.raises(Refused) as raised:
            self.reload(text)
        assert self.configuration.config is before
        assert "apply" not in self.parts.done
        return raised.value.lines


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_differs_is_applied_and_told(bench: Bench) -> None:
    assert bench.reload("[disk]\nworkers = 3\nshared = true\n") == {
        "disk.workers": ("8", "3", ""),
        "disk.shared": ("false", "true", ""),
    }
    assert bench.parts.done == ["listen", "apply"]
    assert bench.configuration.config.disk.workers == 3
    assert bench.parts.log[-1] == (
        "INFO configuration read again: disk.workers 8 -> 3; disk.shared false -> true,"
        " by bob (uid 3)"
    )
    assert bench.reload("[disk]\nworkers = 3\nshared = true\n") == {}
    assert (
        bench.parts.log[-1] == "INFO configuration read again: nothing has changed, by bob (uid 3)"
    )


def test_what_waits_for_the_next_start_says_so(bench: Bench) -> None:
    pidfile = bench.file.with_name("x")
    changes = bench.reload(f'[daemon]\npidfile = "{pidfile}"\n')
    assert changes == {"daemon.pidfile": ("none", f'"{pidfile}"', "at the next start")}


def test_a_kind_that_is_left_out_says_what_it_closes_before(bench: Bench) -> None:
    before = '["vbd", "vbd3"]'
    assert bench.reload("[daemon]\nkinds = ['vbd3']") == {
        "daemon.kinds": (before, '["vbd3"]', "")
    }, "of that kind there is no disk"
    assert len(bench.parts.log) == 2
    bench.reload("")
    bench.parts.log.clear()
    bench.configuration.config = Config(DaemonConfig(kinds=("vbd3", "vbd")))
    bench.configuration._host.check_kinds = lambda kinds: None  # type: ignore[method-assign]
    changes = bench.reload("[daemon]\nkinds = ['vbd']")
    assert changes["daemon.kinds"] == (
        '["vbd3", "vbd"]',
        '["vbd"]',
        "closes 2 disks of 1 guest",
    )
    assert bench.parts.log == [
        "WARNING vbd3 is not served any more: closes 2 disks of 1 guest",
        "(applied)",
        'INFO configuration read again: daemon.kinds ["vbd3", "vbd"] -> ["vbd"]'
        " (closes 2 disks of 1 guest), by bob (uid 3)",
    ]


def test_everything_that_is_wrong_is_logged_and_told(bench: Bench) -> None:
    lines = bench.refused("[disk]\nworkers = 0\n[daemon]\ngroup = 'no-such-group'\n")
    assert lines == (
        f"{bench.file}:2: [disk] workers = 0: must be a whole number, 1 to 64",
        f'{bench.file}:4: [daemon] group = "no-such-group": there is no such group',
    )
    assert bench.parts.log == [f"ERROR configuration not changed: {line}" for line in lines]


def test_that_it_was_refused_is_remembered(bench: Bench) -> None:
    def leaves() -> tuple[object, object]:
        found = bench.configuration.leaves()
        assert found["configuration_file"] == str(bench.file)
        return found["configuration_refused"], found["configuration_refused_since"]

    assert leaves() == ("", 0)
    first = bench.refused("[disk]\nworkers = 0\n[net]\n")
    assert leaves() == ("; ".join(first), 1000)
    bench.now = 2000
    second = bench.refused("[disk]\nworkers = 99\n")
    assert leaves() == (second[0], 1000), "since when it has been"
    bench.reload("")
    assert leaves() == ("", 0)
    bench.refused("x")
    assert leaves()[1] == 2000


@pytest.mark.parametrize("error", [OperatorError("taken"), OSError(98, "taken")])
def test_what_only_shows_when_it_is_done(bench: Bench, error: OperatorError | OSError) -> None:
    bench.parts.refusal = error
    assert bench.refused("[disk]\nworkers = 3\n") == ("taken",)
    assert bench.configuration.leaves()["configuration_refused"] == "taken"


def test_a_file_that_is_gone(bench: Bench) -> None:
    with pytest.raises(Refused, match="no such file"):
        bench.configuration.read_again(bench.parts, "bob (uid 3)")


def test_what_is_its_own_is_not_in_its_way(bench: Bench, tmp_path: Path) -> None:
    """Its directory and pid file; but where they shall be next must do."""
    tmp_path.chmod(0o777)
    try:
        assert bench.reload("[disk]\nworkers = 3") != {}
        (line,) = bench.refused(f'[daemon]\npidfile = "{tmp_path}/other.pid"')
        assert "others may write there" in line
    finally:
        tmp_path.chmod(0o700)


def test_a_limit_that_this_host_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon itself is asked about, since it is there."""

    class Quotas:
        def check(self, pid: int | None) -> None:
            assert pid == os.getpid()
            raise OperatorError("not here")

    class Platform:
        def quotas(self) -> Quotas:
            return Quotas()

    monkeypatch.setattr(checks, "platform", Platform)
    bench = Bench(tmp_path)
    with pytest.raises(Refused, match=r"cpu_percent = 50: not here$"):
        bench.reload("[guest]\ncpu_percent = 50\n")
    assert bench.parts.done == []
