"""What tests/real needs of a dom0, as far as it can be seen on any computer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.dom0 import FreeBSD, managed_mappings, names_of_threads
from tests.real.service import Service
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]

# procstat -h -v of a daemon with two grant mappings; columns as procstat(1) has them.
MAPPINGS = """\
 4711           0x200000           0x3f9000 r--  505 1150   3   1 CN--- vn /usr/local/bin/python3.11
 4711     0x31f2a3a00000     0x31f2a3c00000 rw-  512  512   1   0 ----- sw
 4711     0x31f2a4000000     0x31f2a4001000 rw-    1    1   1   0 ----- md
 4711     0x31f2a4001000     0x31f2a4041000 rw-    0   64   2   0 ----- md
 4711     0x7ffffffdf000     0x7ffffffff000 rw-   18   18   1   0 ---D- sw
"""

# procstat -h -t of a guest's process; likewise.
THREADS = """\
 4712 100321 python3.11          xbbd: guest web       0  120 sleep   select   \x20
 4712 100340 python3.11          xbbd3 ring0           1  120 sleep   select   \x20
 4712 100341 python3.11          xbbd12 io0.2         -1  152 run     -        \x20
"""

# As in dom0, where the tests are; nothing of them is run.
COLLECT = """
import os, sys
from pathlib import Path
platform, sys.platform = sys.platform, sys.argv[1]
import tests.lab.dom0
sys.platform = platform
exists, path_exists = os.path.exists, Path.exists
os.path.exists = lambda path: path == "/dev/xen/gntdev" or exists(path)
Path.exists = lambda path: path.name == "vmlinux" or path_exists(path)
import pytest
sys.exit(pytest.main(["-q", "--collect-only", "-pno:cacheprovider", "tests/real"]))
"""


def test_mappings_of_grants_are_told_from_others() -> None:
    assert managed_mappings(MAPPINGS) == 2


def test_names_of_threads_have_spaces() -> None:
    assert names_of_threads(THREADS) == ["xbbd: guest web", "xbbd3 ring0", "xbbd12 io0.2"]


@pytest.mark.parametrize("platform", ["linux", "freebsd15"])
def test_all_tests_can_be_collected(platform: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, platform],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert files == {str(path.relative_to(ROOT)) for path in (ROOT / "tests/real").glob("test_*")}


@pytest.fixture
def xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An xl whose console prints where it is and waits for the guest's end, a file."""
    program = tmp_path / "bin" / "xl"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ -t 0 ] && [ -t 1 ] || exit 1\necho "$* life $$"\n'
        f"until [ -e {tmp_path}/end ]; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_a_console_is_followed_over_all_lives_of_a_guest(xl: Path) -> None:
    """xl wants a terminal, and ends with the domain; looking again begins anew."""
    dom0, log = FreeBSD(), xl / "log"

    def lives() -> int:
        dom0.follow_console("g1", log)
        return log.read_text().count("console g1 life") if log.exists() else 0

    eventually(lambda: lives() == 1, "the console is seen")
    assert lives() == 1  # by one who looks, however often that is asked for
    (xl / "end").touch()
    eventually(lambda: dom0._followers["g1"].ended(), "xl has ended")
    eventually(lambda: lives() > 1, "the next life is seen")
    eventually(lambda: dom0._followers["g1"].ended(), "xl has ended again")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Programs of FreeBSD's, by name and what they do."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name: str, does: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)

    return make


def test_cards_want_a_hint_of_their_own(tools: Callable[[str, str], None]) -> None:
    """Without it the daemon would not begin, nor any after it."""
    tools("sysctl", "echo 1")
    tools("kenv", '[ "$2" = hint.xbbd.0.disabled ] && echo 1')
    assert FreeBSD().kernel_backend() == ""
    assert FreeBSD().kernel_cards() == "run: kenv hint.xnb.0.disabled=1"
    tools("kenv", "echo '\"1\"'")
    assert FreeBSD().kernel_cards() == ""
    tools("sysctl", "exit 1")
    assert FreeBSD().kernel_cards() == "run: kldload if_tuntap"


def test_who_listens(tools: Callable[[str, str], None]) -> None:
    tools("sockstat", "echo 'USER COMMAND PID FD PROTO LOCAL ADDRESS FOREIGN ADDRESS'")
    assert not FreeBSD().listens(5201)
    tools("sockstat", "echo 'root iperf3 4711 3 tcp46 *:5201 *:*'")
    assert FreeBSD().listens(5201)


def test_a_daemon_that_cannot_begin_is_no_heritage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed at once, and the next one has the configuration that did."""
    begins = "import sys, time; print('serving', flush=True); time.sleep(600)"
    real, programs = subprocess.Popen, ["", begins]

    def spawn(_: object, **options: Any) -> subprocess.Popen[bytes]:
        options.pop("cwd")
        return real([sys.executable, "-c", programs.pop(0)], **options)

    monkeypatch.setattr(subprocess, "Popen", spawn)
    monkeypatch.setattr(Service, "holdings", lambda _: None)
    monkeypatch.setattr(Service, "signal", lambda *_: 0)
    service = Service(tmp_path)
    good = service.config.read_text()
    with pytest.raises(AssertionError):
        service.begin_anew('kinds = ["vif"]')
    assert service.config.read_text() == good
    try:
        service.start()
    finally:
        if service.child is not None:
            service.child.kill()
            service.child.wait()
