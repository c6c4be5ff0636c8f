"""The tree of names: what there is to read and to change, in the manner of sysctl(8).

Where values come from is hidden behind `DaemonView` and `DeviceView`, so that
neither rings nor disks are known here; names, types and descriptions are in
oids.py.  An answer is made device by device, as it is taken.  Errors are in
sysctl's words.  Pure, control thread.
"""

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from xbbd_bsd.control.health import DaemonFacts, DiskFacts, bound_of, examine, of_one
from xbbd_bsd.control.protocol import Part, Request, Value, Values, Verb
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.oids import DAEMON_ROOT, GROUP_OF, GROUPS, ROOT, Leaf, Type, leaf_of, oid, split

_INTEGER: Final = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_LONGEST: Final = 80  # digits of a number, far more than any range has
_RANGES: Final = {
    Type.INT: (-(1 << 31), (1 << 31) - 1),
    Type.UINT: (0, (1 << 32) - 1),
    Type.U64: (0, (1 << 64) - 1),
}

LogLine = tuple[float, str, str]
"""When (seconds since 1970), how severe, what."""

MOST_BEFORE: Final = 512  # lines that a follower can have of those before
NOTE_LENGTH: Final = 300  # characters of a note


class DeviceView(Protocol):
    """What a device has to show; all but the last three only read.

    `who` of these is logged, with what was before and after.
    """

    def group(self, name: str) -> Mapping[str, Value]:
        """The values there are of a group of leaves (oids.GROUPS)."""

    def rings(self) -> Sequence[int]:
        """The numbers of the rings in use."""

    def ring(self, number: int) -> Mapping[str, Value]:
        """The values of one."""

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        """The records of devstat(9), and the histograms of latency."""

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        """The requests in flight."""

    def log(self) -> Sequence[LogLine]:
        """Its last events."""

    def follow(self, last: int) -> Iterator[Part]:
        """Its last lines that were logged, and each from now on; ends with the device."""

    def configured(self) -> Mapping[str, Value]:
        """What the configuration says of the leaves that can be written."""

    def set(self, name: str, value: int, who: str) -> None:
        """Change a tunable or a counter; OperatorError that says what is allowed."""

    def health(self) -> DiskFacts:
        """How it is."""

    def resize(self, who: str) -> Callable[[], bool]:
        """Look at the size of the disk now; whether that has ended, or XbbdError."""

    def note(self, words: str, who: str) -> None:
        """Log what somebody has done to it elsewhere."""


class DaemonView(Protocol):
    """What the daemon itself has to show."""

    def values(self) -> Mapping[str, Value]:
        """All its leaves."""

    def log(self) -> Sequence[LogLine]:
        """The last lines it has logged."""

    def follow(self, last: int) -> Iterator[Part]:
        """These, as many as are wanted, and each from now on."""

    def configured(self) -> Mapping[str, Value]:
        """What the configuration says of the leaves that can be written."""

    def set(self, name: str, value: int, who: str) -> None:
        """Change a leaf that is writable; OperatorError."""

    def health(self) -> DaemonFacts:
        """How it is."""

    def clear(self, path: str, who: str) -> Callable[[], bool]:
        """Have a disk opened again that has lost something, and its errors forgotten.

        Whether that has ended, or XbbdError; OperatorError if there is neither.
        """

    def note(self, words: str, who: str) -> None:
        """Log what somebody has done elsewhere."""

    def reload(self, who: str) -> Mapping[str, Any]:
        """Read the configuration again; by key what has changed, or XbbdError."""


class Tree:
    """All names of a daemon."""

    def __init__(self, daemon: DaemonView, devices: Callable[[], Mapping[int, DeviceView]]) -> None:
        """`devices`: those there are now, by unit."""
        self._daemon = daemon
        self._devices = devices

    def perform(self, request: Request) -> Iterator[Part]:
        """Do what a request wants; the answer in parts, or XbbdError."""
        name, who = request.name, request.who
        match request.verb:
            case Verb.GET:
                yield from self._get(name)
            case Verb.DESCRIBE:
                for values in self._get(name):
                    yield {oid: _described(oid) for oid in values}
            case Verb.SET:
                yield self._set(name, request.value, who)
            case Verb.CONFIGURED:
                if name in ("", DAEMON_ROOT):
                    yield {f"{DAEMON_ROOT}.{n}": v for n, v in self._daemon.configured().items()}
                if name != DAEMON_ROOT:
                    for unit, device in self._some(name):
                        yield {oid(unit, n): v for n, v in device.configured().items()}
            case Verb.RESIZE:
                device = self._device(name)
                before = device.group("medium").get("sectors")
                yield from _until(device.resize(who))
                if before is not None:
                    yield {f"{name}.sectors": before}
            case Verb.CLEAR if name.startswith("/"):
                yield from _until(self._daemon.clear(name, who))
            case Verb.CLEAR:
                yield from _until(self._daemon.clear(self._path(name), who))
            case Verb.RELOAD if name:
                raise OperatorError(f"{name}: all of the configuration is read", errno.EINVAL)
            case Verb.RELOAD:
                yield self._daemon.reload(who)
            case Verb.STAT:
                latency = request.value == "latency"
                for unit, device in self._some(name):
                    yield {_root(unit): device.stat(latency=latency)}
            case Verb.INFLIGHT:
                for unit, device in self._some(name):
                    yield {_root(unit): device.inflight()}
            case Verb.HEALTH:
                yield from self._health(name, bound_of(request.value))
            case Verb.LOG if name:
                yield {name: self._device(name).log()}
            case Verb.LOG:
                yield {"": self._daemon.log()}
            case Verb.EVENTS:
                last = _number_of_lines(request.value)
                yield from (self._device(name) if name else self._daemon).follow(last)
            case Verb.NOTE:
                yield {"device": self._note(name, str(request.value), who)}

    def _health(self, name: str, bound: float) -> Iterator[Values]:
        facts = self._daemon.health()
        found = examine(facts, self._each(), bound)
        if name not in ("", ROOT):
            found = iter([(name, of_one(facts, self._device(name).health(), bound))])
        for root, findings in found:
            yield {root: [finding.to_values() for finding in findings]}

    def _path(self, name: str) -> str:
        return str(self._device(name).group("medium").get("path", ""))

    def _get(self, name: str) -> Iterator[Values]:
        found = False
        if _covers(name, DAEMON_ROOT) or name.startswith(f"{DAEMON_ROOT}."):
            values = {f"{DAEMON_ROOT}.{leaf}": v for leaf, v in self._daemon.values().items()}
            if chosen := _below(values, name):
                found = True
                yield chosen
        for unit, device in self._each():
            if not (_covers(name, _root(unit)) or name.startswith(f"{_root(unit)}.")):
                continue
            if chosen := _below(_leaves(unit, device, name), name):
                found = True
                yield chosen
        if not found and name not in ("", ROOT):
            raise _unknown(name)

    def _note(self, path: str, words: str, who: str) -> str:
        """Whoever says it is trusted no further than that it is text of some length."""
        words = one_line(words)
        if len(words) > NOTE_LENGTH:
            words = f"{words[:NOTE_LENGTH]}..."
        for unit, device in self._each():
            if device.group("xenbus").get("xenstore_path") == path:
                device.note(words, who)
                return _root(unit)
        self._daemon.note(words, who)
        return ""

    def _set(self, name: str, value: Value | None, who: str) -> Values:
        leaf = leaf_of(name)
        parts = split(name)
        device = self._devices().get(parts[0]) if parts is not None else None
        if leaf is None or (parts is not None and device is None):
            raise self._no_leaf(name)
        before = next(iter(self._get(name)))
        if not leaf.writable:
            if leaf.tunable:
                raise OperatorError(
                    f"oid '{name}' is a read only tunable: it is set in xbbd.conf", errno.EPERM
                )
            raise OperatorError(f"oid '{name}' is read only", errno.EPERM)
        number = _number(name, leaf, value)
        below = f"{DAEMON_ROOT}." if device is None else f"{ROOT}.{parts[0] if parts else ''}."
        (self._daemon if device is None else device).set(name.removeprefix(below), number, who)
        return before

    def _no_leaf(self, name: str) -> OperatorError:
        try:
            for _ in self._get(name):
                return OperatorError(f"oid '{name}' isn't a leaf node", errno.EISDIR)
        except OperatorError:
            pass
        return _unknown(name)

    def _device(self, name: str) -> DeviceView:
        parts = split(name)
        if parts is None or parts[1]:
            raise _unknown(name)
        if parts[0] not in self._devices():
            raise OperatorError(f"no disk xbbd{parts[0]}", errno.ENOENT)
        return self._devices()[parts[0]]

    def _each(self) -> Iterator[tuple[int, DeviceView]]:
        """The devices in order; those that go while an answer is taken are left out."""
        for unit in sorted(self._devices()):
            device = self._devices().get(unit)
            if device is not None:
                yield unit, device

    def _some(self, name: str) -> Iterator[tuple[int, DeviceView]]:
        """All devices, or the one that is named."""
        if name in ("", ROOT):
            yield from self._each()
            return
        parts = split(name)
        yield (parts[0] if parts else 0), self._device(name)


def _number_of_lines(value: Value | None) -> int:
    """How many of the last lines are wanted; OperatorError."""
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value <= MOST_BEFORE:
        raise OperatorError(f"lines to begin with: must be 0 to {MOST_BEFORE}", errno.EINVAL)
    return value


def _until(ended: Callable[[], bool]) -> Iterator[None]:
    while not ended():
        yield None


def _root(unit: int) -> str:
    return f"{ROOT}.{unit}"


def _unknown(name: str) -> OperatorError:
    return OperatorError(f"unknown oid '{name}'", errno.ENOENT)


def _covers(name: str, node: str) -> bool:
    """Whether a name is that node, or one above it."""
    return not name or node == name or node.startswith(f"{name}.")


def _below(values: Mapping[str, Value], name: str) -> dict[str, Value]:
    return {leaf: value for leaf, value in values.items() if _covers(name, leaf)}


def _leaves(unit: int, device: DeviceView, name: str) -> dict[str, Value]:
    """The leaves of a device, of those groups that a name asks for."""
    root = _root(unit)
    rest = "" if _covers(name, root) else name.removeprefix(f"{root}.")
    if rest in GROUP_OF:
        values = device.group(GROUP_OF[rest])
        return {name: values[rest]} if rest in values else {}
    found: dict[str, Value] = {}
    for group, leaves in GROUPS.items():
        if not rest or any(_covers(rest, leaf.name) for leaf in leaves):
            values = device.group(group)
            found.update({f"{root}.{leaf}": value for leaf, value in values.items()})
    if not rest or rest.split(".")[0] == "ring":
        for number in device.rings():
            values = device.ring(number)
            found.update({oid(unit, f"ring.{number}.{n}"): v for n, v in values.items()})
    return found


def _described(name: str) -> list[object]:
    leaf = leaf_of(name)
    assert leaf is not None, name
    return [leaf.type.value, leaf.writable, leaf.tunable, leaf.description]


def _number(name: str, leaf: Leaf, value: Value | None) -> int:
    """A value as the number it must be; OperatorError in sysctl's words."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise OperatorError(f"{name}: empty numeric value", errno.EINVAL)
        if not _INTEGER.fullmatch(text) or len(text) > _LONGEST:
            raise OperatorError(f"invalid {leaf.type.value} '{text:.80}'", errno.EINVAL)
        digits = text.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
        value = int(digits, 8 if octal else 0) * (-1 if text[0] == "-" else 1)
    assert value is not None
    if value.bit_length() > 4 * _LONGEST:
        raise OperatorError(f"{name}: the number is too large", errno.EINVAL)
    low, high = _RANGES[leaf.type]
    if not low <= value <= high:
        raise OperatorError(f"{name}={value}: must be {low} to {high}", errno.EINVAL)
    return value
