"""A frontend of our own on real grants, in dom0 itself: how it works, and how it cheats."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import sh
from tests.native.slots import REQ_PROD, RawRing, request
from tests.real.service import Service, Toolstack, active_grants, eventually
from xbbd_bsd.host.linux import GNTALLOC, LinuxDomain
from xbbd_bsd.native import Abi, Op, Progress, Transport, Workload
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.toolstack import DiskOffer

pytestmark = pytest.mark.skipif(
    DOM0.name != "linux",
    reason="dom0 is its own guest here: a FreeBSD that maps its own grants has holes in its"
    " memory afterwards, or panics",
)

OKAY, ERROR = 0, -1

# Attaches of one test; each takes most of a second in the emulated dom0, so that 500
# (python -m tests.lab test --env LAB_CYCLES=500) are for those who have the time.
CYCLES = int(os.environ.get("LAB_CYCLES", "100"))

# xen/gntalloc.h
ALLOC_GREF, DEALLOC_GREF, WRITABLE = 0x00184705, 0x00104706, 1


class Home:
    """Dom0 as a guest of itself, with one disk."""

    def __init__(
        self, toolstack: Toolstack, image: Path, ring_order: int = 0, depth: int = 32
    ) -> None:
        self.toolstack = toolstack
        self.domain = LinuxDomain()
        self.offer: DiskOffer = toolstack.attach(0, image)
        self.front = Blkfront(
            self.domain,
            self.offer.vdev,
            store=toolstack.store,
            loop=toolstack.loop,
            abi=Abi.NATIVE,
            ring_order=ring_order,
            depth=depth,
        )
        self.front.wait_offer()
        self.front.connect()

    def close(self) -> None:
        """Let go of everything."""
        self.front.withdraw()
        self.toolstack.store.write(f"{self.offer.frontend}/state", b"6")
        assert self.toolstack.detach(self.offer)
        self.domain.close()


@contextmanager
def connected(toolstack: Toolstack, image: Path, **options: int) -> Iterator[Home]:
    """Dom0 with a disk, until the end of the block."""
    home = Home(toolstack, image, **options)
    try:
        yield home
    finally:
        home.close()


@pytest.fixture
def home(toolstack: Toolstack, image: Path) -> Iterator[Home]:
    """Dom0 with a disk of its own daemon."""
    with connected(toolstack, image) as home:
        yield home


@contextmanager
def granted(domid: int, flags: int) -> Iterator[int]:
    """A page of ours, granted to a domain; revoked after the block."""
    fd = os.open(GNTALLOC, os.O_RDWR | os.O_CLOEXEC)
    try:
        call = bytearray(struct.pack("HHIQII", domid, flags, 1, 0, 0, 0))
        fcntl.ioctl(fd, ALLOC_GREF, call)
        index, ref = struct.unpack_from("QI", call, 8)
        yield ref
        fcntl.ioctl(fd, DEALLOC_GREF, struct.pack("QII", index, 1, 0))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("ring_order", "transport"),
    [(0, "copy"), pytest.param(4, "copy", marks=pytest.mark.more), (2, "map")],
)
def test_random_io_against_a_model(
    service: Service, toolstack: Toolstack, image: Path, ring_order: int, transport: str
) -> None:
    """The simulator's guest and oracle, on gntalloc and evtchn; by copy and by mapping."""
    service.configure(f'transport = "{transport}"')
    with connected(toolstack, image, ring_order=ring_order) as home:
        assert service.ring().transport == Transport[transport.upper()]
        sectors = 8192
        model = bytearray(sectors * 512)
        progress = Progress()
        home.front.front.exercise(
            Workload(
                seed=ring_order + 1,
                sectors=sectors,
                depth=32,
                operations=6000,
                flush_every=50,
                barrier_every=50,
                model=model,
            ),
            progress,
        )
        assert progress.mismatches == progress.errors == progress.bad_responses == 0
        assert progress.barriers > 0
        counters = service.counters()
        assert counters["flushes_done"] >= progress.barriers  # one before and one after each
        with image.open("rb") as file:
            assert file.read(sectors * 512) == model
    service.configure("")


def raw(home: Home) -> RawRing:
    return RawRing(home.front.front, Abi.NATIVE)


def check_alive(home: Home, ring: RawRing) -> None:
    """An honest request is still served."""
    page = home.front.front.page_ref(0)
    ring.put(request(Abi.NATIVE, op=Op.READ, id=77, sector=0, segments=[(page, 0, 7)]))
    assert ring.responses(1, 30.0) == [(77, Op.READ, OKAY)]


@pytest.mark.parametrize(
    ("bad", "op"),
    [
        ("revoked", Op.READ),
        pytest.param("revoked", Op.WRITE, marks=pytest.mark.more),
        pytest.param("foreign", Op.READ, marks=pytest.mark.more),
        ("foreign", Op.WRITE),
        ("out of range", Op.READ),
        pytest.param("out of range", Op.WRITE, marks=pytest.mark.more),
        pytest.param("never made", Op.READ, marks=pytest.mark.more),
        ("never made", Op.WRITE),
    ],
)
def test_grants_that_are_none(home: Home, op: Op, bad: str) -> None:
    """Only the request that names it fails, in whichever place, and the ring lives on."""
    ring = raw(home)
    good = [home.front.front.page_ref(i) for i in range(11)]
    domid = 1 if bad == "foreign" else 0
    with granted(domid, WRITABLE) as ref:
        bad_ref = {"out of range": 0x00FFFFFF, "never made": 4000}.get(bad, ref)
        if bad != "revoked":
            try_bad(ring, op, good, bad_ref)
    if bad == "revoked":
        try_bad(ring, op, good, ref)
    check_alive(home, ring)


def try_bad(ring: RawRing, op: Op, good: list[int], bad: int) -> None:
    """The bad reference at the first, a middle and the last place of three requests at once."""
    slots = []
    for number, place in enumerate((0, 5, 10)):
        refs = list(good)
        refs[place] = bad
        slots.append(
            request(
                Abi.NATIVE,
                op=op,
                id=number,
                sector=number * 88,
                segments=[(ref, 0, 7) for ref in refs],
            )
        )
    honest = request(Abi.NATIVE, op=op, id=3, sector=3 * 88, segments=[(ref, 0, 7) for ref in good])
    ring.put(*slots, honest)
    assert sorted(ring.responses(4, 30.0)) == [
        (0, op, ERROR),
        (1, op, ERROR),
        (2, op, ERROR),
        (3, op, OKAY),
    ]


def test_a_page_granted_for_reading(home: Home) -> None:
    """Enough to write the disk from it, not to read the disk into it."""
    ring = raw(home)
    with granted(0, 0) as ref:
        for op, status in ((Op.WRITE, OKAY), (Op.READ, ERROR)):
            ring.put(request(Abi.NATIVE, op=op, id=1, sector=0, segments=[(ref, 0, 7)]))
            assert ring.responses(1, 30.0) == [(1, op, status)]


@pytest.mark.parametrize("lie", [0x10000, -5, 33])
def test_ring_indices_that_lie(service: Service, home: Home, lie: int) -> None:
    """The ring stops and says why; the daemon goes on."""
    ring = raw(home)
    check_alive(home, ring)
    ring.set_index(REQ_PROD, ring.index(REQ_PROD) + lie)
    home.front.front.notify()
    service.log_line("ring indices are impossible")
    eventually(lambda: home.toolstack.node(f"{home.offer.backend}/state") == "5", "backend Closing")
    assert not active_grants().get(0)


def test_the_frontend_learns_that_the_daemon_died(service: Service, home: Home) -> None:
    """By the byte and the event that the kernel sends when the mapping goes."""
    buffer = bytearray(4096)
    home.front.front.transfer(Op.READ, 0, 8, buffer)
    assert service.signal(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(BrokenPipeError):
        home.front.front.transfer(Op.READ, 0, 8, buffer, timeout=20.0)
    service.start()
    service.log_line("taken over")


@pytest.mark.more
def test_attached_and_detached_many_times(
    service: Service, toolstack: Toolstack, image: Path, figures: list[str]
) -> None:
    """Nothing grows: neither what the daemon holds nor what xenstored keeps for it.

    One disk in ten is used; the others come and go before a guest has looked.
    """

    def cycle(times: int) -> None:
        for number in range(times):
            if number % 10 == 0:
                with connected(toolstack, image, depth=1) as home:
                    home.front.front.transfer(Op.READ, 0, 8, bytearray(4096))
            else:
                toolstack.detach(toolstack.attach(0, image))

    cycle(20)
    service.check_idle()
    watches = watches_of_xenstored()
    begun = time.monotonic()
    cycle(CYCLES)
    figures.append(f"{CYCLES} attaches and detaches: {time.monotonic() - begun:.0f} s")
    service.check_idle()
    assert watches_of_xenstored() == watches


def watches_of_xenstored() -> int:
    """How many watches all clients together have, by the daemon's own account of its memory."""
    with tempfile.NamedTemporaryFile("r") as report:
        sh("xenstore-control", "memreport", report.name)
        watches = report.read().count("struct watch")
    assert watches > 0
    return watches
