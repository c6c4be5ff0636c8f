"""What it costs a guest to be watched: its I/O with and without a reader of the tree.

    python -m tests.sim.watched --rate 1000

A client reads a leaf so many times a second by the control socket, or the whole
tree with --whole, or all counters from the state segment with --segment; rounds
with and without it alternate.  The ring's thread looks for work before it sleeps, as
it always does, unless --sleep has it sleep at once: with two processors there is
none left for the reader otherwise.  Figures for people, no test.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.host import control_path
from xbbd_bsd.native import State
from xbbd_bsd.sim.chain import Chain, Guest
from xbbd_bsd.toolstack import DiskOffer

XVDA = 51712


class Reader:
    """A client that reads at a rate until it is told to stop."""

    def __init__(self, read: Callable[[], object], rate: float) -> None:
        self.reads = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(read, rate))
        self._thread.start()

    def _run(self, read: Callable[[], object], rate: float) -> None:
        begun = time.monotonic()
        while not self._stop.is_set():
            read()
            self.reads += 1
            self._stop.wait(max(0.0, begun + self.reads / rate - time.monotonic()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def round_of(guest: Guest, words: str) -> float:
    """I/O a second of one round."""
    guest.tell(f"exercise {words}")
    result = guest.event("exercised", 60)
    return float((result["reads"] + result["writes"]) / result["elapsed_ns"] * 1e9)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--segment", action="store_true")
    parser.add_argument("--sleep", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    name = "" if options.whole else "dev.xbbd.0.reqs_completed"
    words = (
        f"seconds={options.seconds} read_percent=100 verify=0 max_sectors=8 min_sectors=8"
        f" align_sectors=8 depth={options.depth}"
    )
    config = "[disk]\npoll_max_us = 0\n" if options.sleep else ""
    with tempfile.TemporaryDirectory() as directory, Chain(config) as chain, ExitStack() as held:
        chain.start_daemon()
        image = Path(directory) / "disk.img"
        image.write_bytes(bytes(64 << 20))
        guest = chain.start_guest(1, XVDA)
        chain.attach(DiskOffer(1, XVDA, str(image)))
        guest.event("connected")
        if options.segment:
            state = State.open(chain.layout.state_segment(0))
            held.callback(state.close)
            read: Callable[[], object] = state.counters
        else:
            connection = held.enter_context(Connection(control_path(chain.layout.run)))

            def read() -> object:
                return connection.whole(Request(Verb.GET, name))

        alone, watched, rates = [], [], []
        round_of(guest, words)
        for _ in range(options.rounds):
            alone.append(round_of(guest, words))
            begun = time.monotonic()
            reader = Reader(read, options.rate)
            watched.append(round_of(guest, words))
            reader.close()
            rates.append(reader.reads / (time.monotonic() - begun))
    ratio = statistics.median(w / a for w, a in zip(watched, alone, strict=True))
    print(f"depth {options.depth}, {options.rounds} rounds each, medians:")
    print(f"alone   {statistics.median(alone):.0f} I/O a second")
    print(
        f"watched {statistics.median(watched):.0f}, {statistics.median(rates):.0f} reads a second"
    )
    print(f"ratio   {ratio:.3f}")


if __name__ == "__main__":
    main()
