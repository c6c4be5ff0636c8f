"""The nodes of the simulated XenStore: values, permissions, quotas, transactions.

Pure: this module must not know of connections, watches or packets. It tells what changed as a list
of Events and refuses with the protocol's errors. Not safe for several threads at once: whoever owns
a Tree calls it from one. The rules are those of Xen's C xenstored 4.17, measured.
"""

import enum
import re
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from xbbd_bsd.xenstore.wire import Error

DOMID_FIRST_RESERVED: Final = 0x7FF0  # xen.h: such numbers and higher ones name no domain


class Refusal(Exception):
    """A request that cannot be done; nothing has changed."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.name)
        self.error = error


class Access(enum.Flag):
    """What a domain may do with a node."""

    NONE = 0
    READ = enum.auto()
    WRITE = enum.auto()
    OWNER = enum.auto()


_LETTERS: Final = {
    "n": Access.NONE,
    "r": Access.READ,
    "w": Access.WRITE,
    "b": Access.READ | Access.WRITE,
}
_NAMES: Final = {access: letter for letter, access in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Permission:
    """One entry of a node's list. The first one names the owner, who may do everything, and what
    domains without an entry may do.
    """

    domid: int
    access: Access

    @classmethod
    def from_text(cls, text: str) -> "Permission":
        """From a text like `r5`; refuses others with EINVAL."""
        if not re.fullmatch(r"[nrwb][0-9]{1,5}", text):
            raise Refusal(Error.EINVAL)
        return cls(int(text[1:]), _LETTERS[text[0]])

    def __str__(self) -> str:
        return f"{_NAMES[self.access]}{self.domid}"


Permissions = tuple[Permission, ...]
PRIVATE: Final[Permissions] = (Permission(0, Access.NONE),)


@dataclass(frozen=True, slots=True)
class Caller:
    """The domain that asks, and the one on whose behalf it may act too (SET_TARGET)."""

    domid: int
    target: int | None = None

    @property
    def privileged(self) -> bool:
        return self.domid == 0

    def access(self, permissions: Permissions) -> Access:
        owner = permissions[0]
        if self.privileged or owner.domid in (self.domid, self.target):
            return Access.READ | Access.WRITE | Access.OWNER
        for permission in permissions[1:]:
            if permission.domid in (self.domid, self.target):
                return permission.access
        return owner.access


@dataclass(frozen=True, slots=True)
class Quota:
    """What a guest may have at most; dom0 has no limits. The last two allow one more than
    xenstored's settings say, as xenstored itself does.
    """

    nodes: int = 1000
    node_size: int = 2048  # bytes, see Node.size; this many are too many already
    permissions: int = 5
    watches: int = 129
    transactions: int = 11


@dataclass(frozen=True, slots=True)
class Node:
    """`generation` is that of the last change; no two changes of the tree share one."""

    value: bytes
    permissions: Permissions
    children: tuple[str, ...] = ()
    generation: int = 0

    @property
    def owner(self) -> int:
        return self.permissions[0].domid

    @property
    def size(self) -> int:
        """Bytes of xenstored's record, which is what its quota measures."""
        names = sum(len(name) + 1 for name in self.children)
        return 24 + 8 * len(self.permissions) + len(self.value) + names


@dataclass(frozen=True, slots=True)
class Event:
    """A node changed. `exact`: it went with an ancestor, so only watches of this very path fire.
    A domain may know of it if one of `readers` lets it read.
    """

    path: str
    exact: bool
    readers: tuple[Permissions, ...]


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]


class View(ABC):
    """The nodes as they are, or as they are within a transaction. Paths are absolute and valid."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota

    @abstractmethod
    def get(self, path: str) -> Node | None: ...

    @abstractmethod
    def owned(self, domid: int) -> int:
        """How many nodes a domain owns."""

    @abstractmethod
    def _put(self, path: str, node: Node) -> None: ...

    @abstractmethod
    def _drop(self, path: str) -> None: ...

    @abstractmethod
    def _changed(self, path: str, exact: bool, old: Permissions | None = None) -> None:
        """Notes a change for the watches; of a removed node while it is still there."""

    def find(self, caller: Caller, path: str, need: Access) -> Node:
        """The node, if the caller may use it so.

        Refuses with ENOENT only where the nearest ancestor that exists grants `need`, with EACCES
        elsewhere: who has no business there does not learn what exists.
        """
        if (node := self.get(path)) is not None:
            if need in caller.access(node.permissions):
                return node
            raise Refusal(Error.EACCES)
        while node is None:
            path = parent_of(path)
            node = self.get(path)
        allowed = need in caller.access(node.permissions)
        raise Refusal(Error.ENOENT if allowed else Error.EACCES)

    def _find_or_none(self, caller: Caller, path: str) -> Node | None:
        """The node to write to, None if the caller may create it."""
        try:
            return self.find(caller, path, Access.WRITE)
        except Refusal as refusal:
            if refusal.error is not Error.ENOENT:
                raise
        return None

    def write(self, caller: Caller, path: str, value: bytes) -> None:
        if (node := self._find_or_none(caller, path)) is None:
            self._create(caller, path, value)
            return
        node = replace(node, value=value)
        self._check_size(caller, node)
        self._put(path, node)
        self._changed(path, exact=False)

    def mkdir(self, caller: Caller, path: str) -> None:
        """Makes an empty node where there is none."""
        if self._find_or_none(caller, path) is None:
            self._create(caller, path, b"")

    def _create(self, caller: Caller, path: str, value: bytes) -> None:
        new = [path]
        while (parent := self.get(parent_of(new[-1]))) is None:
            new.append(parent_of(new[-1]))
        permissions = parent.permissions
        if not caller.privileged:
            if self.owned(caller.domid) + len(new) > self.quota.nodes:
                raise Refusal(Error.ENOSPC)
            permissions = (replace(permissions[0], domid=caller.domid), *permissions[1:])
        nodes = {
            parent_of(new[-1]): replace(parent, children=(*parent.children, _name_of(new[-1])))
        }
        for above, below in zip(reversed(new), [*reversed(new[:-1]), ""], strict=True):
            children = (_name_of(below),) if below else ()
            nodes[above] = Node(b"" if below else value, permissions, children)
        for node in nodes.values():
            self._check_size(caller, node)
        for above, node in nodes.items():
            self._put(above, node)
        self._changed(path, exact=False)

    def _check_size(self, caller: Caller, node: Node) -> None:
        if not caller.privileged and node.size >= self.quota.node_size:
            raise Refusal(Error.ENOSPC)

    def remove(self, caller: Caller, path: str) -> None:
        """Removes a node and all below it; one that is not there is fine if its parent is."""
        if self._find_or_none(caller, path) is None:
            if self.get(parent_of(path)) is None:
                raise Refusal(Error.ENOENT)
            return
        if path == "/":
            raise Refusal(Error.EINVAL)
        self._remove(path)

    def _remove(self, path: str) -> None:
        """Removes a node and all below it, these first.

        A transaction may have looked at a parent before, and at its child after a change outside;
        then one of them lacks the other. Its commit fails anyway, so that is passed over here.
        """
        paths: list[str] = []
        stack = [path]
        while stack:
            at = stack.pop()
            if (node := self.get(at)) is not None:
                paths.append(at)
                stack += [f"{at}/{name}" for name in node.children]
        for at in reversed(paths):
            self._changed(at, exact=at != path)
            self._drop(at)
        above = parent_of(path)
        if (parent := self.get(above)) is not None:
            names = tuple(name for name in parent.children if name != _name_of(path))
            self._put(above, replace(parent, children=names))

    def permit(self, caller: Caller, path: str, permissions: Permissions) -> None:
        """Replaces a node's permissions, which its owner and dom0 may; only dom0 changes owners."""
        if not caller.privileged and len(permissions) > self.quota.permissions:
            raise Refusal(Error.ENOSPC)
        node = self.find(caller, path, Access.WRITE | Access.OWNER)
        if not caller.privileged and permissions[0].domid != node.owner:
            raise Refusal(Error.EPERM)
        new = replace(node, permissions=permissions)
        self._check_size(caller, new)
        self._put(path, new)
        self._changed(path, exact=False, old=node.permissions)


class Tree(View):
    """All nodes. A fresh one holds what a fresh xenstored does."""

    def __init__(self, quota: Quota | None = None) -> None:
        super().__init__(quota or Quota())
        self._nodes: dict[str, Node] = {}
        self._owned: Counter[int] = Counter()
        self._generation = 0
        self._events: list[Event] = []
        self._put("/", Node(b"", PRIVATE))
        self.mkdir(Caller(0), "/tool/xenstored")
        self.take_events()

    def get(self, path: str) -> Node | None:
        return self._nodes.get(path)

    def owned(self, domid: int) -> int:
        return self._owned[domid]

    def new_generation(self) -> int:
        """A number that no change has had yet."""
        self._generation += 1
        return self._generation

    def take_events(self) -> list[Event]:
        """What changed since the last call, in order."""
        events, self._events = self._events, []
        return events

    def release(self, domid: int) -> None:
        """Removes the nodes of a domain that is no more, with everything below them."""
        for path in sorted(self._nodes):
            node = self._nodes.get(path)
            if node is None or node.owner != domid:
                continue
            if path == "/":
                self._put(path, replace(node, permissions=PRIVATE))
            else:
                self._remove(path)

    def _put(self, path: str, node: Node) -> None:
        if (old := self._nodes.get(path)) is not None:
            self._owned[old.owner] -= 1
        self._owned[node.owner] += 1
        self._nodes[path] = replace(node, generation=self.new_generation())

    def _drop(self, path: str) -> None:
        self._owned[self._nodes.pop(path).owner] -= 1

    def _changed(self, path: str, exact: bool, old: Permissions | None = None) -> None:
        readers = (self._nodes[path].permissions, self._nodes[parent_of(path)].permissions)
        self._events.append(Event(path, exact, (old, *readers) if old else readers))

    def commit(self, caller: Caller, transaction: "Transaction") -> None:
        """Makes a transaction's changes real.

        Refuses with ENOSPC when a guest would then own all the nodes that it may (xenstored wants
        one less here), with EAGAIN when a node that was seen is not as it was then. Events come
        one per node, in the order of the first access.
        """
        gained = transaction.gained[caller.domid]
        full = self._owned[caller.domid] + gained >= self.quota.nodes
        if full and gained and not caller.privileged:
            raise Refusal(Error.ENOSPC)
        for path, generation in transaction.seen.items():
            node = self._nodes.get(path)
            if (node.generation if node else 0) != generation:
                raise Refusal(Error.EAGAIN)
        before = {path: self._nodes.get(path) for path in transaction.fired}
        for path, node in transaction.changes():
            if node is not None:
                self._put(path, node)
            elif path in self._nodes:
                self._drop(path)
        for path in filter(before.__contains__, transaction.seen):
            old, exact = before[path], transaction.fired[path]
            if path in self._nodes:
                self._changed(path, exact, old.permissions if old else None)
            elif old is not None:
                self._events.append(Event(path, exact, (old.permissions,)))


class Transaction(View):
    """Nodes as one transaction sees them: each as it was when first looked at, or as changed here.

    A node that is looked at, its absence included, is one that must not change outside. Since a
    parent's list of children is part of the parent, so are siblings that come or go wherever a
    list was read or changed, while writes to separate nodes do not meet.
    """

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree.quota)
        self.seen: dict[str, int] = {}  # path -> generation, 0 where there was no node
        self.fired: dict[str, bool] = {}  # path -> exact
        self.gained: Counter[int] = Counter()  # nodes more, or fewer, that a domain owns
        self._tree = tree
        self._nodes: dict[str, Node | None] = {}
        self._dirty: set[str] = set()

    def get(self, path: str) -> Node | None:
        if path not in self.seen:
            node = self._nodes[path] = self._tree.get(path)
            self.seen[path] = node.generation if node else 0
        return self._nodes[path]

    def owned(self, domid: int) -> int:
        return self._tree.owned(domid) + self.gained[domid]

    def changes(self) -> list[tuple[str, Node | None]]:
        """What to put, and with None what to drop."""
        return [(path, self._nodes[path]) for path in self.seen if path in self._dirty]

    def _put(self, path: str, node: Node) -> None:
        self._account(path)
        self.gained[node.owner] += 1
        self._nodes[path] = replace(node, generation=self._tree.new_generation())

    def _drop(self, path: str) -> None:
        self._account(path)
        self._nodes[path] = None

    def _account(self, path: str) -> None:
        self._dirty.add(path)
        if (old := self.get(path)) is not None:
            self.gained[old.owner] -= 1

    def _changed(self, path: str, exact: bool, old: Permissions | None = None) -> None:
        self.fired[path] = exact
