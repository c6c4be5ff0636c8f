"""The manual pages against the program, both ways, and against mandoc(1).

Pages are read as their source, mdoc(7); nothing is asked of the words between.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, flags, plain, source
from xbbd_bsd import config, daemon, xbbctl, xbbstat
from xbbd_bsd.block.queues import most_of_ring
from xbbd_bsd.config import Config, DaemonConfig, DiskConfig, GuestConfig, NetConfig
from xbbd_bsd.conftext import parse
from xbbd_bsd.control.health import DaemonFacts, of_daemon
from xbbd_bsd.errors import OperatorError, Refused
from xbbd_bsd.findings import BOUND, MOST_BOUND, Kind, Severity
from xbbd_bsd.native import HvKind
from xbbd_bsd.stat import choice, view
from xbbd_bsd.stats import TUNABLES

OURS = {(path.stem, path.suffix[1:]) for path in PAGES}

# Pages of FreeBSD and of Xen that ours name; a name that is not here is looked at twice.
FOREIGN = {
    *((name, "1") for name in ("cpuset", "dd", "dtrace", "head", "kenv", "protect", "ps", "top")),
    *((name, "1") for name in ("taskset", "truncate", "xl")),
    ("netstat", "1"),
    ("errno", "2"),
    *((name, "4") for name in ("ipfw", "pf", "rctl", "tap")),
    *((name, "3") for name in ("pidfile", "syslog")),
    *((name, "2") for name in ("flock", "fsync")),
    *((name, "5") for name in ("loader.conf", "periodic.conf", "rc.conf", "xl.cfg")),
    ("xen-vbd-interface", "7"),
    *(
        (name, "8")
        for name in (
            *("daemon", "devd", "gstat", "ifconfig", "iostat", "mount", "periodic", "rc"),
            *("sysctl", "syslogd", "xenstored", "zpool"),
        )
    ),
    ("devstat", "9"),
}


def in_synopsis(text: str) -> set[str]:
    """The options that SYNOPSIS names."""
    part = re.split(r"^\.Sh ", text, flags=re.M)[2]
    assert part.startswith("SYNOPSIS")
    found = set()
    for words in re.findall(r"\bFl ([^\n]*)", part):
        for word in re.split(r" Ar .*| \| |\s", words):
            if word.startswith("-"):
                found.add(f"-{word}")
            elif word and word not in ("Ar", "Op"):
                found |= {f"-{letter}" for letter in word}
    return found


def test_what_a_ring_takes_is_said_as_it_is() -> None:
    said = re.findall(r"(\d\.\d) MiB at (\d)", source("xbbd.conf.5"))
    assert [order for _, order in said] == ["0", "4", "5"]
    for mib, order in said:
        need = most_of_ring(DiskConfig(), int(order), HvKind.XEN)
        assert f"{need.buffers / (1 << 20):.1f}" == mib


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


# Form.


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_mandoc_finds_nothing_wrong(path: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed (Debian: mandoc)")
    command = [mandoc, "-T", "lint", "-W", "style", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Pages of other packages need not be installed here; that is another test's.
    lines = [
        line
        for line in done.stdout.splitlines()
        if "referenced manual not found" not in line and "outdated mandoc.db" not in line
    ]
    assert lines == []


def test_there_is_a_page_of_every_command_and_file() -> None:
    assert {path.name for path in PAGES} == {
        "xbbd.4",
        "xnb.4",
        "xbbd.conf.5",
        "xbbd-troubles.7",
        "xbbctl.8",
        "xbbd.8",
        "xbbstat.8",
    }
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {(name, "8") for name in scripts} <= OURS


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_titles(path: Path) -> None:
    text = path.read_text()
    assert f".Dt {path.stem.upper()} {path.suffix[1:]}\n" in text
    assert re.search(r"^\.Dd [A-Z][a-z]+ \d{1,2}, \d{4}$", text, re.M)
    assert re.search(rf"^\.Sh NAME\n\.Nm {re.escape(path.stem)}\n\.Nd \S", text, re.M)


def references(text: str) -> list[tuple[str, str]]:
    return re.findall(r"\bXr (\S+) (\d)\b", text)


def test_references_exist() -> None:
    named = {found for path in PAGES for found in references(path.read_text())}
    assert named == OURS | FOREIGN


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_see_also_is_sorted_and_has_all_of_ours(path: Path) -> None:
    text = path.read_text()
    part = re.split(r"^\.Sh ", text.partition(".Sh SEE ALSO\n")[2], flags=re.M)[0]
    listed = references(part)
    assert listed == sorted(set(listed), key=lambda found: (found[1], found[0]))
    itself = (path.stem, path.suffix[1:])
    assert OURS & set(references(text)) - {itself} == OURS & set(listed) - {itself}
    assert itself not in listed


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_sections_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    there = set(re.findall(r"^\.S[hs] (.*)$", text, re.M))
    assert set(re.findall(r"^\.Sx (.*?)(?: [.,:;])?$", text, re.M)) <= there


# Options and verbs.


def test_options_of_xbbd() -> None:
    wanted = options_of(daemon._parser())
    text = source("xbbd.8")
    assert flags(text) == wanted
    assert in_synopsis(text) == wanted - {"--help"}


def test_options_of_xbbstat() -> None:
    wanted = options_of(xbbstat._parser())
    text = source("xbbstat.8")
    assert flags(text) == wanted
    assert in_synopsis(text) == wanted - {"--help"}


def verb_texts() -> dict[str, str]:
    """What xbbctl.8 says of each verb, with its head."""
    part = source("xbbctl.8").partition(".Ss VERBS\n")[2].partition("\n.Sh ")[0]
    pieces = re.split(r"^\.It (?:Xo\n\.)?Cm (\w+)", part, flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_options_of_xbbctl() -> None:
    text = source("xbbctl.8")
    names = text.partition(".Ss VERBS")[0]
    wanted = options_of(xbbctl._parser())
    assert flags(names) == wanted
    assert in_synopsis(text) == wanted
    bundles = re.findall(r"^\.Op Fl (\w+)$", text.partition(".Sh DESCRIPTION")[0], re.M)
    assert bundles == re.findall(r"\[-(\w+)\]", xbbctl._parser().format_usage())


def test_verbs_of_xbbctl() -> None:
    texts = verb_texts()
    assert tuple(texts) == xbbctl.VERBS == tuple(xbbctl.verb_parsers())
    common = {"-j", "--help", "--host", "--state-dir"}
    for verb, parser in xbbctl.verb_parsers().items():
        head = texts[verb].partition(".Xc")[0] if ".Xc" in texts[verb] else ""
        head = head or texts[verb].partition("\n")[0]
        assert {f"-{o}" for o in re.findall(r"\bFl (-?[\w-]+)", head)} == (
            options_of(parser) - common
        ), verb
        given = re.sub(r"\bFl \S+( Ar \w+)?|\b(?:Op|Oo|Oc|Ar)\b", "", head)
        operands = [word for word in given.split() if not word.startswith(".")]
        assert operands == [a.dest for a in parser._actions if not a.option_strings], verb
    for verb in ("attach", "health"):
        assert flags(texts[verb]) == options_of(xbbctl.verb_parsers()[verb]) - common


def test_choices_and_defaults_of_attach() -> None:
    text = plain(verb_texts()["attach"])
    for action in xbbctl.verb_parsers()["attach"]._actions:
        if not action.option_strings or action.dest in ("help", "json", "host", "state_dir"):
            continue
        (option,) = action.option_strings
        part = text.partition(f".It Fl {option[1:]}")[2].partition("\n.It ")[0]
        assert part, option
        if action.choices is not None:
            named = re.findall(r"^\.Cm ([^\s,\\]+)", part, re.M)
            assert set(named) == set(action.choices), option
            for choice_, rest in re.findall(r"^\.Cm (\S+)((?:(?!\n\.Cm).)*)", part, re.M | re.S):
                assert ("default" in rest) == (choice_ == action.default), choice_
        elif isinstance(action.default, float):
            assert f"The default is {action.default:g}." in part


def test_what_health_knows() -> None:
    text = source("xbbctl.8")
    part = text.partition(".Sh HEALTH\n")[2].partition("\n.Sh ")[0]
    assert sorted(re.findall(r"^\.It Li (\w+)$", part, re.M)) == sorted(kind.value for kind in Kind)
    for severity in Severity:
        assert f"\n.Li {severity.value}" in part
    members = of_daemon(DaemonFacts(refused="x"))[0].to_values()
    assert re.findall(r"^\.Li (\w+)", part.rpartition("with the members")[2], re.M)[:6] == list(
        members
    )
    age = verb_texts()["health"].partition(".It Fl -age Ar seconds\n")[2]
    assert f"up to {MOST_BOUND:.0f}.\nThe default is {BOUND:g}." in age


def test_columns_to_sort_by() -> None:
    part = source("xbbstat.8").partition(".It Fl s Ar column")[2].partition("\n.It ")[0]
    assert set(re.findall(r"^\.Cm (\S+)", part, re.M)) == set(choice.sorts())


def test_keys_of_the_screen() -> None:
    part = source("xbbstat.8").partition(".Sh KEYS")[2].partition("\n.Sh ")[0]
    named = [plain(key) for key in re.findall(r"^\.It Ic (\S+)$", part, re.M)]
    code = Path(view.__file__).read_text()
    cases = re.findall(r'^        case ("[^\n]*"):$', code, re.M)
    keys = {key for case in cases for key in re.findall(r'"([^"])"', case)}
    assert sorted(named) == sorted(keys - {" "})
    assert f"{view.LEAST_WAIT:g} to {view.MOST_WAIT:g} seconds" in source("xbbstat.8")


# The configuration.


def entries(page: str, start: str, end: str) -> dict[str, str]:
    """The items .It Va of a part of a page: what follows each, up to the next."""
    part = source(page).partition(start)[2].partition(end)[0]
    pieces = re.split(r"^\.It Va (\S+)\n", part, flags=re.M)
    names = pieces[1::2]
    assert len(names) == len(set(names))
    return dict(zip(names, pieces[2::2], strict=True))


def keys(part: str) -> dict[str, tuple[str, str, str]]:
    """What xbbd.conf.5 says of keys: type and range, default, when it takes effect."""
    bounds = {
        "daemon": (".Ss The daemon\n", ".Ss Guests\n"),
        "guest": (".Ss Guests\n", ".Ss Disks\n"),
        "disk": (".Ss Disks\n", ".Ss Single"),
        "net": (".Ss Network cards\n", ".Sh FILES\n"),
    }
    found = {}
    for name, text in entries("xbbd.conf.5", *bounds[part]).items():
        match = re.match(r"\.Pq (.*); default (.*); (.*)\n(\S.*)", text)
        assert match is not None, name
        found[name] = (plain(match[1]), plain(match[2]), plain(match[3]))
    return found


def as_toml(value: object) -> str:
    """A default as the page has it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str() if value in (GuestConfig().user, GuestConfig().cpus, NetConfig().offload):
            return f'"{value}"'
        case tuple():
            return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)


@pytest.mark.parametrize(("part", "section"), config.SECTIONS.items())
def test_keys_and_defaults(
    part: str, section: type[DaemonConfig | GuestConfig | DiskConfig | NetConfig]
) -> None:
    said = {name: default for name, (_, default, _) in keys(part).items()}
    assert said == {field.name: as_toml(field.default) for field in fields(section)}


def allowed(section: str, key: str, value: str) -> bool:
    """Whether the program takes a value, in TOML."""
    try:
        parse(f"[{section}]\n{key} = {value}\n", "test")
    except OperatorError:
        return False
    return True


def test_ranges_of_numbers() -> None:
    numbers = {
        field.name: (name, keys(name)[field.name][0])
        for name, keyed in config.SECTIONS.items()
        for field in fields(keyed)
        if isinstance(field.default, int) and not isinstance(field.default, bool)
    }
    for name, (section, said) in numbers.items():
        match = re.fullmatch(r"(?:(\d+), or )?(\d+) to (\d+)|(\d+) or (\d+)", said)
        assert match is not None, (name, said)
        if match[4] is not None:
            assert tuple(map(int, match.group(4, 5))) == config.CHOICES[name]
            continue
        low, high = int(match[2]), int(match[3])
        single = set() if match[1] is None else {int(match[1])}
        least = min({low} | single)
        assert config.RANGES[name] == (least, high), name
        for number in {*range(least - 1, least + 20), low, (low + high) // 2, high, high + 1}:
            wanted = low <= number <= high or number in single
            assert allowed(section, name, str(number)) == wanted, (name, number)
    assert set(config.RANGES) | set(config.CHOICES) == set(numbers)


def test_kinds_of_the_other_values() -> None:
    said = {name: kind for part in config.SECTIONS for name, (kind, _, _) in keys(part).items()}
    for field in fields(DiskConfig):
        assert (said[field.name] == "true or false") == isinstance(field.default, bool)
    *most, last = sorted(config.TRANSPORTS, key=said["transport"].index)
    assert said["transport"] == f"{', '.join(most)} or {last}"
    for name, values in (("kinds", config.KINDS), ("log", config.LOGS)):
        assert said[name] == "list of " + ", ".join(f'"{value}"' for value in values)
    paths = {name for name, kind in said.items() if kind == "path"}
    for name in (field.name for field in fields(DaemonConfig)):
        relative, absolute = allowed("daemon", name, '"x"'), allowed("daemon", name, '"/x"')
        assert (name in paths) == (absolute and not relative and name != "metrics"), name
    assert said["group"] == "name of a group"
    assert said["metrics"] == "address or path"


def test_when_a_change_takes_effect() -> None:
    when = {name: time for part in config.SECTIONS for name, (_, _, time) in keys(part).items()}
    times = re.findall(r"^\.It ((?:at|next) \w+)$", source("xbbd.conf.5"), re.M)
    assert set(when.values()) == set(times)
    assert set(TUNABLES) | {"resize_interval"} == {
        name for name, time in when.items() if time == "at once"
    } & {field.name for field in fields(DiskConfig)}
    # What the daemon says in its log when the file is read again.
    assert {name for name, time in when.items() if time == "next start"} == {
        name.partition(".")[2] for name in config.LATER
    }


def test_what_an_override_goes_by() -> None:
    assert tuple(entries("xbbd.conf.5", ".Ss Single disks\n", ".Ss Shared")) == config.MATCHES


def displays(page: str) -> list[str]:
    return [
        plain(text) for text in re.findall(r"^\.Bd .*\n([^.](?:.|\n)*?)^\.Ed$", source(page), re.M)
    ]


def test_examples_of_the_configuration() -> None:
    examples = [text for text in displays("xbbd.conf.5") if text.startswith("[")]
    assert len(examples) == 5
    for text in examples:
        assert parse(text, "example") != Config()


def test_an_error_as_shown() -> None:
    (shown,) = (text for text in displays("xbbd.conf.5") if text.startswith("xbbd: "))
    with pytest.raises(Refused) as refused:
        parse("[disk]\nworkers = 65\ntransprot = 1\n", "xbbd.conf")
    assert shown == "".join(f"xbbd: {line}\n" for line in refused.value.lines).rstrip()
