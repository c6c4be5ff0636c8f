"""Several rings of one connection in this process: what they have in common, and their end."""

import asyncio
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import open_descriptors
from tests.native.guests import disk
from tests.native.test_guest_rings import DOMID, Simulated, offered_by
from tests.waiting import GIVE_UP
from xbbd_bsd.block.rings import fault_of
from xbbd_bsd.host import RingDescriptors
from xbbd_bsd.native import Queue, QueueParams, QueueState, open_wake, ring_descriptors
from xbbd_bsd.ringset import OF_CONNECTION, RingSet


def test_what_rings_have_in_common(tmp_path: Path) -> None:
    """One grant device and one descriptor that wakes us; each its own event channel and kick."""
    loop = asyncio.new_event_loop()
    at_first = open_descriptors()
    with disk(tmp_path, rings=3) as d:
        made: list[QueueParams] = []

        def open_queue(number: int, given: RingDescriptors, wake: int, held: ExitStack) -> Queue:
            params = replace(d.params, ring=number, ring_refs=d.fronts[number].ring_refs)
            params = replace(params, grant_fd=given.grants, event_fd=given.events, wake_fd=wake)
            made.append(params)
            return Queue(params, d.state)

        before = open_descriptors()
        host: Any = Simulated(d)
        rings = RingSet(offered_by(d), open_queue, host=host, domid=DOMID, fault_of=fault_of)
        took = len(open_descriptors() - before)
        assert took == OF_CONNECTION.descriptors + 3 * ring_descriptors(d.params)
        assert len({(params.grant_fd, params.wake_fd) for params in made}) == 1
        assert len({params.event_fd for params in made}) == 3
        woken: list[bool] = []
        rings.listen(loop, lambda: woken.append(True))
        for ring in range(3):
            d.exercise(200, ring=ring)
        rings.drain()
        end = loop.time() + GIVE_UP
        while not woken or rings.status.state is not QueueState.DRAINED:
            assert loop.time() < end
            loop.call_later(0.002, loop.stop)
            loop.run_forever()
        rings.close()
    assert open_descriptors() == at_first
    loop.close()


def test_who_is_woken_is_woken_once() -> None:
    """However often until then."""
    fd = open_wake()
    assert not os.get_inheritable(fd)
    assert not os.get_blocking(fd)
    for _ in range(3):
        os.write(fd, (1).to_bytes(8, sys.byteorder))
    assert len(os.read(fd, 64)) == 8
    with pytest.raises(BlockingIOError):
        os.read(fd, 64)
    os.close(fd)
