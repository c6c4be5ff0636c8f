"""What a disk is given of the configuration while it runs: tunables, and limits.

Limits of its guest and of its group it shares with other disks, in the daemon and in the
processes of guests: the words that they meet by are in files, which have names of ours
in the state directory and stay as long as somebody has such a disk.  Control thread.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from errno import EINVAL
from typing import Final

from xbbd_bsd.config import GROUP_NAME, Config, DiskConfig, rates_of
from xbbd_bsd.errors import HostError, OperatorError, in_words, printable
from xbbd_bsd.native import State
from xbbd_bsd.native.rates import Level, SharedRates
from xbbd_bsd.segmentfiles import remove_file
from xbbd_bsd.xenbus.family import Nodes

_PREFIX: Final = "rates."


class Allowances:
    """The words that disks share, of all guests and groups that have some."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._taken: dict[str, tuple[SharedRates, int]] = {}

    def take(self, name: str) -> SharedRates:
        """The words of that name, until `give_back`; HostError."""
        found, count = self._taken.get(name, (None, 0))
        if found is None:
            path = os.path.join(self._directory, _PREFIX + name)
            try:
                found = SharedRates(path)
            except OSError as error:
                text = f"unable to make {path}: {in_words(error)}"
                raise HostError(text, error.errno or 0) from None
        self._taken[name] = found, count + 1
        return found

    def give_back(self, name: str) -> None:
        """One who took them goes by them no more; the last one's file is removed."""
        found, count = self._taken[name]
        if count > 1:
            self._taken[name] = found, count - 1
            return
        del self._taken[name]
        found.close()
        remove_file(found.path)

    def settle(self) -> None:
        """All disks that there are have theirs: what else an earlier daemon left is nobody's."""
        for name in os.listdir(self._directory):
            if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in self._taken:
                remove_file(os.path.join(self._directory, name))


class Tuning:
    """One disk's."""

    def __init__(self, allowances: Allowances, domid: int, config: Callable[[], Config]) -> None:
        """`config`: the daemon's, as it is now."""
        self._allowances = allowances
        self._guest = f"guest.{domid}"
        self._config = config
        self._segment: State | None = None
        self._given: dict[str, int] = {}  # tunables, as last written by us
        self._node = ""  # the group that the toolstack named
        self._group = ""  # the one whose words it goes by
        self._shared: dict[Level, tuple[str, SharedRates]] = {}

    def read_node(self, backend: Nodes, *, adopts: bool = False) -> None:
        """See which group the toolstack names; OperatorError if there is none of that name.

        `adopts`: a disk that is served goes on, without one.
        """
        value = backend("limit-group") or b""
        name = os.fsdecode(value)
        if value and (
            not re.fullmatch(GROUP_NAME, name, re.ASCII) or self._config().group(name) is None
        ):
            if adopts:
                self._node = ""
                return
            text = (
                f"node limit-group is '{printable(value)}': xbbd.conf has no section [group.NAME]"
            )
            raise OperatorError(f"{text} of that name", EINVAL)
        self._node = name

    def apply(self, config: DiskConfig) -> DiskConfig:
        """Give it what differs from before; its configuration as it is with the node."""
        if self._node:
            config = replace(config, limit_group=self._node)
        segment = self._segment
        if segment is None:
            return config
        for name, value in config.tunables().items():
            # What has not changed may have been set by the operator meanwhile.
            if value != self._given.get(name):
                segment.set_tunable(name, value)
                self._given[name] = value
        whole = self._config()
        shared = whole.guest, whole.group(self._group)
        for level, section in zip((Level.GUEST, Level.GROUP), shared, strict=True):
            now = segment.rates(level)
            for name, value in rates_of(section).items():
                if value != now[name]:
                    segment.set_rate(level, name, value)
        return config

    def use(self, segment: State) -> None:
        """It is tuned by this segment from now on, and has been given nothing."""
        self._segment, self._given = segment, {}

    def share(self, config: DiskConfig) -> Mapping[Level, SharedRates]:
        """Its rings are about to be opened: the words that they go by; HostError.

        Those stay the same until `leave`, whatever is configured meanwhile.
        """
        assert self._segment is not None
        if not self._shared:
            self._group = config.limit_group
            names = {Level.GUEST: self._guest}
            if self._group:
                names[Level.GROUP] = f"group.{self._group}"
            for level, name in names.items():
                self._shared[level] = name, self._allowances.take(name)
                self._segment.share(level, self._shared[level][1])
            self.apply(config)
        return {level: rates for level, (_, rates) in self._shared.items()}

    @contextmanager
    def or_leave(self, *, but: type[Exception]) -> Iterator[None]:
        """Leave them if anything else is raised here: then there are no rings."""
        try:
            yield
        except but:
            raise
        except Exception:
            self.leave()
            raise

    def leave(self) -> None:
        """None of its rings is open: it goes by its own words until `share`."""
        for level, (name, _) in self._shared.items():
            if self._segment is not None:
                self._segment.share(level, None)
            self._allowances.give_back(name)
        self._shared, self._group = {}, ""

    def end(self) -> None:
        """Its segment is about to go."""
        self.leave()
        self._segment, self._given = None, {}
