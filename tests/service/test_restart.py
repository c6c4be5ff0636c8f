"""`service xbbd restart`: xbbd leaves its guests at work, and is never told to stop.

What signals it gets is seen by a played xbbd that writes each one down; that a guest
goes on, with the real one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.service.installation import LEAVING, Service
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.slow

XVDA = 51712

# As xbbd, which notes in the file "signals" what it does and hears.  SIGUSR1 ends it
# after half a second, or never if there is a file "hangs"; "mute" ones never serve.
PLAYED = """#!{interpreter}
import os, signal, sys, time
here = {here!r}
def note(what):
    with open(os.path.join(here, "signals"), "a") as file:
        file.write(what + chr(10))
def asked(name):
    return os.path.exists(os.path.join(here, name))
def leave(*_):
    note("USR1")
    if not asked("hangs"):
        time.sleep(0.5)
        note("left")
        os._exit(0)
def stop(*_):
    note("TERM")
    os._exit(0)
if "-t" in sys.argv:
    sys.exit(asked("wrong"))
signal.signal(signal.SIGUSR1, leave)
signal.signal(signal.SIGTERM, stop)
note("begun")
if not asked("mute"):
    report = sys.argv[sys.argv.index("--report") + 1]
    with open(report + ".new", "w") as file:
        file.write(str(os.getpid()) + " serving /nowhere" + chr(10))
    os.rename(report + ".new", report)
while True:
    signal.pause()
"""

LEFT = ["begun", "USR1", "left", "begun"]


class Played:
    """An installation with a played xbbd, which has been started."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.install(sys.executable)
        service("start")
        self.pids = service.supervisor, service.child

    def install(self, interpreter: str) -> None:
        """Have it, as a script of that interpreter."""
        text = PLAYED.format(interpreter=interpreter, here=str(self.service.directory))
        self.service.install("bin/xbbd", 0o755, text)

    def ask(self, name: str) -> None:
        """Make the file that it looks for."""
        (self.service.directory / name).touch()

    def heard(self) -> list[str]:
        """What all of them have done and heard."""
        return (self.service.directory / "signals").read_text().split()

    def check_replaced(self) -> None:
        """That others are there, and only they."""
        service = self.service
        now = service.supervisor, service.child
        assert not set(now) & set(self.pids)
        assert all(map(service.gone, self.pids))
        assert not any(map(service.gone, now))
        assert service("status") == f"xbbd is running as pid {now[0]}.\n"


@pytest.fixture
def played(service: Service) -> Played:
    return Played(service)


@pytest.mark.parametrize("argument", ["restart", "onerestart", "forcerestart", "fastrestart"])
def test_it_leaves_and_is_started_anew(
    played: Played, argument: str, shell: str, like: str
) -> None:
    said = played.service(argument)
    assert said == LEAVING + ("" if argument == "fastrestart" else "Starting xbbd.\n")
    played.check_replaced()
    assert played.heard() == LEFT
    protected = played.service.protected.read_text().split()
    assert protected[-1] == f"{played.service.supervisor}"
    played.service("stop")
    assert played.heard() == [*LEFT, "TERM"]


def test_guests_go_on(service: Service, chain: Chain, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    service("start")
    guest = chain.start_guest(1, XVDA, "--patience", f"{GIVE_UP:.0f}")
    disk = DiskOffer(1, XVDA, str(image), mode="w")
    chain.attach(disk)
    guest.event("connected")
    guest.tell("exercise seconds=600 depth=16")
    guest.event("begun")
    guest.event("progress")
    service("restart")
    assert service.served() == 2
    service.until_logged("taken over")
    guest.event("progress")
    guest.event("progress")
    assert "SIGTERM" not in service.log_text()
    assert chain.detach(disk)
    done = guest.event("exercised", GIVE_UP)
    assert (done["errors"], done["mismatches"], done["bad_responses"]) == (0, 0, 0)
    guest.stop()
    service("stop")
    assert "SIGTERM" in service.log_text()


@pytest.mark.parametrize("argument", ["restart", "onerestart", "forcerestart"])
def test_what_could_not_be_started_again_is_not_ended(played: Played, argument: str) -> None:
    played.ask("wrong")
    assert "Stopping" not in played.service(argument, 1)
    assert (played.service.supervisor, played.service.child) == played.pids
    assert not any(map(played.service.gone, played.pids))
    assert played.heard() == ["begun"]
    played.service("stop")


def test_the_configuration_is_checked_before_guests_wait(played: Played) -> None:
    """And not once more while they do."""
    checks = played.service.directory / "checks"
    text = (played.service.directory / "bin" / "xbbd").read_text()
    counted = f"    open({str(checks)!r}, 'a').write('x')\n    sys.exit(asked"
    text = text.replace("    sys.exit(asked", counted)
    played.service.install("bin/xbbd", 0o755, text)
    played.service("restart")
    assert checks.read_text() == "x"
    played.service("stop")


def test_one_that_hangs_is_killed(played: Played, like: str) -> None:
    """In bounded time; guests are not asked to close, not even then."""
    played.ask("hangs")
    played.service.shorten_leave(1)
    said = played.service("restart")
    assert f"xbbd does not leave within 1 s, pid {played.pids[1]}; killing it\n" in said
    assert said.endswith("Starting xbbd.\n")
    played.check_replaced()
    assert played.heard() == ["begun", "USR1", "begun"]
    played.service("stop")


def test_between_two_starts(played: Played, like: str) -> None:
    """daemon(8) is there alone, and in 14 does not hear SIGTERM."""
    service = played.service
    service.hold.touch()
    os.kill(played.pids[1], signal.SIGKILL)
    eventually(lambda: service.gone(played.pids[1]), "xbbd is gone")
    assert service("restart") == f"{LEAVING}Starting xbbd.\n"
    service.hold.unlink()
    played.check_replaced()
    assert played.heard() == ["begun", "begun"]
    service("stop")


def test_as_it_is_started_again(played: Played, like: str) -> None:
    """What daemon(8) has forked and ps(1) does not know as xbbd yet does not come later."""
    service = played.service
    service.hold_forked.touch()
    os.kill(played.pids[1], signal.SIGKILL)
    eventually(lambda: service.child_file.read_text() not in ("", f"{played.pids[1]}"), "the next")
    forked = service.child

    def release_the_next() -> None:
        eventually(lambda: service.gone(forked), "it is told to leave", GIVE_UP)
        service.hold_forked.unlink()

    release = threading.Thread(target=release_the_next)
    release.start()
    assert service("restart") == f"{LEAVING}Starting xbbd.\n"
    release.join()
    assert service.gone(forked)
    played.check_replaced()
    assert played.heard() == ["begun", "begun"]
    service("stop")


def test_without_its_supervisor(played: Played) -> None:
    service = played.service
    os.kill(played.pids[0], signal.SIGKILL)
    eventually(lambda: service.gone(played.pids[0]), "daemon(8) is gone")
    assert service("restart") == f"{LEAVING}Starting xbbd.\n"
    played.check_replaced()
    assert played.heard() == LEFT
    service("stop")


def test_one_that_does_not_run_is_started(service: Service) -> None:
    said = service("restart")
    assert said == f"xbbd not running? (check {service.supervisor_file}).\nStarting xbbd.\n"
    assert service.served() == 1
    service("stop")


def test_an_upgrade_may_bring_another_interpreter(played: Played, like: str) -> None:
    """Then ps(1) shows something else than the command's first line names."""
    other = played.service.directory / "python"
    other.symlink_to(os.path.realpath(sys.executable))
    played.install(str(other))
    assert played.service("restart") == f"{LEAVING}Starting xbbd.\n"
    played.check_replaced()
    assert played.heard() == LEFT
    played.service("stop")


def test_a_start_that_fails_asks_nobody_to_close(played: Played, like: str) -> None:
    """The next one may have taken guests over before it is given up."""
    service = played.service
    played.ask("mute")
    service.set_rc_conf(xbbd_enable="YES", xbbd_start_timeout="2")
    said = service("restart", 1)
    assert said.endswith("WARNING: xbbd has not started: it does not serve after 2 s\n")
    assert played.heard() == [*LEFT, "USR1", "left"]
    assert not list((service.directory / "run").iterdir())


def test_at_shutdown_it_stops(played: Played, like: str) -> None:
    played.service("faststop")
    assert played.heard() == ["begun", "TERM"]
    assert all(map(played.service.gone, played.pids))
