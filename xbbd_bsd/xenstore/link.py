"""The life of the connection to the XenStore: first connection, loss, and the way back.

It decides when there is a socket and when that is fit for calls; it knows nothing of nodes, and of
watches only that somebody sets them again. It runs on the control thread and never waits there,
except in the first connection.
"""

import asyncio
import errno
from collections.abc import Callable
from typing import Final

from xbbd_bsd.xenstore.router import Client, Connection, Lost, PyXSError, Reply, Router, errno_of
from xbbd_bsd.xenstore.wire import Op, join

RETRY_FIRST: Final = 0.05  # seconds from a loss to the first attempt to connect again
RETRY_MOST: Final = 2.0  # seconds between attempts, at most


class Link:
    """Connected -> lost -> (timer) -> probing -> connected, until close()."""

    def __init__(
        self,
        path: str,
        *,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        on_event: Callable[[str, bytes], None],
        on_lost: Callable[[Lost], None],
        restore: Callable[[Client], None],
    ) -> None:
        """`timeout` limits each request, in seconds; `on_event` is as the Router's.

        `on_lost` is called at each loss, perhaps in the middle of a call. `restore` sets things up
        over the new connection; when it raises PyXSError, that one counts as lost too.
        """
        self.path = path
        self.client: Client | None = None  # ready for calls
        self._loop = loop
        self._timeout = timeout
        self._on_event = on_event
        self._on_lost = on_lost
        self._restore = restore
        self._router: Router | None = None  # there is a socket
        self._probe: Reply | None = None  # the first request of a new connection
        self._timer: asyncio.TimerHandle | None = None  # of the next attempt, or of the probe
        self._delay = RETRY_FIRST
        self._closed = False

    def connect(self) -> None:
        """Connects for the first time, waiting at most the time limit. Raises Lost.

        It raises also after close() and while the way back is being tried anyway.
        """
        if self.client is not None:
            return
        if self._closed or self._router is not None or self._timer is not None:
            raise Lost(errno.ENOTCONN, "not connected")
        connection = Connection(self.path, wait=self._timeout)
        connection.connect()
        self.client = Client(self._adopt(connection))

    def close(self) -> None:
        """Leaves no descriptor and no timer. Idempotent."""
        self._closed = True
        self._release()

    def lose(self, router: Router, lost: Lost) -> None:
        """Gives up the connection of `router`, unless that has happened, and plans the next."""
        if router is not self._router:
            return
        was_connected = self.client is not None
        self._release()
        self._retry()
        if was_connected:
            self._on_lost(lost)

    def _retry(self) -> None:
        self._timer = self._loop.call_later(self._delay, self._reconnect)
        self._delay = min(2 * self._delay, RETRY_MOST)

    def _reconnect(self) -> None:
        """One attempt. A server may accept and then not answer, and the loop must go on meanwhile:
        so the first request is a probe, and the rest follows when its reply is here."""
        self._timer = None
        connection = Connection(self.path, wait=0)
        try:
            connection.connect()
        except Lost:
            self._retry()
            return
        router = self._adopt(connection)
        silent = Lost(errno.ETIMEDOUT, "the server accepts connections but does not answer")
        self._timer = self._loop.call_later(self._timeout, self.lose, router, silent)
        try:
            self._probe = router.send(Op.GET_DOMAIN_PATH, join(b"0"))
        except Lost as lost:
            self.lose(router, lost)

    def _adopt(self, connection: Connection) -> Router:
        router = Router(connection, self._timeout, self._on_event)
        self._router = router
        self._loop.add_reader(connection.fileno(), self._readable, router)
        return router

    def _readable(self, router: Router) -> None:
        try:
            router.pump()
            if self._probe is not None and self._probe.packet is not None:
                self._finish(router)
        except Lost as lost:
            self.lose(router, lost)

    def _finish(self, router: Router) -> None:
        """The server answers: the connection is as good as the old one once it is restored."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._probe = None
        client = Client(router)
        try:
            self._restore(client)
        except PyXSError as error:
            raise Lost(errno_of(error), "the connection could not be restored") from None
        self.client = client
        self._delay = RETRY_FIRST

    def _release(self) -> None:
        if self._router is not None:
            self._loop.remove_reader(self._router.connection.fileno())
            self._router.connection.close()
        if self._timer is not None:
            self._timer.cancel()
        self.client = self._router = self._probe = self._timer = None
