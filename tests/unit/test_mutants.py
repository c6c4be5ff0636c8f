"""The mutants themselves: one line each, still a program, and judged in a copy of the tree."""

from __future__ import annotations

import ast
import os
import random
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import of_c, of_python
from tests.mutants.__main__ import arguments, chosen, mutants_of, score
from tests.mutants.explained import explained, outdated
from tests.mutants.mutant import Mutant
from tests.mutants.scratch import ROOT, Scratch, Verdict
from tests.mutants.targets import TARGETS, Stage, Target

BY_NAME = {"/".join(Path(target.file).parts[-2:]): target for target in TARGETS}


@pytest.fixture(scope="module")
def made() -> dict[str, list[Mutant]]:
    return {name: mutants_of(target) for name, target in BY_NAME.items()}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_mutant_differs_in_one_line(made: dict[str, list[Mutant]], name: str) -> None:
    source = (ROOT / BY_NAME[name].file).read_text()
    lines = source.split("\n")
    assert len(made[name]) >= 15
    assert len({(mutant.line, mutant.after) for mutant in made[name]}) == len(made[name])
    for mutant in made[name]:
        changed = mutant.apply(source).split("\n")
        differing = [
            i for i, pair in enumerate(zip(lines, changed, strict=True)) if len({*pair}) > 1
        ]
        assert differing == [mutant.line - 1]


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.endswith(".py")])
def test_a_mutant_is_python_still(made: dict[str, list[Mutant]], name: str) -> None:
    source = (ROOT / BY_NAME[name].file).read_text()
    whole = ast.dump(ast.parse(source))
    for mutant in random.Random(1).choices(made[name], k=40):  # parsing takes its time
        assert ast.dump(ast.parse(mutant.apply(source))) != whole, mutant.diff()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BY_NAME if name.endswith(".c")])
def test_most_mutants_are_c_still(made: dict[str, list[Mutant]], name: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    path = ROOT / BY_NAME[name].file
    file = tmp_path / path.name
    some = random.Random(1).sample(made[name], 15)
    good = 0
    for mutant in some:
        file.write_text(mutant.apply(path.read_text()))
        flags = ["-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-w", f"-I{path.parents[1]}"]
        done = subprocess.run(
            [compiler, *flags, str(file)], capture_output=True, check=False, timeout=60
        )
        good += done.returncode == 0
    assert good >= 12


def test_every_explanation_is_about_a_mutant(made: dict[str, list[Mutant]]) -> None:
    """Whose line has changed is looked at again."""
    entries = explained()
    assert outdated(entries, [mutant for some in made.values() for mutant in some]) == []
    assert len({replace(entry, why="") for entry in entries}) == len(entries)
    assert all(entry.why.strip() for entry in entries)


def test_an_explanation_of_a_line_that_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "explained.toml"
    file.write_text(
        "".join(
            f'[[mutant]]\nfile = "a.c"\nline = "{line}"\nbecomes = "b;"\nwhy = "the same"\n'
            for line in ("a;", "c;")
        )
    )
    entries = explained(file)
    mutant = Mutant("a.c", 3, 1, "deletion", "\ta;", "\tb;")
    assert outdated(entries, [mutant]) == entries[1:]
    narrow = replace(entries[0], above="x;")
    assert outdated([narrow], [mutant]) == [narrow]
    assert outdated([narrow], [replace(mutant, above="x;")]) == []


def test_the_tests_of_every_target_are_there() -> None:
    for target in TARGETS:
        assert target.programs or target.stages
        for stage in target.stages:
            assert target.arguments(ROOT, stage)
    with pytest.raises(ValueError, match=r"a\.py: no test is called tests/unit/test_no-such"):
        Target("a.py").arguments(ROOT, ("tests/unit/test_no-such*",))


PYTHON = '''\
"""a < b"""

LIMIT: int | None = 3  # 4
S = State
FIRST = S.TWO


@dataclass(frozen=True)
class Frame:
    size: int | str = 0


def f(a: int | None, b: int = 2) -> bool:
    """a + b"""
    if a is not None and not (b << 1) <= 7:
        g(
            a
        )
    elif b:
        raise E(f"{a + b}")
    state = State.ONE
    return x(state) if True else [c for c in a if c.d]
'''


def after(mutants: list[Mutant]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for mutant in mutants:
        found.setdefault(mutant.line, []).append(mutant.after.strip())
    return {line: sorted(texts) for line, texts in found.items()}


def test_python_mutants_in_full() -> None:
    enums = of_python.enums(["class State(Enum):\n    ONE = 1\n    TWO = 2\n"])
    assert enums == {"State": ["ONE", "TWO"]}
    found = after(of_python.mutants("f.py", PYTHON, enums))
    line = "if a is not None and not (b << 1) <= 7:"
    returned = "return x(state) if True else [c for c in a if c.d]"
    assert found == {
        3: ["LIMIT: int | None = 2  # 4", "LIMIT: int | None = 4  # 4"],
        5: ["FIRST = S.ONE"],
        10: ["size: int | str = 1"],
        13: [
            "def f(a: int | None, b: int = 1) -> bool:",
            "def f(a: int | None, b: int = 3) -> bool:",
        ],
        15: sorted(
            [
                line.replace("is not", "is"),
                line.replace("and", "or"),
                line.replace("and not (", "and ("),
                line.replace("<<", ">>"),
                line.replace("1)", "0)"),
                line.replace("1)", "2)"),
                line.replace("<=", "<"),
                line.replace("<=", ">"),
                line.replace("7", "6"),
                line.replace("7", "8"),
            ]
        ),
        16: ["if False: g("],
        19: ["elif (not b):"],
        20: ["pass"],
        21: ["pass", "state = State.TWO"],
        22: sorted(
            [
                "return None",
                returned.replace("True", "False"),
                returned.replace("if c.d", "if (not c.d)"),
            ]
        ),
    }


C = """\
#define LIMIT 3
enum { A = 1 };
/* a < b */
static int
f(const struct s *a, int b)
{
    char buffer[8];
    int *p = &b;

    assert(b < 7);
    for (i = 0; i < b && !a->on; i++)
        g(a, "x < y",
            -b);
    if (a->on)
        return (b);
    do
        p->n += 1U;
    while (*p > 0x10);
    switch (b) {
    case RED:
        (void)a;
        return;
    }
    while (*p++)
        continue;
    h(*p);
    return (b == 1);
}
"""


def test_c_mutants_in_full() -> None:
    following = of_c.enums(["enum colour {\n\tRED = 1,\t/* , */\n\tGREEN,\n\tBLUE\n};\n"])
    assert following == {"RED": "GREEN", "GREEN": "BLUE", "BLUE": "RED"}
    found = after(of_c.mutants("f.c", C, following))
    loop = "for (i = 0; i < b && !a->on; i++)"
    assert found == {
        2: ["enum { A = 0 };", "enum { A = 2 };"],
        11: sorted(
            [
                loop.replace("0", "1"),
                loop.replace("<", "<="),
                loop.replace("<", ">="),
                loop.replace("&&", "||"),
                loop.replace("!", ""),
                loop.replace("++", "--"),
            ]
        ),
        12: ['while (false) g(a, "x < y",'],
        13: ["b);"],
        14: ["if (!(a->on))"],
        15: ["return (!(b));"],
        17: [";", "p->n += 0U;", "p->n += 2U;", "p->n -= 1U;"],
        18: sorted(f"while (*p {rest});" for rest in ("<= 0x10", ">= 0x10", "> 0xf", "> 0x11")),
        20: ["case GREEN:"],
        22: [";"],
        24: ["while (!(*p++))", "while (*p--)"],
        26: [";"],
        27: ["return (b != 1);", "return (b == 0);", "return (b == 2);"],
    }  # fmt: skip


def test_a_sample_is_the_same_for_a_seed() -> None:
    def some(*words: str) -> list[Mutant]:
        return chosen(BY_NAME["core/ring.c"], arguments(list(words)))

    assert some("--sample", "9") == some("--sample", "9", "--seed", "1") != some("--seed", "2")
    assert len(some("--sample", "9", "--seed", "2")) == 9
    assert {mutant.line for mutant in some("--line", "60")} <= {60}
    assert len(some("--sample", "100000")) == len(some())


def test_the_score_is_of_what_differs_from_the_product() -> None:
    count = Counter({Verdict.KILLED: 18, Verdict.EXPLAINED: 1, Verdict.SURVIVED: 1})
    assert score(count) == 95.0
    assert score(count + Counter({Verdict.SAME: 7, Verdict.UNBUILT: 3})) == 95.0
    assert score(Counter()) == 100.0


def first(mutants: list[Mutant], after: str) -> Mutant:
    return next(mutant for mutant in mutants if mutant.after.strip() == after)


@pytest.mark.slow
def test_a_mutant_is_built_and_tried_in_a_copy(
    made: dict[str, list[Mutant]], tmp_path: Path
) -> None:
    target = Target(BY_NAME["block/coalesce.c"].file, ("coalesce",))
    source = (ROOT / target.file).read_text()
    scratch = Scratch(tmp_path, {("test_coalesce",): 60.0})
    scratch.check(target)  # another copy has run it, and this one has nothing yet
    killed = first(made["block/coalesce.c"], "batch->nseg += reqs[req].nseg;".replace("+", "-"))
    assert scratch.judge(target, killed) is Verdict.KILLED

    def changed(old: str, new: str) -> Mutant:
        line = next(i for i, text in enumerate(source.split("\n"), 1) if old in text)
        before = source.split("\n")[line - 1]
        return Mutant(target.file, line, 0, "other", before, before.replace(old, new))

    assert scratch.judge(target, changed("nreq++;", "nreq += 1;")) is Verdict.SAME
    assert scratch.judge(target, changed("nreq++;", "nreq++")) is Verdict.UNBUILT
    other = Target(BY_NAME["core/ring.c"].file, ("coalesce",))  # which has no ring
    assert scratch.judge(other, made["core/ring.c"][0]) is Verdict.SURVIVED
    assert (scratch.root / target.file).read_text() == source
    assert (ROOT / target.file).read_text() == source


@pytest.mark.slow
def test_a_mutant_that_hangs_is_killed(tmp_path: Path) -> None:
    stage: Stage = ("tests/unit/test_pace.py",)
    target = Target("xbbd_bsd/xenbus/pace.py", stages=(stage,))
    line = (ROOT / target.file).read_text().split("\n").index("class Pace:") + 1
    scratch = Scratch(tmp_path, {stage: 2.0})
    hangs = Mutant(target.file, line, 0, "other", "class Pace:", "while True: pass")
    assert scratch.judge(target, hangs) is Verdict.KILLED
