"""The demonstration: one disk, one guest, every step shown and checked.

`make demo`.  Starts machine, daemon and guest as processes; the guest copies
the disk out and exercises it; then everything must be back to zero.  Prints
what it sees; the exit status is the verdict.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.errors import XbbdError, in_words
from xbbd_bsd.native import State, sim_mapped
from xbbd_bsd.sim import image
from xbbd_bsd.sim.chain import Chain, Guest
from xbbd_bsd.toolstack import DiskOffer

DOMID, XVDA = 1, 51712
DEPTH = 32
CHECKED = {
    "mismatches": "every read was what had been written",
    "errors": "no request failed",
    "still_mapped": "no page was still mapped when its answer came",
    "bad_responses": "every request was answered once",
}
SHOWN_NODES = (
    "params", "mode", "state", "hotplug-status", "feature-barrier", "feature-flush-cache",
    "max-ring-page-order", "sectors", "sector-size", "info",
)  # fmt: skip


class Verdict:
    """What was checked, and whether all of it held."""

    def __init__(self) -> None:
        self.good = True

    def check(self, holds: bool, what: str, otherwise: str = "") -> None:
        """Print one finding."""
        self.good &= holds
        print(f"  {'ok  ' if holds else 'FAIL'}  {what}{'' if holds else f': {otherwise}'}")


def rate(figures: Mapping[str, Any]) -> tuple[float, float]:
    """I/O operations and MiB a second."""
    seconds = max(figures["elapsed_ns"], 1) / 1e9
    operations = sum(figures[name] for name in ("reads", "writes", "flushes", "barriers"))
    sectors = figures["sectors_read"] + figures["sectors_written"]
    return operations / seconds, sectors * 512 / seconds / (1 << 20)


def exercise(guest: Guest, seconds: float, disk: image.Image) -> dict[str, Any]:
    """Random I/O on the scratch area, with a line that shows how it goes."""
    guest.tell(
        f"exercise seconds={seconds} depth={DEPTH} seed={int(time.time())} flush_every=200"
        f" barrier_every=100 first_sector={disk.fs_bytes // 512}"
        f" sectors={disk.scratch_bytes // 512}"
    )
    live = sys.stdout.isatty()
    shown = 0.0
    while True:
        event = guest.next_event()
        if event["event"] == "failed":
            raise XbbdError(f"the guest: {event['text']}")
        if event["event"] == "exercised":
            if live:
                print("\r\033[K", end="")
            return event
        if event["event"] != "progress":
            continue
        now = event["elapsed_ns"] / 1e9
        if live or now >= shown + 2:
            shown = now
            iops, mib = rate(event)
            line = (
                f"  {now:5.1f} s  {iops:8.0f} IOPS  {mib:7.1f} MiB/s"
                f"  {event['mismatches']} mismatches  {event['errors']} errors"
            )
            print(f"\r\033[K{line}" if live else line, end="" if live else "\n", flush=True)


def show_attached(chain: Chain, disk: DiskOffer, connected: Mapping[str, Any], abi: str) -> None:
    """What the two ends agreed on."""
    print(f"\nAttached: {disk.backend}")
    for name in SHOWN_NODES:
        value = chain.store.get(f"{disk.backend}/{name}")
        print(f"  {name:<22} {'-' if value is None else value.decode()}")
    print(f"  {'size':<22} {connected['sectors'] * 512 / (1 << 20):.0f} MiB")
    print(f"  {'ABI':<22} {abi}")
    print(f"  {'ring pages':<22} {connected['ring_pages']}")


def show_exercise(figures: Mapping[str, Any]) -> None:
    """Throughput and latency."""
    iops, mib = rate(figures)
    print(
        f"  {figures['reads']} reads, {figures['writes']} writes,"
        f" {figures['flushes']} flushes, {figures['barriers']} barriers"
    )
    print(f"  {iops:.0f} IOPS, {mib:.1f} MiB/s; latency in microseconds:")
    print("  " + "  ".join(f"{name} {us:.1f}" for name, us in figures["latency_us"].items()))


def show_counters(chain: Chain) -> None:
    """The backend's own account, from the state segment."""
    print("\nThe backend's counters:")
    state = State.open(chain.layout.state_segment(0))
    try:
        for name, value in state.counters().items():
            print(f"  {DRIVER.oid(0, name)}: {value}")
    finally:
        state.close()


def run(chain: Chain, disk: image.Image, seconds: float, ring_order: int) -> bool:
    """The whole story on a running machine; whether all went well."""
    verdict = Verdict()
    abi = "x86_64"
    daemon = chain.start_daemon()
    guest = chain.start_guest(DOMID, XVDA, "--abi", abi, "--ring-order", str(ring_order),
                              "--depth", str(DEPTH))  # fmt: skip
    offer = DiskOffer(DOMID, XVDA, disk.path)
    chain.attach(offer)
    connected = guest.event("connected")
    show_attached(chain, offer, connected, abi)

    print("\nThe guest copies the whole disk out through the ring:")
    guest.tell(f"copy {disk.path}.copy")
    copied = guest.event("copied")
    speed = copied["bytes"] / copied["seconds"] / (1 << 20)
    print(f"  {copied['bytes'] >> 20} MiB in {copied['seconds']:.2f} s, {speed:.0f} MiB/s")
    expected = disk.sha256(disk.size)
    verdict.check(copied["sha256"] == expected, f"SHA-256 {expected[:16]}... equals the image's",
                  copied["sha256"])  # fmt: skip
    before = disk.sha256(disk.fs_bytes)

    print(
        f"\nThe guest reads and writes at random for {seconds:.0f} s, {DEPTH} requests in flight,"
    )
    print("and compares with its own copy of the disk:")
    figures = exercise(guest, seconds, disk)
    show_exercise(figures)
    for name in CHECKED:
        verdict.check(figures[name] == 0, CHECKED[name], str(figures[name]))
    show_counters(chain)

    print("\nThe guest shuts down, the toolstack takes the disk back:")
    guest.tell("close")
    guest.event("closed")
    verdict.check(chain.detach(offer), "backend and frontend closed", "by force only")
    fd = os.open(chain.layout.domain(DOMID), os.O_RDONLY)
    mapped = sim_mapped(fd)
    os.close(fd)
    verdict.check(mapped == 0, "grants still mapped: 0", str(mapped))
    ports = os.listdir(os.path.join(chain.layout.domain(DOMID), "ports"))
    verdict.check(not ports, "event channels left: 0", str(len(ports)))
    guest.end_input()
    verdict.check(guest.wait() == 0, "the guest has ended")
    verdict.check(daemon.stop() == 0, "the daemon has ended", daemon.tail())
    left = sorted(set(os.listdir(chain.layout.run)))
    verdict.check(not left, "state segments left: 0", ", ".join(left))
    nodes = chain.store.get(f"/local/domain/0/backend/{offer.kind}/{DOMID}/{XVDA}")
    verdict.check(nodes is None, "nodes left: 0")

    print("\nThe image, from outside:")
    verdict.check(disk.sha256(disk.fs_bytes) == before, "file system untouched by the exercise")
    if disk.files:
        complaint = disk.check()
        verdict.check(complaint is None, "e2fsck -fn finds nothing wrong", complaint or "")
    return verdict.good


def main(seconds: float, ring_order: int) -> int:
    """The command `demo`; its exit status."""
    begun = time.monotonic()
    good = False
    try:
        with Chain() as chain:
            disk = image.make(os.path.join(chain.directory, "disk.img"))
            kind = f"ext4 with {disk.files} files" if disk.files else "plain bytes (no mke2fs here)"
            print(f"Image: {disk.size >> 20} MiB, {kind} and a scratch area behind")
            try:
                good = run(chain, disk, seconds, ring_order)
            except (XbbdError, OSError) as error:
                print(f"FAIL: {in_words(error)}\n{chain.tails()}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (XbbdError, OSError, subprocess.SubprocessError) as error:
        print(f"FAIL: {in_words(error)}", file=sys.stderr)
    verdict = "all is well" if good else "something is wrong"
    print(f"\nVerdict: {verdict} ({time.monotonic() - begun:.0f} s)")
    return 0 if good else 1
