"""Interfaces of cards: what is said of them holds for real ones and for the fake of tests.

Real ones are in a network name space of the thread that makes them, and end with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EINVAL
from pathlib import Path

import pytest

from tests.unit.net_bench import FakeTaps
from xbbd_bsd.errors import HostError
from xbbd_bsd.native.tap import MOST_NAME
from xbbd_bsd.net.entry import NativeTaps
from xbbd_bsd.net.queues import Taps

NAME = "vif5.0"
NEW_NETWORK = 0x40000000  # sched.h: CLONE_NEWNET
# of Linux: SIOCGIFMTU and so on
GET_MTU, GET_ADDRESS, ETHTOOL = 0x8921, 0x8927, 0x8946
GET_LINK = 0xA  # ETHTOOL_GLINK


def in_own_network(work: Callable[[], None]) -> None:
    """Do it where there is nothing but a loopback interface; skips where that cannot be."""
    if sys.platform != "linux":
        pytest.skip("name spaces are Linux's")
    found: list[BaseException] = []

    def main() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(NEW_NETWORK) != 0:
                pytest.skip(f"no network of its own: {os.strerror(ctypes.get_errno())}")
            if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
                pytest.skip("no /dev/net/tun for us")
            work()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    for error in found:
        raise error


def ask(name: str, request: int, form: str) -> tuple[object, ...] | None:
    """What Linux says of an interface; None if there is none."""
    with socket.socket() as any_socket:
        try:
            reply = fcntl.ioctl(any_socket, request, struct.pack("16s24x", name.encode()))
        except OSError:
            return None
    return struct.unpack_from(form, reply, 16)


def has_link(name: str) -> bool:
    """Whether the cable of an interface is in, at this very moment."""
    value = (ctypes.c_uint32 * 2)(GET_LINK)
    with socket.socket() as any_socket:
        asked = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
        fcntl.ioctl(any_socket, ETHTOOL, asked)
    return value[1] == 1


class Interfaces:
    """Taps of one kind, and how others see them."""

    def __init__(self, taps: Taps) -> None:
        self.taps = taps

    def carrier(self, name: str) -> bool | None:
        """Whether its cable is in; None if it is not there, or down."""
        if isinstance(self.taps, FakeTaps):
            tap = self.taps.there.get(name)
            return tap.carrier if tap is not None and tap.up else None
        return has_link(name) if self.taps.is_up(name) else None

    def mtu(self, name: str) -> object:
        if isinstance(self.taps, FakeTaps):
            return self.taps.there[name].mtu
        found = ask(name, GET_MTU, "i")
        return None if found is None else found[0]


Suite = Callable[[Callable[[Interfaces], None]], None]


@pytest.fixture(params=["real", "fake"])
def taps(request: pytest.FixtureRequest) -> Suite:
    """Runs the body of a test with taps of one kind."""
    if request.param == "fake":
        return lambda body: body(Interfaces(FakeTaps()))
    return lambda body: in_own_network(lambda: body(Interfaces(NativeTaps())))


def test_its_cable_is_in_as_long_as_somebody_has_it_open(taps: Suite) -> None:
    def body(have: Interfaces) -> None:
        queue = have.taps.open(NAME, multi=True)
        assert not os.get_blocking(queue)
        assert not os.get_inheritable(queue)
        assert not have.taps.is_up(NAME)
        have.taps.bring_up(NAME)
        assert have.taps.is_up(NAME)
        second = have.taps.open(NAME, multi=True)
        assert have.carrier(NAME) is True
        os.close(queue)
        assert have.carrier(NAME) is True
        os.close(second)
        assert have.carrier(NAME) is False, "and it is still there, and up"
        assert have.taps.is_up(NAME)
        os.close(have.taps.open(NAME, multi=True))
        assert have.taps.is_up(NAME)
        have.taps.remove(NAME)
        assert have.carrier(NAME) is None

    taps(body)


def test_one_queue_is_one_queue(taps: Suite) -> None:
    def body(have: Interfaces) -> None:
        queue = have.taps.open(NAME, multi=False)
        with pytest.raises(HostError, match=rf"^interface {NAME}: "):
            have.taps.open(NAME, multi=False)
        os.close(queue)
        with pytest.raises(HostError, match=rf"^interface {NAME}: "):
            have.taps.open(NAME, multi=True)
        os.close(have.taps.open(NAME, multi=False))
        have.taps.remove(NAME)

    taps(body)


def test_removed_while_open_it_is_nobodys(taps: Suite) -> None:
    def body(have: Interfaces) -> None:
        queue = have.taps.open(NAME, multi=True)
        have.taps.remove(NAME)
        os.close(queue)
        assert not have.taps.is_up(NAME)
        assert have.carrier(NAME) is None
        have.taps.remove(NAME)
        have.taps.remove("another")

    taps(body)


def test_what_is_there(taps: Suite) -> None:
    def body(have: Interfaces) -> None:
        assert have.taps.is_there("lo"), "of whatever kind"
        assert not have.taps.is_there(NAME)
        os.close(have.taps.open(NAME, multi=True))
        assert have.taps.is_there(NAME)
        have.taps.remove(NAME)
        assert not have.taps.is_there(NAME)
        assert not have.taps.is_there("")

    taps(body)


def test_others_interfaces_are_left_alone(taps: Suite) -> None:
    def body(have: Interfaces) -> None:
        for deed in (have.taps.remove, lambda name: have.taps.open(name, multi=True)):
            with pytest.raises(HostError, match=r"^interface lo: ") as refused:
                deed("lo")
            assert refused.value.errno == EINVAL

    taps(body)


@pytest.mark.parametrize("name", ["", "x" * (MOST_NAME + 1)])
def test_what_is_no_name(taps: Suite, name: str) -> None:
    def body(have: Interfaces) -> None:
        with pytest.raises(HostError) as refused:
            have.taps.open(name, multi=True)
        assert refused.value.errno == EINVAL
        have.taps.remove(name)
        assert not have.taps.is_up(name)

    taps(body)


def test_the_size_of_packets(taps: Suite) -> None:
    def body(have: Interfaces) -> None:
        queue = have.taps.open("x" * MOST_NAME, multi=True)
        have.taps.set_mtu("x" * MOST_NAME, 9000)
        assert have.mtu("x" * MOST_NAME) == 9000
        with pytest.raises(HostError, match=r"^interface nobodys: "):
            have.taps.set_mtu("nobodys", 9000)
        with pytest.raises(HostError, match=r"^interface nobodys: "):
            have.taps.bring_up("nobodys")
        os.close(queue)
        have.taps.remove("x" * MOST_NAME)

    taps(body)


def test_a_real_ones_frames_have_a_header_and_its_address_is_not_a_guests() -> None:
    def body() -> None:
        queue = NativeTaps().open(NAME, multi=True)
        found = ask(NAME, GET_ADDRESS, "2x6s")
        assert found == (b"\xfe\xff\xff\xff\xff\xff",)
        NativeTaps().bring_up(NAME)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as wire:
            wire.bind((NAME, 0x88B5))
            frame = (
                b"\xfe\xff\xff\xff\xff\xff" + b"\x00\x16\x3e\x01\x02\x03" + b"\x88\xb5" + b"x" * 46
            )
            os.write(queue, bytes(12) + frame)
            assert wire.recv(2000) == frame
            wire.send(frame)
            seen = b""
            while seen[12:26] != frame[:14]:  # the host has things to say of its own
                with suppress(BlockingIOError):
                    seen = os.read(queue, 2000)
        assert seen[12:] == frame
        assert seen[:2] == bytes(2), "no sum is missing, nothing is to be split"
        os.close(queue)
        NativeTaps().remove(NAME)

    in_own_network(body)


def test_a_real_one_given_back_and_taken_keeps_its_header() -> None:
    def body() -> None:
        for _ in range(2):
            queue = NativeTaps().open(NAME, multi=True)
            size = fcntl.ioctl(queue, 0x800454D7, bytes(4))  # TUNGETVNETHDRSZ
            assert struct.unpack("i", size) == (12,)
            os.close(queue)
        assert Path("/proc/thread-self/net/dev").read_text().count(f"{NAME}:") == 1
        NativeTaps().remove(NAME)

    in_own_network(body)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    yield
    assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) == len(before)
