"""xnb against the kernel's xen-netback: same guest, same bridge, one boot.

    python -m tests.lab bench-net [--icount 2] -- [--rounds N] [--seconds N]

Both want the devices of kind vif, so that only one of them is there at a time: the
module is loaded for its turn, and xbbd started for its own.  Turns alternate; figures
are medians over the rounds.  Only ratios within one table mean anything: the machine is
emulated, and dom0 and the guest share one processor.  Prints the table and leaves every
measurement in $RESULTS/bench-net.json.  Run in dom0.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh, wait_for
from tests.lab.subject import configure, counted, daemon, dom0_seconds

BACKENDS = ("xnb", "netback")
BRIDGE = "xenbr9"
HERE, THERE = "192.0.2.1", "192.0.2.2"
DATAGRAM = 64  # bytes of data
WIRE = 1448  # bytes of TCP's data in a packet of a wire
PINGS = 200
# What iperf3 is told; the guest is its client.
STREAMS = {
    "TCP, guest to dom0": "",
    "TCP, dom0 to guest": "-R",
    f"UDP of {DATAGRAM} bytes, guest to dom0": f"-u -b 0 -l {DATAGRAM}",
    f"UDP of {DATAGRAM} bytes, dom0 to guest": f"-u -b 0 -l {DATAGRAM} -R",
}
PING = "ping, dom0 to guest"
# What a figure has to be of netback's: at least, of a ping at most.
BARS = {row: 0.4 if row.startswith("UDP") else 0.7 for row in STREAMS} | {PING: 1.5}
# What tells how much was done at a time.
COUNTERS = (
    *("tx_packets", "tx_slots", "tx_sweeps", "rx_packets", "rx_slots", "rx_sweeps", "rx_full"),
    *("rx_dropped", "tx_dropped", "notifies_received", "notifies_sent", "ring_sleeps"),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One stream, or one row of pings.

    figure: Mbit/s of TCP, datagrams a second that arrive, microseconds of a ping.  cpu_us:
    dom0's processor time for a packet, which of TCP is what a wire would have as one.
    """

    backend: str
    row: str
    round: int
    figure: float
    cpu_us: float


def unit(row: str) -> str:
    """Of a row's figure."""
    return {"T": "Mbit/s", "U": "/s", "p": "us"}[row[0]]


@contextmanager
def backend(name: str) -> Iterator[None]:
    """That one takes the cards that come meanwhile."""
    if name == "netback":
        sh("modprobe", "xen-netback")
        yield
        sh("rmmod", "xen-netback")
        return
    configure('["vif"]')
    with daemon():
        yield


@contextmanager
def card(guest: DomU) -> Iterator[str]:
    """The guest has one with an address; the name of its interface in dom0."""
    sh("xl", "network-attach", guest.name, f"bridge={BRIDGE}", "mac=00:16:3e:00:00:02")
    guest.run(
        "until [ -e /sys/class/net/eth0 ]; do usleep 50000; done;"
        f" ip addr add {THERE}/24 dev eth0; ip link set eth0 up;"
        " until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done",
        check=True,
    )
    wait_for("it answers", lambda: " 0% packet loss" in _ping(1, 1.0), 60)
    yield f"{DOM0.card}{guest.domid}.0"
    sh("xl", "network-detach", guest.name, "0")
    guest.run("while [ -e /sys/class/net/eth0 ]; do usleep 50000; done", check=True)
    wait_for("its interface is gone", lambda: not _cards(), 60)


def _cards() -> list[str]:
    return [name for name in DOM0.interfaces() if name.startswith(DOM0.card)]


def _ping(count: int, interval: float) -> str:
    return sh("ping", "-n", "-c", str(count), "-i", str(interval), THERE, check=False)


def ping_times(text: str) -> list[float]:
    """Microseconds of each answer, of what ping(8) prints."""
    return [float(ms) * 1e3 for ms in re.findall(r"time=([\d.]+) ms", text)]


@contextmanager
def server() -> Iterator[None]:
    """Of iperf3 in dom0, for one client."""
    with subprocess.Popen(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL) as child:
        try:
            wait_for("the server listens", lambda: ":5201" in sh("ss", "-Hltn"), 60)
            yield
        finally:
            child.kill()


def arrived(guest: DomU, interface: str, *, to_guest: bool) -> int:
    """Packets that the end of a card has got."""
    if to_guest:
        _, text = guest.run("cat /sys/class/net/eth0/statistics/rx_packets", check=True)
        return int(text)
    return int(Path(f"/sys/class/net/{interface}/statistics/rx_packets").read_text())


def stream(guest: DomU, interface: str, row: str, seconds: float) -> tuple[float, float]:
    """One of iperf3's: the figure, and dom0's microseconds for a packet."""
    to_guest = row.endswith("to guest")
    command = f"iperf3 -J -c {HERE} -t {seconds:g} {STREAMS[row]} >/tmp/iperf"
    with server():
        packets = arrived(guest, interface, to_guest=to_guest)
        used = dom0_seconds()
        guest.run(command, 120 + 20 * seconds)
        used = dom0_seconds() - used
        packets = arrived(guest, interface, to_guest=to_guest) - packets
    _, text = guest.run("gzip -c /tmp/iperf | base64", check=True)  # the console is slow
    end = json.loads(gzip.decompress(base64.b64decode(text)))["end"]
    if row.startswith("UDP"):
        return packets / end["sum"]["seconds"], used * 1e6 / packets
    received = end["sum_received"]
    return received["bits_per_second"] / 1e6, used * 1e6 * WIRE / received["bytes"]


def pings() -> tuple[float, float]:
    """The median, and dom0's microseconds for a packet, of which a ping has two."""
    used = dom0_seconds()
    times = ping_times(_ping(PINGS, 0.012))  # more often it does not sleep between them
    used = dom0_seconds() - used
    return statistics.median(times), used * 1e6 / (2 * len(times))


def table(measurements: Sequence[Measurement]) -> str:
    """Medians, what xnb's are to netback's, and whether that is good enough."""
    heads = "".join(f"{name:>10} {'cpu':>7}" for name in BACKENDS)
    lines = ["", f"{'':45}{heads}  /netback"]
    for row in dict.fromkeys(m.row for m in measurements):
        line, figures = f"{row}, {unit(row)}".ljust(45), {}
        for name in BACKENDS:
            runs = [m for m in measurements if (m.backend, m.row) == (name, row)]
            if not runs:
                line += " " * 18
                continue
            figures[name] = statistics.median(m.figure for m in runs)
            line += f"{figures[name]:>10.1f} {statistics.median(m.cpu_us for m in runs):>7.2f}"
        if set(figures) == set(BACKENDS):
            ratio = figures["xnb"] / figures["netback"]
            good = ratio <= BARS[row] if row == PING else ratio >= BARS[row]
            line += f"{ratio:>10.2f}{'' if good else f'  (bar: {BARS[row]})'}"
        lines.append(line)
    return "\n".join(lines)


def _rows(guest: DomU, name: str, number: int, options: argparse.Namespace) -> list[Measurement]:
    """All rows of a turn."""
    found = []
    with backend(name), card(guest) as interface:
        for row in (row for row in BARS if options.rows in row):
            watched = options.counters and name == "xnb"
            before = counted("xnb", COUNTERS) if watched else {}
            figure, cpu = pings() if row == PING else stream(guest, interface, row, options.seconds)
            found.append(Measurement(name, row, number, figure, cpu))
            print(f"{number} {name:8}{row:38}{figure:10.1f} {unit(row):7}{cpu:8.2f}", flush=True)
            if watched:
                after = counted("xnb", COUNTERS)
                print({leaf: after[leaf] - before[leaf] for leaf in after}, flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, print the table; exit status."""
    parser = argparse.ArgumentParser(prog="bench-net")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--counters", action="store_true", help="what xnb counted meanwhile")
    options = parser.parse_args(arguments)
    found: list[Measurement] = []
    with DOM0.bridge(BRIDGE, f"{HERE}/24"), DomU("bench", tsc="native") as guest:
        for number in range(options.rounds):
            for name in options.backends.split(","):
                found += _rows(guest, name, number, options)
    results = Path(os.environ["RESULTS"]) / "bench-net.json"
    results.write_text(json.dumps([asdict(m) for m in found], indent=1))
    print(table(found))
    print("\nMedians; cpu: dom0's processor time for a packet (TCP: of 1448 bytes) in us.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
