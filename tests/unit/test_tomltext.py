"""Lines of keys and spelling of values, against tomllib; what is left out of what is no TOML."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.tomltext import LENGTH, LONGEST, MOST, WORK, Key, read, spelled

SIMPLE = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.dates(),
    st.times(),
    st.datetimes(),
)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(VALUES)
def test_a_value_is_spelled_as_toml_has_it(value: Any) -> None:
    text = spelled(value)
    assert "\n" not in text
    assert text.isprintable()
    if len(text) < LENGTH and "..." not in text:
        assert tomllib.loads(f"x = {text}") == {"x": value}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        ("a\x1b\"'\\\x7f\U000e0001", '"a\\u001b\\"\'\\\\\\u007f\\U000e0001"'),
        (("vbd", "vbd3"), '["vbd", "vbd3"]'),
        ({"a b": 1}, '{"a b" = 1}'),
        ([[[[1]]]], "[[[[...]]]]"),
        (1 << 70, "0x400000000000000000"),
        ("x" * 300, '"' + "x" * (LENGTH - 4) + "..."),
    ],
)
def test_spelling(value: object, text: str) -> None:
    assert spelled(value) == text


TEXT = '''# a comment [with] "all" = sorts
[daemon] # and another
kinds = [
  "vbd", # ]
  'vbd3',
]
x = """
[disk]
workers = 1
\\""" quotes """""
y = \'\'\'
[disk]
\'\'\'
"quo.ted" = {a = 1, b.cc = [1, {d = "}"}]}
[[override]]
path = '/x#'
[[override]]
a.b = 2
  [override.z]
  when = 1979-05-27 07:32:00
[[override.more]]
q = 1
[ a . "b" ]
'''


def test_lines() -> None:
    document = read(TEXT)
    assert document.faults == ()
    assert document.values == tomllib.loads(TEXT)
    assert document.lines == {
        ("daemon",): 2,
        ("daemon", "kinds"): 3,
        ("daemon", "kinds", 0): 4,
        ("daemon", "kinds", 1): 5,
        ("daemon", "x"): 7,
        ("daemon", "y"): 11,
        ("daemon", "quo.ted"): 14,
        ("daemon", "quo.ted", "a"): 14,
        ("daemon", "quo.ted", "b"): 14,
        ("daemon", "quo.ted", "b", "cc"): 14,
        ("daemon", "quo.ted", "b", "cc", 0): 14,
        ("daemon", "quo.ted", "b", "cc", 1): 14,
        ("daemon", "quo.ted", "b", "cc", 1, "d"): 14,
        ("override",): 15,
        ("override", 0): 15,
        ("override", 0, "path"): 16,
        ("override", 1): 17,
        ("override", 1, "a"): 18,
        ("override", 1, "a", "b"): 18,
        ("override", 1, "z"): 19,
        ("override", 1, "z", "when"): 20,
        ("override", 1, "more"): 21,
        ("override", 1, "more", 0): 21,
        ("override", 1, "more", 0, "q"): 22,
        ("a",): 23,
        ("a", "b"): 23,
    }


def test_lines_of_a_file_from_elsewhere() -> None:
    assert read("[a]\r\n\r\nb = 1\r\n").lines == {("a",): 1, ("a", "b"): 3}


def keys_of(value: object, path: Key = ()) -> set[Key]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= keys_of(inner, (*path, name))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found |= keys_of(inner, (*path, index))
    return found


NAMES = st.sampled_from(["a", "b", "c-d", '"q.r"', "'s t'", '"\\u0041"', "a.b", "b . c"])
STRINGS = st.sampled_from(['"x]"', "'}y'", '"""\n[z]\n"""', "'''\nk = 1'''", '"\\""', '""""q"""'])
INLINE = st.recursive(
    STRINGS | SIMPLE.map(spelled).filter(lambda text: "..." not in text),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # ]\n".join(items) + "]")
        | st.dictionaries(NAMES, inner, max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{k} = {v}" for k, v in pairs.items()) + "}"
        )
    ),
    max_leaves=4,
)
STATEMENTS = st.one_of(
    NAMES.map(lambda name: f"[{name}] # c"),
    NAMES.map(lambda name: f"[[{name}]]"),
    st.tuples(NAMES, INLINE).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.just("# [x] = 1"),
    st.just(""),
)


@given(st.lists(STATEMENTS, max_size=8))
def test_every_key_has_the_line_of_its_statement(statements: list[str]) -> None:
    """Whatever is between; and what is left out is the only thing that is missing."""
    document = read("\n".join(statements))
    assert set(document.lines) == keys_of(document.values)
    starts = {1 + sum(s.count("\n") + 1 for s in statements[:i]) for i in range(len(statements))}
    for key, line in document.lines.items():
        if len(key) == 1:  # what is inside a value has a line of its own
            assert line in starts, key


@given(st.text(alphabet="ab=[]{}\"'#.,\n1 \\", max_size=60))
def test_any_text_has_its_keys_and_faults(text: str) -> None:
    document = read(text)
    assert set(document.lines) == keys_of(document.values)
    try:
        tomllib.loads(text)
    except ValueError:
        assert document.faults
    else:
        assert not document.faults


BROKEN = '''[daemon]
kinds = [vbd]
workers = 08
[disk
a = 1
[disk]
b = 2
b = 3
s = "unclosed
t = ["x"
u = 3
[disk]
[other]
# bad \x01 comment
z = "\\q"
q = 1
y = """abc
n = 1
'''


def test_what_is_no_toml_is_left_out_and_the_rest_is_read() -> None:
    document = read(BROKEN)
    assert document.values == {"daemon": {}, "disk": {"b": 2}, "other": {"q": 1}}
    assert [fault.line for fault in document.faults] == [2, 3, 4, 8, 9, 11, 12, 14, 15, 19]
    reasons = [fault.reason for fault in document.faults]
    assert reasons[0] == "kinds: is no TOML: Invalid value (column 10)"
    assert reasons[2].endswith("; lines 4 to 5 are not checked")
    assert reasons[5] == "u: is no TOML: Unclosed array (column 1); lines 10 to 11 are not checked"
    assert "Cannot declare [disk] twice" in reasons[6]
    assert reasons[9].endswith("(at the end); lines 17 to 19 are not checked")


@pytest.mark.parametrize("bad", ["[a]", "x = 2", 'x = """\n"""'])
def test_what_stands_in_a_string_is_no_heading(bad: str) -> None:
    document = read(f'[a]\nx = 1\n{bad}\ny = """\n[z]\n"""\nw = [\n[1],\n]\n[b]\nc = 3')
    assert len(document.faults) == 1
    assert "z" not in document.values
    assert document.values["b"] == {"c": 3}


def test_there_is_an_end_to_it() -> None:
    document = read("=\n" * (3 * MOST))
    assert len(document.faults) == MOST + 1
    assert document.values == {}


def test_of_a_large_text_less_is_gone_through() -> None:
    """Each fault has all of it parsed again, and a daemon reads it while it serves."""
    document = read("=\n" * (WORK // 8))
    assert len(document.faults) == 4
    assert document.faults[-1].reason.endswith("; the rest is not checked")


def test_a_key_of_thousands_of_names_is_not_read() -> None:
    document = read("a" + ".a" * LONGEST + " = 1\n[b]\nc = 2")
    assert document.values == {"b": {"c": 2}}
    assert [fault.line for fault in document.faults] == [1]
    deep = read("a" + ".a" * 1000 + " = 1")
    assert deep.faults == ()
    assert max(map(len, deep.lines)) < 100


@pytest.mark.parametrize(
    "text", ["a" * 3000 + " = = 1", "a = " + "b" * 3000, "[b]\n[" + "b." * 900]
)
def test_what_is_said_of_a_long_line_is_short(text: str) -> None:
    (fault,) = read(text).faults
    assert len(fault.reason) < 3 * LENGTH
