"""The demonstration itself, shortened: what a newcomer sees first must work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_demo() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.sim", "demo", "--seconds", "1"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verdict: all is well" in done.stdout
    assert "dev.xbbd.0.reqs_received:" in done.stdout
    assert "FAIL" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "xbbd_bsd.sim", "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as demo:
        assert demo.stdout is not None
        output = ""
        while "IOPS" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        demo.send_signal(number)
        output += demo.stdout.read()
        assert demo.wait(30) == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output


def test_demo_without_e2fsprogs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine without mke2fs the image is plain bytes, and everything else the same."""
    from xbbd_bsd.sim import image

    monkeypatch.setattr(image, "_SBIN", "")
    plain = image.make(f"{tmp_path}/disk.img", 1 << 20, 1 << 20)
    assert plain.files == 0
    assert plain.check() is None
    again = image.make(f"{tmp_path}/again.img", 1 << 20, 1 << 20)
    assert plain.sha256(plain.size) == again.sha256(again.size)
