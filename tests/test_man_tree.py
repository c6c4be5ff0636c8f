"""What the manual pages say of names, nodes, log and protocol, against the program."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.pages import MAN, PAGES, ROOT, plain, source
from tests.test_reference import section as promised
from xbbd_bsd import config, events, journal, oids
from xbbd_bsd.block.oids import DRIVER, OPERATIONS, RECORDS
from xbbd_bsd.conffile import CONFIG_FILE
from xbbd_bsd.control import cards, families, metrics
from xbbd_bsd.control.protocol import LIMIT, VERSION, Request, Verb
from xbbd_bsd.control.server import MOST, PATIENCE, RESERVED
from xbbd_bsd.daemon import STOP_SECONDS
from xbbd_bsd.net.oids import DRIVER as CARDS
from xbbd_bsd.oids import Driver, Leaf

# The tree.


def declared(driver: Driver) -> list[tuple[str, Leaf]]:
    """What is in the page of a driver; the daemon's own names are with the disks'."""
    return [
        (name, leaf)
        for name, leaf in oids.declared(driver)
        if driver is DRIVER or not name.startswith(f"{oids.DAEMON_ROOT}.")
    ]


@pytest.mark.parametrize("driver", [DRIVER, CARDS], ids=lambda driver: driver.name)
def test_every_name_with_its_type_access_and_description(driver: Driver) -> None:
    part = (
        source(f"{driver.name}.4").partition("Written by oids.py")[2].partition(r".\" to here.")[0]
    )
    said: dict[str, tuple[str, str, str]] = {}
    node = ""
    for line in re.split(r"^\.(?=It |Va )", part, flags=re.M)[1:]:
        if line.startswith("Va "):
            node = plain(line.partition("\n")[0].removeprefix("Va ").removesuffix(" ."))
            node = re.sub(r" Ns (?:Ar )?", "", node)
            continue
        match = re.match(r"It Va (\S+) Pq ([^,]+), (.*)\n([^\n]*)\.\n", line)
        assert match is not None, line
        name = f"{node}.{match[1]}"
        assert name not in said
        said[name] = (match[2], match[3], plain(match[4]))
    wanted = {
        name: (
            leaf.type.value,
            ("read-write" if leaf.writable else "read-only")
            + (", tunable" if leaf.tunable else ""),
            leaf.description,
        )
        for name, leaf in declared(driver)
    }
    assert said == wanted


@pytest.mark.parametrize("driver", ["xbbd", "xnb"])
def test_the_list_is_what_its_generator_writes(driver: str) -> None:
    command = [sys.executable, str(MAN / "oids.py"), driver]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{done.stdout}" in source(f"{driver}.4"), f"run python man/oids.py man/{driver}.4"


def test_names_in_examples_and_words_exist() -> None:
    """Whatever looks like a name of the tree, in any page."""
    known = {name for name, _ in oids.declared(DRIVER, CARDS)}
    nodes = {name.rsplit(".", i)[0] for name in known for i in range(1, 6)}
    for path in PAGES:
        text = path.read_text().replace(r".\& Ns Ar N", ".N").replace(r".\& Ns Ar M", ".M")
        for found in re.findall(r"(?<![\w.])(?:dev|hw)\.(?:xbbd|xnb)(?:\.[%\w]+)*", text):
            name = re.sub(r"\.(xbbd|xnb)\.\d+", r".\1.N", found)
            assert name in known | nodes, (path.name, found)


@pytest.mark.parametrize(("page", "whose"), [("xbbd.4", "Nodes"), ("xnb.4", "A card's nodes")])
def test_nodes_in_xenstore(page: str, whose: str) -> None:
    text = source(page)
    for title, beginning in (
        ("Read in the backend's directory", f"{whose} read: the backend's"),
        ("Read in the frontend's directory", f"{whose} read: the frontend's"),
        ("Written in the backend's directory", f"{whose} written"),
    ):
        part = re.split(r"^\.S[hs] ", text.partition(f".Ss {title}\n")[2], flags=re.M)[0]
        named = re.findall(r"^\.It Pa (\S+)$", part, re.M)
        assert len(named) == len(set(named))
        assert set(named) == promised(beginning)


def test_records_and_kinds() -> None:
    text = source("xbbd.4")
    statistics = text.partition(".Sh STATISTICS")[2].partition("\n.Sh ")[0]
    assert re.findall(r"^\.It Li (\w+) Ns Ar N$", statistics, re.M) == list(RECORDS)
    for operation in OPERATIONS:
        assert f".Li {operation}" in statistics
    kinds = text.partition(".Ss Kinds")[2].partition(".El")[0]
    assert tuple(re.findall(r"^\.It Li (\w+)$", kinds, re.M)) == config.KINDS


def test_probes() -> None:
    code = (ROOT / "xbbd_bsd" / "native" / "block" / "probes.c").read_text()
    declared = re.findall(r"^void\t(xbb_dispatch_\w+)\((.*)\);$", code, re.M)
    said = re.findall(r"^\.It Fn (\w+) (.*)$", source("xbbd.4"), re.M)
    assert [(name, ", ".join(re.findall(r'"([^"]*)"', rest))) for name, rest in said] == declared


# The daemon.


def diagnostics(page: str) -> list[str]:
    part = re.split(r"^\.Sh ", source(page).partition(".Sh DIAGNOSTICS\n")[2], flags=re.M)[0]
    return re.findall(r'^\.It "(.*)"$', part, re.M)


def all_events() -> Iterator[type[events.Event]]:
    classes = [events.Event]
    while classes:
        found = classes.pop()
        classes += found.__subclasses__()
        if found.text:
            yield found


def test_every_line_of_the_log() -> None:
    said = diagnostics("xbbd.8")
    assert len(said) == len(set(said))
    assert set(said) == {re.sub(r"\{[^}]*\}", "%s", event.text) for event in all_events()}


def test_how_lines_are_limited() -> None:
    text = source("xbbd.8")
    assert f"may log {journal.BURST} at once and one more every\nthree seconds" in text
    assert journal.REFILL_SECONDS == 3


@pytest.mark.parametrize("page", ["xbbctl.8", "xbbstat.8"])
def test_messages_of_commands_are_in_the_program(page: str) -> None:
    """Each as a text in the source, with anything in the place of %s."""
    code = "".join(path.read_text() for path in (ROOT / "xbbd_bsd").rglob("*.py"))
    for message in diagnostics(page):
        pattern = r"\{[^{}]*\}".join(map(re.escape, message.split("%s")))
        assert re.search(f'"{pattern}"', code), message


def test_protocol_of_the_control_socket() -> None:
    part = source("xbbd.8").partition(".Sh CONTROL SOCKET\n")[2].partition("\n.Sh ")[0]
    assert re.findall(r"^\.It Cm (\w+)$", part, re.M) != []
    assert set(re.findall(r"^\.It Cm (\w+)$", part, re.M)) == {verb.value for verb in Verb} | set(
        DRIVER.verbs
    )
    assert f"which is {VERSION}," in part
    assert f"no longer than {LIMIT} bytes" in part
    assert f"There may be {MOST} connections at once; {RESERVED} of these" in part
    assert f"no request within {PATIENCE:g} seconds" in part
    shown = re.search(r"^\.Bd .*\n((?:.|\n)*?)^\.Ed$", part, re.M)
    assert shown is not None
    requests = re.sub(r"\n +", " ", shown[1]).splitlines()
    assert [Request.decode(line.encode()).verb for line in requests] == [Verb.GET, Verb.SET]


def test_families_of_metrics() -> None:
    part = source("xbbd.8").partition(".Sh OPENMETRICS\n")[2].partition("\n.Sh ")[0]
    code = "".join(inspect.getsource(module) for module in (families, cards))
    said = re.findall(r"^\.It Va (\w+)$", part, re.M)
    assert said == re.findall(r'"(xbbd_\w+)"', code)
    assert f"at most once in {metrics.AGE:g} seconds" in part


def test_times_and_places_of_the_daemon() -> None:
    text = source("xbbd.8")
    assert f"After {STOP_SECONDS:g} seconds, or when" in text
    assert f"within another {STOP_SECONDS:g} seconds" in text
    for page in ("xbbd.8", "xbbd.conf.5"):
        assert f".It Pa {CONFIG_FILE}\n" in source(page)
