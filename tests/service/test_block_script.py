"""etc/block-xbbd, called as xl calls it on Linux and on FreeBSD, with a store of files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "etc" / "block-xbbd"
BACKEND = "backend/vbd/5/51712"

READ = '#!/bin/sh\ncat "$STORE/$1" 2>/dev/null\n'
WRITE = """#!/bin/sh
while [ $# -gt 0 ]; do
	printf %s "$2" > "$STORE/$1"
	shift 2
done
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The backend's directory in a store, after xl has written what it wants."""
    (tmp_path / "bin").mkdir()
    for name, text in (("xenstore-read", READ), ("xenstore-write", WRITE)):
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    backend = tmp_path / BACKEND
    backend.mkdir(parents=True)
    (backend / "params").write_text("/tank/a b.img")
    return backend


def call(store: Path, platform: str, action: str) -> subprocess.CompletedProcess[str]:
    """As libxl_linux.c and libxl_freebsd.c do."""
    root = store.parents[3]
    environment = {"PATH": f"{root}/bin:{os.environ['PATH']}", "STORE": str(root)}
    arguments = [BACKEND, action]
    if platform == "linux":
        arguments = [action]
        environment["XENBUS_PATH"] = BACKEND
    return subprocess.run(
        [shutil.which("sh") or "sh", str(SCRIPT), *arguments],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("platform", ["linux", "freebsd"])
def test_it_tells_the_daemon_and_waits(store: Path, platform: str) -> None:
    (store / "hotplug-status").write_text("connected")
    done = call(store, platform, "add")
    assert (done.returncode, done.stderr) == (0, "")
    assert (store / "physical-device-path").read_text() == "/tank/a b.img"


@pytest.mark.parametrize("platform", ["linux", "freebsd"])
def test_a_group_of_limits_before_the_target(store: Path, platform: str) -> None:
    (store / "hotplug-status").write_text("connected")
    (store / "params").write_text("limit-group=gold,/tank/a,b.img")
    done = call(store, platform, "add")
    assert (done.returncode, done.stderr) == (0, "")
    assert (store / "limit-group").read_text() == "gold"
    assert (store / "physical-device-path").read_text() == "/tank/a,b.img"


@pytest.mark.parametrize("platform", ["linux", "freebsd"])
def test_a_disk_that_does_not_open(store: Path, platform: str) -> None:
    (store / "hotplug-status").write_text("error")
    (store / "hotplug-error").write_text("unable to open /tank/a b.img: No such file")
    done = call(store, platform, "add")
    assert done.returncode == 1
    assert done.stderr == "block-xbbd: unable to open /tank/a b.img: No such file\n"


@pytest.mark.parametrize("platform", ["linux", "freebsd"])
def test_nothing_to_do_on_removal(store: Path, platform: str) -> None:
    assert call(store, platform, "remove").returncode == 0
    assert not (store / "physical-device-path").exists()


def test_without_params_it_says_so(store: Path) -> None:
    (store / "params").unlink()
    done = call(store, "freebsd", "add")
    assert done.returncode == 1
    assert f"node {BACKEND}/params is missing" in done.stderr
    assert (store / "hotplug-status").read_text() == "error"
