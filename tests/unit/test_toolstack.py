"""Names and numbers of virtual disks, the nodes of an offer, and what is made of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.servers import Embedded
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.toolstack import DiskOffer, attach
from xbbd_bsd.vdev import vdev_name, vdev_number
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store, Transaction

# xen-vbd-interface(7)
NAMES = [
    ("xvda", 51712),
    ("xvda1", 51713),
    ("xvdb", 51728),
    ("xvdp15", 51967),
    ("xvdq", 0x10001000),
    ("xvdz", 0x10001900),
    ("xvdaa", 0x10001A00),
    ("xvda16", 0x10000010),
    ("xvdq255", 0x100010FF),
]


@pytest.mark.parametrize(("name", "number"), NAMES)
def test_names_of_virtual_disks(name: str, number: int) -> None:
    assert vdev_number(name) == vdev_number(str(number)) == vdev_number(hex(number)) == number
    assert vdev_name(number) == name


@pytest.mark.parametrize("name", ["", "xvd", "sda", "xvda256", "xvd1", "-1", "xvdaaa", "0x", "12a"])
def test_what_is_no_virtual_disk(name: str) -> None:
    with pytest.raises(OperatorError, match="no virtual disk"):
        vdev_number(name)


def test_a_number_without_a_name() -> None:
    assert vdev_name(768) == "768"


def test_the_nodes_of_a_tap_disk_are_those_of_libxl() -> None:
    disk = DiskOffer(7, 51728, "/tank/a", mode="r", kind="vbd3", cdrom=True)
    assert disk.backend == "/local/domain/0/backend/vbd3/7/51728"
    nodes = disk.backend_nodes()
    assert nodes["params"] == "aio:/tank/a"
    assert nodes["script"] == "block-tap"
    assert (nodes["dev"], nodes["mode"], nodes["device-type"]) == ("xvdb", "r", "cdrom")
    assert (nodes["removable"], nodes["online"], nodes["state"]) == ("1", "1", "1")
    assert disk.frontend_nodes()["backend"] == disk.backend


@pytest.mark.parametrize("name", ["051712", "0xca00", "51712", "00051712"])
def test_numbers_of_disks_may_have_leading_zeros(name: str) -> None:
    assert vdev_number(name) == 51712


# What is made of the answers.


class Bench:
    """A store, and a backend that answers each change of its own state by a function."""

    def __init__(self, server: Embedded) -> None:
        self.server = server
        server.introduce(7)
        self.loop = asyncio.new_event_loop()
        self.store = self.connect()
        self.other = self.connect()

    def connect(self) -> Store:
        store = Store(self.server.socket, loop=self.loop)
        store.connect()
        return store

    def close(self) -> None:
        self.store.close()
        self.other.close()
        self.loop.close()

    def set(self, disk: DiskOffer, **nodes: str) -> None:
        """Change nodes of the backend all at once, as backends do."""

        def body(transaction: Transaction) -> None:
            for name, value in nodes.items():
                transaction.write(f"{disk.backend}/{name.replace('_', '-')}", value.encode())

        self.other.transaction(body)

    def backend(self, disk: DiskOffer, react: Callable[[bytes | None], None]) -> None:
        """Call `react` with the backend's state at each change of its nodes."""

        def changed(_: str) -> None:
            react(self.other.get(f"{disk.backend}/state"))

        self.other.watch(disk.backend, changed)


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    server = Embedded(short_path)
    running = Bench(server)
    yield running
    running.close()
    server.stop()


@pytest.mark.parametrize("kind", ["vbd", "vbd3"])
@pytest.mark.parametrize("state", [State.INIT_WAIT, State.INITIALISED, State.CONNECTED])
def test_a_guest_that_is_quicker_than_the_toolstack(bench: Bench, state: State, kind: str) -> None:
    """By the time somebody looks, the backend may be anywhere past InitWait."""
    disk = DiskOffer(7, 51712, "/tank/a", kind=kind)

    def react(seen: bytes | None) -> None:
        if seen == State.INITIALISING.node:
            bench.set(disk, state=str(int(state)))
        elif seen == state.node and (
            kind == "vbd3" or bench.other.get(f"{disk.backend}/physical-device-path") is not None
        ):
            bench.set(disk, hotplug_status="connected")

    bench.backend(disk, react)
    assert attach(bench.store, bench.loop, disk)


@pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED])
def test_a_guest_that_has_come_and_gone(bench: Bench, state: State) -> None:
    """The disk was opened: what the guest does with it is its own affair."""
    disk = DiskOffer(7, 51712, "/tank/a", kind="vbd3")

    def react(seen: bytes | None) -> None:
        if seen == State.INITIALISING.node:
            bench.set(disk, state=str(int(state)), hotplug_status="connected")

    bench.backend(disk, react)
    assert attach(bench.store, bench.loop, disk)


@pytest.mark.parametrize(
    "answer", [{"state": "5", "hotplug_status": "error"}, {"state": "5"}, {"state": "6"}, {}]
)
def test_a_backend_that_does_not_open_the_disk(bench: Bench, answer: dict[str, str]) -> None:
    disk = DiskOffer(7, 51712, "/tank/a", kind="vbd3")

    def react(seen: bytes | None) -> None:
        if seen == State.INITIALISING.node and answer:
            bench.set(disk, **answer)

    bench.backend(disk, react)
    assert not attach(bench.store, bench.loop, disk, 10 if answer else 0.2)
