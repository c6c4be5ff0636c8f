"""What is wrong with something, and what to do about it, as whoever judges it says it.

Pure declarations: who is well and who is not, families and control/health.py know.  Any
thread.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

BOUND: Final = 10.0  # seconds that a request may take, unless somebody says otherwise
MOST_BOUND: Final = 86_400.0
DAEMON: Final = "xbbd"  # the subject of what is no device's


class Severity(Enum):
    """How much it matters; a notice is for who asks for it, and nothing is wrong for it."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"

    @property
    def unwell(self) -> bool:
        """Whether somebody has to do something."""
        return self is not Severity.NOTICE


class Kind(Enum):
    """What sort of thing is wrong, for scripts."""

    ERRORS = "errors"
    HUNG = "hung"
    SLOW = "slow"
    PAUSED = "paused"
    PATH = "path"
    HELD_BACK = "held_back"
    CLOSED = "closed"
    GUEST = "guest"
    LINK = "link"
    STORE = "store"
    LOST = "lost"
    LIMIT = "limit"
    CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    `subject`: whose it is, as a device, the path of a disk that nobody has open, or DAEMON;
    `what` and `action` are sentences without a dot.  `when`: seconds since 1970 since
    when it is so, or when it was last so; None where that is not known.
    """

    severity: Severity
    kind: Kind
    subject: str
    what: str
    action: str
    when: float | None = None

    def to_values(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "severity": self.severity.value,
            "kind": self.kind.value,
            "subject": self.subject,
            "what": self.what,
            "action": self.action,
            "when": self.when,
        }
