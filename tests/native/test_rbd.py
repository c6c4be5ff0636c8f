"""A ring whose disk is an image of Ceph's, where the cluster fails, is silent, or shuts it out.

The cluster is played (images.py); what every store does is in test_stores.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from errno import EBUSY, EIO, ENOMEM, ENOSPC, ESHUTDOWN, ETIMEDOUT
from pathlib import Path

import pytest

from tests.native import images
from tests.native.images import CONF, FLUSH, POOL, READ, WRITE, Image, fail, new_cluster, new_image
from tests.native.ring import Ring, ring
from tests.native.slots import RawRing, request
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.native import (
    Abi,
    Op,
    Queue,
    QueueState,
    RbdImage,
    StopReason,
    close_image,
    open_image,
)

pytestmark = pytest.mark.skipif(CONF != "", reason="the cluster is a real one")

OKAY, ERROR = 0, -1
SIZE = 1 << 20


@pytest.fixture(autouse=True)
def _well() -> Iterator[None]:
    """Nothing fails afterwards."""
    images.library()
    yield
    for kind in range(4):
        fail(kind, 0)


def image_of(r: Ring) -> Image:
    assert r.image is not None
    return r.image


def ask(r: Ring, op: Op, id: int = 7, sector: int = 0) -> RawRing:
    """A request of 4 KiB, or a flush."""
    raw = RawRing(r.front, Abi.NATIVE)
    segments = [] if op is Op.FLUSH_DISKCACHE else [(r.front.page_ref(0), 0, 7)]
    raw.put(request(Abi.NATIVE, op=op, id=id, sector=sector, segments=segments))
    return raw


def drained(r: Ring) -> None:
    eventually(lambda: r.queue.status().state is QueueState.DRAINED, "it has drained")


def test_errors_reach_who_asked(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        fail(WRITE, ENOSPC)
        assert ask(r, Op.WRITE).responses(1) == [(7, Op.WRITE, ERROR)]
        fail(WRITE, 0)
        fail(READ, EIO)
        assert ask(r, Op.READ).responses(1) == [(7, Op.READ, ERROR)]
        failed = r.state.faults().by_operation()
        assert (failed["read"], failed["write"], failed["flush"]) == (1, 1, 0)
        assert r.queue.status().state is QueueState.RUNNING


def test_what_is_refused_at_once(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        fail(WRITE, -ENOMEM)
        assert ask(r, Op.WRITE).responses(1) == [(7, Op.WRITE, ERROR)]
        fail(WRITE, 0)
        assert ask(r, Op.WRITE).responses(1) == [(7, Op.WRITE, OKAY)]


def test_an_image_that_shrank_does_not_give_what_it_has_not(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        os.truncate(r.disk, SIZE // 2 + 2048)
        assert ask(r, Op.READ, sector=SIZE // 1024).responses(1) == [(7, Op.READ, ERROR)]
        assert ask(r, Op.READ, sector=SIZE // 1024 - 8).responses(1) == [(7, Op.READ, OKAY)]


def test_a_flush_that_fails_is_the_last(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        fail(FLUSH, EIO)
        assert ask(r, Op.FLUSH_DISKCACHE).responses(1) == [(7, Op.FLUSH_DISKCACHE, ERROR)]
        drained(r)
        assert r.queue.status().reason is StopReason.LOST
        assert r.state.lost_errno == EIO


def test_a_cluster_that_is_silent_is_waited_for(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        image_of(r).silence()
        writer = threading.Thread(
            target=r.front.transfer, args=(Op.WRITE, 0, 8, bytearray(b"w" * 4096))
        )
        writer.start()
        eventually(lambda: r.state.ring().inflight == 1, "it is asked")
        image_of(r).silence(ends=True)
        writer.join(GIVE_UP)
        assert r.stored(0, 8) == b"w" * 4096


@pytest.mark.slow
def test_nobody_waits_for_ever_for_one_that_is_silent(tmp_path: Path) -> None:
    """What is out fails; it comes later, to nobody, and only then the image is closed."""
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        image = image_of(r)
        image.silence()
        raw = ask(r, Op.WRITE)
        raw.put(
            request(Abi.NATIVE, op=Op.READ, id=8, sector=0, segments=[(r.front.page_ref(1), 0, 7)])
        )
        eventually(lambda: r.state.ring().inflight == 2, "one is asked, and the other waits")
        begun = time.monotonic()
        r.queue.drain()
        assert raw.responses(2) == [(7, Op.WRITE, ERROR), (8, Op.READ, ERROR)]
        assert time.monotonic() - begun >= 2.9
        last = r.state.faults().last_disk
        assert last is not None
        assert last.errno == ETIMEDOUT
        drained(r)
        r.queue.close()
        closing = threading.Thread(target=image.close)
        closing.start()
        image.silence(ends=True)
        closing.join(GIVE_UP)
        assert not closing.is_alive()
        image.open()


def test_who_is_shut_out_is_refused(tmp_path: Path) -> None:
    """As one that stood still while another took his place: nothing of his comes late."""
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        old = image_of(r)
        r.front.transfer(Op.WRITE, 0, 8, bytearray(b"a" * 4096))
        old.silence()
        raw = ask(r, Op.WRITE)
        eventually(lambda: r.state.ring().inflight == 1, "it is asked")
        new = Image(old.image, old.file, former=old.holder)
        new.open()
        assert new.holder != old.holder
        old.silence(ends=True)
        assert raw.responses(1) == [(7, Op.WRITE, ERROR)]
        drained(r)
        status = r.queue.status()
        assert (status.reason, status.errno) == (StopReason.MEDIUM, ESHUTDOWN)
        assert r.stored(0, 8) == b"a" * 4096
        new.close()


def test_a_flush_of_who_is_shut_out_loses_nothing(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r:
        new = Image(image_of(r).image, r.disk, former=image_of(r).holder)
        new.open()
        assert ask(r, Op.FLUSH_DISKCACHE).responses(1) == [(7, Op.FLUSH_DISKCACHE, ERROR)]
        drained(r)
        assert r.queue.status().reason is StopReason.MEDIUM
        assert r.state.lost_errno == 0
        new.close()


def test_the_lock_is_one_clients(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(SIZE))
    first = new_image(tmp_path, file, SIZE)
    first.open()
    for former in ("", "played/1/0"):
        with pytest.raises(OperatorError, match="another client has its lock") as refused:
            open_image(first.image, read_only=False, former=former)
        assert refused.value.errno == EBUSY
    reader = Image(first.image, file)
    reader.open(read_only=True)
    assert reader.holder == ""
    reader.close()
    first.close()
    second = Image(first.image, file)
    second.open()
    second.close()


def test_the_lock_of_one_who_is_gone_is_free(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(SIZE))
    image = new_image(tmp_path, file, SIZE)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (image.cluster / POOL / "disk.lock").write_text(f"played/{gone.pid}/0")
    image.open()
    image.close()
    assert f"played/{gone.pid}/0" in (image.cluster / "blocked").read_text()


def test_an_image_is_one_rings(tmp_path: Path) -> None:
    with ring(tmp_path, store="rbd", size=SIZE) as r, pytest.raises(HostError):
        Queue(r.params, r.state)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ("", "there is no such image"),
        ("plain", "rbd feature enable"),
        ("caches", "rbd_cache, which would lose"),
        ("closed", "its cluster cannot be reached: Connection timed out"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, beside: str, words: str) -> None:
    cluster = new_cluster(tmp_path)
    if beside:
        (cluster / beside).touch()
        (cluster / POOL / "disk").write_bytes(bytes(SIZE))
    wanted = RbdImage(POOL, "disk", conf=str(cluster / "ceph.conf"))
    with pytest.raises(OperatorError, match=words):
        open_image(wanted, read_only=False)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    conf = str(new_cluster(tmp_path) / "ceph.conf")
    for image, words in (
        (RbdImage("no", "disk", conf=conf), "there is no such pool"),
        (RbdImage(POOL, "disk", conf="/nowhere"), "configuration cannot be read: No such file"),
        (RbdImage(POOL, "disk", id="nobody", conf=conf), "librados does not begin"),
        (RbdImage(POOL, "disk", keyring="/nowhere", conf=conf), "keyring is not there"),
        (RbdImage(POOL, "x" * 256, conf=conf), "longer than 255 bytes"),
        (RbdImage(POOL, "x\0y", conf=conf), "NUL"),
    ):
        with pytest.raises(OperatorError, match=words):
            open_image(image, read_only=True)


def test_namespaces_and_snapshots_are_other_disks(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path)
    (cluster / POOL / "space").mkdir()
    for name in ("disk", "disk@then", "space/disk"):
        (cluster / POOL / name).write_bytes(bytes(SIZE))
    conf = str(cluster / "ceph.conf")
    found = set()
    for image in (
        RbdImage(POOL, "disk", conf=conf),
        RbdImage(POOL, "disk", space="space", conf=conf),
        RbdImage(POOL, "disk", snapshot="then", conf=conf),
    ):
        opened = open_image(image, read_only=True)
        found.add(opened.identity)
        close_image(opened.fd)
    assert len(found) == 3


LOADS = """
from xbbd_bsd.native import load_rbd
try:
    load_rbd()
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("source", "words"), [("", "is not installed"), ("int nothing;", "older than Ceph 15")]
)
def test_without_the_library(tmp_path: Path, source: str, words: str) -> None:
    library = tmp_path / images.SONAME
    if source:
        (tmp_path / "old").write_text(source)
        command: list[str | Path] = [
            "cc",
            "-xc",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{images.SONAME}",
            "-o",
            library,
        ]
        subprocess.run([*command, tmp_path / "old"], check=True)
    else:
        library.write_bytes(b"no library")
    said = subprocess.run(
        [sys.executable, "-c", LOADS],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert words in said.stdout
