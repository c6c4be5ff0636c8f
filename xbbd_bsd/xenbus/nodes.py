"""The nodes of a backend device: changed all at once, or not at all, and read together.

The toolstack writes there too, and may take them away at any time.  What is read for one
purpose is much the same each time, so that it can be asked for in one go: of what a look
costs, nearly all is waiting for the store and being woken by it.  Control thread.
"""

from collections.abc import Mapping
from typing import Final

from xbbd_bsd.xenbus.family import Changes
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction

MOST_AHEAD: Final = 24  # nodes, so that what one guest has published is no burden for the next


class Reading:
    """Nodes as they were at a moment, whenever they are asked for; others as they are then."""

    def __init__(
        self,
        store: Store,
        asked: dict[tuple[str, str], None],
        directories: Mapping[str, str],
    ) -> None:
        """`asked`: what is expected, and what has been; `directories` by what they are called."""
        self._store = store
        self._asked = asked
        paths = [f"{directories[of]}/{name}" for of, name in asked if directories.get(of)]
        self._values: dict[str, bytes | None] = {}
        try:
            self._values = store.get_all(paths) if paths else {}
        except StoreLost:
            raise
        except StoreError:  # a path that cannot be, which nobody may ask for here
            pass

    def get(self, of: str, directory: str, name: str) -> bytes | None:
        """One of a directory that is called `of`; StoreError."""
        self._asked.pop((of, name), None)
        self._asked[of, name] = None
        if len(self._asked) > MOST_AHEAD:
            del self._asked[next(iter(self._asked))]
        path = f"{directory}/{name}"
        if path not in self._values:
            self._values[path] = self._store.get(path)
        return self._values[path]


class Foresight:
    """What devices have read, by what for."""

    def __init__(self) -> None:
        self._asked: dict[object, dict[tuple[str, str], None]] = {}

    def read(self, store: Store, what_for: object, directories: Mapping[str, str]) -> Reading:
        """Read what was read for that before; StoreError."""
        return Reading(store, self._asked.setdefault(what_for, {}), directories)


class DeviceNodes:
    """The three directories that a device reads: its own, the frontend's, its guest's.

    What is read after `read_for` is as it was then.
    """

    def __init__(self, store: Store, foresight: Foresight, path: str, domain: str) -> None:
        """`path` and `domain`: its own directory, and its guest's."""
        self.frontend = ""  # as long as none is known
        self._store = store
        self._foresight = foresight
        self._path = path
        self._domain = domain
        self._reading: Reading | None = None

    def read_for(self, what: object) -> None:
        """Something is about to be done; StoreError."""
        places = {"own": self._path, "frontend": self.frontend, "domain": self._domain}
        self._reading = self._foresight.read(self._store, what, places)

    def own(self, name: str) -> bytes | None:
        """One of the backend's nodes; StoreError, as of the next two."""
        return self._get("own", self._path, name)

    def guests(self, name: str) -> bytes | None:
        """One of the frontend's."""
        return self._get("frontend", self.frontend, name)

    def domains(self, name: str) -> bytes | None:
        """One of the guest itself."""
        return self._get("domain", self._domain, name)

    def _get(self, of: str, directory: str, name: str) -> bytes | None:
        assert self._reading is not None
        return self._reading.get(of, directory, name)


class Overtaken(Exception):
    """The toolstack was quicker: our nodes are gone, and must not come back, or it has
    written our state, and must be heard.  What we were about to say is out of date.
    """


def change(store: Store, directory: str, nodes: Changes, seen: bytes | None) -> None:
    """Change nodes below a directory, or those of a whole path; StoreError, Overtaken.

    `seen`: our state, as it was when we decided to.
    """

    def path(name: str) -> str:
        return name if "/" in name else f"{directory}/{name}"

    def body(transaction: Transaction) -> None:
        guards = ("frontend", "state") if "state" in nodes else ("frontend",)
        found = transaction.get_all([path(name) for name in guards])

        def now(name: str) -> bytes | None:
            at = path(name)
            return found[at] if at in found else transaction.get(at)

        if now("frontend") is None or ("state" in nodes and now("state") != seen):
            raise Overtaken
        for name, value in nodes.items():
            if value is None:
                transaction.remove(path(name))
        transaction.write_all({path(n): value for n, value in nodes.items() if value is not None})

    store.transaction(body)
