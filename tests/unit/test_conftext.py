"""The text of a configuration: every refusal, all at once, with its line and what was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.config import Config, can_fit
from xbbd_bsd.conftext import MOST_TOLD, Fault, examine, parse
from xbbd_bsd.errors import Refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[disk", "f:1: is no TOML: Expected ']' at the end of a table declaration (at the end)"),
        ("\n\nx = = 1", "f:3: x: is no TOML: Invalid value (column 5)"),
        ("[disks]", "f:1: disks: unknown section; did you mean [disk]?"),
        (
            "[mesh]",
            "known are [daemon], [guest], [disk], [net], [group.NAME], [[override]], [store.NAME]",
        ),
        ('["a b"]', 'f:1: "a b": unknown section; known are'),
        ("disk = 1", "f:1: disk = 1: must be a section: write [disk]"),
        ("[[disk]]", "f:1: disk = [{}]: must be a section: write [disk]"),
        ("workers = 1", "f:1: workers: must be in a section: write [disk] above it"),
        ("[daemon]\nkind = 1", "f:2: [daemon] kind: unknown key; did you mean kinds?"),
        ("[daemon]\nxyzzy = 1", "f:2: [daemon] xyzzy: unknown key; known are kinds, "),
        ('[daemon]\n"a\\nb" = 1', 'f:2: [daemon] "a\\nb": unknown key; known are kinds, '),
        ("[daemon]\nworkers = 1", "[daemon] workers: unknown key here; it belongs to [disk]"),
        ("[disk]\nworkers = 0", "f:2: [disk] workers = 0: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = 65", "workers = 65: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = true", "workers = true: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = 1.5", "workers = 1.5: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = '8'", '= "8": must be a whole number, 1 to 64; did you mean 8?'),
        ("[disk]\nmax_ring_page_order = 6", "must be a whole number, 0 to 5"),
        ("[disk]\nmax_batch_segments = 10", "must be a whole number, 11 to 256"),
        ("[disk]\nmax_queues = 0", "must be a whole number, 1 to 8"),
        ("[disk]\nmax_indirect_segments = 10", "= 10: must be 0, or 11 to 256"),
        ("[disk]\nmax_indirect_segments = 257", "must be a whole number, 0 to 256"),
        ("[disk]\nsector_size = 4096", "sector_size = 4096: must be 0 or 512"),
        ("[disk]\nsector_size = false", "sector_size = false: must be 0 or 512"),
        ("[disk]\nflush_interval = -1", "must be a whole number, 0 to 1000000"),
        ("[disk]\ndisable_flush = 1", "= 1: must be true or false; did you mean true?"),
        ("[disk]\ndisable_flush = 'off'", 'disable_flush = "off": must be true or false'),
        ("[disk]\ndisable_flush = 'False'", "must be true or false; did you mean false?"),
        ("[disk]\ndisable_flush = False", 'Invalid value, did you mean false? (column 17)'),
        ("[disk]\ntransport = copy", 'Invalid value, did you mean "copy"? (column 13)'),
        ("[net]\noffload = 'fill'", 'one of "auto", "full", "safe"; did you mean "full"?'),
        ("[net]\nmax_queues = 9", "must be a whole number, 1 to 8"),
        ("[net]\nworkers = 1", "workers: unknown key here; it belongs to [disk]"),
        ("[disk]\ntransport = 'kopy'", 'one of "best", "map", "copy"; did you mean "copy"?'),
        ("[daemon]\nkinds = []", 'must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nkinds = ['qdisk']", 'at least one of "vbd", "vbd3", "vif", not "qdisk"'),
        ("[daemon]\nkinds = ['vbd_3']", 'not "vbd_3"; did you mean "vbd3"?'),
        ("[daemon]\nkinds = ['vbd', 'vbd']", 'at least one of "vbd", "vbd3", "vif", each once'),
        ("[daemon]\nkinds = 'vbd'", 'of "vbd", "vbd3", "vif"; did you mean ["vbd"]?'),
        ("[daemon]\nkinds = [['vbd']]", 'of "vbd", "vbd3", "vif", not ["vbd"]'),
        ("[daemon]\nkinds = 3", 'kinds = 3: must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nlog = ['all']", 'must be a list of any of "control", "data", not "all"'),
        ("[daemon]\nstate_dir = 'run'", 'state_dir = "run": must be an absolute path'),
        ("[daemon]\npidfile = 5", "pidfile = 5: must be an absolute path"),
        ("[disk]\nsector_size = 512.0", "sector_size = 512.0: must be 0 or 512"),
        ("[[override]]\nworkers = 1", "f:1: [[override]] 1: must have at least one of path, guest"),
        ('[[override]]\npath = "/x"', "f:1: [[override]] 1: changes nothing; known are workers"),
        ('[[override]]\npath = "/x"\nkinds = []', "kinds: unknown key here; it belongs"),
        ("[[override]]\npath = 1\nworkers = 1", "[[override]] 1 path = 1: must be text"),
        ('[[override]]\nvdev = "vda"\nworkers = 1', '= "vda": no virtual disk, write xvda'),
        ('[[override]]\nvdev = "vda"\nworkers = 1', 'number; did you mean "xvda"?'),
        ("[[override]]\nvdev = 536870912\nworkers = 1", "numbers are up to 536870911"),
        ('[[override]]\nvdev = "xvda999"\nworkers = 1', 'vdev = "xvda999": no virtual disk'),
        ('[[override]]\nguest = ""\nworkers = 1', 'guest = "": must be text that is not empty'),
        ("[[override]]\nguest = -1\nworkers = 1", "must be a name, or a number, 0 to 32751"),
        ("[[override]]\nguest = 32752\nworkers = 1", "must be a name, or a number, 0 to 32751"),
        ('[[override]]\nguest = "a"\nworkers = 0', "f:3: [[override]] 1 workers = 0: must be"),
        ('[[override]]\npath = "tank/*"\nworkers = 1', 'fits no disk, since their paths are abs'),
        ('[[override]]\npath = "tank/*"\nworkers = 1', 'did you mean "/dev/tank/*"?'),
        ("[override]\nworkers = 1", "write [[override]]"),
        ("override = 1", "write [[override]]"),
        ('[daemon]\ngroup = "a b"', 'group = "a b": must be the name of a group'),
        ("[daemon]\ngroup = 0", "group = 0: must be the name of a group"),
        ('[daemon]\nmetrics = "0.0.0.0:80"', "must be the path of a socket, or a loopback address"),
        ('[daemon]\nmetrics = "127.0.0.1:0"', "must be the path of a socket"),
        ('[daemon]\nmetrics = "127.0.0.1:65536"', "must be the path of a socket"),
        ("[daemon]\nmetrics = 80", "must be the path of a socket"),
        ("[daemon]\nmax_threads = 0x" + "f" * 5000, "max_threads = 0xfffff"),
        ("[daemon]\nmax_threads = " + "1" * 5000, "is no TOML: "),
        ("x = " + "[" * 5000, "is no TOML"),
    ],
)  # fmt: skip
def test_refusals_name_file_line_and_key_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(Refused) as raised:
        parse(text, "f")
    (line,) = raised.value.lines
    assert str(raised.value) == line
    assert line.startswith("f:")
    assert message in line


MISTAKES = """\
[deamon]
[daemon]
kinds = ["vbd", "vdb3"]
log = "data"
state_dir = "run"
pidfile = 7
group = wheel
metrics = "0.0.0.0:9531"
workers = 8
max_disks_per_guest = 0
max_threads = "many"
max_threads = 100
[disk]
wrokers = 8
transport = "copi"
disable_flush = 1
sector_size = 4096
max_indirect_segments = 8
flush-interval = 3
[[override]]
path = "tank/a"
vdev = "vda"
workers = 65
"""
WRONG_LINES = [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 21, 22, 23]


def test_twenty_mistakes_at_once() -> None:
    faults = examine(MISTAKES, "f").faults
    assert sorted(fault.line for fault in faults) == WRONG_LINES
    assert len(WRONG_LINES) == 20
    with pytest.raises(Refused) as raised:
        parse(MISTAKES, "f")
    assert [line.split(":")[1] for line in raised.value.lines] == list(map(str, WRONG_LINES))


def test_what_is_good_beside_a_fault_is_there() -> None:
    reading = examine("[disk]\nworkers = 3\nmax_queues = 0\n[daemon]\ngroup = 'x'\n", "f")
    assert reading.faults == (
        Fault("f", 3, "[disk] max_queues = 0: must be a whole number, 1 to 8"),
    )
    assert (reading.config.disk.workers, reading.config.disk.max_queues) == (3, 4)
    assert reading.says("group")
    assert not reading.says("metrics")
    assert str(reading.fault(("daemon", "group"), "x", "no")) == 'f:5: [daemon] group = "x": no'
    assert str(reading.fault(("daemon", "pidfile"), "/p", "no")) == '[daemon] pidfile = "/p": no'


def test_what_has_no_line_comes_last() -> None:
    with pytest.raises(Refused) as raised:
        examine("[disk]\nworkers = 0\n", "f").refuse(Fault("", 0, "no Xen"), Fault("f", 1, "x"))
    assert raised.value.lines[0] == "f:1: x"
    assert raised.value.lines[2] == "no Xen"


def test_of_thousands_of_faults_the_first_are_told() -> None:
    with pytest.raises(Refused) as raised:
        parse("[disk]\n" + "".join(f"a{number} = 1\n" for number in range(MOST_TOLD + 7)), "f")
    assert len(raised.value.lines) == MOST_TOLD + 1
    assert raised.value.lines[0].startswith("f:2: [disk] a0: ")
    assert raised.value.lines[-1] == "f: 7 more faults"


def test_a_long_name_is_cut() -> None:
    (fault,) = examine("[disk]\n" + "a" * 3000 + " = 1", "f").faults
    assert len(fault.reason) < 800


def test_a_misspelt_key_of_an_override_is_one_fault() -> None:
    """Not another one that says the section lacks it."""
    (fault,) = examine('[[override]]\npth = "/x"\nworkers = 1', "f").faults
    assert str(fault) == "f:2: [[override]] 1 pth: unknown key; did you mean path?"


@pytest.mark.parametrize(
    "pattern", ["/a", "*", "*/a", "?a", "[/]a", "[!a]b", "[]/]", "[!]]x", "*a*"]
)
def test_patterns_that_fit_a_path(pattern: str) -> None:
    assert can_fit(pattern)


@pytest.mark.parametrize("pattern", ["", "a", "tank/*", "[a]*", "[!/]*", "[", "[]", "[/", " /a"])
def test_patterns_that_fit_none(pattern: str) -> None:
    assert not can_fit(pattern)


@given(st.text())
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    message = None
    try:
        parsed = parse(text, "f")
    except Refused as error:
        message = str(error)
    assert message.startswith("f:") if message is not None else isinstance(parsed, Config)
