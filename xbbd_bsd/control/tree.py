"""The tree of names: what there is to read and to change, in the manner of sysctl(8).

Where values come from is hidden behind `DaemonView` and `DeviceView`, so that
neither rings nor disks are known here; names, types and descriptions are in
oids.py, and in each driver's.  An answer is made device by device, as it is taken.  Errors are in
sysctl's words.  Pure, control thread.
"""

import errno
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from xbbd_bsd.control.health import bound_of, examine
from xbbd_bsd.control.protocol import FamilyVerb, Part, Request, Value, Values, Verb
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.findings import Finding
from xbbd_bsd.oids import DAEMON_ROOT, Driver, Leaf, Type, leaf_of, split

_INTEGER: Final = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_LONGEST: Final = 80  # digits of a number, far more than any range has
_RANGES: Final = {
    Type.INT: (-(1 << 31), (1 << 31) - 1),
    Type.UINT: (0, (1 << 32) - 1),
    Type.U64: (0, (1 << 64) - 1),
}

Key = tuple[str, int]
"""A device: its driver's name, and its unit."""

LogLine = tuple[float, str, str]
"""When (seconds since 1970), how severe, what."""

MOST_BEFORE: Final = 512  # lines that a follower can have of those before
NOTE_LENGTH: Final = 300  # characters of a note


class DeviceView(Protocol):
    """What a device has to show; all but `set`, `perform` and `note` only read.

    `who` of these is logged, with what was before and after.
    """

    def group(self, name: str) -> Mapping[str, Value]:
        """The values there are of a group of its driver's leaves."""

    def rings(self) -> Sequence[int]:
        """The numbers of the rings in use."""

    def ring(self, number: int) -> Mapping[str, Value]:
        """The values of one."""

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        """The records of devstat(9), and the histograms of latency."""

    def listed(self, names: Collection[str]) -> Mapping[str, Any]:
        """Those leaves of its driver's that there are, after whose it is and how it is."""

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

    def health(self, bound: float, shared: Sequence[Finding], *, alone: bool) -> list[Finding]:
        """What is wrong with it: see family.Numbers."""

    def perform(self, verb: str, who: str, value: str = "") -> Iterator[Part]:
        """Do one of its driver's verbs, with what it wants; the answer in parts, or XbbdError."""

    def note(self, words: str, who: str) -> None:
        """Log what somebody has done to it elsewhere."""


class Devices(Protocol):
    """Those that there are when they are asked for; to be asked costs nothing for each."""

    def __iter__(self) -> Iterator[Key]:
        """All, in any order."""

    def get(self, key: Key, /) -> DeviceView | None:
        """One, None if it is not there."""

    def at(self, directory: str) -> Key | None:
        """The one with that directory in XenStore, relative to our domain."""


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

    def health(self) -> list[Finding]:
        """What is wrong with it, and with what no device has."""

    def perform(self, verb: str, operand: str, who: str) -> Iterator[Part]:
        """Do a verb of some driver to what is no device; the answer in parts, or XbbdError."""

    def note(self, words: str, who: str) -> None:
        """Log what somebody has done elsewhere."""

    def reload(self, who: str) -> Mapping[str, Any]:
        """Read the configuration again; by key what has changed, or XbbdError."""


class Tree:
    """All names of a daemon."""

    def __init__(
        self,
        daemon: DaemonView,
        devices: Devices,
        drivers: Mapping[str, Driver],
    ) -> None:
        """`drivers`, by name: of all that there could be."""
        self._daemon = daemon
        self._devices = devices
        self._drivers = drivers
        self._all = ("", *(driver.root for driver in drivers.values()))

    def perform(self, request: Request) -> Iterator[Part]:
        """Do what a request wants; the answer in parts, or XbbdError."""
        name, who = request.name, request.who
        match request.verb:
            case Verb.GET:
                yield from self._get(name)
            case Verb.DESCRIBE:
                for values in self._get(name):
                    yield {oid: self._described(oid) for oid in values}
            case Verb.SET:
                yield self._set(name, request.value, who)
            case Verb.CONFIGURED:
                if name in ("", DAEMON_ROOT):
                    yield {f"{DAEMON_ROOT}.{n}": v for n, v in self._daemon.configured().items()}
                if name != DAEMON_ROOT:
                    for node, device in self._some(name):
                        yield {f"{node}.{n}": v for n, v in device.configured().items()}
            case FamilyVerb(verb) if name.startswith("/"):
                yield from self._daemon.perform(verb, name, who)
            case FamilyVerb(verb):
                device, driver = self._device(name), self._driver(name)
                if verb not in driver.verbs:
                    raise OperatorError(
                        f"{verb}: a {driver.noun} of {driver.name} has no such verb",
                        errno.EOPNOTSUPP,
                    )
                yield from device.perform(verb, who, str(request.value or ""))
            case Verb.RELOAD if name:
                raise OperatorError(f"{name}: all of the configuration is read", errno.EINVAL)
            case Verb.RELOAD:
                yield self._daemon.reload(who)
            case Verb.STAT:
                yield from self._stat(name, request.value)
            case Verb.INFLIGHT:
                for node, device in self._some(name):
                    yield {node: device.inflight()}
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

    def devices(self, name: str = "") -> Iterator[tuple[str, DeviceView]]:
        """The devices in order, by node: all, or those of the driver whose root is named.

        Those that go while an answer is taken are left out.
        """
        for driver, unit in sorted(self._devices):
            device = self._devices.get((driver, unit))
            if device is not None and name in ("", self._drivers[driver].root):
                yield self._drivers[driver].node(unit), device

    def _stat(self, name: str, wanted: Value | None) -> Iterator[Values]:
        names = str(wanted).split() if wanted not in (None, "latency") else None
        for node, device in self._some(name):
            if names is None:
                yield {node: device.stat(latency=wanted == "latency")}
            else:
                yield {node: device.listed(names)}

    def _health(self, name: str, bound: float) -> Iterator[Values]:
        shared = self._daemon.health()
        if name in self._all:
            found = examine(shared, self.devices(name), bound)
        else:
            found = iter([(name, self._device(name).health(bound, shared, alone=True))])
        for node, findings in found:
            yield {node: [finding.to_values() for finding in findings]}

    def _get(self, name: str) -> Iterator[Values]:
        found = False
        if _covers(name, DAEMON_ROOT) or name.startswith(f"{DAEMON_ROOT}."):
            values = {f"{DAEMON_ROOT}.{leaf}": v for leaf, v in self._daemon.values().items()}
            if chosen := _below(values, name):
                found = True
                yield chosen
        for node, device in self._below(name):
            if chosen := _below(_leaves(self._driver(node), node, device, name), name):
                found = True
                yield chosen
        if not found and name not in self._all:
            raise _unknown(name)

    def _below(self, name: str) -> Iterator[tuple[str, DeviceView]]:
        """The devices at or below a name, or the one that it is a part of; in order."""
        parts = split(name)
        if parts is None:
            return (found for found in self.devices() if _covers(name, found[0]))
        device, driver = self._devices.get(parts[:2]), self._drivers.get(parts[0])
        return iter(() if device is None or driver is None else [(driver.node(parts[1]), device)])

    def _note(self, path: str, words: str, who: str) -> str:
        """Whoever says it is trusted no further than that it is text of some length."""
        words = one_line(words)
        if len(words) > NOTE_LENGTH:
            words = f"{words[:NOTE_LENGTH]}..."
        key = self._devices.at(path)
        device = None if key is None else self._devices.get(key)
        if key is not None and device is not None:
            device.note(words, who)
            return self._drivers[key[0]].node(key[1])
        self._daemon.note(words, who)
        return ""

    def _set(self, name: str, value: Value | None, who: str) -> Values:
        leaf = leaf_of(name, self._drivers)
        parts = split(name)
        device = self._devices.get(parts[:2]) if parts is not None else None
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
        rest = name.removeprefix(f"{DAEMON_ROOT}.") if parts is None else parts[2]
        (self._daemon if device is None else device).set(rest, number, who)
        return before

    def _no_leaf(self, name: str) -> OperatorError:
        try:
            for _ in self._get(name):
                return OperatorError(f"oid '{name}' isn't a leaf node", errno.EISDIR)
        except OperatorError:
            pass
        return _unknown(name)

    def _driver(self, name: str) -> Driver:
        """That of a device, or of something below it; OperatorError."""
        parts = split(name)
        driver = self._drivers.get(parts[0]) if parts is not None else None
        if driver is None:
            raise _unknown(name)
        return driver

    def _device(self, name: str) -> DeviceView:
        driver = self._driver(name)
        unit, rest = driver.split(name) or (0, name)
        if rest:
            raise _unknown(name)
        device = self._devices.get((driver.name, unit))
        if device is None:
            raise OperatorError(f"no {driver.noun} {driver.name}{unit}", errno.ENOENT)
        return device

    def _some(self, name: str) -> Iterator[tuple[str, DeviceView]]:
        """All devices, those of a driver, or the one that is named."""
        if name in self._all:
            yield from self.devices(name)
        else:
            yield name, self._device(name)

    def _described(self, name: str) -> list[object]:
        leaf = leaf_of(name, self._drivers)
        assert leaf is not None, name
        return [leaf.type.value, leaf.writable, leaf.tunable, leaf.description]


def _number_of_lines(value: Value | None) -> int:
    """How many of the last lines are wanted; OperatorError."""
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value <= MOST_BEFORE:
        raise OperatorError(f"lines to begin with: must be 0 to {MOST_BEFORE}", errno.EINVAL)
    return value


def _unknown(name: str) -> OperatorError:
    return OperatorError(f"unknown oid '{name}'", errno.ENOENT)


def _covers(name: str, node: str) -> bool:
    """Whether a name is that node, or one above it."""
    return not name or node == name or node.startswith(f"{name}.")


def _below(values: Mapping[str, Value], name: str) -> dict[str, Value]:
    return {leaf: value for leaf, value in values.items() if _covers(name, leaf)}


def _leaves(driver: Driver, node: str, device: DeviceView, name: str) -> dict[str, Value]:
    """The leaves of a device, of those groups that a name asks for."""
    rest = "" if _covers(name, node) else name.removeprefix(f"{node}.")
    if rest in driver.group_of:
        values = device.group(driver.group_of[rest])
        return {name: values[rest]} if rest in values else {}
    found: dict[str, Value] = {}
    for group, leaves in driver.groups.items():
        if not rest or any(_covers(rest, leaf.name) for leaf in leaves):
            values = device.group(group)
            found.update({f"{node}.{leaf}": value for leaf, value in values.items()})
    if not rest or rest.split(".")[0] == "ring":
        for number in device.rings():
            values = device.ring(number)
            found.update({f"{node}.ring.{number}.{n}": v for n, v in values.items()})
    return found


def _number(name: str, leaf: Leaf, value: Value | None) -> int:
    """A value as the number it must be; OperatorError in sysctl's words."""
    if leaf.words:
        word = str(value).strip()
        if word not in leaf.words:
            known = ", ".join(leaf.words)
            raise OperatorError(f"{name}={word:.80}: must be one of {known}", errno.EINVAL)
        return leaf.words.index(word)
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
