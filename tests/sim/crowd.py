"""Many disks on one daemon: how long the tree takes, and how much memory a disk costs.

    python -m tests.sim.crowd --disks 200

Figures for people, no test: each disk is connected to a guest of its own, so it
needs a few GB and some minutes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.toolstack import DiskOffer

XVDA = 51712


def resident(pid: int) -> tuple[int, int]:
    """KiB of a process in memory: private, and shared with files (state segments, guests)."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            found[name] = int(value.split()[0])
    return found["RssAnon"], found["RssFile"] + found["RssShmem"]


def seconds(*command: str) -> float:
    """How long a command takes, which must go well."""
    before = time.monotonic()
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - before


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disks", type=int, default=200)
    parser.add_argument("--queues", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Chain() as chain:
        daemon = chain.start_daemon()
        host = f"sim:{chain.layout.directory}"
        guests = []
        base = None
        for number in range(options.disks):
            domid = number + 1
            image = Path(directory) / f"{domid}.img"
            with image.open("wb") as file:
                file.truncate(16 << 20)
            guest = chain.start_guest(domid, XVDA, "--queues", str(options.queues))
            if base is None:
                base = resident(daemon.pid)
            chain.attach(DiskOffer(domid, XVDA, str(image)))
            guest.event("connected")
            guest.tell("exercise operations=1000 sectors=4096")
            guest.event("exercised")
            guests.append(guest)
        assert base is not None
        whole = resident(daemon.pid)
        private, mapped = (
            (late - early) / options.disks for late, early in zip(whole, base, strict=True)
        )
        print(f"{options.disks} disks of {options.queues} rings, each exercised")
        print(f"memory of the daemon: {base[0]} KiB private without disks, {whole[0]} with;")
        print(f"a disk: {private:.0f} KiB private, {mapped:.0f} KiB mapped of files, of which")
        segment = Path(chain.layout.state_segment(0)).stat().st_size >> 10
        print(f"{segment} KiB are its state segment, the rest is memory of the simulated guest")
        times = [seconds("xbbd_bsd.xbbctl", "--host", host, "-a") for _ in range(5)]
        print(f"xbbctl -a: {statistics.median(times):.2f} s, median of 5, {max(times):.2f} at most")
        for words in (("list",), ("-n", "dev.xbbd.0.rd_req")):
            times = [seconds("xbbd_bsd.xbbctl", "--host", host, *words) for _ in range(5)]
            print(f"xbbctl {' '.join(words)}: {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
