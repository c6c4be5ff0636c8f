"""What is said to a guest's process when it is not as it should be.

Whatever comes over the socket, the process answers in words or not at all, goes on with
its devices, and keeps no descriptor.  What it says itself: test_guest_reports.py.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from errno import EBADMSG, EMSGSIZE, ENOENT
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.native.guests import BOUNDS, Disk, Worker, disk, server, worker
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.native import MAX_RINGS, HvKind, NetParams, NetState, QueueState, packets
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.addition import CARDS, DISKS
from xbbd_bsd.native.net import c_params

pytestmark = pytest.mark.slow

TYPES = [
    lib.XBB_GUEST_HELLO,
    lib.XBB_GUEST_STATUS,
    lib.XBB_GUEST_ADD,
    lib.XBB_GUEST_DRAIN,
    lib.XBB_GUEST_QUIESCE,
    lib.XBB_GUEST_CLOSE,
]
SIZES = {
    lib.XBB_GUEST_HELLO: ffi.sizeof("struct xbb_guest_hello"),
    lib.XBB_GUEST_ADD: ffi.sizeof("struct xbb_guest_add"),
}
REQUEST = ffi.sizeof("struct xbb_guest_request")
OURS = 7  # the device that is served all the time
EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Rig:
    """A process that serves a device, and a connection on which anything may be said."""

    def __init__(self, made: Worker, served: Disk) -> None:
        self.worker = made
        self.disk = served
        link = made.connect()
        self.device = served.serve(link, OURS)
        link.close()
        self.channel = self.connect()
        self.greet()
        self.quiet = made.descriptors

    def connect(self) -> socket.socket:
        def is_in() -> bool:
            self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.channel.settimeout(GIVE_UP)
            self.channel.connect(self.worker.path)
            if self.greet() is not None:
                return True
            self.channel.close()
            return False

        eventually(is_in, "the former daemon is forgotten")
        return self.channel

    def greet(self) -> bytes | None:
        if self.say(head(lib.XBB_GUEST_MEET, REQUEST) + bytes(8)) is None:
            return None
        return self.say(hello())

    def say(self, data: bytes, descriptors: list[int] | None = None) -> bytes | None:
        """The first answer, None if there is none any more."""
        try:
            packets.send(self.channel, data, descriptors or [])
            return self.channel.recv(4096) or None
        except (BrokenPipeError, ConnectionResetError):
            return None

    def done(self, data: bytes, descriptors: list[int] | None = None) -> tuple[int, str]:
        """The errno and the words with which something is refused."""
        answer = self.say(data, descriptors)
        while answer is not None and answer[4] == lib.XBB_GUEST_STATE:
            answer = self.channel.recv(4096)
        assert answer is not None
        done = ffi.from_buffer("struct xbb_guest_done *", answer)
        assert done.head.type == lib.XBB_GUEST_DONE
        return int(done.errnum), ffi.string(done.words).decode()

    def check(self) -> None:
        """It serves its device, and has no more descriptors than before."""
        self.channel.close()
        self.connect()
        eventually(lambda: self.worker.descriptors <= self.quiet, "descriptors are closed")
        assert self.device.status(0).state is QueueState.RUNNING
        self.disk.exercise(20)


def head(kind: int, size: int, *, version: int = lib.XBB_GUEST_VERSION, serial: int = 5) -> bytes:
    return struct.pack("=IIII", version, kind, size, serial)


def hello() -> bytes:
    c = ffi.new("struct xbb_guest_hello *")
    c.head.version, c.head.type = lib.XBB_GUEST_VERSION, lib.XBB_GUEST_HELLO
    c.head.size, c.head.serial = ffi.sizeof("struct xbb_guest_hello"), 1
    c.idle_seconds, c.io_threads, c.io_bytes = 600, BOUNDS.io_threads, BOUNDS.io_bytes
    c.budget.mappings, c.budget.grants = BOUNDS.mappings, BOUNDS.grants
    c.budget.guest_grants = BOUNDS.guest_grants
    return bytes(ffi.buffer(c))


def add(
    params: Any, *, device: int = 1, nrings: int = 1, nkept: int = 0, member: str = "disk"
) -> Any:
    c = ffi.new("struct xbb_guest_add *")
    c.head.version, c.head.type = lib.XBB_GUEST_VERSION, lib.XBB_GUEST_ADD
    c.head.size, c.head.serial = ffi.sizeof("struct xbb_guest_add"), 9
    c.device, c.nrings, c.nkept = device, nrings, nkept
    for number in range(min(nrings, MAX_RINGS)):
        setattr(c.ring[number], member, params[0])
        conn = c.ring[number].conn
        conn.ring = number
        conn.grant_fd = conn.event_fd = conn.wake_fd = -1
        setattr(getattr(c.ring[number], member), {"disk": "disk_fd", "card": "link_fd"}[member], -1)
    return c


def add_card(*, nrings: int = 1, nkept: int = 0) -> Any:
    """As of a card."""
    number = CARDS.number(1)
    return add(c_params(CARD), device=number, nrings=nrings, nkept=nkept, member="card")


CARD = NetParams(
    grant_fd=-1,
    event_fd=-1,
    link_fd=-1,
    wake_fd=-1,
    hv=HvKind.SIM,
    domid=1,
    remote_port=1,
    tx_ref=0xFFFF,  # nothing that is granted
    rx_ref=0xFFFF,
    unit=1,
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    path = tmp_path_factory.mktemp("g")
    with ExitStack() as stack:
        served = stack.enter_context(disk(path, size=1 << 20))
        made = stack.enter_context(worker(stack.enter_context(server()), path / "s"))
        found = Rig(made, served)
        yield found
        found.channel.close()


@pytest.fixture
def params(rig: Rig) -> Any:
    return DISKS.c_params(rig.disk.params)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x", "too short for a message"),
        (head(lib.XBB_GUEST_STATUS, REQUEST)[:15], "too short for a message"),
        (head(lib.XBB_GUEST_HELLO, REQUEST, version=2) + bytes(8), "another version"),
        (head(0, REQUEST) + bytes(8), "no request"),
        (head(lib.XBB_GUEST_DONE, REQUEST) + bytes(8), "no request"),
        (head(lib.XBB_GUEST_STATUS, REQUEST + 1) + bytes(8), "not the size"),
        (head(lib.XBB_GUEST_STATUS, REQUEST) + bytes(9), "not the size"),
        (head(lib.XBB_GUEST_ADD, REQUEST) + bytes(8), "not the size"),
    ],
)
def test_what_is_no_message_is_refused_in_words(rig: Rig, data: bytes, words: str) -> None:
    errnum, said = rig.done(data)
    assert errnum == EBADMSG
    assert words in said
    rig.check()


def test_what_a_hand_over_takes_is_laid_out_for_good() -> None:
    """In numbers: whoever changes one of these keeps upgrades from being hand-overs."""
    sizes = {"head": 16, "request": 24, "done": 104, "device": 16, "report": 32, "devices": 1056}
    assert {name: ffi.sizeof(f"struct xbb_guest_{name}") for name in sizes} == sizes
    offsets = {"head": 0, "ndevices": 16, "build": 24, "device": 32}
    found = ffi.typeof("struct xbb_guest_devices").fields
    assert {name: field.offset for name, field in found if name in offsets} == offsets
    names = ("STATUS", "QUIESCE", "CLOSE", "BYE", "GIVE", "MEET", "DONE", "DEVICE_LIST", "STATE")
    numbers = [getattr(lib, f"XBB_GUEST_{name}") for name in names]
    assert numbers == [2, 5, 6, 7, 8, 9, 64, 65, 66]
    states = ("OPENING", "RUNNING", "DRAINING", "DRAINED", "CLOSING", "GONE")
    assert [getattr(lib, f"XBB_GUEST_{name}") for name in states] == [0, 1, 2, 3, 4, 5]


def test_what_a_hand_over_takes_is_understood_of_any_version(rig: Rig) -> None:
    """After an upgrade daemon and process are of different ones."""
    for kind in (lib.XBB_GUEST_MEET, lib.XBB_GUEST_STATUS):
        answer = rig.say(head(kind, REQUEST, version=77) + bytes(8))
        assert answer is not None
        listed = ffi.from_buffer("struct xbb_guest_devices *", answer)
        assert (listed.head.type, listed.ndevices) == (lib.XBB_GUEST_DEVICE_LIST, 1)
        assert listed.build == lib.xbb_build() != 0
    absent = struct.pack("=II", OURS + 1, 0)
    for kind in (lib.XBB_GUEST_QUIESCE, lib.XBB_GUEST_CLOSE, lib.XBB_GUEST_GIVE):
        errnum, _ = rig.done(head(kind, REQUEST, version=77) + absent)
        assert errnum == ENOENT
    rig.check()


def test_longer_than_any(rig: Rig) -> None:
    assert rig.done(bytes(5000))[0] == EMSGSIZE
    assert rig.done(bytes(16), [0] * 100)[0] == EMSGSIZE
    rig.check()


@pytest.mark.parametrize(
    ("change", "descriptors", "words"),
    [
        ({"nrings": 0}, 4, "impossible number of rings"),
        ({"nrings": 9}, 4, "impossible number of rings"),
        ({"nrings": 0xFFFFFFFF}, 4, "impossible number of rings"),
        ({"nkept": 5}, 9, "too many descriptors to be kept"),
        ({}, 3, "not as many descriptors"),
        ({}, 5, "not as many descriptors"),
        ({"nrings": 2}, 4, "not as many descriptors"),
        ({"nkept": 2}, 5, "not as many descriptors"),
    ],
)
def test_an_add_that_cannot_be(
    rig: Rig, params: Any, change: dict[str, Any], descriptors: int, words: str
) -> None:
    message = bytes(ffi.buffer(add(params, **change)))
    errnum, said = rig.done(message, [0] * descriptors)
    assert errnum == EBADMSG
    assert words in said
    rig.check()


@pytest.mark.parametrize(
    ("change", "descriptors", "words"),
    [
        ({"nrings": 0}, 4, "impossible number of rings"),
        ({"nrings": 9}, 28, "impossible number of rings"),
        ({"nkept": 5}, 9, "too many descriptors to be kept"),
        ({}, 3, "not as many descriptors"),
        ({}, 5, "not as many descriptors"),
        ({"nrings": 2}, 6, "not as many descriptors"),
        ({"nrings": 8, "nkept": 4}, 28, "not as many descriptors"),
    ],
)
def test_a_card_that_cannot_be(
    rig: Rig, change: dict[str, int], descriptors: int, words: str
) -> None:
    message = bytes(ffi.buffer(add_card(**change)))
    errnum, said = rig.done(message, [0] * descriptors)
    assert errnum == EBADMSG
    assert words in said
    rig.check()


@pytest.mark.parametrize("family", [2, 3])
def test_a_device_of_no_family(rig: Rig, params: Any, family: int) -> None:
    message = bytes(ffi.buffer(add(params, device=(family << 30) + 1)))
    for descriptors in (0, 4):
        errnum, said = rig.done(message, [0] * descriptors)
        assert (errnum, said) == (EBADMSG, "no kind of device")
    rig.check()


def test_a_card_whose_numbers_would_be_descriptors(rig: Rig) -> None:
    message = add_card(nrings=2)
    message.ring[1].card.link_fd = 0
    assert "a number for a descriptor" in rig.done(bytes(ffi.buffer(message)), [0] * 7)[1]
    rig.check()


def test_a_card_of_something_else(rig: Rig, tmp_path: Path) -> None:
    """A disk's segment, and a card's with a ring that there is not, or a link that is none."""
    path = str(tmp_path / "card")
    NetState.create(path).close()
    message = add_card()
    with open(rig.disk.state.path, "r+b") as disks, open(path, "r+b") as own:
        rest = [rig.disk.domain_fd] * 3
        assert rig.done(bytes(ffi.buffer(message)), [disks.fileno(), *rest])[1] != ""
        assert rig.done(bytes(ffi.buffer(message)), [own.fileno(), *rest])[1] != ""
        two = add_card(nrings=2)
        assert rig.done(bytes(ffi.buffer(two)), [own.fileno(), *rest, *rest])[1] != ""
        message.ring[0].card.accepts = 0xFFFFFFFF
        refused = rig.done(bytes(ffi.buffer(message)), [own.fileno(), *rest])
        assert refused[1] == "check parameters"
    rig.check()


def test_an_add_whose_numbers_would_be_descriptors(rig: Rig, params: Any) -> None:
    for field in ("grant_fd", "event_fd", "wake_fd"):
        message = add(params)
        setattr(message.ring[0].disk.conn, field, 0)
        assert "a number for a descriptor" in rig.done(bytes(ffi.buffer(message)), [0] * 4)[1]
    message = add(params, nrings=2)
    message.ring[1].disk.conn.ring = 0
    assert "rings out of order" in rig.done(bytes(ffi.buffer(message)), [0] * 6)[1]
    rig.check()


def test_descriptors_that_are_something_else(rig: Rig, params: Any) -> None:
    """No segment, no disk, no hypervisor: refused, and nothing is kept."""
    with open(os.devnull, "r+b") as null:
        for fds in ([null.fileno()] * 4, [rig.disk.domain_fd] * 4, [rig.channel.fileno()] * 4):
            assert rig.done(bytes(ffi.buffer(add(params))), fds)[0] != 0
    rig.check()


def test_descriptors_where_there_are_none(rig: Rig) -> None:
    message = head(lib.XBB_GUEST_STATUS, REQUEST) + bytes(8)
    assert "descriptors where there are none" in rig.done(message, [0, 0])[1]
    rig.check()


def test_a_daemon_that_does_not_listen_is_none(rig: Rig) -> None:
    """It asks and asks, and reads nothing: the process does not wait for it."""
    rig.channel.setblocking(False)
    message = head(lib.XBB_GUEST_STATUS, REQUEST) + bytes(8)

    def is_dropped() -> bool:
        try:
            while True:
                packets.send(rig.channel, message)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            return True

    eventually(is_dropped, "the connection is closed")
    rig.check()


@EXAMPLES
@given(data=st.binary(max_size=3000), count=st.integers(0, 30))
def test_random_bytes(rig: Rig, data: bytes, count: int) -> None:
    speak(rig, [(data, count)])


kinds = st.sampled_from(TYPES)


@st.composite
def almost(draw: st.DrawFn) -> tuple[bytes, int]:
    """A message with the right head, of anything."""
    kind = draw(kinds)
    size = SIZES.get(kind, REQUEST)
    body = draw(st.binary(min_size=0, max_size=64))
    body = (body + bytes(size))[: size - 16]
    if draw(st.booleans()):  # rings and kept descriptors that may be
        body = (
            body[:3]
            + bytes([draw(st.sampled_from([0, 0x40, 0x80]))])  # a disk, a card, nothing
            + struct.pack("=II", draw(st.integers(0, 9)), draw(st.integers(0, 5)))
            + (body[12:])
        )
    return head(kind, size, serial=draw(st.integers(0, 3))) + body, draw(st.integers(0, 30))


@EXAMPLES
@given(messages=st.lists(almost(), min_size=1, max_size=6))
def test_random_messages(rig: Rig, messages: list[tuple[bytes, int]]) -> None:
    speak(rig, [(m, n) for m, n in messages if not about_ours(m)])


def about_ours(message: bytes) -> bool:
    """Whether it would close the device by which the test sees that all is well."""
    device: int = struct.unpack_from("=I", message, 16)[0]
    return device == OURS and message[4] != lib.XBB_GUEST_HELLO


def speak(rig: Rig, messages: list[tuple[bytes, int]]) -> None:
    """Say it on a connection of its own, with so many descriptors each; then all is well."""
    for data, count in messages:
        try:
            packets.send(rig.channel, data, [0] * count)
        except (BrokenPipeError, ConnectionResetError):
            break
    rig.channel.close()
    rig.connect()
    eventually(lambda: rig.worker.descriptors <= rig.quiet, "descriptors are closed")
    assert rig.device.status(0).state is QueueState.RUNNING
