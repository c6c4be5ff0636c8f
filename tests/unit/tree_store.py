"""The embedded store's tree as a Store, without sockets, and a loop that knows when it rests.

For tests that do so much with Bus and Device that sockets would take minutes.  One thread.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from errno import ENOENT, ENOTCONN
from typing import Any, Final, TypeVar, cast

from xbbd_bsd.sim import storecore, storetree
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction, Watch

T = TypeVar("T")

HOME: Final = "/local/domain/0"
DOM0: Final = storetree.Caller(0)


class Loop(asyncio.SelectorEventLoop):
    """A loop that knows when it rests, and hides no exception.

    Between any two looks at its clock ten seconds pass, so nobody looks too often.
    """

    now = 0.0

    def time(self) -> float:
        self.now += 10.0
        return self.now

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context["exception"]

    def turn(self) -> bool:
        """Call what is to be called now; False if that is nothing."""
        if not self._ready:  # type: ignore[attr-defined]
            return False
        self.call_soon(self.stop)
        self.run_forever()
        return True


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"{HOME}/{path}"


class OnTree:
    """The operations on nodes that Bus and Device use, as dom0's and on a view of the tree."""

    def __init__(self, view: storetree.View, *hooks: Callable[[], None]) -> None:
        """What is called before each operation, and what after each that changes something."""
        self._view, (self._before, self._after) = view, hooks

    def get(self, path: str) -> bytes | None:
        self._before()
        node = self._view.get(absolute(path))
        return node.value if node is not None else None

    def get_all(self, paths: Collection[str]) -> dict[str, bytes | None]:
        return {path: self.get(path) for path in paths}

    def write_all(self, values: Mapping[str, bytes]) -> None:
        for path, value in values.items():
            self.write(path, value)

    def write(self, path: str, value: bytes) -> None:
        self._before()
        self._view.write(DOM0, absolute(path), value)
        self._after()

    def remove(self, path: str) -> None:
        self._before()
        with suppress(storetree.Refusal):  # there is no parent
            self._view.remove(DOM0, absolute(path))
        self._after()

    def list(self, path: str) -> list[str]:
        self._before()
        if (node := self._view.get(absolute(path))) is None:
            raise StoreError(ENOENT, f"list {path}")
        return [*node.children]


class TreeStore(OnTree, Store):
    """A Store on a tree in the same thread; it delivers events as ever, and can be lost."""

    def __init__(self, loop: Loop, tree: storetree.Tree, call: Callable[[], None]) -> None:
        Store.__init__(self, "", loop=loop)
        OnTree.__init__(self, tree, self._reach, self.tell)
        self.up, self.loses_commit = True, False  # lost with the next commit
        self.watches: dict[Watch, storecore.Watch] = {}
        self._tree, self._call_begins = tree, call

    @property
    def connected(self) -> bool:
        return self.up

    def _reach(self) -> None:
        self._call_begins()
        if not self.up:
            raise StoreLost(ENOTCONN, "lost")

    def watch(
        self, path: str, callback: Callable[[str], None], *, depth: int | None = None
    ) -> Watch:
        self._reach()
        watch = Watch(self, path, b"%d" % next(self._tokens), callback, depth)
        self._watches[watch.token] = watch
        base = "" if path.startswith("/") else HOME
        self.watches[watch] = storecore.Watch(absolute(path), watch.token, base)
        self._event(path, watch.token)
        return watch

    def _cancel(self, watch: Watch) -> None:
        if self.watches.pop(watch, None) is not None:
            del self._watches[watch.token]
            with suppress(StoreLost):
                self._reach()

    def tell(self) -> None:
        """The tree has changed."""
        for change in self._tree.take_events():
            for watch in self.watches.values():
                if self.up and watch.fires(change):
                    path, _, _ = watch.payload(change.path).partition(b"\0")
                    self._event(path.decode(), watch.token)

    def transaction(self, body: Callable[[Transaction], T], *, attempts: int = 20) -> T:
        while True:
            self._reach()
            view = storetree.Transaction(self._tree)
            result = body(cast(Transaction, OnTree(view, self._reach, lambda: None)))
            self._reach()
            try:
                self._tree.commit(DOM0, view)
            except storetree.Refusal:
                continue  # somebody has changed what the body saw
            self.tell()
            if self.loses_commit:
                self.up = self.loses_commit = False
                raise StoreLost(ENOTCONN, "lost with the commit")
            return result
