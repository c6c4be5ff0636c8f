"""HACKING's table of promises against the program and the tests: complete, and each row shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from xbbd_bsd.block.named import POLICY_NODES
from xbbd_bsd.block.negotiate import Discard, DiskInfo, FrontendParams, Offer
from xbbd_bsd.block.oids import ERRORS, TAKEOVERS
from xbbd_bsd.errors import GuestError
from xbbd_bsd.native import Op
from xbbd_bsd.net import negotiate as card
from xbbd_bsd.net.oids import COUNTERS as CARD_COUNTERS
from xbbd_bsd.net.oids import REFUSALS
from xbbd_bsd.oids import PROCESS
from xbbd_bsd.stats import COUNTERS, GAUGES, TUNABLES

ROOT = Path(__file__).parent.parent
TITLE = "## What is promised, and the test that shows it"
NUMBERS = ("Tuna", "Coun", "Gaug", "A card's coun")  # the sections of numbers begin so
# Never counted, or as often up as down: that it is 0 is all there is to say.
ENDS_AT_0 = ("request_shortages", "reqs_queued_for_completion")
ENDS_AT_0_OF_CARDS = ("persistent_hits", "persistent_misses")


def sections() -> dict[str, dict[str, str]]:
    """Tests by what they show, by the first word of a section's title."""
    text = (ROOT / "HACKING.md").read_text()
    found: dict[str, dict[str, str]] = {}
    for part in text[text.index(TITLE) :].split("\n### ")[1:]:
        title = part.partition("\n")[0]
        rows = re.findall(r"^\| `([^`]+)` \| .* \| `([^`]+)` \|$", part, re.M)
        found[title] = dict(rows)
        assert len(found[title]) == len(rows) == part.count("\n| ") - 2, title
    return found


def section(beginning: str) -> set[str]:
    """What the section of that title is about."""
    (rows,) = (rows for title, rows in sections().items() if title.startswith(beginning))
    return set(rows)


def exists(test: str) -> bool:
    """Whether there is such a test: a function of a Python file, or a C program."""
    name, _, function = test.partition("::")
    path = ROOT / name
    if not path.exists():
        return False
    if path.suffix == ".c":
        return function == ""
    tree = ast.parse(path.read_text())
    return function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("title", sections())
def test_every_row_has_a_test_that_exists(title: str) -> None:
    missing = [test for test in sections()[title].values() if not exists(test)]
    assert missing == []


@pytest.mark.parametrize(
    ("title", "program"),
    [
        ("Tunables", set(TUNABLES)),
        ("Counters", set(COUNTERS)),
        ("Gauges", set(GAUGES)),
        ("Errors", {leaf.name.removeprefix("errors.") for leaf in ERRORS}),
        ("Who serves it", {leaf.name for leaf in (*PROCESS, *TAKEOVERS)}),
        ("A card's counters", set(CARD_COUNTERS)),
        ("A card's refused packets", set(REFUSALS)),
    ],
)
def test_every_number_is_there(title: str, program: set[str]) -> None:
    assert section(title) == program


def names_in(node: ast.AST) -> set[str]:
    """The words that an expression is made of: names, attributes, keys."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(part.id)
        elif isinstance(part, ast.Attribute):
            found.add(part.attr)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.add(part.value)
    return found


def says_something(condition: ast.expr) -> bool:
    """Whether it tells a number that is counted from one that stays 0."""
    if not isinstance(condition, ast.Compare):
        return True
    if all(isinstance(op, ast.Eq) for op in condition.ops):
        last = condition.comparators[-1]
        return not (isinstance(last, ast.Constant) and last.value == 0)
    return not all(isinstance(op, ast.Lt | ast.LtE) for op in condition.ops) or isinstance(
        condition.left, ast.Constant
    )


def judged_by(function: ast.FunctionDef) -> set[str]:
    """What a test's verdict hangs on.

    The words of its assertions and of what it waits for, and of whatever was assigned to a
    word among them; not of an assertion that something is 0, or no more than so much.
    """
    found = set()
    for part in ast.walk(function):
        if isinstance(part, ast.Assert) and says_something(part.test):
            found |= names_in(part.test)
        elif (
            isinstance(part, ast.Call)
            and isinstance(part.func, ast.Name)
            and part.func.id == "eventually"
        ):
            found |= names_in(part.args[0])
    assigned = [
        (target.id, names_in(part.value))
        for part in ast.walk(function)
        if isinstance(part, ast.Assign)
        for target in part.targets
        if isinstance(target, ast.Name)
    ]
    for _ in assigned:
        for name, words in assigned:
            if name in found:
                found |= words
    return found


def sets(function: ast.FunctionDef) -> set[str]:
    """The tunables that a test sets."""
    return {
        part.args[0].value
        for part in ast.walk(function)
        if isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and part.func.attr == "set_tunable"
        and isinstance(part.args[0], ast.Constant)
        and isinstance(part.args[0].value, str)
    }


def checked_in(program: str) -> set[str]:
    """The words of what a C program checks; not of what must be 0, or no more than so much."""
    checks = re.findall(r"\b(?:CHECK|CHECK_EQ|WAIT_UNTIL)\(([^;]*)\);", program)
    telling = [check for check in checks if not re.search(r"(?:,|==) 0$| <=? ", check)]
    return set(re.findall(r"\w+", " ".join(telling)))


@pytest.mark.parametrize("title", [t for t in sections() if t.startswith(NUMBERS)])
def test_the_test_of_a_number_judges_by_it(title: str) -> None:
    """It may name it and never look at it.  A tunable is set by the very test that judges."""
    ends_at_0 = ENDS_AT_0_OF_CARDS if title.startswith("A card's") else ENDS_AT_0
    missing = []
    for name, test in sections()[title].items():
        path, _, function = test.partition("::")
        text = (ROOT / path).read_text()
        if not function:
            shown = checked_in(text)
        else:
            (body,) = (
                node
                for node in ast.parse(text).body
                if isinstance(node, ast.FunctionDef) and node.name == function
            )
            shown = sets(body) if title.startswith("Tunables") else judged_by(body)
        if name not in shown and name not in ends_at_0:
            missing.append((name, test))
    assert missing == []


def test_a_test_that_only_names_a_number_does_not_judge_by_it() -> None:
    (named,) = ast.parse(
        """
def test(r):
    before = r.counter("io_short")
    use(r.counter("io_errors"), "a word of it")
    assert r.counter("io_bounced") == before
    assert r.counter("rd_req") == 0
    assert r.counter("wr_req") <= 7
"""
    ).body
    assert isinstance(named, ast.FunctionDef)
    assert judged_by(named) >= {"io_short", "io_bounced"}
    assert not {"io_errors", "rd_req", "wr_req"} & judged_by(named)
    program = """
    CHECK_EQ(COUNTER(&pair, io_short), 1);
    CHECK(COUNTER(&pair, io_bounced) >= 5);
    use(COUNTER(&pair, io_errors)); /* rd_req */
    CHECK_EQ(COUNTER(&pair, rd_req), 0);
    CHECK(COUNTER(&pair, wr_req) <= 7);
    """
    assert checked_in(program) >= {"io_short", "io_bounced"}
    assert not {"io_errors", "rd_req", "wr_req"} & checked_in(program)


def test_every_operation_is_there() -> None:
    assert section("Operations") == {op.name for op in Op} | {"INDIRECT", "anything else"}


def test_every_node_written_is_there() -> None:
    device = (ROOT / "xbbd_bsd/xenbus/device.py").read_text()
    any_device = set(re.findall(r'"([a-z][a-z-]+)": (?:b"|self\._reason|decision|State)', device))
    nodes = set(Offer(4, 4, 256, True).to_nodes())
    nodes |= set(DiskInfo(8, discard=Discard(512)).to_nodes())
    assert section("Nodes written") == nodes | any_device
    assert section("A card's nodes written") == set(card.Offer(4).to_nodes()) | any_device


def test_every_node_read_of_a_frontend_is_there() -> None:
    asked: set[str] = {"state"}
    whole = Offer(max_ring_page_order=4, max_queues=4, persistent=True)
    for nodes in (
        {},
        {"event-channel": b"1", "ring-ref": b"1"},
        {"event-channel": b"1", "ring-page-order": b"0"},
        {"multi-queue-num-queues": b"2"},
        {"multi-queue-num-queues": b"2", "queue-0/event-channel": b"1"},
        {"multi-queue-num-queues": b"2", "queue-0/event-channel": b"1", "ring-page-order": b"1"},
        {"event-channel": b"1", "ring-page-order": b"1"},
    ):

        def node(name: str, nodes: dict[str, bytes] = nodes) -> bytes | None:
            asked.add(name)
            return nodes.get(name)

        try:
            FrontendParams.from_nodes(node, whole)
        except GuestError:
            continue
    assert section("Nodes read: the frontend's") == asked


def test_every_node_read_of_our_own_is_there() -> None:
    source = "".join(
        (ROOT / "xbbd_bsd" / name).read_text()
        for name in (
            "xenbus/device.py",
            "block/backend.py",
            "block/tuning.py",
            "block/entry.py",
            "host/linux.py",
        )
    )
    found: set[str] = set(POLICY_NODES)
    found |= set(re.findall(r'(?:self\._nodes\.own|[^_]backend)\("([a-z-]+)"\)', source))
    found |= set(re.findall(r'"((?:physical-device|params)[a-z-]*)": ', source))
    assert section("Nodes read: the backend's") == found


def test_every_node_read_of_a_cards_frontend_is_there() -> None:
    asked: set[str] = {"state"}
    alone = {"request-rx-copy": b"1", "event-channel": b"1", "tx-ring-ref": b"1"}
    several = {f"queue-0/{name}": value for name, value in alone.items()}
    for nodes in (
        {},
        {**alone, "rx-ring-ref": b"2"},
        {"request-rx-copy": b"1", "multi-queue-num-queues": b"2", **several},
    ):

        def node(name: str, nodes: dict[str, bytes] = nodes) -> bytes | None:
            asked.add(name)
            return nodes.get(name)

        try:
            card.FrontendParams.from_nodes(node, card.Offer(4))
        except GuestError:
            continue
    assert section("A card's nodes read: the frontend's") == asked


def test_every_node_read_of_a_cards_own_is_there() -> None:
    files = {
        name: (ROOT / "xbbd_bsd" / name).read_text()
        for name in ("xenbus/device.py", "net/backend.py", "net/negotiate.py")
    }
    found = set(re.findall(r'\.own\("([a-z-]+)"\)', files["xenbus/device.py"]))
    for name in ("net/backend.py", "net/negotiate.py"):
        found |= set(re.findall(r'[^_]backend\("([a-z-]+)"\)', files[name]))
    assert section("A card's nodes read: the backend's") == found
