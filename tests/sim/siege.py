"""Everything at once that may not be felt by another guest, for as long as one likes.

    python -m tests.sim.siege --seconds 600

One disk on a file server that is stopped, one on a file system that is frozen, a
guest that storms the store, many with pages that stay mapped singly; and one that
must not notice, whose disk works all the time while another of its kind comes and
goes.  What list takes, and the honest guest's I/O a second before
and meanwhile, are figures for people; that anything fails ends it with status 1.
Before, the storm writes where nobody looks, so that it takes as much of the
processors.  Root, Linux: silent_disks.py.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.sim.silent_disks import FrozenFileSystem, StoppedServer, missing
from tests.waiting import eventually
from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.host import control_path
from xbbd_bsd.sim.chain import Chain, Guest
from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.xenstore.client import Store, StoreError

XVDA = 51712
ROUND_SECONDS = 5
CONFIG = "[disk]\nresize_interval = 1\nmax_queues = 1\n"


class Storm:
    """A guest that writes a node as fast as the store takes it; a process of its own.

    In one of ours it would hold up whoever is timed.
    """

    def __init__(self, path: str, node: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._writes = context.Value("Q", 0)
        self._stop = context.Event()
        arguments = (path, node, self._writes, self._stop)
        self._process = context.Process(target=_storm, args=arguments)
        self._process.start()

    @property
    def writes(self) -> int:
        return int(self._writes.value)

    def close(self) -> None:
        self._stop.set()
        self._process.join()


def _storm(path: str, node: str, writes: Any, stop: Any) -> None:
    loop = asyncio.new_event_loop()
    store = Store(path, loop=loop)
    store.connect()
    while not stop.is_set():
        try:
            store.write(node, b"4")
        except StoreError:
            stop.wait(0.01)
        writes.value += 1
    store.close()
    loop.close()


class Siege:
    """A machine under siege."""

    def __init__(self, chain: Chain, directory: Path, disks: int) -> None:
        self.chain = chain
        self.directory = directory
        self.daemon = chain.start_daemon()
        self.lists: list[float] = []
        self._guests: list[Guest] = []
        for number in range(disks):
            self.keeping(4, XVDA + 16 * number, number, "--persistent")
        self.honest = self.connected(1, self.image("honest"))

    def image(self, name: str) -> Path:
        path = self.directory / name
        with path.open("wb") as file:
            file.truncate(8 << 20)
        return path

    def connected(self, domid: int, image: Path, vdev: int = XVDA, *options: str) -> Guest:
        guest = self.chain.start_guest(domid, vdev, *options)
        self.chain.attach(DiskOffer(domid, vdev, str(image)))
        guest.event("connected", 120)
        self._guests.append(guest)
        return guest

    def keeping(self, domid: int, vdev: int, number: int, *options: str) -> None:
        """A disk of a guest of its own, whose pages were used, and stay mapped, singly."""
        image = self.image(f"keeping{number}")
        guest = self.connected(domid + number, image, vdev, *options)
        guest.tell("exercise operations=500 depth=1 max_sectors=8")
        guest.event("exercised", 120)

    def look(self) -> None:
        """What `xbbctl list` asks."""
        begun = time.monotonic()
        with Connection(control_path(self.chain.layout.run)) as connection:
            for _ in connection.ask(Request(Verb.GET, "dev.xbbd")):
                pass
        self.lists.append(time.monotonic() - begun)

    def io(self) -> float:
        """The honest guest's I/O a second in a round; AssertionError if anything is wrong."""
        self.honest.tell(f"exercise seconds={ROUND_SECONDS} depth=8 flush_every=50")
        ended = threading.Event()
        looks = threading.Thread(target=self._look_until, args=(ended,))
        looks.start()
        try:
            result = self.honest.event("exercised", 120)
        finally:
            ended.set()
            looks.join()
        assert result["errors"] == result["mismatches"] == 0, result
        return float((result["reads"] + result["writes"]) / result["elapsed_ns"] * 1e9)

    def _look_until(self, ended: threading.Event) -> None:
        while not ended.wait(0.2):
            self.look()

    def come_and_go(self) -> None:
        """Another guest attaches, works, detaches."""
        guest = self.connected(2, self.image("other"))
        guest.tell("exercise operations=500 depth=8 flush_every=20")
        result = guest.event("exercised", 120)
        assert result["errors"] == result["mismatches"] == 0, result
        assert self.chain.detach(DiskOffer(2, XVDA, str(self.directory / "other")))
        guest.event("closed", 120)
        guest.stop()
        self._guests.remove(guest)

    def stop(self) -> float:
        """Seconds that SIGTERM takes."""
        begun = time.monotonic()
        self.daemon.signal(15)
        eventually(lambda: "giving up" in Path(self.daemon.log).read_text(), "it gives up", 60)
        return time.monotonic() - begun

    def close(self) -> None:
        for guest in self._guests:
            guest.signal(9)
            guest.wait()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--disks", type=int, default=16)
    options = parser.parse_args()
    if reason := missing():
        parser.error(reason)
    with ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory()))
        chain = held.enter_context(Chain(CONFIG))
        server = held.enter_context(closing(StoppedServer(directory)))
        frozen = held.enter_context(closing(FrozenFileSystem(directory)))
        siege = Siege(chain, directory, options.disks)
        held.callback(siege.close)
        for number, image in enumerate((server.file, frozen.file)):
            guest = siege.connected(40 + number, image)
            guest.tell("exercise seconds=36000 depth=8 sectors=16384")
            guest.event("progress")
        nodes = f"/local/domain/4/device/vbd/{XVDA}"
        with closing(Storm(chain.layout.store_socket(4), f"{nodes}/nobody-looks")):
            before = statistics.median(siege.io() for _ in range(3))
        siege.lists.clear()
        server.stop()
        frozen.freeze()
        storm = Storm(chain.layout.store_socket(4), f"{nodes}/state")
        held.callback(storm.close)
        begun, meanwhile, rounds = time.monotonic(), [], 0
        while time.monotonic() - begun < options.seconds:
            meanwhile.append(siege.io())
            siege.come_and_go()
            rounds += 1
        took = siege.stop()
        ratio = statistics.median(meanwhile) / before
        lists = sorted(siege.lists)
        print(f"{time.monotonic() - begun:.0f} s, {storm.writes} writes of the storm,")
        print(f"list: median {statistics.median(lists) * 1e3:.1f} ms,", end=" ")
        print(f"p99 {lists[len(lists) * 99 // 100] * 1e3:.1f} ms, worst {lists[-1] * 1e3:.1f} ms")
        print(f"{rounds} guests came, worked and went; an honest guest had", end=" ")
        print(f"{statistics.median(meanwhile):.0f} I/O a second, {before:.0f} before: {ratio:.2f}")
        print(f"SIGTERM ended it in {took:.1f} s")
        server.go_on()
        frozen.thaw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
