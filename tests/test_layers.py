"""Who may import whom, and what pure modules may not touch, read off the source of every module."""

import ast
import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.circles import circle

ROOT = Path(__file__).parent.parent
PACKAGE = "xbbd_bsd"

# Modules of ours that a module may import; the first pattern that fits a module counts.
# Patterns are below xbbd_bsd; a package's name stands for its __init__ and all in it.
RULES: list[tuple[str, list[str]]] = [
    ("__init__", []),
    # Pure: no I/O, no threads, no clock.
    ("errors", []),
    ("events", []),
    ("deeds", ["events"]),
    ("feed", []),
    ("journal", ["errors", "events", "feed"]),
    ("stats", []),
    ("faults", ["errors", "events"]),
    ("vdev", ["errors"]),
    ("takeovers", ["events"]),
    ("tomltext", []),
    ("storeuri", ["errors"]),
    ("storesections", ["errors", "storeuri", "tomltext"]),
    ("storesaid", ["events"]),
    ("config", ["errors", "events", "stats", "storesections", "tomltext"]),
    ("conftext", ["config", "errors", "stats", "storesections", "tomltext", "vdev"]),
    ("findings", []),
    ("oids", ["config"]),
    ("ledger", ["faults"]),
    ("control.protocol", ["errors"]),
    ("control.health", ["control.protocol", "errors", "findings", "oids"]),
    ("control.tree", ["control.health", "control.protocol", "errors", "findings", "oids"]),
    # What these show is of disks and cards, by name.
    ("control.cards", ["net.oids"]),
    ("control.families", ["block.oids", "control.cards", "errors", "faults", "oids", "stats"]),
    ("control.metrics", ["control.accept", "control.families", "errors"]),
    ("control.accept", []),
    ("control.status", ["block.oids", "errors", "findings", "net.oids", "oids"]),
    ("control.server", ["control", "errors", "events"]),
    ("control", ["control", "errors", "findings", "oids"]),
    # Ends a program of ours.
    ("program", ["errors"]),
    ("places", ["errors"]),
    ("logs", ["errors", "events"]),
    ("xenstore.wire", []),
    ("xenbus.states", []),
    ("xenbus.pace", []),
    ("xenbus.family", ["config", "errors", "events", "findings", "oids", "xenbus.pace",
                       "xenbus.states"]),
    ("xenbus.frontend", ["errors", "xenbus.family"]),
    ("xenbus.decimals", ["errors"]),
    ("block.negotiate", ["errors", "xenbus.decimals"]),
    ("net.negotiate", ["errors", "xenbus.decimals"]),
    ("block.progress", []),
    ("block.faults", ["errors", "events", "faults"]),
    # What may have to wait.
    ("errands", ["errors"]),
    # The store, and the life of devices, which knows no kind of device.
    ("xenstore", ["errors", "xenstore"]),
    ("xenbus", ["errands", "errors", "events", "journal", "takeovers", "xenbus", "xenstore"]),
    # The data path and the platform are passed around as values.
    ("native", ["errors", "faults", "native"]),
    ("guests.deaths", []),
    ("guests.confinement", ["config", "errors", "native"]),
    ("guests", ["errands", "errors", "guests", "native"]),
    ("host.__init__", ["errors", "host.resources"]),
    ("host.choice", ["errors", "host", "sim.hypervisor"]),
    ("host", ["errors", "host", "native"]),
    # What the daemon gives to a family, and which families there are.
    ("surroundings", ["accounts", "config", "errands", "events", "guests", "host", "oids",
                      "xenbus.family"]),
    ("families", ["block.entry", "events", "net.entry", "surroundings", "xenbus.family"]),
    # What the host has only once.
    ("limits", ["config"]),
    ("accounts", ["errors", "events", "limits", "xenbus.family"]),
    # What families share of rings and segments.
    ("ringset", ["errands", "errors", "host", "limits", "native"]),
    ("remoterings", ["errands", "errors", "host", "native", "ringset"]),
    ("segmentfiles", ["errors"]),
    ("charter", []),
    ("passportfiles", ["errors"]),
    ("inheritance", ["errors", "native", "passportfiles", "segmentfiles", "xenbus.family"]),
    ("serving", ["errands", "errors", "host", "native", "oids", "remoterings", "ringset",
                 "segmentfiles", "xenbus.family"]),
    # A family joins them.
    ("net.oids", ["config", "oids", "stats"]),
    ("net.health", ["findings", "net.oids", "xenbus.family"]),
    ("net.entry", ["native.tap", "native", "net", "serving", "surroundings"]),
    ("net", ["accounts", "charter", "config", "errands", "errors", "events", "findings", "host",
             "inheritance", "limits", "native", "net", "oids", "passportfiles", "ringset",
             "segmentfiles", "serving", "takeovers", "xenbus.family", "xenbus.states"]),
    ("block.oids", ["config", "faults", "oids", "stats"]),
    ("block.health", ["block.oids", "errors", "findings", "ledger"]),
    ("block.stores", ["errors", "storesections", "storeuri"]),
    ("block.disk", ["block.stores", "errors", "host", "storeuri"]),
    ("block.entry", ["block", "errors", "events", "native", "serving", "surroundings"]),
    ("block", ["accounts", "block", "charter", "config", "deeds", "errands", "errors", "events",
               "faults", "findings", "host", "inheritance", "ledger", "limits", "native", "oids",
               "passportfiles", "ringset", "segmentfiles", "serving", "stats", "storesaid",
               "storeuri", "takeovers", "vdev", "xenbus.family", "xenbus.states"]),
    # Nothing from here to the programs knows a family, but by its protocol.
    ("views", ["accounts", "config", "control.accept", "control.health", "control.protocol",
               "control.tree", "deeds", "errors", "events", "findings", "journal", "oids",
               "xenbus.bus", "xenbus.device", "xenbus.family", "xenbus.states"]),
    ("endpoints", ["config", "control", "errors", "events", "host", "oids", "tomltext"]),
    # The configuration, its file, and this host.
    ("conffile", ["conftext", "errors"]),
    ("checks", ["conffile", "config", "conftext", "control.client", "control.families",
                "control.metrics", "control.protocol", "errors", "guests.confinement", "host",
                "oids", "places", "tomltext", "xenstore.client"]),
    ("reload", ["checks", "conffile", "config", "errors", "events", "host", "journal"]),
    # Programs; the simulator is a product of its own on top of the rest.
    ("daemon", ["accounts", "checks", "conffile", "config", "control.tree", "endpoints", "errands",
                "errors", "events", "families", "guests", "host", "journal", "limits", "logs",
                "native", "places", "program", "reload", "surroundings", "takeovers", "views",
                "xenbus.bus", "xenstore.client"]),
    ("toolstack", ["errors", "vdev", "xenbus.complaint", "xenbus.states", "xenstore"]),
    ("cards", ["errors", "toolstack", "xenbus.states", "xenstore"]),
    ("ctl.offers", ["errors", "host", "toolstack", "xenstore"]),
    ("ctl.disks", ["ctl", "errors", "storeuri", "toolstack", "vdev", "xenstore"]),
    ("ctl.cards", ["cards", "ctl", "errors", "xenstore"]),
    ("ctl.attach", ["block.oids", "cards", "control.protocol", "ctl", "errors", "toolstack", "vdev",
                    "xenstore"]),
    ("ctl.listing", ["control", "ctl", "errors", "net.oids", "oids"]),
    ("ctl", ["block.oids", "control", "ctl", "errors", "host"]),
    ("xbbctl", ["block.oids", "control", "ctl", "errors", "findings", "host", "oids", "program",
                "stats", "storeuri", "toolstack"]),
    ("stat.cards", ["net.oids"]),
    ("stat.netstat", ["net.oids", "stat"]),
    ("stat.choice", ["block.oids", "net.oids", "stat"]),
    ("stat.sample", ["block.oids", "errors", "oids", "stat", "stats"]),
    ("stat.watch", ["control.client", "control.protocol", "errors", "oids", "stat"]),
    ("stat", ["block.oids", "errors", "oids", "stat"]),
    ("xbbstat", ["errors", "host", "program", "stat"]),
    ("sim.storetree", ["xenstore.wire"]),
    ("sim.storecore", ["sim.storetree", "xenstore.wire"]),
    ("sim", ["*"]),
]  # fmt: skip

PURE = [
    "block.stores",
    "storesaid",
    "storesections",
    "storeuri",
    "guests.deaths",
    "errors",
    "events",
    "deeds",
    "feed",
    "journal",
    "stats",
    "takeovers",
    "tomltext",
    "faults",
    "config",
    "conftext",
    "findings",
    "limits",
    "accounts",
    "oids",
    "vdev",
    "ledger",
    "control.protocol",
    "control.health",
    "control.tree",
    "xenstore.wire",
    "xenstore.pending",
    "block.oids",
    "block.health",
    "net.oids",
    "net.health",
    "net.negotiate",
    "xenbus.states",
    "xenbus.pace",
    "xenbus.decimals",
    "xenbus.frontend",
    "xenbus.family",
    "block.negotiate",
    "block.progress",
    "block.faults",
    "stat.cards",
    "stat.netstat",
    "stat.sample",
    "stat.choice",
    "stat.iostat",
    "stat.gstat",
    "stat.export",
    "stat.view",
    "sim.storetree",
    "sim.storecore",
]

# Of the standard library, what cannot do I/O, start threads or look at a clock.
PURE_LIBRARY = {
    "abc",
    "__future__",
    "bisect",
    "collections",
    "contextlib",
    "dataclasses",
    "datetime",
    "difflib",
    "enum",
    "errno",
    "fnmatch",
    "functools",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "re",
    "string",
    "struct",
    "tomllib",
    "types",
    "typing",
    "urllib.parse",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts), path


MODULES = dict(modules())


@cache
def parsed(path: Path) -> ast.Module:
    """A module's source, which several rules read."""
    return ast.parse(path.read_text())


def imports(path: Path, name: str) -> Iterator[str]:
    """The full name of every module that a file imports, wherever in it that is done."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inner = whole.removeprefix(f"{PACKAGE}.")
                known = inner in MODULES or f"{inner}.__init__" in MODULES
                yield whole if known and whole != inner else node.module


def fits(name: str, pattern: str) -> bool:
    plain = name.removesuffix(".__init__")
    return fnmatch.fnmatchcase(name, pattern) or plain == pattern or plain.startswith(f"{pattern}.")


def allowed(name: str) -> list[str]:
    for pattern, patterns in RULES:
        if fits(name, pattern):
            return patterns
    raise AssertionError(f"{name} has no rule: add one, or see where it belongs")


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_rule(name: str) -> None:
    for imported in imports(MODULES[name], name):
        if imported.split(".")[0] != PACKAGE:
            continue
        inner = imported.removeprefix(PACKAGE).removeprefix(".") or "__init__"
        permitted = [*allowed(name), "__init__"]
        assert any(fits(inner, pattern) for pattern in permitted), f"{name} imports {inner}"


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_nothing_that_could_act(name: str) -> None:
    for imported in imports(MODULES[name], name):
        top = imported.split(".")[0]
        assert top == PACKAGE or {top, imported} & PURE_LIBRARY, f"{name} imports {imported}"
    tree = parsed(MODULES[name])
    calls = {node.func.id for node in ast.walk(tree)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert not calls & {"open", "print", "input", "__import__", "exec", "eval"}


# What a name that is put together at run time leads to.
COMPUTED = {"host.choice": {"host.freebsd", "host.linux"}}


def import_graph() -> dict[str, set[str]]:
    """Which modules of ours each imports, at once or later; a package stands for its __init__.

    Whoever imports a module of another package has that package's __init__ run too.
    """
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        edges = found[name] = set(COMPUTED.get(name, ()))
        for imported in imports(path, name):
            inner = imported.removeprefix(f"{PACKAGE}.")
            if imported == inner:
                continue
            edges |= {module for module in (inner, f"{inner}.__init__") if module in MODULES}
            parts = inner.split(".")
            for depth in range(1, len(parts)):
                package = ".".join(parts[:depth])
                if not name.startswith(f"{package}."):
                    edges |= {f"{package}.__init__"} & MODULES.keys()
    return found


def test_no_circle_of_imports() -> None:
    """Neither one that a later import hides: two parts that know each other are one."""
    assert circle(import_graph()) == []


@pytest.mark.parametrize(
    ("graph", "members"),
    [
        ({}, ""),
        ({"a": ["b", "c"], "b": ["c"], "c": []}, ""),
        ({"a": ["a"]}, "a"),
        ({"a": ["b"], "b": ["a"]}, "ab"),
        ({"a": ["b", "d"], "b": [], "c": ["d", "b"], "d": ["e"], "e": ["c"]}, "dec"),
        ({"a": ["z"], "z": ["elsewhere"]}, ""),
    ],
)
def test_a_circle_is_found(graph: Mapping[str, Iterable[str]], members: str) -> None:
    found = "".join(circle(graph))
    assert len(found) == len(members)
    assert found in members * 2, "in their order, whichever is first"


def test_an_import_in_a_function_and_a_package_are_edges() -> None:
    graph = import_graph()
    assert "sim.hypervisor" in graph["host.choice"], "which imports it in a function"
    assert "host.linux" in graph["host.choice"], "by a name that it puts together"
    assert "host.__init__" in graph["sim.hypervisor"]
    assert "native.__init__" not in graph["native.queue"], "it is in that package"
    # The circle that there once was.
    graph["host.__init__"].add("sim.hypervisor")
    assert set(circle(graph)) == {"host.__init__", "sim.hypervisor"}


# Who knows which families there are, and programs that show what is a disk's, or a card's.
KNOW_FAMILIES = [
    "families",
    "control.cards",
    "control.families",
    "control.status",
    "ctl.*",
    "xbbctl",
    "stat.*",
    "sim.*",
]
FAMILIES = ["block", "net"]


def strangers_that_know(family: str, graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Modules that import a family, are none of it, and none of those that may."""
    return {
        name
        for name, imported in graph.items()
        if any(fits(module, family) for module in imported)
        and not any(fits(name, known) for known in [f"{family}.*", *KNOW_FAMILIES])
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frame_knows_no_family(family: str) -> None:
    """A further one is added with files of its own, and changes families.py; nor do they
    know each other.
    """
    graph = import_graph()
    assert strangers_that_know(family, graph) == set()
    assert f"{family}.entry" in graph["families"]
    oids = [f"{family}.oids"]
    assert strangers_that_know(family, {**graph, "views": oids}) == {"views"}
    assert strangers_that_know(family, {"xenbus.bus": [f"{family}.__init__"]}) == {"xenbus.bus"}
    (other,) = set(FAMILIES) - {family}
    assert strangers_that_know(family, {f"{other}.family": oids}) == {f"{other}.family"}


@pytest.mark.parametrize("family", FAMILIES)
def test_tools_know_of_a_family_what_there_is_to_see(family: str) -> None:
    graph = import_graph()
    for name in graph:
        if any(fits(name, tool) for tool in TOOLS if not tool.startswith("sim")):
            known = {module for module in graph[name] if fits(module, family)}
            assert known <= {f"{family}.oids", f"{family}.__init__"}, name


def test_only_the_native_package_imports_the_c_module() -> None:
    importers = {
        name.split(".")[0]
        for name, path in MODULES.items()
        if any("_xbb" in imported.split(".") or imported == "cffi"
               for imported in imports(path, name))
    }  # fmt: skip
    assert importers == {"native"}


def test_only_the_store_knows_pyxs() -> None:
    importers = {
        name.split(".")[0]
        for name, path in MODULES.items()
        if any(imported.split(".")[0] == "pyxs" for imported in imports(path, name))
    }
    assert importers == {"xenstore"}


# What makes a process: fork(2) write-protects the pages of grants that are mapped, and a
# child would have them too.
FORKS = {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "startfile"}
FORKING = {"subprocess", "multiprocessing", "pty", "concurrent.futures.process"}
TOOLS = ["sim.*", "sim", "stat.*", "xbbstat", "xbbctl", "ctl.*", "ctl", "toolstack", "cards"]
SERVES = ("sim.hypervisor",)  # the daemon's host in a simulated machine
# Before anything is mapped; and those that never map anything.
DETACHES = {
    "daemon": {"fork"},
    "native.forkserver": {"fork"},
    "native.processes": {"posix_spawn"},
}


def makes_processes(path: Path, name: str) -> set[str]:
    """The names by which a module could make a process."""
    found = {imported for imported in imports(path, name) if imported in FORKING}
    for node in ast.walk(parsed(path)):
        used = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom):
            used = [alias.name for alias in node.names]
        found |= FORKS.intersection(used)
        found |= {word for word in used if word.startswith(("create_subprocess", "spawn"))}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_nothing_forks_while_grants_are_mapped(name: str) -> None:
    if name in SERVES or not any(fits(name, pattern) for pattern in TOOLS):
        assert makes_processes(MODULES[name], name) == DETACHES.get(name, set())


def test_no_c_file_forks() -> None:
    for path in (ROOT / PACKAGE / "native").glob("*.c"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        assert not re.search(r"\b(v?fork|rfork|pdfork|popen|system|posix_spawnp?)\s*\(", text), path


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is_and_fits_in_500_lines(name: str) -> None:
    source = MODULES[name].read_text()
    docstring = ast.get_docstring(parsed(MODULES[name]))
    assert docstring
    assert source.count("\n") <= 500


def test_the_rules_can_refuse() -> None:
    assert not any(fits("native.queue", pattern) for pattern in allowed("xenbus.device"))
    assert not any(fits("block.family", pattern) for pattern in allowed("xenbus.bus"))
    assert makes_processes(MODULES["sim.chain"], "sim.chain") == {"subprocess"}
    assert makes_processes(MODULES["sim.machine"], "sim.machine") == {"create_subprocess_exec"}
    assert any(fits("xenstore.client", pattern) for pattern in allowed("xenbus.bus"))
    with pytest.raises(AssertionError):
        allowed("manager")
