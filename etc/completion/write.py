"""Writes what can be completed into the files for bash, zsh and tcsh.

    python etc/completion/write.py          puts it between the two marks in each file

Options, verbs and operands come from the parsers of xbbctl, xbbd and xbbstat.  What is asked
of a daemon, and how a shell wants it, is written by hand around that.  What follows an
option or stands as an operand is of a kind:

    file, dir       a path                      spec    what --host takes
    disk            xbbd0 and so on             lost    the same, or a path
    device          the same, and xnb0          drive   xbb0, xbbi0, dev.xbbd.0, xnb0
    guest, vdev     those that have some
    names           of the tree                 first   a verb, or a name
    =a b c          one of these words          word    what nobody can know

tests/unit/test_completion.py compares the files, and runs them in their shells.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from xbbd_bsd import daemon, xbbctl, xbbstat
from xbbd_bsd.stat.choice import sorts

HERE: Final = Path(__file__).parent
BEGIN: Final = "# Written by write.py from here"
END: Final = "# to here."

# Of an option or operand, by the name of its value; (verb, name) goes before name.
KINDS: Final = {
    "host": "spec",
    "state_dir": "dir",
    "file": "file",
    "report": "file",
    "path": "file",
    "device": "device",
    ("resize", "device"): "disk",
    "disk": "lost",
    "guest": "guest",
    ("detach", "domain"): "guest",
    ("detach", "vdev"): "vdev",
    "drives": "drive",
    "sort": "=name " + " ".join(column for column in sorts() if column != "name"),
    "types": "=da other xbb xbbi xnb",
}
EXCLUDE: Final = {"-n": "-N", "-N": "-n"}
ONLY_FIRST: Final = ("-a", "--version")  # not after a name


def kind_of(action: argparse.Action, verb: str = "") -> str:
    """Of the value of an option, or of an operand; "" of an option without one."""
    if action.option_strings and action.nargs == 0:
        return ""
    if action.choices is not None:
        return "=" + " ".join(map(str, action.choices))
    return KINDS.get((verb, action.dest)) or KINDS.get(action.dest, "word")


def tables() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Command, verb ("" of names and of those without verbs), and parser."""
    yield "xbbctl", "", xbbctl._parser()
    for verb, parser in xbbctl.verb_parsers().items():
        yield "xbbctl", verb, parser
    yield "xbbd", "", daemon._parser()
    yield "xbbstat", "", xbbstat._parser()


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those of a parser, in its order."""
    return [action for action in parser._actions if action.option_strings]


def spellings(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in options(parser) for option in action.option_strings]


def operands(command: str, verb: str, parser: argparse.ArgumentParser) -> list[tuple[str, bool]]:
    """Kind of each, and whether any number may follow."""
    if command == "xbbctl" and not verb:
        return [("first", False), ("names", True)]
    return [
        (kind_of(action, verb), action.nargs in ("*", "+", argparse.REMAINDER))
        for action in parser._actions
        if not action.option_strings
    ]


# bash


def quoted(text: str) -> str:
    """One word of a Bourne shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def bash() -> Iterator[str]:
    """Three functions that answer with words."""
    yield from (f"_xbbctl_verbs={quoted(' '.join(xbbctl.verb_parsers()))}", "")
    yield from ("# The options of a command and verb.", "_xbb_options()", "{", "\tcase $1,$2 in")
    for command, verb, parser in tables():
        names = spellings(parser)
        yield f"\t{command},{verb}) echo {quoted(' '.join(names))} ;;"
        if (command, verb) == ("xbbctl", ""):
            rest = [name for name in names if name not in ONLY_FIRST]
            yield f"\t{command},names) echo {quoted(' '.join(rest))} ;;"
    yield from ("\tesac", "}", "")
    yield from ("# The kind of what follows an option, if anything does.", "_xbb_takes()", "{")
    yield "\tcase $1,$2,$3 in"
    for command, verb, parser in tables():
        which = "*" if command != "xbbctl" else verb
        for action in options(parser):
            if kind := kind_of(action, verb):
                where = [f"{command},{which},{option}" for option in action.option_strings]
                if (command, verb) == ("xbbctl", ""):
                    where += [f"{command},names,{option}" for option in action.option_strings]
                yield f"\t{' | '.join(where)}) echo {quoted(kind)} ;;"
    yield from ("\tesac", "}", "")
    yield from ("# The kind of an operand, which are counted from 0.", "_xbb_operand()", "{")
    yield "\tcase $1,$2,$3 in"
    yield "\txbbctl,,0) echo first ;;"
    yield "\txbbctl,names,*) echo names ;;"
    for command, verb, parser in tables():
        if (command, verb) != ("xbbctl", ""):
            for number, (kind, more) in enumerate(operands(command, verb, parser)):
                yield f"\t{command},{verb},{'*' if more else number}) echo {quoted(kind)} ;;"
    yield from ("\tesac", "}")


# zsh

ZSH: Final = {
    "spec": ":specification:_xbb_spec",
    "dir": ":directory:_files -/",
    "file": ":file:_files",
    "disk": ":disk: _xbb_column disk 1 '' 'xbbd*'",
    "device": ":device: _xbb_column device 1",
    "lost": ":file or device: _xbb_lost",
    "guest": ":guest: _xbb_column guest 2",
    "vdev": ":disk or card in the guest: _xbb_column disk 3 $words[CURRENT-1]",
    "drive": ":device: _xbb_drives",
}


def zsh_value(kind: str, what: str) -> str:
    """The end of a specification of _arguments."""
    if kind.startswith("="):
        words = " ".join(f'"{word}"' if "(" in word else word for word in kind[1:].split())
        return f":{what}: _xbb_words {what} {words}"
    return ZSH.get(kind, f':{what}: _xbb_words "{what}"')


def zsh_option(action: argparse.Action, verb: str, option: str) -> str:
    """A specification of _arguments."""
    others = [other for other in action.option_strings if other != option]
    if isinstance(action, argparse._HelpAction | argparse._VersionAction):
        start = "(- *)"
    elif option in EXCLUDE and not verb:
        start = f"({EXCLUDE[option]})"
    else:
        start = f"({' '.join(others)})" if others else ""
    if isinstance(action, argparse._AppendAction):
        start = "*"
    kind = kind_of(action, verb)
    text = (action.help or "").replace("%%", "%")
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    what = str(action.metavar or action.dest).lower().replace("_", " ")
    equals = "=" if kind and option.startswith("--") else ""
    return quoted(
        f"{start}{option}{equals}"
        + (f"[{text}]" if text else "")
        + (kind and zsh_value(kind, what))
    )


def zsh_lines(parser: argparse.ArgumentParser, verb: str, leave: Iterable[str] = ()) -> list[str]:
    return [
        zsh_option(action, verb, option)
        for action in options(parser)
        for option in action.option_strings
        if option not in leave
    ]


def zsh() -> Iterator[str]:
    """Two functions: which verbs there are, and the arguments of _arguments in `specs`."""
    yield from ("_xbbctl_verbs() {", "\tverbs=(")
    for verb, parser in xbbctl.verb_parsers().items():
        yield f"\t\t{quoted(f'{verb}:{parser.description}')}"
    yield from ("\t)", "}", "", "_xbb_specs() {", "\tcase $1,$2 in")
    for command, verb, parser in tables():
        if (command, verb) == ("xbbctl", ""):
            yield "\txbbctl,first)"
            yield from ("\t\tspecs=(", *(f"\t\t\t{line}" for line in zsh_lines(parser, "")))
            yield from ("\t\t) ;;", "\txbbctl,names)", "\t\tspecs=(")
            yield from (f"\t\t\t{line}" for line in zsh_lines(parser, "", ONLY_FIRST))
            yield from ("\t\t\t'*:name:_xbbctl_names'", "\t\t) ;;")
            continue
        yield from (f"\t{command},{verb})", "\t\tspecs=(")
        yield from (f"\t\t\t{line}" for line in zsh_lines(parser, verb))
        shown = [action for action in parser._actions if not action.option_strings]
        for number, ((kind, more), action) in enumerate(
            zip(operands(command, verb, parser), shown, strict=True), 1
        ):
            what = str(action.metavar or action.dest).replace("_", " ")
            yield f"\t\t\t{quoted(('*' if more else str(number)) + zsh_value(kind, what))}"
        yield "\t\t) ;;"
    yield from ("\tesac", "}")


# tcsh

ASKED: Final = 'printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"'


def tcsh_ask(words: str, then: str) -> str:
    """What a daemon says; by xargs, since backquotes do not nest."""
    return f"`( {ASKED}; echo {words} ) | xargs xbbctl |& {then}`"


DISKS: Final = tcsh_ask("list", 'grep -oE "^xbbd[0-9]+"')
TCSH: Final = {
    "spec": "(sim:)@",
    "dir": "d",
    "file": "f",
    "lost": "f",
    "disk": DISKS,
    "device": tcsh_ask("list", 'grep -oE "^x(bbd|nb)[0-9]+"'),
    "drive": tcsh_ask(
        "list",
        'sed -n -e "s=^xbbd\\([0-9]*\\) .*=xbb\\1 xbbi\\1 dev.xbbd.\\1=p"'
        ' -e "s=^\\(xnb[0-9]*\\) .*=\\1=p"',
    ),
}


def tcsh_value(kind: str, what: str) -> str:
    if kind.startswith("="):
        words = (word.replace("!", "\\!") for word in kind[1:].split() if "(" not in word)
        return f"({' '.join(words)})"
    return TCSH.get(kind, f"x:{what}")


def tcsh_command(command: str, first: list[str], last: list[str]) -> Iterator[str]:
    """One complete, of rules for the word before, for options, and for the rest."""
    parsers = [(verb, parser) for name, verb, parser in tables() if name == command]
    rules = list(first)
    kinds: dict[str, set[str]] = {}
    for verb, parser in parsers:
        for action in options(parser):
            for option in action.option_strings:
                what = str(action.metavar or action.dest).lower().replace("_", " ")
                kind = kind_of(action, verb)
                kinds.setdefault(option, set()).add(kind and tcsh_value(kind, what))
    for option, values in kinds.items():
        # Where an option has a value here and none there, this shell cannot tell: then it
        # offers what it knows, but does not say that it knows nothing.
        wanted = {
            value for value in values if value and not (value[:2] == "x:" and len(values) > 1)
        }
        if len(wanted) == 1:
            rules.append(f"n@{option}@{wanted.pop()}@")
    long = sorted({option[2:] for option in kinds if option.startswith("--")})
    short = sorted(
        {option[1:] for option in kinds if not option.startswith("--")},
        key=lambda letter: (letter.lower(), letter),
    )
    rules += [f"c@--@({' '.join(long)})@", f"c@-@({' '.join(short)})@", *last]
    yield f"complete {command} \\"
    for number, rule in enumerate(rules, 1):
        end = " \\" if number < len(rules) else ""
        yield f"    '{rule}'{end}"


def tcsh() -> Iterator[str]:
    """Three completes; this shell knows only the word before."""
    by_kind: dict[str, list[str]] = {}
    second = []
    for verb, parser in xbbctl.verb_parsers().items():
        found = operands("xbbctl", verb, parser)
        kind = found[0][0] if found else ""
        what = next((a.dest for a in parser._actions if not a.option_strings), "")
        if kind in ("guest", "word"):
            value = "x:name or number of the guest" if what == "domain" else f"x:{what}"
        else:
            value = tcsh_value(kind, what) if kind else "x:nothing follows"
        by_kind.setdefault(value, []).append(verb)
        if len(found) > 1:
            value = "f" if found[1][0] == "file" else "x:name of the disk or card in the guest"
            second.append(f"N@{verb}@{value}@")
    first = []
    for value, verbs in by_kind.items():
        pattern = verbs[0] if len(verbs) == 1 else "{" + ",".join(verbs) + "}"
        first.append(f"n@{pattern}@{value}@")
    verbs_echoed = "; ".join(f"echo {verb}" for verb in xbbctl.verb_parsers())
    names = f'( {ASKED}; echo " -aN" ) | xargs xbbctl |& grep -E "^(dev|hw)[.]"'
    yield from tcsh_command("xbbctl", [], [*first, *second, f"p@*@`( {verbs_echoed}; {names} )`@"])
    yield ""
    yield from tcsh_command("xbbd", [], ["p@*@x:no more than options@"])
    yield ""
    yield from tcsh_command("xbbstat", [], [f"p@*@{TCSH['drive']}@"])


FILES: Final = {"xbbctl.bash": bash, "_xbbctl": zsh, "xbbctl.csh": tcsh}


def written(name: str) -> str:
    """A file as it ought to be."""
    before, rest = (HERE / name).read_text().split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n" + "\n".join(FILES[name]()) + f"\n{END}{after}"


if __name__ == "__main__":
    for name in FILES:
        text = written(name)
        (HERE / name).write_text(text)
