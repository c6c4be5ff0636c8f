"""The tree of names: what there is to read and to change, in the manner of sysctl(8).

Where values come from is hidden behind `Numbers`, so that neither rings nor
disks are known here; descriptions are in stats.py, ranges in config.py.  Pure,
control thread.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from xbbd_bsd.config import RANGES
from xbbd_bsd.control.protocol import Request, Value, Verb
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stats import COUNTERS, TUNABLES, oid

SWITCHES = (0, 1)  # the range of tunables that have none in config.py


class Numbers(Protocol):
    """What a device has to offer."""

    def tunables(self) -> Mapping[str, int]:
        """All tunables by name."""

    def counters(self) -> Mapping[str, int]:
        """All counters by name, of all rings together."""

    def set_tunable(self, name: str, value: int) -> None:
        """Change one."""

    def resize(self) -> None:
        """Look at the size of the disk now."""


class Tree:
    """All names of a daemon."""

    def __init__(self, devices: Callable[[], Mapping[int, Numbers]]) -> None:
        """`devices`: those there are now, by unit."""
        self._devices = devices

    def perform(self, request: Request) -> dict[str, Value]:
        """Do what a request wants; OperatorError."""
        match request.verb:
            case Verb.GET:
                return self._get(request.name)
            case Verb.SET:
                return self._set(request.name, request.value)
            case Verb.RESIZE:
                self._device(request.name).resize()
                return {}

    def _leaves(self) -> Iterator[tuple[str, Value]]:
        for unit, device in sorted(self._devices().items()):
            for name, value in {**device.tunables(), **device.counters()}.items():
                yield oid(unit, name), value

    def _get(self, name: str) -> dict[str, Value]:
        found = {
            leaf: value
            for leaf, value in self._leaves()
            if not name or leaf == name or leaf.startswith(f"{name}.")
        }
        if not found and name:
            raise OperatorError(f"unknown oid '{name}'")
        return found

    def _set(self, name: str, value: Value | None) -> dict[str, Value]:
        prefix, _, leaf = name.rpartition(".")
        device = self._device(prefix, whole=name)
        if leaf in COUNTERS:
            raise OperatorError(f"oid '{name}' is read only")
        if leaf not in TUNABLES:
            raise OperatorError(f"unknown oid '{name}'")
        low, high = RANGES.get(leaf, SWITCHES)
        if not isinstance(value, int) or not low <= value <= high:
            raise OperatorError(f"{name}={value}: must be a whole number, {low} to {high}")
        before = device.tunables()[leaf]
        device.set_tunable(leaf, value)
        return {name: before}

    def _device(self, name: str, whole: str | None = None) -> Numbers:
        for unit, device in self._devices().items():
            if name == oid(unit, "").rstrip("."):
                return device
        raise OperatorError(f"unknown oid '{whole or name}'")
