"""What is read ahead: the same values as if each node had been read when it was asked for."""

from collections.abc import Collection
from errno import EINVAL, ENOTCONN

import pytest

from tests.unit.tree_store import DOM0, Loop, TreeStore
from xbbd_bsd.sim.storetree import Tree
from xbbd_bsd.xenbus.nodes import MOST_AHEAD, DeviceNodes, Foresight
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost


class Asked(TreeStore):
    """A store that remembers in which rounds it was asked."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(Loop(), tree, lambda: None)
        self.rounds: list[list[str]] = []
        self.refuses: StoreError | None = None

    def get(self, path: str) -> bytes | None:
        self.rounds.append([path])
        return super().get(path)

    def get_all(self, paths: Collection[str]) -> dict[str, bytes | None]:
        self.rounds.append([*paths])
        if self.refuses is not None:
            raise self.refuses
        return {path: super(Asked, self).get(path) for path in paths}


@pytest.fixture
def tree() -> Tree:
    tree = Tree()
    for path in ("back/1/state", "back/2/state", "front/1/state", "dom/name"):
        tree.write(DOM0, f"/{path}", path.encode())
    return tree


def nodes(store: Store, foresight: Foresight, number: int) -> DeviceNodes:
    made = DeviceNodes(store, foresight, f"/back/{number}", "/dom")
    made.frontend = f"/front/{number}"
    return made


def test_what_one_has_read_the_next_has_at_once(tree: Tree) -> None:
    store, foresight = Asked(tree), Foresight()
    first, second = nodes(store, foresight, 1), nodes(store, foresight, 2)
    first.read_for("look")
    assert (first.own("state"), first.guests("state")) == (b"back/1/state", b"front/1/state")
    assert (first.own("none"), first.domains("name")) == (None, b"dom/name")
    assert [len(each) for each in store.rounds] == [1, 1, 1, 1]
    store.rounds.clear()
    second.read_for("look")
    assert (second.own("state"), second.guests("state")) == (b"back/2/state", None)
    assert (second.own("none"), second.domains("name")) == (None, b"dom/name")
    assert store.rounds == [["/back/2/state", "/front/2/state", "/back/2/none", "/dom/name"]]
    second.read_for("open")
    assert len(store.rounds) == 1, "that is another matter"


def test_nodes_are_those_of_the_moment(tree: Tree) -> None:
    """Until the next reading, also of those that were read one by one; a new place is read anew."""
    store, foresight = Asked(tree), Foresight()
    device = nodes(store, foresight, 1)
    for _ in range(2):
        device.read_for("look")
        assert device.own("state") == tree.get("/back/1/state").value  # type: ignore[union-attr]
        before = device.own("state")
        tree.write(DOM0, "/back/1/state", b"new" + before if before else b"")
        assert device.own("state") == before
    device.frontend = ""
    device.read_for("look")
    assert device.own("state") == b"newnewback/1/state"
    device.frontend = "/back/2"
    assert device.guests("state") == b"back/2/state"


def test_a_guest_with_much_to_read_is_no_burden_for_others(tree: Tree) -> None:
    store, foresight = Asked(tree), Foresight()
    device = nodes(store, foresight, 1)
    device.read_for("connect")
    for number in range(10 * MOST_AHEAD):
        device.guests(f"ring-ref{number}")
    device.guests("state")
    store.rounds.clear()
    nodes(store, foresight, 2).read_for("connect")
    ((*ahead, last),) = store.rounds
    assert (len(ahead) + 1, last) == (MOST_AHEAD, "/front/2/state")


def test_what_cannot_be_read_ahead_is_read_when_it_is_asked_for(tree: Tree) -> None:
    store, foresight = Asked(tree), Foresight()
    device = nodes(store, foresight, 1)
    device.read_for("look")
    device.own("state")
    store.refuses = StoreError(EINVAL, "impossible")
    device.read_for("look")
    assert device.own("state") == b"back/1/state"
    store.refuses = StoreLost(ENOTCONN, "lost")
    with pytest.raises(StoreLost):
        device.read_for("look")
