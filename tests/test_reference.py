"""HACKING's table of promises against the program and the tests: complete, and each row shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from xbbd_bsd.block.negotiate import Discard, DiskInfo, FrontendParams, Offer
from xbbd_bsd.errors import GuestError
from xbbd_bsd.native import Op
from xbbd_bsd.stats import COUNTERS, GAUGES, TUNABLES

ROOT = Path(__file__).parent.parent
TITLE = "## What is promised, and the test that shows it"


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
    ],
)
def test_every_number_is_there(title: str, program: set[str]) -> None:
    assert section(title) == program


def test_a_test_of_a_number_speaks_of_it() -> None:
    """The row's file at least names what it shows."""
    for title, rows in sections().items():
        if not title.startswith(("Tunables", "Counters", "Gauges")):
            continue
        for name, test in rows.items():
            text = (ROOT / test.partition("::")[0]).read_text()
            assert re.search(rf"\b{name}\b", text), (name, test)


def test_every_operation_is_there() -> None:
    assert section("Operations") == {op.name for op in Op} | {"INDIRECT", "anything else"}


def test_every_node_written_is_there() -> None:
    nodes = set(Offer(4, 4, 256, True).to_nodes())
    nodes |= set(DiskInfo(8, discard=Discard(512)).to_nodes())
    device = (ROOT / "xbbd_bsd/xenbus/device.py").read_text()
    nodes |= set(re.findall(r'"([a-z][a-z-]+)": (?:b"|self\._reason|decision|State)', device))
    assert section("Nodes written") == nodes


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
        for name in ("xenbus/device.py", "block/family.py", "host/linux.py", "families.py")
    )
    found = set(re.findall(r'(?:self\._own|[^_]backend)\("([a-z-]+)"\)', source))
    found |= set(re.findall(r'"((?:physical-device|params)[a-z-]*)": ', source))
    assert section("Nodes read: the backend's") == found
