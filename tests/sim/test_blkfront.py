"""The guest's driver by itself: its backend is nothing but nodes, seen as a guest sees them."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES

import pytest

from tests.sim.conftest import XVDA
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
