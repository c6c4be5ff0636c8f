"""What operators do, as events: all of it is logged, with who did it as the kernel says.

The rest of what the daemon can log is in events.py.  Pure.  Control thread.
"""

from dataclasses import dataclass

from xbbd_bsd.events import DeviceEvent, Event


@dataclass(frozen=True)
class SwitchSet(Event):
    """A value of the daemon was changed by hand."""

    text = "{name}: {before} -> {after}, set by {who}"
    name: str
    before: int
    after: int
    who: str


@dataclass(frozen=True)
class ValueSet(DeviceEvent):
    """A tunable or counter of a disk was changed by hand."""

    limited = False
    text = "{name}: {before} -> {after}, set by {who}"
    name: str
    before: int | str
    after: int | str
    who: str


@dataclass(frozen=True)
class SizeAsked(DeviceEvent):
    """Somebody had the size of a disk looked at, in sectors of 512 bytes."""

    limited = False
    text = "sectors: {before} -> {after}, looked at for {who}"
    before: int
    after: int
    who: str


@dataclass(frozen=True)
class PauseAsked(DeviceEvent):
    """Nothing of a disk is begun any more."""

    limited = False
    text = "paused by {who}: its guest waits until it is resumed"
    who: str


@dataclass(frozen=True)
class PauseEnded(DeviceEvent):
    """What was held back is begun again; for how long it was, in seconds."""

    limited = False
    text = "resumed by {who} after {seconds} s"
    seconds: int
    who: str


@dataclass(frozen=True)
class DiskSwapped(DeviceEvent):
    """A guest goes on with another disk in the place of the one that it had."""

    limited = False
    text = "{before} is exchanged for {after} by {who}"
    before: str
    after: str
    who: str


@dataclass(frozen=True)
class Noted(Event):
    """What an operator has done elsewhere, by the word of the command that did it."""

    text = "{who}: {words}"
    who: str
    words: str


@dataclass(frozen=True)
class DiskNoted(DeviceEvent):
    """The same of a disk of ours."""

    limited = False
    text = "{who}: {words}"
    who: str
    words: str


@dataclass(frozen=True)
class DiskCleared(Event):
    """An operator says that a disk may be opened again."""

    text = "{disk} may be opened again, whatever it has lost, says {who}"
    disk: str
    who: str


@dataclass(frozen=True)
class ErrorsCleared(Event):
    """An operator has seen to what failed on a disk, and to what its guest did wrong."""

    text = "{errors} errors of {disk} and {refused} of its guest are seen to, says {who}"
    disk: str
    errors: int
    refused: int
    who: str
