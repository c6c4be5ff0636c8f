"""Guests at work: whatever happens to those who serve them, all is right at the end.

fio compares all that it reads with what it wrote, and ends with status 0 or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.domu import DomU, sh
from tests.real.conftest import Guests
from tests.real.service import Service, Toolstack, eventually
from xbbd_bsd.native import State
from xbbd_bsd.toolstack import DiskOffer

FIO = (
    "fio --name=v --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw"
    " --bs=4k --size=16M --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based"
    " --runtime=3600 --fsync=64"
)
RAW = f"{FIO} --filename=/dev/xvda"
FILE_SYSTEM = (
    "mkfs.ext4 -q /dev/xvda && mkdir -p /mnt && mount /dev/xvda /mnt &&"
    f" {FIO} --filename=/mnt/file; status=$?; umount /mnt; (exit $status)"
)

# The one that was started: a job of its that hears of it by itself, too, may hang (fio 3.33,
# with nothing under way, 4 times of 12).
INTERRUPT = "kill -INT $(for p in $(pidof fio); do echo $p; done | sort -n | head -1)"
ENDED = (
    "n=0; until [ -e /tmp/status ]; do n=$((n+1)); [ $n -gt 1000 ] && exit 1; usleep 100000; done"
)


@dataclass
class Bench:
    """Whatever the tests of this file need of a dom0."""

    toolstack: Toolstack
    guests: Guests
    image: Path

    @contextmanager
    def guest_at_work(self, service: Service, job: str = RAW) -> Iterator[DomU]:
        """A guest whose disk is in use all the time, and who has found nothing wrong at the end."""
        guest, offer = self.attached()
        try:
            begin(service, guest, job)
            yield guest
        except BaseException:  # its requests may never end: it is of no use to the next test
            self.guests.forget(guest.name)
            raise
        end_fio(service, guest)
        assert self.toolstack.node(f"{offer.backend}/state") == "4"
        assert self.toolstack.detach(offer)

    def attached(self, name: str = "g1") -> tuple[DomU, DiskOffer]:
        guest = self.guests.get(name)
        assert guest.domid is not None
        offer = self.toolstack.attach(guest.domid, self.image)
        guest.wait_disk("xvda")
        return guest, offer


@pytest.fixture
def bench(toolstack: Toolstack, guests: Guests, image: Path) -> Bench:
    return Bench(toolstack, guests, image)


def end_fio(service: Service, guest: DomU) -> None:
    """It is asked to end, and has found nothing wrong."""
    late, _ = guest.run(f"{INTERRUPT}; {ENDED}", timeout=130)
    if late:  # whose requests are they, if any are missing?
        _, theirs = guest.run("cat /sys/block/xvda/inflight /tmp/fio; ps")
        text = f"fio does not end; there: {theirs}\nhere: {unanswered(service)}"
        raise AssertionError(text)
    _, said = guest.run("cat /tmp/status; cat /tmp/fio")
    assert "verify" not in said, said
    assert said.split()[0] in ("0", "128"), said  # 128: as it was asked to end


def unanswered(service: Service) -> str:
    """What each disk's table has, and where its rings are."""
    found = []
    for name in service.devices():
        state = State.open(str(service.directory / "run" / name))
        for ring in state.served:
            found.append(f"{name}: {state.ring(ring)}, {state.inflight(ring)}")
        state.close()
    return "\n".join(found)


def begin(service: Service, guest: DomU, job: str) -> None:
    guest.run("rm -f /tmp/status", check=True)
    guest.send(f"(({job}) >/tmp/fio 2>&1; echo $? >/tmp/status) &")
    progress(service)


def progress(service: Service) -> None:
    """Requests are answered, by whoever serves now."""
    eventually(lambda: bool(service.devices()), "there is a segment")
    before = service.counters()["reqs_completed"]
    eventually(lambda: service.counters()["reqs_completed"] > before + 100, "I/O goes on", 60)


def goes_on(guest: DomU) -> None:
    """Its requests are answered, by whoever serves now, as it counts them itself."""

    def done() -> int:
        _, counts = guest.run("cat /sys/block/xvda/stat", check=True)
        columns = counts.splitlines()[-1].split()  # above it: the end of what was sent before
        reads, writes = (int(columns[number]) for number in (0, 4))
        return reads + writes

    before = done()
    eventually(lambda: done() > before + 100, "I/O goes on", 60)


def process(service: Service) -> int:
    """The process of the guest."""
    found = sh("pgrep", "-f", "^xbbd: guest [^s]").split()
    assert len(found) == 1, found
    return int(found[0])
