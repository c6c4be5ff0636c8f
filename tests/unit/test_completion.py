"""Completion in bash, zsh and tcsh: against the options of the commands, and in real shells.

The shells run on terminals of their own, with commands in PATH that write down
what they were called with.
"""

import argparse
import importlib.util
import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.waiting import GIVE_UP
from xbbd_bsd import daemon, xbbctl, xbbstat
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.oids import declared

FILES = Path(__file__).parents[2] / "etc" / "completion"
BASH, ZSH, TCSH = FILES / "xbbctl.bash", FILES / "_xbbctl", FILES / "xbbctl.csh"
NAMES = sorted(
    {
        name.replace(".N.", f".{unit}.").replace(".M.", ".0.")
        for name, _ in declared(DRIVER)
        for unit in (0, 12)
    }
)
DISKS = """\
NAME    GUEST  VDEV  MODE  MiB  STATE      PATH
xbbd0   vm1    xvda  w      16  Connected  /tank/a
xbbd12  vm1    xvdb  w      16  Connected  /tank/b
xbbd7   db2    xvda  r      16  Connected  /tank/c
xnb3    vm1    vif0  -       -  Connected  vif1.0 00:16:3e:01:02:03 xenbr0
"""
FAKE = """\
#!/bin/sh
echo "${0##*/} $*" | sed "s/^xbbctl //" >>"$FAKE/calls"
case " $* " in
*" -aN "*) cat "$FAKE/names" ;;
*" list "*) cat "$FAKE/disks" ;;
esac
"""


class Place:
    """A directory to stand in, and another with commands that only write down their calls."""

    def __init__(self, root: Path) -> None:
        self.fake, self.here = root / "fake", root / "here"
        (self.fake / "bin").mkdir(parents=True)
        (self.here / "directory").mkdir(parents=True)
        (self.here / "tuned").touch()
        (self.here / "image").touch()
        for name in ("xbbctl", "xbbd", "xbbstat"):
            program = self.fake / "bin" / name
            program.write_text(FAKE)
            program.chmod(0o755)
        (self.fake / "names").write_text("\n".join(NAMES) + "\n")
        (self.fake / "disks").write_text(DISKS)
        self.environment = {
            "PATH": f"{self.fake / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.here),
            "FAKE": str(self.fake),
            "TERM": "dumb",
            "LC_ALL": "C",
        }

    @property
    def calls(self) -> list[str]:
        """The arguments of all calls; of other commands than xbbctl with their names."""
        path = self.fake / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def shell(name: str) -> str:
    """The path of a shell; skips if it is not there."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


# What the files say, against the program.


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


COMMANDS = {
    "xbbctl": [xbbctl._parser(), *xbbctl.verb_parsers().values()],
    "xbbd": [daemon._parser()],
    "xbbstat": [xbbstat._parser()],
}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write", FILES / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", [BASH, ZSH, TCSH], ids=lambda file: file.name)
def test_the_files_are_what_their_generator_writes(file: Path) -> None:
    assert generator().written(file.name) == file.read_text(), "run python etc/completion/write.py"


def test_every_kind_of_value_is_known_to_every_shell() -> None:
    write = generator()
    kinds = {kind for kind in write.KINDS.values() if not kind.startswith("=")}
    assert kinds - {"vdev", "guest"} <= set(write.TCSH)
    assert kinds == set(write.ZSH)
    cases = set(re.findall(r"^\t(\w+)\)$", BASH.read_text(), re.M))
    assert kinds | {"first", "names"} <= cases


def test_zsh_has_every_option_of_every_verb() -> None:
    parts = re.split(r"^\t([\w,]+)\)$", ZSH.read_text().partition("# to here.")[0], flags=re.M)
    found = {
        name: set(re.findall(r"^\t\t\t'(?:\([^)]*\)|\*)?(-[\w-]+)", text, re.M))
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    wanted = {
        f"xbbctl,{verb}": options_of(parser) for verb, parser in xbbctl.verb_parsers().items()
    }
    names = options_of(xbbctl._parser())
    assert found == wanted | {
        "xbbctl,first": names,
        "xbbctl,names": names - {"-a", "--version"},
        "xbbd,": options_of(daemon._parser()),
        "xbbstat,": options_of(xbbstat._parser()),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_tcsh_has_every_option_and_verb(command: str) -> None:
    text = TCSH.read_text().partition(f"\ncomplete {command} ")[2].partition("\ncomplete ")[0]
    long = re.search(r"'c@--@\(([^)]*)\)@'", text)
    short = re.search(r"'c@-@\(([^)]*)\)@'", text)
    assert long is not None
    assert short is not None
    found = {f"--{name}" for name in long[1].split()} | {f"-{name}" for name in short[1].split()}
    assert found == set().union(*map(options_of, COMMANDS[command]))
    verbs = tuple(re.findall(r"echo (\w+);", text.partition("'p@*@")[2]))
    assert verbs == (xbbctl.VERBS if command == "xbbctl" else ())


@pytest.mark.parametrize(("name", "file"), [("bash", BASH), ("zsh", ZSH), ("tcsh", TCSH)])
def test_syntax(name: str, file: Path) -> None:
    done = subprocess.run([shell(name), "-n", str(file)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# bash, by its function.

ASK = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_xbb "${2%% *}"
[[ ${#COMPREPLY[@]} == 0 ]] || printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(place: Place, line: str) -> list[str]:
    """What there is to choose from at the end of a line."""
    command = [shell("bash"), "--norc", "--noprofile", "-c", ASK, "bash", str(BASH), line]
    done = subprocess.run(
        command, env=place.environment, cwd=place.here, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_offers_verbs_and_the_tops_of_the_tree(place: Place) -> None:
    assert bash(place, "xbbctl ") == [*xbbctl.VERBS, "dev.", "hw."]
    assert bash(place, "xbbctl de") == ["detach", "dev."]


def test_bash_offers_every_option(place: Place) -> None:
    assert set(bash(place, "xbbctl -")) == options_of(xbbctl._parser())
    for verb, parser in xbbctl.verb_parsers().items():
        assert set(bash(place, f"xbbctl {verb} -")) == options_of(parser), verb
    assert set(bash(place, "xbbd -")) == options_of(daemon._parser())
    assert set(bash(place, "/usr/local/bin/xbbstat xbb0 -")) == options_of(xbbstat._parser())
    after_names = set(bash(place, "xbbctl dev.xbbd.0 -"))
    assert after_names == options_of(xbbctl._parser()) - {"-a", "--version"}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("xbbctl dev.xbbd.", ["dev.xbbd.0.", "dev.xbbd.12."]),
        ("xbbctl dev.xbbd.0.disa", ["dev.xbbd.0.disable_flush"]),
        ("xbbctl -n dev.xbbd.0.disa", ["dev.xbbd.0.disable_flush"]),
        ("xbbctl hw.xbbd.version hw.xbbd.log.", ["hw.xbbd.log.control", "hw.xbbd.log.data"]),
        ("xbbctl dev.xbbd.0.devstat.xbb.", None),
        ("xbbctl dev.xbbd.0.flush_interval=", []),
        ("xbbctl nothing.like.it", []),
        ("xbbctl resize ", ["xbbd0", "xbbd12", "xbbd7"]),
        ("xbbctl resize xbbd1", ["xbbd12"]),
        ("xbbctl -j log xbbd7", ["xbbd7"]),
        ("xbbctl log xn", ["xnb3"]),
        ("xbbctl inflight xbbd0 ", []),
        ("xbbctl list ", ["vm1", "db2"]),
        ("xbbctl help resi", ["resize"]),
        ("xbbctl attach ", []),
        ("xbbctl attach vm1 im", ["image"]),
        ("xbbctl attach --mode ", ["r", "ro", "rw", "w", "w!"]),
        ("xbbctl attach --kind=vbd", ["vbd", "vbd3"]),
        ("xbbctl attach --limit 5 vm1 tu", ["tuned"]),
        ("xbbctl attach --limit ", []),
        ("xbbctl detach ", ["vm1", "db2"]),
        ("xbbctl detach vm1 ", ["xvda", "xvdb", "vif0"]),
        ("xbbctl detach db2 ", ["xvda"]),
        ("xbbctl detach vm1 xvda ", []),
        ("xbbctl -f tu", ["tuned"]),
        ("xbbctl -nf tu", ["tuned"]),
        ("xbbctl -f tuned resi", ["resize"]),
        ("xbbctl --state-dir ", ["directory"]),
        ("xbbctl --state-dir=dir", ["directory"]),
        ("xbbctl --host ", ["sim:"]),
        ("xbbctl --host sim:dir", ["directory"]),
        ("xbbctl --host=sim:dir", ["directory"]),
        ("xbbd ", []),
        ("xbbd -f tu", ["tuned"]),
        ("xbbd -dtf tu", ["tuned"]),
        ("xbbd -d --host=sim:dir", ["directory"]),
        ("xbbd --report im", ["image"]),
        (
            "xbbstat ",
            [
                *(f"{name}{n}" for n in (0, 12, 7) for name in ("xbb", "xbbi", "dev.xbbd.")),
                "xnb3",
            ],
        ),
        ("xbbstat -x xbbi1", ["xbbi12"]),
        ("xbbstat -x xbb0 dev.xbbd.7", ["dev.xbbd.7"]),
        ("xbbstat -t ", ["da", "other", "xbb", "xbbi", "xnb"]),
        ("xbbstat -xs ms/", ["ms/r", "ms/w", "ms/d", "ms/o"]),
        ("xbbstat -s L", ["L\\(q\\)"]),
        ("xbbstat -w ", []),
        ("xbbstat -w1 -xc ", []),
    ],
)
def test_bash_offers(place: Place, line: str, offered: list[str] | None) -> None:
    found = bash(place, line)
    if offered is None:
        start = line.rpartition(" ")[2]
        wanted = {name for name in NAMES if name.startswith(start)}
        offered = [name for name in found if name in wanted or name.endswith(".")]
        assert len(offered) > 5
    assert sorted(set(found)) == sorted(offered)


@pytest.mark.parametrize("verb", ["", "resize "])
@pytest.mark.parametrize(
    "options", ["--host sim:/tmp/m", "--host=sim:/tmp/m --state-dir /d", "--state-dir=/d"]
)
def test_bash_asks_the_daemon_of_the_line(place: Place, options: str, verb: str) -> None:
    assert bash(place, f"xbbctl {options} {verb}") != []
    assert place.calls == [f"{options} {'list' if verb else '-aN'}"]


def test_bash_asks_nobody_about_a_value(place: Place) -> None:
    assert bash(place, "xbbctl dev.xbbd.0.flush_interval=") == []
    assert place.calls == []


def test_bash_lives_without_a_daemon(place: Place) -> None:
    program = place.fake / "bin" / "xbbctl"
    program.write_text("#!/bin/sh\necho 'xbbctl: no xbbd listens' >&2\nexit 1\n")
    assert bash(place, "xbbctl dev.") == []
    assert bash(place, "xbbctl resize ") == []
    assert bash(place, "xbbctl ") == list(xbbctl.VERBS)


# All three on a terminal.

PROMPT = "@ready@"
START = {
    "bash": (["--norc", "--noprofile", "-i"], f"PS1={PROMPT[:3]}''{PROMPT[3:]}; source {BASH}"),
    "zsh": (
        ["-f", "-i"],
        f"PS1={PROMPT[:3]}''{PROMPT[3:]}; unsetopt zle_bracketed_paste; fpath=({FILES} $fpath);"
        " autoload -Uz compinit; compinit -u -D; unset zle_bracketed_paste",
    ),
    "tcsh": (
        ["-f", "-i"],
        f"set edit; source {TCSH}; unset autologout; set prompt={PROMPT[:3]}''{PROMPT[3:]}",
    ),
}


class Terminal:
    """A shell on one."""

    def __init__(self, name: str, place: Place) -> None:
        path = shell(name)
        options, self.start = START[name]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(place.here)
                os.execve(path, [name, *options], place.environment)
            finally:
                os._exit(127)
        self.shown = ""

    def until(self, text: str | None) -> None:
        """Read until it shows a text, None: until it ends."""
        end = time.monotonic() + GIVE_UP
        while text is None or text not in self.shown:
            left = end - time.monotonic()
            assert left > 0, f"no {text!r} in {self.shown!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:  # Linux: the other end is closed
                    data = b""
                if not data:
                    assert text is None, self.shown
                    return
                self.shown += data.decode(errors="replace")

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self.fd, text.encode())

    def close(self) -> None:
        os.close(self.fd)  # hangs up, if it still runs
        os.waitpid(self.pid, 0)


def type_into(name: str, place: Place, line: str) -> list[str]:
    """All calls of xbbctl when a line is typed into a shell."""
    terminal = Terminal(name, place)
    try:
        terminal.type(f"{terminal.start}\n")
        terminal.until(PROMPT)
        terminal.type(f"{line}\n")
        terminal.until(PROMPT)
        terminal.type("exit\n")
        terminal.until(None)
    finally:
        terminal.close()
    return place.calls


LINES = [
    ("resi\txbbd0", "resize xbbd0"),
    ("resize xbbd1\t", "resize xbbd12"),
    ("-n dev.xbbd.12.disable_fl\t", "-n dev.xbbd.12.disable_flush"),
    ("hw.xbbd.vers\thw.xbbd.log.con\t", "hw.xbbd.version hw.xbbd.log.control"),
    ("hw.xbbd.pid -n hw.xbbd.vers\t", "hw.xbbd.pid -n hw.xbbd.version"),
    ("attach vm1 im\txvdc", "attach vm1 image xvdc"),
    ("-f tu\t", "-f tuned"),
    (
        "attach --kind vbd3 --mode w\\!\tvm1 image xvdc",
        "attach --kind vbd3 --mode w! vm1 image xvdc",
    ),
    ("--state-dir dire\t -a", "--state-dir directory -a"),
    ("--state-dir=/d --host si\tdirectory -a", "--state-dir=/d --host sim:directory -a"),
]
OTHERS = [
    ("xbbd -d -f tu\t", "xbbd -d -f tuned"),
    ("xbbd -d --host si\tdirectory", "xbbd -d --host sim:directory"),
    ("xbbstat --state-d\t dire\t -x xbbi1\t", "xbbstat --state-dir directory -x xbbi12"),
    ("xbbstat -x -t xbbi\t -s %bu\t dev.xbbd.1\t", "xbbstat -x -t xbbi -s %busy dev.xbbd.12"),
]
# tcsh knows only the word before.
BETTER = [
    ("resize -j xbbd1\t", "resize -j xbbd12"),
    ("detach d\txv\t", "detach db2 xvda"),
    ("attach --kind=vbd3 --mo\t", "attach --kind=vbd3 --mode"),
    ("resize --host=sim:dire\t xbbd1\t", "resize --host=sim:directory xbbd12"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "typed", "run"),
    [("tcsh", *line) for line in LINES]
    + [(name, *line) for name in ("bash", "zsh") for line in LINES + BETTER]
    + [("zsh", "d.x.12.disable_fl\t", "dev.xbbd.12.disable_flush")],  # as it does with paths
)
def test_on_a_terminal(place: Place, name: str, typed: str, run: str) -> None:
    *_, last = type_into(name, place, f"xbbctl {typed}")
    # Not every shell leaves a slash, or adds "=", at the end of what it completed.
    assert re.sub(r"(directory)/|(--mode)=", r"\1\2", last) == run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh", "tcsh"])
@pytest.mark.parametrize(("typed", "run"), OTHERS)
def test_the_other_commands_on_a_terminal(place: Place, name: str, typed: str, run: str) -> None:
    *_, last = type_into(name, place, typed)
    assert re.sub(r"(directory)/|(--state-dir)=", r"\1\2", last) == run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh", "tcsh"])
@pytest.mark.parametrize(
    ("typed", "asked", "run"),
    [
        ("resize xbbd1\t", "list", "resize xbbd12"),
        ("hw.xbbd.vers\t", "-aN", "hw.xbbd.version"),
    ],
)
def test_the_daemon_of_the_line_is_asked(
    place: Place, name: str, typed: str, asked: str, run: str
) -> None:
    options = "--host sim:/tmp/m --state-dir=/d"
    calls = type_into(name, place, f"xbbctl {options} {typed}")
    assert calls[-1] == f"{options} {run}"
    assert f"{options} {asked}" in calls
