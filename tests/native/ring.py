"""A ring with both ends in this process: frontend, queue, disk and segment.

For tests of the data plane through its Python handles, without store, daemon or
second process.  Leaving the block drains the queue and asserts that nothing is
mapped any more.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.native.images import Image, new_image
from tests.native.stores import Connector, Server, Serves, require_nbdkit
from tests.waiting import GIVE_UP
from xbbd_bsd.native import (
    KEPT_SIZE,
    Abi,
    DiskKind,
    Front,
    FrontParams,
    HvKind,
    Progress,
    Queue,
    QueueParams,
    QueueState,
    State,
    Transport,
    Workload,
    _xbb,
    sim_format,
    sim_mapped,
)

DOMAIN_PAGES = 16384
TRANSPORT = Transport[os.environ.get("XBBD_TEST_TRANSPORT", "best").upper()]
# FreeBSD's files over a kernel that is played (tests/freebsd/test_kernel.py): it takes no
# file for a disk unless it is told to.
HV = HvKind[os.environ.get("XBBD_TEST_HV", "sim").upper()]
DEVICE = os.environ.get("XBBD_TEST_MEDIUM", "file") == "device"
# How grants can move: as this run is told, otherwise in all ways; FreeBSD has no copy.
if TRANSPORT is not Transport.BEST:
    TRANSPORTS = [TRANSPORT]
elif HV is HvKind.SIM:
    TRANSPORTS = [Transport.MAP, Transport.COPY]
else:
    TRANSPORTS = [Transport.MAP]
# test_variants.py: a disk that takes its time, a sanitizer that does, one ABI or all.
SLOW_DISK = os.environ.get("XBBD_TEST_DISK") == "slow"
ABIS = [Abi.X86_64] if os.environ.get("XBBD_TEST_ABIS") == "one" else list(Abi)
# test_stores.py: a disk that is a server's, of NBD, or an image of Ceph.
STORE = os.environ.get("XBBD_TEST_STORE", "local")
SANITIZED = os.environ.get("XBBD_TEST_SANITIZED") == "yes"


def play_provider(fd: int, sector_size: int) -> None:
    """Have a played kernel take a file for a disk of such sectors, or for a file again with 0."""
    if HV is HvKind.XEN:
        ctypes.CDLL(_xbb.__file__).kernel_provider(fd, sector_size)


@dataclass
class Ring:
    """Both ends of a ring and what they are made of."""

    front: Front
    queue: Queue
    state: State
    disk: Path
    domain_fd: int
    wake_fd: int
    params: QueueParams
    sockets: list[socket.socket] = field(default_factory=list)
    server: Serves | None = None  # that has the disk
    image: Image | None = None  # likewise
    connector: Connector | None = None

    def wait_drained(self, limit: float = GIVE_UP) -> None:
        """Wait for the queue's own word that it has drained; it may have others before that."""
        drained = False
        while not drained:
            ready, _, _ = select.select([self.wake_fd], [], [], limit)
            assert ready, "the queue did not drain"
            os.read(self.wake_fd, 8)
            drained = self.queue.status().state == QueueState.DRAINED

    def stored(self, sector: int, nsectors: int) -> bytes:
        """What the disk has there, of sectors of 512 bytes."""
        with self.disk.open("rb") as file:
            return os.pread(file.fileno(), nsectors * 512, sector * 512)

    def refresh(self) -> None:
        """Have the file be as the disk is, wherever that is."""
        if self.image is not None:
            self.image.refresh()

    def counter(self, name: str) -> int:
        """A counter of the ring, now."""
        return self.state.counters()[name]


@contextmanager
def ring(
    tmp_path: Path,
    *,
    size: int = 8 << 20,
    abi: Abi = Abi.NATIVE,
    ring_pages: int = 1,
    depth: int = 32,
    read_only: bool = False,
    sector_size: int = 512,
    workers: int = 4,
    max_batch_segments: int = 64,
    max_grants: int = 2816,
    transport: Transport = TRANSPORT,
    sectors: int | None = None,
    max_segments: int = 11,
    persistent: int = 0,
    discard: bool = False,
    block_size: int = 0,
    bounce: bool = False,
    disk_kind: DiskKind = DiskKind.DEVICE if DEVICE else DiskKind.FILE,
    unit: int = 0,
    store: str = STORE,
    serve: Sequence[str] = ("file",),
    patience: int = 30,
    late_ms: int = 1000,
    server: Serves | None = None,
    image: Image | None = None,
    prepare: Callable[[State], None] = lambda _: None,
) -> Iterator[Ring]:
    """Connect a frontend and a queue on a fresh, empty disk of ``size`` bytes.

    ``store`` "nbd": by a server of it, nbdkit with the arguments ``serve`` and the file's name;
    ``server``: by that one, which may have another disk; "rbd": by librbd, played or real,
    ``image``: that image.
    ``prepare`` is given its segment before that.
    """
    domain = tmp_path / "domain"
    domain.mkdir()
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, size)
    domain_fd = os.open(domain, os.O_RDONLY | os.O_DIRECTORY)
    disk_fd = os.open(disk, os.O_RDONLY if read_only else os.O_RDWR)
    if disk_kind is DiskKind.DEVICE:
        play_provider(disk_fd, block_size or sector_size)
    if image is None and store == "rbd":
        image = new_image(tmp_path, disk, size)
    if image is not None:
        disk_kind = DiskKind.RBD
        image.open(read_only=read_only)
    elif server is not None or store == "nbd":
        disk_kind = DiskKind.NBD
    if server is None and store == "nbd":
        require_nbdkit()
        read = ("-r",) if read_only else ()
        server = Server(tmp_path, *read, *serve, str(disk))
    if server is not None:
        server.start()
        os.close(disk_fd)
        with tempfile.TemporaryFile(buffering=0) as kept:
            disk_fd = os.dup(kept.fileno())
        os.truncate(disk_fd, KEPT_SIZE)
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    listener = socket.socket(socket.AF_UNIX)
    backend = socket.socket(socket.AF_UNIX)
    try:
        sim_format(domain_fd, DOMAIN_PAGES)
        port = os.path.relpath(domain / "port")
        listener.bind(min(port, str(domain / "port"), key=len))
        listener.listen()
        listener.setblocking(False)
        front = Front(
            FrontParams(
                domain_fd,
                listener.fileno(),
                1,
                HvKind.SIM,
                0,
                abi,
                ring_pages,
                depth,
                max_segments,
                bool(persistent),
            )
        )
        backend.connect(listener.getsockname())
        backend.setblocking(False)
        state = State.create(str(tmp_path / "state"))
        state.resize(size // 512 if sectors is None else sectors)
        prepare(state)
        params = QueueParams(
            grant_fd=domain_fd,
            event_fd=backend.fileno(),
            disk_fd=disk_fd if image is None else image.fd,
            wake_fd=wake_w,
            hv=HV,
            domid=1,
            remote_port=1,
            abi=abi,
            ring_refs=front.ring_refs,
            disk_kind=disk_kind,
            unit=unit,
            read_only=read_only,
            sector_size=sector_size,
            block_size=block_size,
            bounce=bounce or DEVICE,
            discard=discard,
            workers=workers,
            max_batch_segments=max(max_batch_segments, max_segments),
            max_indirect_segments=max_segments if max_segments > 11 else 0,
            max_persistent=persistent,
            max_grants=max_grants,
            transport=transport,
            patience=patience,
            late_ms=late_ms,
        )
        queue = Queue(params, state)
        connector = None
        try:
            queue.start()
            if server is not None:
                connector = Connector(queue, state, server.connected)
            yield Ring(
                front,
                queue,
                state,
                disk,
                domain_fd,
                wake_r,
                params,
                server=server,
                image=image,
                connector=connector,
            )
        finally:
            if connector is not None:
                connector.close()
            queue.close()
            assert sim_mapped(domain_fd) == 0
            front.close()
            state.close()
    finally:
        if server is not None:
            server.kill()
        if image is not None:
            image.close()
        play_provider(disk_fd, 0)
        listener.close()
        backend.close()
        for fd in (domain_fd, disk_fd, wake_r, wake_w):
            os.close(fd)


def has(disk: Path, model: bytearray) -> bool:
    """Whether a disk is as the model, looked at in pieces.

    A thread sanitizer keeps four times of what a process touches: a disk at once is slow.
    """
    piece = 1 << 16
    with disk.open("rb", buffering=0) as file:
        pieces = range(0, len(model), piece)
        return all(file.read(piece) == model[at : at + piece] for at in pieces) and not file.read(1)


def exercise(r: Ring, **numbers: int) -> Progress:
    """Random I/O against a model of the whole disk; it and the disk agree at the end."""
    model = bytearray(r.disk.stat().st_size)
    with r.disk.open("rb", buffering=0) as file:
        assert file.readinto(model) == len(model)
    progress = Progress()
    numbers.setdefault("operations", 1000 if SLOW_DISK or SANITIZED else 4000)
    load = replace(
        Workload(seed=1, sectors=len(model) // 512, depth=1, model=model),
        **numbers,  # type: ignore[arg-type]
    )
    r.front.exercise(load, progress)
    assert progress.mismatches == progress.errors == 0, f"sector {progress.first_mismatch}"
    assert progress.still_mapped == progress.bad_responses == 0
    r.refresh()
    assert has(r.disk, model)
    counters = r.state.counters()
    assert counters["reqs_completed"] == counters["reqs_received"]
    assert counters["reqs_completed_with_error"] == 0
    return progress
