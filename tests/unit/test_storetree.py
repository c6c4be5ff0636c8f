"""The nodes of the simulated store, against a plain model: what succeeds has happened at once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbbd_bsd.sim.storetree import (
    PRIVATE,
    Access,
    Caller,
    Node,
    Permission,
    Quota,
    Refusal,
    Transaction,
    Tree,
    View,
)
from xbbd_bsd.xenstore.wire import Error

DOM0 = Caller(0)
GUEST = Caller(5)

Model = dict[str, bytes]  # every node with its value, "/" left out
Step = tuple[str, str, bytes]  # operation, path, value


def walk(view: View, path: str = "/") -> dict[str, Node]:
    """Every node of a view, reached through the lists of children."""
    node = view.get(path)
    assert node is not None
    nodes = {path: node}
    for name in node.children:
        nodes |= walk(view, path.rstrip("/") + "/" + name)
    return nodes


def values(view: View) -> Model:
    return {path: node.value for path, node in walk(view).items() if path != "/"}


def act(view: View, step: Step) -> object:
    """What one operation answers, the name of its error included."""
    op, path, value = step
    try:
        match op:
            case "write":
                view.write(DOM0, path, value)
            case "mkdir":
                view.mkdir(DOM0, path)
            case "remove":
                view.remove(DOM0, path)
            case "read":
                return view.find(DOM0, path, Access.READ).value
            case _:
                return sorted(view.find(DOM0, path, Access.READ).children)
    except Refusal as refusal:
        return refusal.error.name
    return None


def refusal_of(call: Callable[..., None], *arguments: object) -> Error | None:
    try:
        call(*arguments)
    except Refusal as refusal:
        return refusal.error
    return None


def parents(path: str) -> list[str]:
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[: end + 1]) for end in range(len(parts))]


def model_act(model: Model, step: Step) -> object:
    """The same on the model."""
    op, path, value = step
    if op == "write" or (op == "mkdir" and path not in model):
        for parent in parents(path):
            model.setdefault(parent, b"")
        model[path] = value if op == "write" else b""
        return None
    if op == "mkdir":
        return None
    below = path + "/"
    if op == "remove":
        if path not in model:
            return None if all(parent in model for parent in parents(path)) else "ENOENT"
        for each in [each for each in model if each == path or each.startswith(below)]:
            del model[each]
        return None
    if path not in model:
        return "ENOENT"
    if op == "read":
        return model[path]
    found = [each.removeprefix(below) for each in model if each.startswith(below)]
    return sorted(name for name in found if "/" not in name)


PATHS = st.sampled_from(["/a", "/b", "/a/a", "/a/b", "/a/b/a", "/a/b/b", "/b/a"])
STEPS = st.tuples(
    st.sampled_from(["write", "mkdir", "remove", "read", "list"]), PATHS, st.binary(max_size=1)
)


@dataclass
class Story:
    """A transaction, and what was done and answered in it."""

    transaction: Transaction
    steps: list[tuple[Step, object]] = field(default_factory=list)
    undisturbed: bool = True


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), STEPS | st.none()), max_size=40))
def test_what_is_committed_could_have_happened_at_once(
    script: list[tuple[int, Step | None]],
) -> None:
    """Actor 0 acts outside; the others each in a transaction, which None ends.

    A commit that succeeds leaves what the same operations would have made of the store had they
    been done at that moment, with the same answers; one that fails leaves no trace, and does not
    fail when nobody interfered.
    """
    tree = Tree()
    model = values(tree)
    stories: dict[int, Story] = {}
    for actor, step in script:
        if step is not None and actor == 0:
            assert act(tree, step) == model_act(model, step)
            for story in stories.values():
                story.undisturbed = False
        elif step is not None:
            story = stories.setdefault(actor, Story(Transaction(tree)))
            story.steps.append((step, act(story.transaction, step)))
        elif actor in stories:
            story = stories.pop(actor)
            error = refusal_of(tree.commit, DOM0, story.transaction)
            if error is None:
                for done, answer in story.steps:
                    assert model_act(model, done) == answer
                for rest in stories.values():
                    rest.undisturbed = False
            else:
                assert error is Error.EAGAIN
                assert not story.undisturbed
        assert values(tree) == model
    nodes = walk(tree)
    owners = Counter(node.owner for node in nodes.values())
    assert tree.owned(0) == owners[0] == len(model) + 1
    assert len({node.generation for node in nodes.values()}) == len(nodes)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=12), st.lists(STEPS, max_size=12))
def test_events_tell_of_every_change(before: list[Step], script: list[Step]) -> None:
    """At the node, or above it when it went with a tree. Empty parents tell nothing of themselves,
    and stay when what they were made for is taken back.
    """
    tree = Tree()
    for step in before:
        act(tree, step)
    tree.take_events()
    old = values(tree)
    transaction = Transaction(tree)
    for step in script:
        act(transaction, step)
    assert tree.take_events() == []
    assert transaction.owned(0) == len(walk(transaction))
    tree.commit(DOM0, transaction)
    events = tree.take_events()
    new = values(tree)
    told = [event.path for event in events]
    assert len(set(told)) == len(told)
    for path in old.keys() | new.keys():
        came_as_parent = path not in old and new[path] == b""
        if old.get(path) != new.get(path) and not came_as_parent:
            assert {path, *parents(path)} & set(told), path
    for event in events:
        assert event.path in old or event.path in new


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), STEPS | st.none()), max_size=60))
def test_no_guest_owns_more_than_its_quota(script: list[tuple[int, Step | None]]) -> None:
    tree = Tree(Quota(nodes=4))
    tree.permit(DOM0, "/", (Permission(0, Access.READ | Access.WRITE),))
    transactions: dict[int, Transaction] = {}
    for actor, step in script:
        view = transactions.setdefault(actor, Transaction(tree)) if actor else tree
        error = None
        if step is None and actor:
            error = refusal_of(tree.commit, GUEST, transactions.pop(actor))
        elif step is not None and step[0] == "remove":
            error = refusal_of(view.remove, GUEST, step[1])
        elif step is not None:
            error = refusal_of(view.write, GUEST, step[1], step[2])
        assert error in (None, Error.ENOSPC, Error.EAGAIN, Error.ENOENT)
        owned = sum(node.owner == 5 for node in walk(tree).values())
        assert tree.owned(5) == owned <= 4


def test_a_transaction_that_is_out_of_date_fails_at_its_end_only() -> None:
    tree = Tree()
    tree.mkdir(DOM0, "/listed/child")
    early, late = Transaction(tree), Transaction(tree)
    tree.mkdir(DOM0, "/a")
    assert act(early, ("read", "/a/b", b"")) == "ENOENT"
    assert act(late, ("list", "/listed", b"")) == ["child"]
    tree.mkdir(DOM0, "/a/b/c")
    tree.remove(DOM0, "/listed/child")
    early.remove(DOM0, "/a/b/c")  # whose parent it does not know
    late.remove(DOM0, "/listed")  # which lists a child that is gone
    late.mkdir(DOM0, "/listed/child")
    for transaction in (early, late):
        assert refusal_of(tree.commit, DOM0, transaction) is Error.EAGAIN
    assert sorted(values(tree)) == ["/a", "/a/b", "/a/b/c", "/listed", "/tool", "/tool/xenstored"]


@pytest.mark.parametrize("text", ["n0", "r5", "w32751", "b7"])
def test_permissions_are_texts(text: str) -> None:
    assert str(Permission.from_text(text)) == text


def test_access() -> None:
    permissions = tuple(map(Permission.from_text, ("r5", "n6", "w7")))
    everything = Access.READ | Access.WRITE | Access.OWNER
    assert Caller(0).access(permissions) == everything
    assert Caller(5).access(permissions) == everything
    assert Caller(6).access(permissions) == Access.NONE
    assert Caller(7).access(permissions) == Access.WRITE
    assert Caller(8).access(permissions) == Access.READ
    assert Caller(8, target=5).access(permissions) == everything
    assert Caller(8, target=7).access(permissions) == Access.WRITE


def test_release_takes_what_the_domain_owned() -> None:
    tree = Tree()
    mine = (Permission(5, Access.NONE),)
    for path in ("/a/mine/dom0s", "/b", "/c/mine"):
        tree.write(DOM0, path, b"")
    for path in ("/a/mine", "/c/mine", "/"):
        tree.permit(DOM0, path, mine)
    tree.permit(DOM0, "/a/mine/dom0s", PRIVATE)
    tree.take_events()
    tree.release(5)
    assert sorted(values(tree)) == ["/a", "/b", "/c", "/tool", "/tool/xenstored"]
    assert tree.owned(5) == 0
    assert walk(tree)["/"].permissions == PRIVATE
    exact = {event.path: event.exact for event in tree.take_events()}
    assert exact == {"/a/mine": False, "/a/mine/dom0s": True, "/c/mine": False}


def test_a_refused_request_changes_nothing() -> None:
    tree = Tree(Quota(nodes=2, node_size=60))
    tree.permit(DOM0, "/", (Permission(0, Access.READ | Access.WRITE),))
    tree.write(GUEST, "/a", b"x" * 20)
    tree.take_events()
    attempts: list[tuple[Callable[..., None], str, object, Error]] = [
        (tree.write, "/a/b/c", b"", Error.ENOSPC),
        (tree.write, "/a", b"x" * 28, Error.ENOSPC),
        (tree.write, "/a/long-name", b"", Error.ENOSPC),
        (tree.write, "/tool/x", b"", Error.EACCES),
        (tree.permit, "/a", (Permission(6, Access.NONE),), Error.EPERM),
    ]
    before = walk(tree)
    for call, path, argument, error in attempts:
        with pytest.raises(Refusal) as caught:
            call(GUEST, path, argument)
        assert caught.value.error is error
    assert walk(tree) == before
    assert tree.take_events() == []
