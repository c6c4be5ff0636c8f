"""The unit of systemd: what systemd itself says of it, and that it calls xbbd as xbbd is."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_man import OURS
from xbbd_bsd.conffile import CONFIG_FILE
from xbbd_bsd.daemon import STOP_SECONDS
from xbbd_bsd.host.choice import run_directory

UNIT = Path(__file__).parent.parent.parent / "etc" / "systemd" / "xbbd.service"


def section(name: str) -> dict[str, str]:
    """The keys of a section; of one that stands there twice the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser[name])


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """With something that can be run where the unit expects xbbd and xbbctl."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    for name in ("xbbd", "xbbctl"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/", f"{tmp_path}/"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    # A key that it does not know would be said here, too.
    # What it says of other units of this machine is theirs.
    said = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert said == []


def test_the_pid_file_is_where_the_daemon_writes_it() -> None:
    """Without that systemd would not know which process serves."""
    service = section("Service")
    assert service["Type"] == "forking"
    state_dir = run_directory(None)
    assert f"/var{service['PIDFile']}" == f"{state_dir}/xbbd.pid"


def test_systemd_waits_longer_than_the_daemon_does() -> None:
    assert float(section("Service")["TimeoutStopSec"]) > 2 * STOP_SECONDS


def test_a_restart_leaves_guests_at_work_and_a_stop_does_not() -> None:
    """By SIGUSR1; SIGTERM is what systemd sends if it is told nothing else."""
    service = section("Service")
    assert service["RestartKillSignal"] == "SIGUSR1"
    assert not {"KillSignal", "ExecStop", "SendSIGHUP", "FinalKillSignal"} & set(service)


def test_guests_processes_are_not_ended_with_the_daemon() -> None:
    assert section("Service")["KillMode"] == "process"


def test_it_is_started_again_whatever_it_ended_by() -> None:
    """SIGUSR1 from somebody else ends it with status 0, and guests wait then."""
    service = section("Service")
    assert service["Restart"] == "always"
    assert not {"RestartPreventExitStatus", "SuccessExitStatus"} & set(service)


def test_the_command_and_the_configuration_are_where_they_are_said_to_be() -> None:
    assert section("Service")["ExecStart"].split() == ["/usr/local/bin/xbbd"]
    assert CONFIG_FILE in UNIT.read_text()


def test_the_pages_that_it_names_exist() -> None:
    named = re.findall(r"man:([\w.-]+)\((\d)\)", section("Unit")["Documentation"])
    assert len(named) == 3
    assert set(named) <= OURS


def test_guests_come_later_and_go_before() -> None:
    unit = section("Unit")
    assert "xendomains.service" in unit["Before"]
    assert {"xen.service", "xenstored.service"} <= set(
        re.findall(r"\S+\.service", " ".join(re.findall(r"^After=(.*)$", UNIT.read_text(), re.M)))
    )
