"""xbbd as the benches have it in dom0: started, told other settings, counted, ended.

What is measured is not known here.  Run in dom0.
"""

from __future__ import annotations

import glob
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.domu import sh, wait_for

CONFIG = Path("/tmp/bench.conf")
LIMIT = 240.0  # seconds that a start may take, which reads all modules first
CONTROL = (sys.executable, "-m", "xbbd_bsd.xbbctl")


def _log() -> Path:
    return Path(os.environ["RESULTS"]) / "xbbd.log"


def configure(kinds: str, settings: str = "") -> None:
    """Write the file: kinds as a list of TOML, and whatever else it is to say."""
    more = os.environ.get("XBBD_CONFIG", "")
    CONFIG.write_text(f"[daemon]\nkinds = {kinds}\n{settings}\n{more}")


@contextmanager
def daemon() -> Iterator[subprocess.Popen[bytes]]:
    """It serves, as the file says, for the length of a block."""
    with _log().open("ab") as output:
        before = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "xbbd_bsd.daemon", "-d", "-f", str(CONFIG)],
            stdout=output,
            stderr=output,
        )
        wait_for("xbbd serves", lambda: "serving" in _log().read_text()[before:], LIMIT)
        yield child
        child.terminate()
        child.wait(60)


def read_again(child: subprocess.Popen[bytes]) -> None:
    """Have it read the file once more, for the disks and cards to come."""
    before = len(_log().read_text())
    child.send_signal(signal.SIGHUP)
    wait_for("the file is read", lambda: "configuration" in _log().read_text()[before:], LIMIT)


def counted(driver: str, leaves: tuple[str, ...]) -> dict[str, int]:
    """What it has counted so far, of all devices of a driver together."""
    sums = dict.fromkeys(leaves, 0)
    for line in sh(*CONTROL, "-e", f"dev.{driver}").splitlines():
        name, _, value = line.partition("=")
        leaf = name.rpartition(".")[2]
        if leaf in sums and name.count(".") == 3:
            sums[leaf] += int(value)
    return sums


def dom0_seconds() -> float:
    """Processor time that dom0, where every backend runs, has used; xl says tenths of it."""
    if not any("/xen-" in place for place in sys.path):
        sys.path += glob.glob("/usr/lib/xen-*/lib/python")
    xc = importlib.import_module("xen.lowlevel.xc").xc()
    return float(xc.domain_getinfo(0, 1)[0]["cpu_time"]) / 1e9
