"""The lines of the log for one who follows them: waits with them, but never with many.

A reader that is slower than the log is told how many lines it has missed, and costs
no more than LIMIT of them.  Who reads is not known here.  Pure.  Control thread.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

LIMIT: Final = 1024  # lines that wait


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the log, and what it is made of.

    `time` in seconds since 1970; `severity` as debug, info, warning, error; `device`
    as the journal has it, None for the daemon; `event`: the name of its class, with
    its `fields` but for the device; `text` is fit for a terminal.
    """

    time: float
    severity: str
    device: str | None
    event: str
    fields: Mapping[str, object]
    text: str

    @property
    def line(self) -> tuple[float, str, str]:
        """When, severity, text."""
        return self.time, self.severity, self.text

    def saying(self, more: str) -> "Record":
        """With more at the end of its text."""
        return replace(self, text=self.text + more)

    def values(self) -> dict[str, Any]:
        """As the control protocol has it: a device by its short name, fields that JSON knows."""
        return {
            "time": self.time,
            "severity": self.severity,
            "device": self.device.partition(" ")[0] if self.device is not None else None,
            "event": self.event,
            "fields": {
                name: value if isinstance(value, int | float | str) else str(value)
                for name, value in self.fields.items()
            },
            "text": self.text,
        }


class Feed:
    """What one reader has not taken yet."""

    def __init__(self, device: str | None, before: Iterable[Record] = ()) -> None:
        """Of a device, or of all (None); `before`: lines to begin with."""
        self.device = device
        self._waiting: deque[dict[str, Any]] = deque(record.values() for record in before)
        self._missed = 0
        self._ended = False
        self._wake: Callable[[], None] | None = None

    def add(self, record: Record) -> None:
        """A line was logged."""
        if self.device not in (None, record.device):
            return
        if len(self._waiting) >= LIMIT:
            self._missed += 1
            return
        self._say_missed()
        self._waiting.append(record.values())
        self._woken()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._woken()

    @property
    def over(self) -> bool:
        """Whether all was taken, and there will be no more."""
        return self._ended and not self._waiting and not self._missed

    def take(self) -> dict[str, Any] | None:
        """The next line, or {"missed": n} in the place of n lines; None if there is none yet."""
        if not self._waiting:
            self._say_missed()
        return self._waiting.popleft() if self._waiting else None

    def when_there(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once, when there is something to take or it is over."""
        self._wake = wake

    def _say_missed(self) -> None:
        if self._missed:
            self._waiting.append({"missed": self._missed})
            self._missed = 0

    def _woken(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
