"""What a guest's process says when it is not as it should be: a value or a HostError, always."""

from __future__ import annotations

import gc
import re
import socket
import struct
import weakref
from contextlib import suppress
from errno import EPIPE
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.descriptors import open_descriptors
from tests.native.guests import BOUNDS
from tests.native.test_guest_messages import EXAMPLES, head
from tests.waiting import GIVE_UP
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import QueueState, State, packets
from xbbd_bsd.native._xbb import ffi
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.remote import RemoteDevice

pytestmark = pytest.mark.slow


def test_what_it_says_is_understood_of_any_version() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    packets.send(theirs, head(66, 32, version=77) + struct.pack("=IIII", 3, 1, 0, 0))
    link.receive()
    assert link.reports[3].state == DeviceState.RUNNING
    theirs.close()
    link.close()


def test_a_device_that_another_daemon_wanted_is_waited_for() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)

    def say(state: DeviceState) -> None:
        packets.send(theirs, head(66, 32) + struct.pack("=IIII", 3, state, 0, 0))

    assert link.wait_open(3, limit=0) is None
    say(DeviceState.OPENING)
    link.receive()
    with pytest.raises(HostError, match="unable to wait for device 3 to be open"):
        link.wait_open(3, limit=0)
    say(DeviceState.RUNNING)
    report = link.wait_open(3, limit=GIVE_UP)
    assert report is not None
    assert report.state == DeviceState.RUNNING
    theirs.close()
    link.close()


@EXAMPLES
@given(
    said=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=1200),
            st.builds(
                lambda kind, size, serial, body: (
                    head(kind, size, serial=serial)
                    + (body * (size // max(1, len(body)) + 1))[: size - 16]
                ),
                st.sampled_from([64, 65, 66]),
                st.sampled_from(
                    [
                        ffi.sizeof(f"struct xbb_guest_{name}")
                        for name in ("done", "devices", "report")
                    ]
                ),
                st.integers(0, 4),
                st.binary(min_size=1, max_size=40),
            ),
        ),
        max_size=8,
    )
)
def test_whatever_it_says_is_a_value_or_a_host_error(said: list[bytes]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    with theirs:
        for packet in said:
            packets.send(theirs, packet)
        with suppress(HostError):
            link.hello(BOUNDS, idle_seconds=1, limit=0)
        link.receive()
        for report in link.reports.values():
            assert report.device >= 0
        theirs.close()
        link.receive()
        assert link.lost is not None
        assert link.lost.errno == EPIPE
    link.close()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (head(66, 31) + bytes(16), "nonsense"),  # which is of another size
        (head(66, 32) + bytes(15), "nonsense"),
        (head(67, 32) + bytes(16), "nonsense"),
        (bytes(5000), "too much|nonsense"),  # FreeBSD 15 gives a part, and does not say so
        (head(65, ffi.sizeof("struct xbb_guest_devices")) + b"\xff" * 1040, "more devices"),
    ],
)
def test_what_is_no_report_is_the_end_of_it(said: bytes, words: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    packets.send(theirs, said)
    link.receive()
    assert link.lost is not None
    assert re.search(words, str(link.lost))
    assert theirs.recv(1) == b"", "it is told"
    theirs.close()
    link.close()


def test_a_connection_that_is_lost_stays_with_nobody() -> None:
    """What was raised of it keeps it, and its descriptor, no longer than whoever caught that."""

    def lose() -> weakref.ref[Link]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = Link(ours)
        theirs.close()
        for _ in range(2):
            with pytest.raises(HostError, match="it has ended"):
                link.look(limit=GIVE_UP)
        ours.close()
        return weakref.ref(link)

    gc.disable()
    try:
        assert lose()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("said", [head(66, 32) + bytes(16), b"x", b""])
def test_descriptors_that_it_sends_are_closed(said: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    before = open_descriptors()
    packets.send(theirs, said, [0, 1, 2])
    link.receive()
    assert open_descriptors() == before
    theirs.close()
    link.close()


def test_numbers_in_its_segment_are_only_numbers(tmp_path: Path) -> None:
    state = State.create(str(tmp_path / "state"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device = RemoteDevice(Link(ours), 1, state, 1)
    shown = state.handle.ring[0].common.status
    for field in ("state", "reason"):
        setattr(shown, field, 77)
        assert device.status(0).state is QueueState.DRAINED
    shown.state = shown.reason = 0
    shown.errnum = -(1 << 31)
    assert device.status(0).errno > 0
    device.link.close()
    theirs.close()
    state.close()
