"""The file of a passport: what whoever leaves a device at work says of it, by names.

A state segment is laid out as its version has it, and of use to nobody else; so this lies
beside it, for whatever version follows.  It is a file that no process which serves a guest
can write.  What is in it its family says, as dataclasses.  Any thread.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from enum import Enum, Flag
from errno import EINVAL
from typing import Any, Final, TypeVar, get_args, get_type_hints

from xbbd_bsd.errors import HostError, in_words

SUFFIX: Final = ".left"  # of its name, after the segment's
BEGUN: Final = ".begun"  # and once somebody has begun to serve what it says was answered
_LARGEST: Final = 1 << 20  # bytes

T = TypeVar("T")


def write(path: str, record: Mapping[str, Any], suffix: str = SUFFIX) -> None:
    """Leave a record beside the segment at `path`; HostError."""
    text = json.dumps(_plain(record), indent=1)
    draft = f"{path}{suffix}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
        os.rename(draft, f"{path}{suffix}")
    except OSError as error:
        raise HostError(f"{draft}: {error.strerror}", error.errno or 0) from None


def read(path: str, made: Callable[[Mapping[str, Any]], T], suffix: str = SUFFIX) -> T | None:
    """What `made` makes of the one beside the segment at `path`, None if there is none.

    HostError if it is none; `made` may raise ValueError, KeyError, TypeError, AttributeError.
    """
    path += suffix
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii") as file:
            return made(json.loads(file.read(_LARGEST)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(in_words(error), error.errno or EINVAL) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(f"{path} is like none of ours: {in_words(error)}", EINVAL) from None


def begin(path: str) -> None:
    """Have it say nothing any more to a version that cannot read the segment; HostError."""
    _rename(path + SUFFIX, path + BEGUN)


def rest(path: str) -> None:
    """After `begin`, and nobody serves it: have it say the same as ever."""
    with suppress(HostError):
        _rename(path + BEGUN, path + SUFFIX)


def _rename(this: str, that: str) -> None:
    try:
        os.rename(this, that)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HostError(f"{that}: {error.strerror}", error.errno or 0) from None


def remove(path: str, *suffixes: str) -> None:
    """Remove what lies beside the segment at `path`, if anything does; its passport anyway."""
    for suffix in (SUFFIX, BEGUN, *suffixes):
        with suppress(OSError):
            os.unlink(path + suffix)


def dataclass_of(kind: type[T], found: Mapping[str, Any]) -> T:
    """A dataclass from its fields by name; what this version does not know is left out."""
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    given = {name: _value(known[name], found[name]) for name in known.keys() & found.keys()}
    return kind(**given)


def rings_of(kind: type[T], found: Mapping[str, Any]) -> Mapping[int, T]:
    """What each ring was made of; ValueError if there are none."""
    if not found:
        raise ValueError("it has no rings")
    return {int(ring): dataclass_of(kind, of) for ring, of in found.items()}


def counters_of(found: Mapping[str, Any]) -> Mapping[int, Mapping[str, int]]:
    """The counters of each ring."""
    return {
        int(ring): {str(name): int(count) for name, count in counts.items()}
        for ring, counts in found.items()
    }


def check_format(found: Mapping[str, Any], ours: int) -> None:
    """ValueError if it has what must not be left out, and we do not know."""
    if found["format"] != ours:
        raise ValueError(f"format {found['format']}")


def _plain(value: Any) -> Any:
    """As JSON has it: numbers with a name by that, several in one by theirs; bytes as hex."""
    if isinstance(value, Flag):
        return [bit.name for bit in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, tuple):
        return [_plain(of) for of in value]
    return value


def _value(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Flag):
        return kind(sum(kind[name].value for name in set(value)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[value]
    if bytes in get_args(kind):
        return None if value is None else bytes.fromhex(value)
    if isinstance(value, list):
        return tuple(_whole(of) for of in value)
    if kind is int:
        return _whole(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"a field is no {kind.__name__}")
    return value


def _whole(value: Any) -> int:
    """A number that fits a field of the contract, or -1."""
    if type(value) is not int or not -1 <= value < 1 << 32:
        raise ValueError("a number is out of range, or none")
    return value
