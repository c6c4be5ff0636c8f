"""The demonstration of network cards: it works, says what it needs, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.conftest import temporary
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.sim import namespace
from xbbd_bsd.sim.netchain import NetChain

__all__ = ["temporary"]  # a fixture

DEMO = [sys.executable, "-m", "xbbd_bsd.sim", "demo-net"]
runs_here = pytest.mark.skipif(bool(namespace.lacking()), reason=f"needs {namespace.lacking()}")


@runs_here
@pytest.mark.slow
def test_demo(temporary: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--megabytes", "10"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^Verdict: all is well \(\d+ s\)$", done.stdout, re.M)
    assert done.stdout.count("ok    10 MB, SHA-256 equal at both ends") == 2
    assert "dev.xnb.1.rx_packets:" in done.stdout
    assert "FAIL" not in done.stdout


@runs_here
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*DEMO, "--megabytes", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    ) as demo:
        assert demo.stdout is not None
        output = ""
        while "streams of TCP" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        demo.send_signal(number)
        output += demo.stdout.read()
        assert demo.wait(60) == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output


@runs_here
@pytest.mark.slow
def test_bench() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.sim", "bench-net", "--rounds", "1", "--seconds", "0.3"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^ +(?:TCP|UDP).*\d\.\d\d$", done.stdout, re.M)) == 4
    assert "The bar is 0.70" in done.stdout


@pytest.mark.parametrize(
    ("euid", "platform", "what"),
    [
        (1000, "linux", "this needs root, to make interfaces in name spaces of its own"),
        (0, "freebsd15", "this needs network name spaces, which only Linux has"),
    ],
)
def test_what_it_needs_is_said(
    monkeypatch: pytest.MonkeyPatch, euid: int, platform: str, what: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(OperatorError, match=what):
        NetChain()


def test_a_program_that_it_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", "/nowhere")
    assert namespace.lacking() == "unshare (on Debian: apt-get install util-linux)"
