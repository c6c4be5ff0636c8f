"""A daemon with a few devices that are none, for those who ask about them."""

import errno
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from xbbd_bsd.block.health import DiskFacts, SharedFacts, of_one, of_shared
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.control.health import DaemonFacts, of_daemon
from xbbd_bsd.control.protocol import FamilyVerb, Part, Value
from xbbd_bsd.control.tree import Key, LogLine, Tree
from xbbd_bsd.errors import OperatorError, XbbdError
from xbbd_bsd.findings import Finding
from xbbd_bsd.oids import PROCESS

RESIZE, CLEAR = FamilyVerb("resize"), FamilyVerb("clear")
DRIVERS = {DRIVER.name: DRIVER}
NAMES = ("abi", "flush_interval", "disable_flush", "workers", "wr_req")


class Device:
    """A device's numbers; remembers which groups were asked for."""

    def __init__(self, wr_req: int, rings: Sequence[int] = ()) -> None:
        self.values: dict[str, dict[str, Value]] = {
            "tunables": {"flush_interval": 0, "disable_flush": 0},
            "counters": {"wr_req": wr_req},
            "medium": {"abi": "native"},
            "limits": {"workers": 8},
        }
        self.asked: list[str] = []
        self.in_use = rings
        self.looks = self.waited = 0
        self.unit = 0
        self.ages: list[float] = []
        self.noted: list[tuple[str, str]] = []
        self.cleared: list[str] = []

    def group(self, name: str) -> Mapping[str, Value]:
        self.asked.append(name)
        return self.values.get(name, {})

    def rings(self) -> Sequence[int]:
        return self.in_use

    def ring(self, number: int) -> Mapping[str, Value]:
        return {"req_cons": number * 10}

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        facts = ("guest", "vdev", "path", "mode", "hung_seconds", *(leaf.name for leaf in PROCESS))
        medium = {name: v for name, v in self.values["medium"].items() if name in facts}
        return {"domid": 7, "state": "Connected", "latency": latency, **medium} | self.values.get(
            "takeovers", {}
        )

    def listed(self, names: Collection[str]) -> Mapping[str, Any]:
        values = {name: value for group in self.values.values() for name, value in group.items()}
        return {"domid": 7, "state": "Connected"} | {n: values[n] for n in names if n in values}

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return [{"ring": 0}]

    def log(self) -> Sequence[LogLine]:
        return [(1.5, "info", "found")]

    def follow(self, last: int) -> Iterator[Part]:
        yield from ({"text": f"line {number}"} for number in range(last))

    def configured(self) -> Mapping[str, Value]:
        return {"flush_interval": 0, "disable_flush": 0}

    def note(self, words: str, who: str) -> None:
        self.noted.append((words, who))

    def set(self, name: str, value: int, who: str) -> None:
        if value == 99:
            raise OperatorError(f"{name}={value}: must be 0 to 98")
        self.noted.append((f"{name}={value}", who))
        group = "tunables" if name in self.values["tunables"] else "counters"
        self.values[group][name] = value

    def facts(self) -> DiskFacts:
        path = str(self.values["medium"].get("path", ""))
        return DiskFacts(self.unit, path=path, ages=self.ages)

    def health(self, bound: float, shared: Sequence[Finding], *, alone: bool) -> list[Finding]:
        return of_one(self.facts(), bound, shared, alone=alone)

    def perform(self, verb: str, who: str, value: str = "") -> Iterator[Part]:
        """A look at its size ends at the third time of asking."""
        if verb == "clear":
            if "path" not in self.values["medium"]:
                raise OperatorError(": it is not known to have lost anything", errno.ENOENT)
            self.cleared.append(str(self.values["medium"]["path"]))
            return
        assert verb == "resize"
        self.looks += 1
        before = self.values["medium"].get("sectors")
        if before is not None:
            self.values["medium"]["sectors"] = 16
        self.waited += 2
        yield None
        yield None
        if before is not None:
            yield {DRIVER.oid(self.unit, "sectors"): before}


class Devices:
    """Those that there are, whatever they are when it is asked."""

    def __init__(self, found: Callable[[], Mapping[Key, Device]]) -> None:
        self._found = found

    def __iter__(self) -> Iterator[Key]:
        return iter(self._found())

    def get(self, key: Key, /) -> Device | None:
        return self._found().get(key)

    def at(self, directory: str) -> Key | None:
        for key, device in self._found().items():
            if device.values.get("xenbus", {}).get("xenstore_path") == directory:
                return key
        return None


class Daemon:
    """The daemon's own leaves."""

    def __init__(self) -> None:
        self.leaves: dict[str, Value] = {"version": "1.0", "devices": 2, "log.data": 0}
        self.cleared: list[str] = []
        self.facts = DaemonFacts()
        self.shared = SharedFacts()
        self.noted: list[tuple[str, str]] = []
        self.changes: Mapping[str, Any] | XbbdError = {"disk.workers": ("8", "3", "")}

    def health(self) -> list[Finding]:
        return [*of_daemon(self.facts), *of_shared(self.shared)]

    def values(self) -> Mapping[str, Value]:
        return self.leaves

    def log(self) -> Sequence[LogLine]:
        return [(0.5, "info", "serving")]

    def follow(self, last: int) -> Iterator[Part]:
        yield {"text": f"the last {last}"}

    def configured(self) -> Mapping[str, Value]:
        return {"log.data": 0}

    def note(self, words: str, who: str) -> None:
        self.noted.append((words, who))

    def set(self, name: str, value: int, who: str) -> None:
        self.noted.append((f"{name}={value}", who))
        self.leaves[name] = value

    def perform(self, verb: str, operand: str, who: str) -> Iterator[Part]:
        assert verb == "clear"
        if operand not in ("/vm.img", "/disk"):
            raise OperatorError(f"{operand}: it is not known to have lost anything", errno.ENOENT)
        self.cleared.append(operand)
        yield None

    def reload(self, who: str) -> Mapping[str, Any]:
        if isinstance(self.changes, XbbdError):
            raise self.changes
        return self.changes


def tree_of(daemon: Daemon, devices: Mapping[int, Device]) -> Tree:
    """The names of that daemon, and of those disks by unit, whatever they are when it is asked."""

    def found() -> dict[Key, Device]:
        for unit, device in devices.items():
            device.unit = unit
        return {(DRIVER.name, unit): device for unit, device in devices.items()}

    return Tree(daemon, Devices(found), DRIVERS)
