"""The guest's driver by itself: its backend is nothing but nodes, seen as a guest sees them."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES

import pytest

from tests.sim.conftest import XVDA
from tests.waiting import eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.sim.chain import Chain
from xbbd_bsd.sim.hypervisor import Domain
from xbbd_bsd.toolstack import DiskOffer, offer, remove
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store, StoreError, Transaction

pytestmark = pytest.mark.slow

OFFER = DiskOffer(5, XVDA, "/tank/a", kind="vbd3")


class Bench:
    """A machine without a daemon: the test writes the backend's nodes."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.dom0 = chain.store
        self.domain = Domain(chain.layout, OFFER.domid)
        self.store = Store(self.domain.store_path, loop=chain.loop)
        self.store.connect()
        self.front = Blkfront(self.domain, XVDA, store=self.store, loop=chain.loop)

    def close(self) -> None:
        self.front.withdraw()
        self.store.close()
        self.domain.close()

    def refuse(self) -> None:
        """As the backend does that cannot open the disk."""

        def body(transaction: Transaction) -> None:
            transaction.write(f"{OFFER.backend}/hotplug-error", b"no such disk")
            transaction.write(f"{OFFER.backend}/hotplug-status", b"error")
            transaction.write(f"{OFFER.backend}/state", State.CLOSING.node)

        self.dom0.transaction(body)

    @property
    def state(self) -> bytes | None:
        return self.dom0.get(f"{OFFER.frontend}/state")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Chain() as chain:
        running = Bench(chain)
        yield running
        running.close()


def test_a_guest_may_not_look_for_a_backend_that_is_gone(bench: Bench) -> None:
    """What the rest here relies on, and the reason for `get_visible`."""
    offer(bench.dom0, OFFER)
    path = f"{OFFER.backend}/state"
    assert bench.store.get(path) == bench.store.get_visible(path) == b"1"
    assert bench.store.get_visible(f"{OFFER.backend}/hotplug-status") is None
    bench.dom0.remove(OFFER.backend)
    with pytest.raises(StoreError) as refused:
        bench.store.get(path)
    assert refused.value.errno == EACCES
    assert bench.store.get_visible(path) is None


def test_no_offer_without_a_backend(bench: Bench) -> None:
    """One that is half taken back, backend first, as libxl does it."""
    offer(bench.dom0, OFFER)
    bench.dom0.remove(OFFER.backend)
    with pytest.raises(HostError, match="no disk was offered"):
        bench.front.wait_offer(0.2)
    remove(bench.dom0, OFFER)
    offer(bench.dom0, OFFER)
    bench.front.wait_offer()


def test_taken_back_before_the_backend_answers(bench: Bench) -> None:
    offer(bench.dom0, OFFER)
    bench.front.wait_offer()
    remove(bench.dom0, OFFER)
    with pytest.raises(HostError, match="taken back"):
        bench.front.connect()
    bench.front.abandon()
    offer(bench.dom0, OFFER)
    bench.front.wait_offer()


def test_the_next_offer_is_not_closed_for_the_one_before(bench: Bench) -> None:
    """The guest learns of a refusal when the disk was offered anew already."""
    offer(bench.dom0, OFFER)
    bench.front.wait_offer()
    bench.refuse()
    with pytest.raises(HostError, match="no such disk"):
        bench.front.connect()
    remove(bench.dom0, OFFER)
    offer(bench.dom0, OFFER)
    bench.front.abandon()
    assert bench.state == State.INITIALISING.node
    bench.front.wait_offer()
    bench.dom0.write(f"{OFFER.backend}/state", State.INIT_WAIT.node)
    with pytest.raises(HostError, match="still InitWait"):
        bench.front.connect(0.2)
    assert bench.state == State.INITIALISED.node


def test_a_refused_offer_is_closed(bench: Bench) -> None:
    offer(bench.dom0, OFFER)
    bench.front.wait_offer()
    bench.refuse()
    bench.front.abandon()
    assert bench.state == State.CLOSED.node


def test_the_whole_frontend_is_taken_away(bench: Bench) -> None:
    """Its directory too: there is nothing left to say, and nobody to say it to."""
    offer(bench.dom0, OFFER)
    bench.front.wait_offer()
    bench.dom0.remove(f"/local/domain/{OFFER.domid}/device")
    bench.dom0.remove(OFFER.backend)
    bench.dom0.set_permissions(f"/local/domain/{OFFER.domid}", ["n0"])
    bench.front.close()
    assert bench.state is None


# As Linux from 2.6.36 to 5.14: "Device in use; refusing to close".


DISK = {"sectors": b"2048", "sector-size": b"512", "info": b"0"}


def connected(bench: Bench, front: Blkfront) -> None:
    """The backend is there before the frontend looks, and connected when it has published."""
    offer(bench.dom0, OFFER)
    for name, value in {**DISK, "state": State.INIT_WAIT.node}.items():
        bench.dom0.write(f"{OFFER.backend}/{name}", value)
    front.wait_offer()

    def published(_: str) -> None:
        if bench.state == State.INITIALISED.node:
            bench.dom0.write(f"{OFFER.backend}/state", State.CONNECTED.node)

    watch = bench.dom0.watch(f"{OFFER.frontend}/state", published)
    front.connect()
    watch.cancel()


def test_a_frontend_that_refuses_keeps_its_ring(bench: Bench) -> None:
    connected(bench, bench.front)
    bench.dom0.write(f"{OFFER.backend}/state", State.CLOSING.node)
    assert not bench.front.refusing
    bench.front.refuse()
    bench.front.refuse()
    assert bench.front.refusing
    assert bench.state == State.CLOSING.node
    error = f"/local/domain/5/error/device/vbd/{XVDA}/error"
    assert bench.dom0.get(error) == b"16 Device in use; refusing to close"
    assert len(bench.front.fronts) == 1
    with pytest.raises(HostError, match="still Closing"):
        bench.front.close(0.2)
    assert bench.state == State.CLOSED.node
    bench.dom0.write(f"{OFFER.backend}/state", State.CLOSED.node)
    bench.front.close()
    assert bench.front.fronts == []


def test_a_guest_that_refuses_until_its_disk_is_released() -> None:
    with Chain() as chain:
        store = chain.store
        guest = chain.start_guest(OFFER.domid, XVDA, "--refuse")
        offer(store, OFFER)

        def write(state: State, **nodes: bytes) -> None:
            for name, value in nodes.items():
                store.write(f"{OFFER.backend}/{name.replace('_', '-')}", value)
            store.write(f"{OFFER.backend}/state", state.node)

        def frontend(state: State) -> None:
            eventually(
                lambda: store.get(f"{OFFER.frontend}/state") == state.node, f"guest {state.label}"
            )

        def connect() -> None:
            write(State.INIT_WAIT, sectors=b"2048", sector_size=b"512", info=b"0")
            frontend(State.INITIALISED)
            write(State.CONNECTED)
            frontend(State.CONNECTED)

        connect()
        write(State.CLOSING)
        guest.event("refused to close")
        frontend(State.CLOSING)
        write(State.CLOSING)  # asked again, it says nothing more
        guest.tell("release")
        frontend(State.CLOSED)
        write(State.CLOSED)
        assert guest.event("closed")

        guest.tell("open")  # in use again
        write(State.INITIALISING)
        connect()
        guest.tell("release")
        guest.event("released")
        write(State.CLOSING)
        frontend(State.CLOSED)
        write(State.CLOSED)
        guest.event("closed")


def test_a_disk_that_is_taken_by_force_is_not_held() -> None:
    with Chain() as chain:
        guest = chain.start_guest(OFFER.domid, XVDA, "--refuse")
        offer(chain.store, OFFER)
        for name, value in DISK.items():
            chain.store.write(f"{OFFER.backend}/{name}", value)
        chain.store.write(f"{OFFER.backend}/state", State.INIT_WAIT.node)
        eventually(
            lambda: chain.store.get(f"{OFFER.frontend}/state") == State.INITIALISED.node, "ready"
        )
        chain.store.write(f"{OFFER.backend}/state", State.CONNECTED.node)
        guest.event("connected")
        chain.store.write(f"{OFFER.backend}/state", State.CLOSING.node)
        guest.event("refused to close")
        remove(chain.store, OFFER)
        guest.event("closed")


def test_a_machine_that_stops_with_guests_alive_has_nothing_to_say() -> None:
    """They lose it; that is no failure of the machine's."""
    with Chain() as chain:
        chain.start_guest(1, XVDA)
        assert chain.machine.stop() == 0
        assert chain.machine.tail() == ""
