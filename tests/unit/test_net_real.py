"""A card with a real interface of Linux, in a network of its own: frames, and its end."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.net_bench import NAME, NetBench
from tests.unit.test_net_family import FRAME, HEADER
from tests.unit.test_net_taps import has_link, in_own_network
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.net.entry import NativeTaps
from xbbd_bsd.xenbus.states import Queue

KIND = 0x88B5  # of FRAME, an Ethernet type for experiments


def wire() -> socket.socket:
    """The end of the interface that is the host's."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(KIND))
    found.bind((NAME, KIND))
    found.settimeout(GIVE_UP)
    return found


def reaches(card: NetBench) -> None:
    """Frames go both ways, whatever else the host has to say."""
    with wire() as host:
        card.guest.wire.send(HEADER + FRAME)
        assert host.recv(3000) == FRAME
        host.send(FRAME)
        while card.guest.wire.recv(3000)[12:] != FRAME:
            continue


def test_frames_go_through_and_again_after_a_death(short_path: Path) -> None:
    def body() -> None:
        card = NetBench(short_path, taps=NativeTaps())
        card.open()
        assert not has_link(NAME)
        card.connect()
        assert has_link(NAME)
        assert card.backend.numbers().group("card")["interface_up"] == 1
        reaches(card)
        card.down()
        assert not has_link(NAME)
        assert card.taps.is_up(NAME)
        card.open()
        card.guest.close()
        card.guest = type(card.guest)(card.host)
        card.frontend_nodes = card.guest.nodes()
        card.connect()
        reaches(card)
        card.close()
        assert not card.taps.is_up(NAME)

    in_own_network(body)


@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip(8)")
def test_a_queue_whose_interface_is_removed_ends(short_path: Path) -> None:
    def body() -> None:
        card = NetBench(short_path, taps=NativeTaps())
        card.open()
        card.connect()
        reaches(card)
        subprocess.run(("ip", "link", "delete", NAME), check=True)
        eventually(lambda: card.queue is Queue.FAILED, "it notices")
        fault = card.backend.fault
        assert isinstance(fault, HostError)
        assert str(fault).startswith("the interface is gone: ")
        card.close()

    in_own_network(body)
