"""What the next daemon has to know of a disk that is left at work, whatever version it is.

A state segment is laid out as its version has it, and of use to nobody else.  So a daemon
that leaves writes beside each what was agreed with the guest and how the disk is open, by
names.  It is a file that no process which serves a guest can write.  Any thread.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from enum import Enum
from errno import EINVAL
from typing import Any, Final, TypeVar, get_type_hints

from xbbd_bsd.errors import HostError, in_words
from xbbd_bsd.native import QueueParams, SegmentIdentity, SegmentMedium

SUFFIX: Final = ".left"  # of its name, after the segment's
NOTE: Final = ".swap"  # likewise, of what is about to hold of a disk that is exchanged
FORMAT: Final = 1  # a higher one has what must not be left out
_LARGEST: Final = 1 << 20  # bytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Passport:
    """Of one disk; `params` and `counters` by ring.

    `served`: our node of that name, as it was when the guest connected.  `answered`: nothing
    was left unanswered; else a process serves on, and has to hand over first.  `paused`:
    nothing of it is to be begun.
    """

    identity: SegmentIdentity
    medium: SegmentMedium
    params: Mapping[int, QueueParams]
    counters: Mapping[int, Mapping[str, int]]
    served: str
    answered: bool
    paused: bool = False


def write(path: str, passport: Passport, suffix: str = SUFFIX) -> None:
    """Leave it beside the segment at `path`; HostError."""
    text = json.dumps({"format": FORMAT, **_plain(asdict(passport))}, indent=1)
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


def read(path: str, suffix: str = SUFFIX) -> Passport | None:
    """The one beside the segment at `path`, None if there is none; HostError if it is none."""
    path += suffix
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii") as file:
            return _passport(json.loads(file.read(_LARGEST)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(in_words(error), error.errno or EINVAL) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(f"{path} is like none of ours: {in_words(error)}", EINVAL) from None


def remove(path: str) -> None:
    """Remove it, if there is one, and what was noted of an exchange."""
    for suffix in (SUFFIX, NOTE):
        with suppress(OSError):
            os.unlink(path + suffix)


def _passport(found: Mapping[str, Any]) -> Passport:
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']}")
    if not found["params"]:
        raise ValueError("it has no rings")
    medium = dict(found["medium"])
    kind, device, inode = medium.pop("key")
    return Passport(
        _made(SegmentIdentity, found["identity"]),
        _made(SegmentMedium, {**medium, "key": (str(kind), int(device), int(inode))}),
        {int(ring): _made(QueueParams, of) for ring, of in found["params"].items()},
        {
            int(ring): {str(name): int(count) for name, count in counts.items()}
            for ring, counts in found["counters"].items()
        },
        str(found["served"]),
        found["answered"] is True,
        found.get("paused") is True,
    )


def _plain(value: Any) -> Any:
    """As JSON has it: numbers with a name by that."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, tuple):
        return [_plain(of) for of in value]
    return value


def _made(kind: type[T], found: Mapping[str, Any]) -> T:
    """A dataclass from its fields by name; what this version does not know is left out."""
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    given = {name: _value(known[name], found[name]) for name in known.keys() & found.keys()}
    return kind(**given)


def _value(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[value]
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
