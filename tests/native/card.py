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
from tests.native.wires import wire
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
class End:
    """The guest's end of one queue; the sockets are what its bridge and its stack would be."""

    front: Netfront
    listener: socket.socket
    bridge: socket.socket
    link: socket.socket
    guest: socket.socket

    def channel(self) -> socket.socket:
        """Another peer of its event channel."""
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.listener.getsockname())
        made.setblocking(False)
        return made

    def pass_frames(self, *numbers: int) -> None:
        """Each goes both ways, and arrives as it was."""
        for number in numbers:
            for one, other in ((self.guest, self.bridge), (self.bridge, self.guest)):
                send(one, frame(number))
                assert receive(other) == frame(number)


def send(way: socket.socket, data: bytes) -> None:
    way.send(NO_HEADER + data)


def receive(way: socket.socket) -> bytes:
    """The next frame, without its header."""
    assert select.select([way], [], [], GIVE_UP)[0]
    return way.recv(1 << 17)[len(NO_HEADER) :]


@dataclass
class Card:
    """What a test has."""

    state: NetState
    params: NetParams
    queue: NetQueue
    end: End
    wake: int
    event: socket.socket

    @property
    def front(self) -> Netfront:
        return self.end.front

    @property
    def bridge(self) -> socket.socket:
        return self.end.bridge

    @property
    def guest(self) -> socket.socket:
        return self.end.guest

    def send(self, way: socket.socket, data: bytes) -> None:
        send(way, data)

    def receive(self, way: socket.socket) -> bytes:
        return receive(way)

    def wait_drained(self) -> None:
        """Until this queue has; one before it may have left a byte."""
        while self.queue.status().state is not QueueState.DRAINED:
            assert select.select([self.wake], [], [], GIVE_UP)[0]
            os.read(self.wake, 1)

    def adopt(self) -> None:
        """Another queue goes on where this one ended; the guest sees another peer."""
        self.queue.close()
        peer = self.event
        self.event = self.end.channel()
        peer.close()
        self.params = replace(self.params, event_fd=self.event.fileno(), adopt=True)
        self.queue = NetQueue(self.params, self.state)
        self.queue.start()


def _link(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ends = wire()
    for end in ends:
        stack.enter_context(end)
        end.setblocking(False)
    return ends


def guest_end(stack: ExitStack, domain: Path, domain_fd: int, number: int = 0) -> End:
    """Of a domain whose memory there is; its relay begins with `run`."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    port = domain / f"port{number}"
    listener.bind(min(os.path.relpath(port), str(port), key=len))
    listener.listen()
    listener.setblocking(False)
    bridge, link = _link(stack)
    guest, stack_end = _link(stack)
    front = Netfront(
        NetfrontParams(
            grant_fd=domain_fd,
            event_fd=listener.fileno(),
            port=number + 1,
            hv=HvKind.SIM,
            backend_domid=0,
            link_fd=stack_end.fileno(),
            patience_ms=int(GIVE_UP * 1000),
        )
    )
    stack.callback(front.close)
    return End(front, listener, bridge, link, guest)


def run(stack: ExitStack, front: Netfront) -> None:
    """Have its relay work as long as the stack is."""
    thread = threading.Thread(target=front.run)
    thread.start()
    stack.callback(thread.join)
    stack.callback(front.stop)


def make_domain(stack: ExitStack, domain: Path) -> int:
    """A guest's memory; nothing of it may be mapped in the end."""
    domain.mkdir()
    domain_fd = os.open(domain, os.O_RDONLY | os.O_DIRECTORY)
    stack.callback(os.close, domain_fd)
    sim_format(domain_fd, DOMAIN_PAGES)
    stack.callback(_check_unmapped, domain_fd)
    return domain_fd


def params_of(end: End, domain_fd: int, number: int = 0) -> NetParams:
    """Of its queue, without what its server has."""
    return NetParams(
        grant_fd=domain_fd,
        event_fd=-1,
        link_fd=end.link.fileno(),
        wake_fd=-1,
        hv=HvKind.SIM,
        domid=1,
        remote_port=number + 1,
        tx_ref=end.front.tx_ref,
        rx_ref=end.front.rx_ref,
        unit=3,
        queue=number,
    )


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
    with ExitStack() as stack:
        wake_r, wake_w = os.pipe()
        stack.callback(os.close, wake_r)
        stack.callback(os.close, wake_w)
        os.set_blocking(wake_w, False)
        domain_fd = make_domain(stack, tmp_path / "domain")
        end = guest_end(stack, tmp_path / "domain", domain_fd)
        event = end.channel()
        state = NetState.create(str(tmp_path / "state"), queues=2)
        stack.callback(state.close)
        params = replace(
            params_of(end, domain_fd),
            event_fd=event.fileno(),
            wake_fd=wake_w,
            accepts=accepts,
            source=source,
        )
        made = Card(state, params, NetQueue(params, state), end, wake_r, event)
        stack.callback(_close, made)
        run(stack, end.front)
        made.queue.start()
        yield made
