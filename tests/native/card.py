"""A network card with both ends in this process: frontend, queue, segment, and both links.

For tests of the data plane through its Python handles.  Links are pairs of sockets, whose
frames are behind a header.  Leaving the block asserts that nothing is mapped any more.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.native.ring import DOMAIN_PAGES
from tests.waiting import GIVE_UP
from xbbd_bsd.native import (
    PLAIN_FRAMES,
    HvKind,
    NetAccepts,
    NetParams,
    NetQueue,
    NetState,
    QueueState,
    sim_format,
    sim_mapped,
)
from xbbd_bsd.native.front.netfront import Netfront, NetfrontParams

NO_HEADER = bytes(12)


def frame(number: int, size: int = 100) -> bytes:
    """One of no known protocol."""
    payload = bytes((number + i) % 251 for i in range(size - 14))
    return b"\2\0\0\0\0\2" + b"\2\0\0\0\0\1" + b"\x88\xb5" + payload


@dataclass
class Card:
    """What a test has; the sockets are what its bridge and its guest's stack would be."""

    state: NetState
    params: NetParams
    queue: NetQueue
    front: Netfront
    bridge: socket.socket
    guest: socket.socket
    wake: int
    listener: socket.socket
    event: socket.socket

    def send(self, way: socket.socket, data: bytes) -> None:
        way.send(NO_HEADER + data)

    def receive(self, way: socket.socket) -> bytes:
        """The next frame, without its header."""
        assert select.select([way], [], [], GIVE_UP)[0]
        return way.recv(1 << 17)[len(NO_HEADER) :]

    def wait_drained(self) -> None:
        """Until this queue has; one before it may have left a byte."""
        while self.queue.status().state is not QueueState.DRAINED:
            assert select.select([self.wake], [], [], GIVE_UP)[0]
            os.read(self.wake, 1)

    def adopt(self) -> None:
        """Another queue goes on where this one ended; the guest sees another peer."""
        self.queue.close()
        peer = self.event
        self.event = socket.socket(socket.AF_UNIX)
        self.event.connect(self.listener.getsockname())
        self.event.setblocking(False)
        peer.close()
        self.params = replace(self.params, event_fd=self.event.fileno(), adopt=True)
        self.queue = NetQueue(self.params, self.state)
        self.queue.start()


def _link(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        stack.enter_context(end)
        end.setblocking(False)
    return ends


def _check_unmapped(domain_fd: int) -> None:
    assert sim_mapped(domain_fd) == 0


def _close(card: Card) -> None:
    card.queue.close()
    card.event.close()


@contextmanager
def card(
    tmp_path: Path, *, accepts: NetAccepts = PLAIN_FRAMES, source: bytes | None = None
) -> Iterator[Card]:
    """A guest whose stack is a socket, and a queue that serves it."""
    domain = tmp_path / "domain"
    domain.mkdir()
    with ExitStack() as stack:
        domain_fd = os.open(domain, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, domain_fd)
        wake_r, wake_w = os.pipe()
        stack.callback(os.close, wake_r)
        stack.callback(os.close, wake_w)
        os.set_blocking(wake_w, False)
        sim_format(domain_fd, DOMAIN_PAGES)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        port = os.path.relpath(domain / "port")
        listener.bind(min(port, str(domain / "port"), key=len))
        listener.listen()
        listener.setblocking(False)
        bridge, link = _link(stack)
        guest, stack_end = _link(stack)
        front = Netfront(
            NetfrontParams(
                grant_fd=domain_fd,
                event_fd=listener.fileno(),
                port=1,
                hv=HvKind.SIM,
                backend_domid=0,
                link_fd=stack_end.fileno(),
                patience_ms=int(GIVE_UP * 1000),
            )
        )
        stack.callback(_check_unmapped, domain_fd)
        stack.callback(front.close)
        event = socket.socket(socket.AF_UNIX)
        event.connect(listener.getsockname())
        event.setblocking(False)
        state = NetState.create(str(tmp_path / "state"), queues=2)
        stack.callback(state.close)
        params = NetParams(
            grant_fd=domain_fd,
            event_fd=event.fileno(),
            link_fd=link.fileno(),
            wake_fd=wake_w,
            hv=HvKind.SIM,
            domid=1,
            remote_port=1,
            tx_ref=front.tx_ref,
            rx_ref=front.rx_ref,
            accepts=accepts,
            source=source,
            unit=3,
        )
        made = Card(
            state, params, NetQueue(params, state), front, bridge, guest, wake_r, listener, event
        )
        stack.callback(_close, made)
        thread = threading.Thread(target=front.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(front.stop)
        made.queue.start()
        yield made
