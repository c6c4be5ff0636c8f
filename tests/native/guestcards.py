"""A network card that is served in its guest's process: what guests.py has for a disk.

Leaving the block asserts that nothing is mapped any more.  Holds no test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.native.card import End, guest_end, make_domain, params_of, run
from tests.waiting import GIVE_UP
from xbbd_bsd.native import NetParams, NetState
from xbbd_bsd.native.addition import CARDS
from xbbd_bsd.native.link import Link
from xbbd_bsd.native.remote import RemoteDevice


@dataclass
class GuestCard:
    """Its segment, and a guest's end of each queue."""

    state: NetState
    ends: list[End]
    domain_fd: int

    def queues(self, *, adopt: bool = False) -> list[NetParams]:
        """Parameters for all of them, each with a fresh event channel, which is the caller's."""
        return [
            replace(
                params_of(end, self.domain_fd, number),
                event_fd=end.channel().detach(),
                adopt=adopt,
            )
            for number, end in enumerate(self.ends)
        ]

    def serve(self, link: Link, unit: int = 3, *, adopt: bool = False) -> RemoteDevice:
        """Have it served by a guest's process; `adopt`: another one has died."""
        queues = self.queues(adopt=adopt)
        try:
            return RemoteDevice.open(link, CARDS, unit, queues, self.state, limit=GIVE_UP)
        finally:
            for queue in queues:
                os.close(queue.event_fd)

    def pass_frames(self, *numbers: int) -> None:
        """Each goes both ways on each queue."""
        for end in self.ends:
            end.pass_frames(*numbers)


@contextmanager
def guest_card(tmp_path: Path, name: str = "card", *, queues: int = 1) -> Iterator[GuestCard]:
    """One that nobody serves yet, in a domain of its own."""
    with ExitStack() as stack:
        domain = tmp_path / f"{name}.domain"
        domain_fd = make_domain(stack, domain)
        ends = [guest_end(stack, domain, domain_fd, number) for number in range(queues)]
        path = str(tmp_path / f"{name}.state")
        NetState.create(path, queues=queues).close()
        state = NetState.open(path, writable=True)  # whoever serves it has it locked
        stack.callback(state.close)
        for end in ends:
            run(stack, end.front)
        yield GuestCard(state, ends, domain_fd)
