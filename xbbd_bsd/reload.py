"""The configuration of a running daemon: the file, what is in force, what came of the last look.

It reads the file, has it checked, and has what differs applied, or nothing of it:
the parts that it is applied to are hidden behind `Parts`.  Control thread.
"""

import os
from collections.abc import Callable, Mapping
from typing import Protocol

from xbbd_bsd.checks import Places, Running, faults
from xbbd_bsd.conffile import CONFIG_FILE, read_file
from xbbd_bsd.config import LATER, Config, DaemonConfig, difference
from xbbd_bsd.errors import Refused, XbbdError, in_words
from xbbd_bsd.events import ConfigurationRefused, Configured, KindsLeftOut
from xbbd_bsd.host import Host
from xbbd_bsd.journal import Journal

Answer = Mapping[str, tuple[str, str, str]]
"""What has changed, by key: before and after, as TOML has them, and a note, mostly empty."""


class Parts(Protocol):
    """What a configuration is applied to."""

    def closes(self, kinds: frozenset[str]) -> tuple[int, int, str]:
        """How many devices of these kinds there are, of how many guests, and what one is."""

    def listen(self, config: DaemonConfig) -> None:
        """Have the sockets for operators as it says; XbbdError or OSError, and nothing changes."""

    def apply(self, config: Config) -> None:
        """Have everything else as it says.  Raises nothing."""


class Configuration:
    """What is in force."""

    def __init__(
        self,
        config: Config,
        file: str | None,
        places: Places,
        *,
        host: Host,
        journal: Journal,
        wall: Callable[[], float],
    ) -> None:
        """`file` None: the default, which may be absent; `wall`: seconds since 1970."""
        self.config = config
        self._file = file
        self._places = places
        self._host = host
        self._journal = journal
        self._wall = wall
        self._refused: tuple[str, int] = ("", 0)

    def leaves(self) -> Mapping[str, int | str]:
        """What the daemon shows of it: the file, and whether its last state was refused."""
        reason, since = self._refused
        return {
            "configuration_file": self._file or CONFIG_FILE,
            "configuration_refused": reason,
            "configuration_refused_since": since,
        }

    def read_again(self, parts: Parts, who: str) -> Answer:
        """Read the file and apply what differs, which is returned and logged; `who` asked.

        Refused with everything that is wrong, also logged; all is as it was then.
        """
        try:
            new = self._checked()
            parts.listen(new.daemon)
        except (XbbdError, OSError) as error:
            lines = error.lines if isinstance(error, XbbdError) else (in_words(error),)
            for line in lines:
                self._journal(ConfigurationRefused(line))
            reason = "; ".join(lines)
            since = self._refused[1] or int(self._wall())
            self._refused = (reason, since)
            raise Refused(lines) from None
        self._refused = ("", 0)
        notes = dict.fromkeys(LATER, "at the next start")
        left_out = frozenset(self.config.daemon.kinds) - frozenset(new.daemon.kinds)
        devices, guests, noun = parts.closes(left_out)
        if devices:
            event = KindsLeftOut(", ".join(sorted(left_out)), devices, guests, noun)
            self._journal(event)
            notes["daemon.kinds"] = event.closes
        changes = {
            change.key: (*change.told(), notes.get(change.key, ""))
            for change in difference(self.config, new)
        }
        self.config = new
        parts.apply(new)
        told = (
            f"{key} {before} -> {after}" + (f" ({note})" if note else "")
            for key, (before, after, note) in changes.items()
        )
        self._journal(Configured("; ".join(told) or "nothing has changed", who))
        return changes

    def _checked(self) -> Config:
        reading = read_file(self._file)
        daemon = reading.config.daemon
        places = Places(
            daemon.state_dir or self._places.state_dir, daemon.pidfile or self._places.pidfile
        )
        running = Running(self._places, self.config.daemon.metrics or "")
        reading.refuse(
            *faults(
                reading, places, self._host, running=running, kept=self._places, pid=os.getpid()
            )
        )
        return reading.config
