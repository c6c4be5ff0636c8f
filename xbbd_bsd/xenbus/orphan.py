"""A domain that is gone takes its devices along, also where no toolstack does.

It knows a device by the nodes that are removed with it, and not what it is.
Control thread.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from xbbd_bsd.xenstore.client import Store, StoreError, Transaction

# How long the toolstack of a guest that is gone may take to remove our nodes: libxl
# waits 10 s for us, then removes them by force.
SECONDS: Final = 30.0


class Orphan:
    """The nodes of one device, which may be left behind."""

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        *,
        domain: str,
        nodes: Collection[str],
        removed: Callable[[], None],
    ) -> None:
        """`domain`: the guest's directory; `removed` is called when we had to remove `nodes`."""
        self._store = store
        self._loop = loop
        self._domain = domain
        self._nodes = nodes
        self._removed = removed
        self._due: asyncio.TimerHandle | None = None

    def look(self, *, alone: bool) -> None:
        """`alone`: there is no frontend, and nothing of it is held.  Raises StoreError."""
        if alone and self._store.get(self._domain) is None:
            if self._due is None:
                self._due = self._loop.call_later(SECONDS, self._take_along)
        else:
            self.cancel()

    def cancel(self) -> None:
        """Leave the nodes alone."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _take_along(self) -> None:
        """Remove the nodes, which makes the device be forgotten as always.  Raises nothing."""
        self._due = None

        def body(transaction: Transaction) -> bool:
            gone = transaction.get(self._domain) is None
            if gone:
                for node in self._nodes:
                    transaction.remove(node)
            return gone

        # A store that is lost has everything looked at again when it is back.
        with suppress(StoreError):
            if self._store.transaction(body):
                self._removed()
