"""From the text of a configuration to a Config: which keys there are, and what each may be.

Nothing ends with the first mistake: all are found, each with its line, its key, what
is allowed, and what was probably meant.  Pure: the file, and whether this host can
do what it says, is not known here.  Any thread.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Final

from xbbd_bsd.config import (
    CHOICES,
    GROUP_NAME,
    KINDS,
    LEAST_BYTES,
    LOGS,
    MATCHES,
    MOST_CPUS,
    OFFLOADS,
    RANGES,
    SECTIONS,
    TRANSPORTS,
    Config,
    GroupConfig,
    Override,
    can_fit,
    parse_address,
    parse_cpus,
)
from xbbd_bsd.errors import OperatorError, Refused
from xbbd_bsd.stats import WORDS
from xbbd_bsd.storesections import HEADING, read_stores
from xbbd_bsd.tomltext import Key, cut, read, spelled
from xbbd_bsd.vdev import vdev_name, vdev_number

_DEFAULTS: Final = {
    name: {key.name: key.default for key in fields(section)} for name, section in SECTIONS.items()
}
_OVERRIDE: Final = "override"
_GROUP: Final = "group"
_HEADINGS: Final = {
    **{name: f"[{name}]" for name in SECTIONS},
    _GROUP: "[group.NAME]",
    _OVERRIDE: "[[override]]",
    "store": HEADING,
}
_OF_GROUP: Final = {key.name: key.default for key in fields(GroupConfig)}
# Of keys that several sections have, the one that is meant most.
_BY_USE: Final = sorted(_DEFAULTS, key="guest".__eq__)
_LARGEST_DOMID: Final = 0x7FEF  # the last before xen.h's reserved ones
_RESERVED_VDEV: Final = 2 << 28  # and more: xen-vbd-interface(7)
_NO_GROUP_NAME: Final = "must be 1 to 32 letters, digits, - and _"
_UNITS: Final = {"K": 10, "M": 20, "G": 30, "T": 40}  # powers of two
MOST_TOLD: Final = 100  # faults: a file that is something else has thousands


_NOTHING: Final = Config()  # all keys have their defaults


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong: in which file ("" if there is none), on which line (0: not known)."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.reason}" if where else self.reason


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says: `config` without what is in `faults`, which keep their defaults.

    `source` names the file, "" if there is none.  `wrong`: keys that have a fault.
    `kept`: which sections [[override]] of the text, from 0, those of `config` are.
    `left_out`: there is more, which is no TOML, so that nobody knows which keys it has.
    """

    config: Config = _NOTHING
    source: str = ""
    faults: tuple[Fault, ...] = ()
    lines: Mapping[Key, int] = field(default_factory=dict)
    wrong: frozenset[Key] = frozenset()
    kept: tuple[int, ...] = ()
    left_out: bool = False

    def says(self, key: str) -> bool:
        """Whether it has a key of [daemon], and that is good."""
        return ("daemon", key) in self.lines and ("daemon", key) not in self.wrong

    def is_silent(self, key: str) -> bool:
        """Whether it has no such key of [daemon], for certain: its default is meant."""
        return ("daemon", key) not in self.lines and not self.left_out

    def fault(self, path: Key, value: object, reason: str) -> Fault:
        """That a value will not do, also where it is a default."""
        section, *_, key = path
        where = f"[{section}]" if len(path) == 2 else f"[[{section}]] {int(path[1]) + 1}"
        line = self.lines.get(path, 0)
        return Fault(
            self.source if line else "", line, f"{where} {key} = {spelled(value)}: {reason}"
        )

    def transports(self) -> Iterator[tuple[Key, str]]:
        """Every value of transport, [disk]'s first, with its place."""
        yield ("disk", "transport"), self.config.disk.transport
        for index, override in zip(self.kept, self.config.overrides, strict=True):
            for key, value in override.values:
                if key == "transport":
                    yield (_OVERRIDE, index, key), str(value)

    def refuse(self, *more: Fault) -> None:
        """Refused with all faults, and these, in the order of their lines, if there are any."""
        faults = (*self.faults, *more)
        if faults:
            lines = [str(fault) for fault in sorted(faults, key=_in_order)]
            if len(lines) > MOST_TOLD:
                lines[MOST_TOLD:] = [f"{self.source}: {len(lines) - MOST_TOLD} more faults"]
            raise Refused(lines)


def _in_order(fault: Fault) -> tuple[bool, int]:
    return fault.line == 0, fault.line


def parse(text: str, source: str) -> Config:
    """The Config that a text describes; Refused with all its faults, which name `source`."""
    reading = examine(text, source)
    reading.refuse()
    return reading.config


def examine(text: str, source: str) -> Reading:
    """What a text says, faults and all; raises nothing."""
    document = read(text)
    found = _Examination(source, document.lines)
    for fault in document.faults:
        found.faults.append(Fault(source, fault.line, fault.reason))
    config = found.config(document.values)
    faults, wrong, kept = tuple(found.faults), frozenset(found.wrong), tuple(found.kept)
    return Reading(config, source, faults, document.lines, wrong, kept, bool(document.faults))


class _Examination:
    """One text, and what was found wrong so far."""

    def __init__(self, source: str, lines: Mapping[Key, int]) -> None:
        self.faults: list[Fault] = []
        self.wrong: set[Key] = set()
        self.kept: list[int] = []
        self._source = source
        self._lines = lines

    def config(self, document: Mapping[str, Any]) -> Config:
        for name, value in document.items():
            if name not in _HEADINGS:
                self._blame((name,), _stray(name, value))
        sections: dict[str, Any] = {
            name: section(**self._section(document, name)) for name, section in SECTIONS.items()
        }
        groups = self._groups(document.get(_GROUP, {}))
        overrides = self._overrides(document.get(_OVERRIDE, []))
        stores = tuple(read_stores(document.get("store", {}), self._blame))
        config = Config(**sections, groups=groups, overrides=overrides, store=stores)
        self._check_groups(config, document.get(_GROUP, {}))
        return config

    def _blame(self, key: Key, reason: str) -> None:
        self.wrong.add(key)
        self.faults.append(Fault(self._source, self._lines.get(key, 0), reason))

    def _section(self, document: Mapping[str, Any], name: str) -> dict[str, Any]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            self._blame((name,), f"{name} = {spelled(table)}: must be a section: write [{name}]")
            return {}
        return self._values((name,), f"[{name}]", table, _DEFAULTS[name])

    def _values(
        self, path: Key, where: str, table: Mapping[str, Any], known: Mapping[str, object]
    ) -> dict[str, Any]:
        """The keys of a table that are good."""
        found = {}
        for key, value in table.items():
            if key not in known:
                self._blame((*path, key), f"{where} {_unknown(key, known)}")
                continue
            try:
                found[key] = _value(key, value, known[key])
            except OperatorError as error:
                self._blame((*path, key), f"{where} {key} = {spelled(value)}: {error}")
        return found

    def _groups(self, tables: object) -> tuple[tuple[str, GroupConfig], ...]:
        if not isinstance(tables, dict):
            self._blame((_GROUP,), _stray(_GROUP, tables))
            return ()
        found = []
        for name, table in tables.items():
            where = f"[group.{_shown(name)}]"
            if not isinstance(table, dict):
                reason = f"group.{_shown(name)}: must be a section: write [group.NAME]"
                self._blame((_GROUP, name), reason)
            elif not re.fullmatch(GROUP_NAME, name, re.ASCII):
                self._blame((_GROUP, name), f"{where}: {_NO_GROUP_NAME}")
            else:
                values = self._values((_GROUP, name), where, table, _OF_GROUP)
                found.append((name, GroupConfig(**values)))
        return tuple(found)

    def _check_groups(self, config: Config, tables: object) -> None:
        """Blame what names a group that there is not."""
        known = tables if isinstance(tables, dict) else {}
        said: list[tuple[str, Key, object]] = [("[disk]", ("disk",), config.disk.limit_group)]
        for index, override in zip(self.kept, config.overrides, strict=True):
            name = dict(override.values).get("limit_group", "")
            said.append((f"[[override]] {index + 1}", (_OVERRIDE, index), name))
        for where, path, name in said:
            if name and name not in known:
                reason = f"there is no section [group.{name}]{_meant_of(name, tuple(known))}"
                told = f"{where} limit_group = {spelled(name)}: {reason}"
                self._blame((*path, "limit_group"), told)

    def _overrides(self, tables: object) -> tuple[Override, ...]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._blame((_OVERRIDE,), "override: must be sections: write [[override]]")
            return ()
        found = (self._override(index, table) for index, table in enumerate(tables))
        return tuple(override for override in found if override is not None)

    def _override(self, index: int, table: Mapping[str, Any]) -> Override | None:
        path: Key = (_OVERRIDE, index)
        where = f"[[override]] {index + 1}"
        before = len(self.faults)
        known = {**dict.fromkeys(MATCHES), **_DEFAULTS["disk"]}
        values = self._values(path, where, table, known)
        if table.keys() <= known.keys():  # else what is missing may be there, misspelt
            if not any(name in table for name in MATCHES):
                names = ", ".join(MATCHES)
                self._blame(path, f"{where}: must have at least one of {names}")
            if not any(name in _DEFAULTS["disk"] for name in table):
                keys = ", ".join(_DEFAULTS["disk"])
                self._blame(path, f"{where}: changes nothing; known are {keys}")
        if len(self.faults) > before:
            return None
        matches = {name: values.pop(name, None) for name in MATCHES}
        self.kept.append(index)
        in_order = tuple((key, values[key]) for key in _DEFAULTS["disk"] if key in values)
        return Override(**matches, values=in_order)


def _stray(name: str, value: object) -> str:
    """What to say of something outside of the sections."""
    shown = _shown(name)
    homes = [_HEADINGS[section] for section in _BY_USE if name in _DEFAULTS[section]]
    if homes and not isinstance(value, dict):
        return f"{shown}: must be in a section: write {homes[0]} above it"
    meant = _close(name, tuple(_HEADINGS))
    known = ", ".join(_HEADINGS.values())
    hint = f"did you mean {_HEADINGS[meant]}?" if meant else f"known are {known}"
    return f"{shown}: unknown section; {hint}"


def _unknown(key: str, known: Mapping[str, object]) -> str:
    """What to say of a key that a section has not."""
    other = next((name for name in _BY_USE if key in _DEFAULTS[name]), None)
    if other is not None:
        return f"{key}: unknown key here; it belongs to {_HEADINGS[other]}"
    meant = _close(key, tuple(known))
    hint = f"did you mean {meant}?" if meant else f"known are {', '.join(known)}"
    return f"{_shown(key)}: unknown key; {hint}"


def _shown(name: str) -> str:
    return cut(name) if re.fullmatch("[A-Za-z0-9_-]+", name) else spelled(name)


def _close(word: str, known: tuple[str, ...]) -> str | None:
    """What was probably meant."""
    plain = word.lower().replace("-", "_")
    return next(iter(get_close_matches(plain, known, n=1, cutoff=0.6)), None)


# Values.  Each function returns one as the configuration has it, or raises
# OperatorError that says what is allowed.


def _value(key: str, value: object, default: object) -> object:
    """Check one value; what its default is tells what it must be, unless it has a rule."""
    if key in _RULES:
        return _RULES[key](value)
    if isinstance(default, bool):
        return _switch(value)
    if key in CHOICES:
        return _choice(value, CHOICES[key])
    if isinstance(default, int):
        return _number(value, *RANGES[key])
    return _path(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        word: object = {0: "false", 1: "true"}.get(value, value) if type(value) is int else value
        meant = _close(word, ("true", "false")) if isinstance(word, str) else None
        raise OperatorError("must be true or false" + _meant(meant))
    return value


def _choice(value: object, choices: tuple[int, ...]) -> int:
    if type(value) is not int or value not in choices:
        raise OperatorError(f"must be {' or '.join(map(str, choices))}")
    return value


def _number(value: object, low: int, high: int) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) and low <= int(value) <= high:
        raise OperatorError(f"must be a whole number, {low} to {high}" + _meant(str(int(value))))
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OperatorError(f"must be a whole number, {low} to {high}")
    return value


def _bytes(value: object) -> int:
    """Of bytes a second: a number, or one with a unit, as "20M"."""
    low, most = RANGES["bytes_max"]
    found = value
    if isinstance(value, str):
        match = re.fullmatch("([0-9]{1,15})([KMGT])(?:i?B)?", value, re.ASCII)
        found = int(match[1]) << _UNITS[match[2]] if match else None
    if type(found) is not int or not low <= found <= most:
        raise OperatorError(f'must be a whole number, {low} to {most}, or such as "20M"')
    if 0 < found < LEAST_BYTES:
        raise OperatorError(f"must be 0, or {LEAST_BYTES} to {most}")
    return found


def _limit_group(value: object) -> str:
    if value != "" and not (isinstance(value, str) and re.fullmatch(GROUP_NAME, value, re.ASCII)):
        raise OperatorError(_NO_GROUP_NAME)
    return str(value)


def _indirect_segments(value: object) -> int:
    if type(value) is int and value in range(1, 11):
        raise OperatorError("must be 0, or 11 to 256")
    return _number(value, *RANGES["max_indirect_segments"])


def _one_of(value: object, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        raise OperatorError(f"must be one of {_listed(words)}" + _meant_of(value, words))
    return value


def _account(value: object, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value):
        raise OperatorError(f"must be the name of a {what}")
    return value


def _metrics(value: object) -> str:
    parse_address(value)
    return str(value)


def _cpus(value: object) -> str:
    if not isinstance(value, str):
        meant = spelled(str(value)) if type(value) is int and 0 <= value < MOST_CPUS else None
        raise OperatorError('must be text like "0-3,6"' + _meant(meant))
    parse_cpus(value)
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise OperatorError("must be an absolute path")
    return value


def _names(value: object, allowed: tuple[str, ...], least: int) -> tuple[str, ...]:
    some = f"must be a list of {'at least one' if least else 'any'} of {_listed(allowed)}"
    if not isinstance(value, list):
        raise OperatorError(some + (_meant(f"[{spelled(value)}]") if value in allowed else ""))
    strange = [item for item in value if not isinstance(item, str) or item not in allowed]
    if strange:
        told = ", ".join(map(spelled, strange))
        raise OperatorError(f"{some}, not {told}" + _meant_of(strange[0], allowed))
    if len(value) < least:
        raise OperatorError(some)
    if len(value) != len(set(value)):
        raise OperatorError(f"{some}, each once")
    return tuple(value)


def _pattern(value: object) -> str:
    text = _text(value)
    if not can_fit(text):
        raise OperatorError(
            "fits no disk, since their paths are absolute" + _meant(spelled(f"/dev/{text}"))
        )
    return text


def _guest(value: object) -> str:
    if type(value) is not int:
        return _text(value)
    if not 0 <= value <= _LARGEST_DOMID:
        raise OperatorError(f"must be a name, or a number, 0 to {_LARGEST_DOMID}")
    return str(value)


def _vdev(value: object) -> str:
    text = str(value) if type(value) is int and value.bit_length() <= 64 else _text(value)
    try:
        number = vdev_number(text)
    except OperatorError as error:
        reason = str(error).removeprefix(f"{text}: ")
        raise OperatorError(reason + _meant(_virtual_disk(f"x{text}"))) from None
    if number >= _RESERVED_VDEV:
        raise OperatorError(f"no virtual disk; numbers are up to {_RESERVED_VDEV - 1}")
    return vdev_name(number)


def _virtual_disk(name: str) -> str | None:
    """A name, quoted, if it is one."""
    try:
        return spelled(vdev_name(vdev_number(name)))
    except OperatorError:
        return None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise OperatorError("must be text that is not empty")
    return value


def _meant(text: str | None) -> str:
    return f"; did you mean {text}?" if text is not None else ""


def _meant_of(value: object, known: tuple[str, ...]) -> str:
    meant = _close(value, known) if isinstance(value, str) else None
    return _meant(spelled(meant) if meant is not None else None)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(spelled, names))


_RULES: Final[Mapping[str, Callable[[object], object]]] = {
    "max_indirect_segments": _indirect_segments,
    "transport": lambda value: _one_of(value, TRANSPORTS),
    "offload": lambda value: _one_of(value, OFFLOADS),
    "on_error": lambda value: _one_of(value, WORDS["on_error"]),
    "on_full": lambda value: _one_of(value, WORDS["on_full"]),
    "group": lambda value: _account(value, "group"),
    "user": lambda value: _account(value, "user"),
    "limit_group": _limit_group,
    **dict.fromkeys(("bytes_max", "read_bytes_max", "write_bytes_max"), _bytes),
    "cpus": _cpus,
    "metrics": _metrics,
    "kinds": lambda value: _names(value, KINDS, 1),
    "log": lambda value: _names(value, LOGS, 0),
    "path": _pattern,
    "guest": _guest,
    "vdev": _vdev,
}
