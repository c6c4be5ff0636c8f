"""etc/periodic/daily/490.status-xbbd, as periodic(8) runs it, with an xbbctl that is none.

Where FreeBSD's own files are, the script has stand-ins.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "etc/periodic/daily/490.status-xbbd"

# As /etc/defaults/periodic.conf has it: a default, and a function that reads the rest.
DEFAULTS = """\
daily_status_xbbd_unused=NO
source_periodic_confs() {
	. "$PLACE/periodic.conf"
}
"""
XBBCTL = """\
#!/bin/sh
echo "xbbctl $*" >>"$PLACE/calls"
cat "$PLACE/out"
cat "$PLACE/errors" >&2
exit "$(cat "$PLACE/status")"
"""
HEAD = "\nChecking the disks that xbbd serves to guests:\n"


class Daily:
    """The script in a place of its own."""

    def __init__(self, place: Path, shell: str) -> None:
        self._place, self._shell = place, shell
        text = SCRIPT.read_text()
        for there, here in (
            ("/etc/defaults/periodic.conf", "defaults"),
            ("/usr/local/bin/xbbctl", "xbbctl"),
        ):
            assert there in text
            text = text.replace(there, str(place / here))
        (place / "script").write_text(text)
        (place / "xbbctl").write_text(XBBCTL)
        (place / "xbbctl").chmod(0o755)
        (place / "defaults").write_text(DEFAULTS)
        self.configure('daily_status_xbbd_enable="YES"')
        self.answer(0, "all is well: 2 disks\n")

    def configure(self, text: str) -> None:
        (self._place / "periodic.conf").write_text(f"{text}\n")

    def answer(self, status: int, out: str, errors: str = "") -> None:
        for name, content in (("status", str(status)), ("out", out), ("errors", errors)):
            (self._place / name).write_text(content)

    def run(self) -> tuple[int, str]:
        """Status and what is mailed."""
        done = subprocess.run(
            [self._shell, str(self._place / "script")],
            env={"PATH": os.environ["PATH"], "PLACE": str(self._place)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, done.stdout

    @property
    def calls(self) -> list[str]:
        path = self._place / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def daily(tmp_path: Path, shell: str) -> Daily:
    return Daily(tmp_path, shell)


def test_all_is_well(daily: Daily) -> None:
    assert daily.run() == (0, f"{HEAD}all is well: 2 disks\n")
    assert daily.calls == ["xbbctl health"]


def test_something_is_wrong(daily: Daily) -> None:
    daily.answer(1, "error: xbbd0: it is closed\n    see to it\n")
    assert daily.run() == (1, f"{HEAD}error: xbbd0: it is closed\n    see to it\n")


def test_the_daemon_does_not_answer(daily: Daily) -> None:
    daily.answer(2, "", "xbbctl: no xbbd listens\n")
    assert daily.run() == (3, f"{HEAD}xbbctl: no xbbd listens\n")


def test_xbbctl_is_not_there(daily: Daily, tmp_path: Path) -> None:
    (tmp_path / "xbbctl").unlink()
    status, out = daily.run()
    assert (status, out.startswith(HEAD), "not found" in out) == (3, True, True)


@pytest.mark.parametrize("text", ["", 'daily_status_xbbd_enable="NO"', "daily_status_xbbd_enable="])
def test_it_has_to_be_wanted(daily: Daily, text: str) -> None:
    daily.configure(text)
    assert daily.run() == (0, "")
    assert daily.calls == []


def test_it_is_wanted_in_any_case(daily: Daily) -> None:
    daily.configure("daily_status_xbbd_enable=yes")
    assert daily.run()[1] != ""


def test_flags(daily: Daily) -> None:
    daily.configure("daily_status_xbbd_enable=YES\ndaily_status_xbbd_flags='-v --age 30'")
    daily.run()
    assert daily.calls == ["xbbctl health -v --age 30"]


def test_without_freebsds_own_files(daily: Daily, tmp_path: Path) -> None:
    (tmp_path / "defaults").unlink()
    assert daily.run() == (0, "")


def test_it_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)
