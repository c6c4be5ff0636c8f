"""The XenStore as the rest of xbbd sees it: paths are str, values are bytes, errors are StoreError.

Calls are synchronous with a limit of time; watch events come as callbacks on the asyncio loop,
never from within a call. After a loss the Store connects again by itself, without holding up the
loop, and sets every watch again. It knows no xenbus node and no device. Everything here runs on
the control thread, the loop's; there is no other thread.
"""

import asyncio
import builtins
import errno
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from xbbd_bsd.errors import printable
from xbbd_bsd.xenstore.link import Link
from xbbd_bsd.xenstore.pending import PendingEvents
from xbbd_bsd.xenstore.router import Client, Lost, PyXSError, errno_of
from xbbd_bsd.xenstore.wire import Op, decode_path, join

T = TypeVar("T")


class StoreError(OSError):
    """The store refused an operation; errno says why, the message names operation and path."""

    def __str__(self) -> str:
        return str(self.strerror)


class StoreLost(StoreError):
    """There is no connection to the store: it broke, or a call passed its time limit."""


class _Nodes(ABC):
    """The operations on nodes, alike within and outside a transaction.

    Paths are absolute or relative to the caller's domain. All raise StoreError: EINVAL for an
    impossible path, E2BIG for what does not fit a packet (4096 bytes), or the server's reason;
    and StoreLost.
    """

    @abstractmethod
    def _perform(self, operation: str, path: str, call: Callable[[Client, bytes], T]) -> T: ...

    @abstractmethod
    def _perform_all(
        self, operation: str, op: Op, requests: Mapping[str, bytes]
    ) -> "dict[str, bytes | StoreError]": ...

    def get_all(self, paths: Collection[str]) -> dict[str, bytes | None]:
        """As get, of several in one go; what is refused for another reason is left out.

        They are read one after the other, as ever, so others may write in between.
        """
        found: dict[str, bytes | None] = {}
        for path, value in self._perform_all("read", Op.READ, dict.fromkeys(paths, b"")).items():
            if isinstance(value, bytes):
                found[path] = value
            elif value.errno == errno.ENOENT:
                found[path] = None
        return found

    def write_all(self, values: Mapping[str, bytes]) -> None:
        """As write, of several in one go, in their order. The first that is refused is raised."""
        for answer in self._perform_all("write", Op.WRITE, values).values():
            if isinstance(answer, StoreError):
                raise answer

    def read(self, path: str) -> bytes:
        """The node's value, any octets; ENOENT when there is no such node."""
        value: bytes = self._perform("read", path, Client.read)
        return value

    def get(self, path: str) -> bytes | None:
        """As read, but None when there is no such node."""
        try:
            return self.read(path)
        except StoreError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def get_visible(self, path: str) -> bytes | None:
        """As get, but None also when the caller may not read: for a domain that is not dom0.

        The server tells such a domain of a node that is gone only where it may read the nearest
        ancestor that is left (xenstored_core.c, errno_from_parents); elsewhere it says EACCES.
        """
        try:
            return self.get(path)
        except StoreError as error:
            if error.errno != errno.EACCES:
                raise
            return None

    def list(self, path: str) -> list[str]:
        """The names of the node's children, however many; ENOENT when there is no such node."""
        names = self._perform("list", path, Client.names)
        return [name.decode("ascii", "replace") for name in names]

    def write(self, path: str, value: bytes) -> None:
        """Sets the node's value; creates the node and its parents where absent."""
        self._perform("write", path, lambda client, name: client.write(name, value))

    def mkdir(self, path: str) -> None:
        """Creates the node, empty, and its parents; leaves one that is there as it is."""
        self._perform("mkdir", path, Client.mkdir)

    def remove(self, path: str) -> None:
        """Removes the node and all below it; it may be absent."""
        try:
            self._perform("remove", path, Client.delete)
        except StoreError as error:
            if error.errno != errno.ENOENT:
                raise

    def permissions(self, path: str) -> builtins.list[str]:
        """The node's permissions, the owner's first: letter (n, r, w, b) and domain, as "n0"."""
        permissions = self._perform("permissions", path, Client.get_perms)
        return [permission.decode("ascii", "replace") for permission in permissions]

    def set_permissions(self, path: str, permissions: Sequence[str]) -> None:
        """Sets the node's permissions, in the form permissions() returns."""
        octets = [permission.encode() for permission in permissions]
        self._perform("set_permissions", path, lambda client, name: client.set_perms(name, octets))


class Transaction(_Nodes):
    """The store as one transaction sees it, valid within Store.transaction's body only (EINVAL)."""

    def __init__(self, store: "Store", client: Client) -> None:
        self._store = store
        self._client: Client | None = client

    def _perform(self, operation: str, path: str, call: Callable[[Client, bytes], T]) -> T:
        if self._client is None:
            raise StoreError(errno.EINVAL, f"{operation} {path}: the transaction has ended")
        return self._store._at(self._client, operation, path, call)

    def _perform_all(
        self, operation: str, op: Op, requests: Mapping[str, bytes]
    ) -> dict[str, bytes | StoreError]:
        if self._client is None:
            raise StoreError(errno.EINVAL, f"{operation}: the transaction has ended")
        return self._store._all_at(self._client, operation, op, requests)

    def _end(self) -> None:
        self._client = None


class Watch:
    """A watch that is set, and set again after each loss, until it is cancelled."""

    def __init__(
        self,
        store: "Store",
        path: str,
        token: bytes,
        callback: Callable[[str], None],
        depth: int | None = None,
    ) -> None:
        self.path = path
        self.token = token
        self.callback = callback
        self._store = store
        self._names = None if depth is None else path.count("/") + 1 + depth

    def told_apart(self, path: str) -> str:
        """As much of an event's path as the watch's owner wants to know."""
        if self._names is None:
            return path
        return "/".join(path.split("/", self._names)[: self._names])

    def cancel(self) -> None:
        """Ends the watch: no callback after this has returned. Idempotent, raises nothing."""
        self._store._cancel(self)

    def request(self) -> bytes:
        """The arguments of WATCH and UNWATCH."""
        return join(_octets("watch", self.path), self.token)


class Store(_Nodes):
    """A connection to the XenStore daemon's Unix socket, kept up until close()."""

    def __init__(
        self,
        path: str,
        *,
        loop: asyncio.AbstractEventLoop,
        timeout: float = 5.0,
        on_lost: Callable[[StoreLost], None] | None = None,
        on_connected: Callable[[], None] | None = None,
    ) -> None:
        """`path` is the socket's; `timeout` limits each request to the server, in seconds.

        Of each loss the loop calls `on_lost`; when the connection is back and all watches are set,
        `on_connected`, whose owner should look at everything again. connect() calls neither.
        """
        self._loop = loop
        self._on_lost = on_lost
        self._on_connected = on_connected
        self._closed = False
        self._link = Link(
            path,
            loop=loop,
            timeout=timeout,
            on_event=self._event,
            on_lost=self._lost,
            restore=self._restore,
        )
        self._tokens = itertools.count(1)
        self._watches: dict[bytes, Watch] = {}
        self._pending = PendingEvents()
        self._delivering = False  # _deliver is going to run

    @property
    def connected(self) -> bool:
        """Whether calls reach the server, as far as is known."""
        return self._link.client is not None

    def connect(self) -> None:
        """Connects for the first time; nothing to do when connected.

        Raises StoreLost if the server cannot be reached, and while the Store is connecting again
        by itself. After a failure it may be called again.
        """
        try:
            self._link.connect()
        except Lost as lost:
            raise StoreLost(lost.errno, lost.text) from None

    def close(self) -> None:
        """Ends the connection, every watch and every timer. Idempotent."""
        self._closed = True
        self._link.close()
        self._watches.clear()

    def domain_path(self, domid: int) -> str:
        """The path that a domain's relative paths begin from."""
        path: bytes = self._call("domain_path", lambda client: client.get_domain_path(domid))
        return path.decode("ascii", "replace")

    def watch(
        self, path: str, callback: Callable[[str], None], *, depth: int | None = None
    ) -> Watch:
        """Calls `callback` on the loop with the path of each change at or below `path`.

        What is further below than `depth` names is not told apart, but cut off there.
        It is called once at once, and again after every re-connection, with `path` itself. Events
        only say "look again": equal ones are merged, and a flood of them becomes one of `path`.
        An exception of the callback goes to the loop's exception handler; StoreLost is ignored
        there, as on_lost tells of it. Raises StoreError, StoreLost.
        """
        watch = Watch(self, path, str(next(self._tokens)).encode(), callback, depth)
        request = watch.request()
        self._watches[watch.token] = watch  # before the request: an event may precede the reply
        try:
            self._call(f"watch {path}", lambda client: client.ack(Op.WATCH, request))
        except BaseException:
            del self._watches[watch.token]
            raise
        return watch

    def transaction(self, body: Callable[[Transaction], T], *, attempts: int = 20) -> T:
        """Runs `body` in a transaction, commits and returns its result.

        When somebody else has changed what the body read or wrote, all is done again, so the body
        should have no other effects; after `attempts` of these StoreError(EAGAIN). What the body
        raises is raised, and nothing of it is written. Raises StoreError, StoreLost.
        """
        for _ in range(attempts):
            if self._link.client is None:
                raise self._not_connected("transaction")
            client = Client(self._link.client.router)
            self._run(client, "start of transaction", Client.transaction)
            transaction = Transaction(self, client)
            try:
                result = body(transaction)
            except BaseException:
                with suppress(StoreError):
                    self._run(client, "rollback", Client.rollback)
                raise
            finally:
                transaction._end()
            if self._run(client, "commit", Client.commit):
                return result
        text = f"transaction: its nodes were changed by others in each of {attempts} attempts"
        raise StoreError(errno.EAGAIN, text)

    def raw(self, op: int, *payload: bytes) -> bytes:
        """Any other operation of xs_wire.h, its arguments each ended by NUL; the reply as it came.

        Raises StoreError, StoreLost.
        """
        return self._call(f"operation {op}", lambda client: client.call(op, join(*payload)))

    # Calls.

    def _perform(self, operation: str, path: str, call: Callable[[Client, bytes], T]) -> T:
        return self._at(self._link.client, operation, path, call)

    def _at(
        self,
        client: Client | None,
        operation: str,
        path: str,
        call: Callable[[Client, bytes], T],
    ) -> T:
        octets = _octets(operation, path)
        return self._run(client, f"{operation} {path}", lambda client: call(client, octets))

    def _perform_all(
        self, operation: str, op: Op, requests: Mapping[str, bytes]
    ) -> dict[str, bytes | StoreError]:
        return self._all_at(self._link.client, operation, op, requests)

    def _all_at(
        self, client: Client | None, operation: str, op: Op, requests: Mapping[str, bytes]
    ) -> dict[str, bytes | StoreError]:
        """Each answer by its path, or why it was refused."""
        payloads = [(op, join(_octets(operation, p)) + value) for p, value in requests.items()]
        what = f"{operation} {' '.join(requests)}"
        answers = self._run(client, what, lambda client: client.calls(payloads))
        return {
            path: answer if isinstance(answer, bytes) else _refused(f"{operation} {path}", answer)
            for path, answer in zip(requests, answers, strict=True)
        }

    def _call(self, what: str, call: Callable[[Client], T]) -> T:
        return self._run(self._link.client, what, call)

    def _run(self, client: Client | None, what: str, call: Callable[[Client], T]) -> T:
        """Runs one operation; the one place where pyxs's exceptions become ours."""
        if client is None:
            raise self._not_connected(what)
        try:
            return call(client)
        except Lost as lost:
            self._link.lose(client.router, lost)
            raise StoreLost(lost.errno, f"{what}: {self._link.path}: {lost.text}") from None
        except (PyXSError, ValueError) as error:
            raise _refused(what, error) from None

    def _not_connected(self, what: str) -> StoreLost:
        return StoreLost(errno.ENOTCONN, f"{what}: not connected to {self._link.path}")

    # Watches.

    def _cancel(self, watch: Watch) -> None:
        if self._watches.pop(watch.token, None) is not None:
            with suppress(StoreError):
                self._call("unwatch", lambda client: client.ack(Op.UNWATCH, watch.request()))

    def _event(self, path: str, token: bytes) -> None:
        """Keeps an event for the loop; called by the router, perhaps in the middle of a call."""
        watch = self._watches.get(token)
        if watch is None:
            return
        self._pending.add(token, watch.told_apart(path), watch.path)
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        if self._pending and not self._delivering:
            self._delivering = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """One event of each watch; the rest after the loop has looked at its other work."""
        self._delivering = False
        for token, path in self._pending.take():
            watch = self._watches.get(token)
            if watch is None:
                continue  # cancelled while its event was waiting
            try:
                watch.callback(path)
            except StoreLost:
                continue
            except Exception as error:
                context = {"message": f"watch {watch.path}: the callback failed on {path}"}
                self._loop.call_exception_handler({**context, "exception": error})
        self._deliver_soon()

    # The link.

    def _lost(self, lost: Lost) -> None:
        if self._on_lost is not None:
            self._tell(self._on_lost, StoreLost(lost.errno, f"{self._link.path}: {lost.text}"))

    def _restore(self, client: Client) -> None:
        for watch in self._watches.values():
            client.ack(Op.WATCH, watch.request())
        if self._on_connected is not None:
            self._tell(self._on_connected)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Calls the owner from the loop, unless it closes the Store before."""
        self._loop.call_soon(lambda: None if self._closed else callback(*arguments))


def _refused(what: str, error: Exception) -> StoreError:
    number = errno_of(error)
    return StoreError(number, f"{what}: {os.strerror(number)}")


def _octets(operation: str, path: str) -> bytes:
    """The path as bytes. pyxs's own check lets a newline and a NUL at its end pass."""
    try:
        octets = path.encode("ascii")
        decode_path(octets)
    except ValueError as error:
        shown = printable(os.fsencode(path))
        raise StoreError(errno.EINVAL, f"{operation} {shown}: {error}") from None
    return octets
