"""The xenbus state machine of a backend: one table of joint states.

Everything that decides on a transition is in this file; nothing in it knows
which kind of device it is, or how an action is done.  Pure, any thread.

Theory of operation.  A watch only says "look again" and may hide several
changes, so the rules look at levels: our state, the guest's state, and facts
such as "medium open".  `decide` returns what the first row that fits says: an
action, the state to write after it, or both.  The caller does it, looks again,
and goes on until the answer is None.  An action that fails changes the facts
(`failure`), and the table goes on from there.

Checked against FreeBSD's blkback.c and xenbusb_back.c, Linux's
xen-blkback/xenbus.c and QEMU's xen-bus.c and xen-block.c.  Where they differ:

- Publish before the medium is named: libxl waits for InitWait before it runs
  the hotplug script (FreeBSD; Linux and QEMU too).
- A connected guest is served until it is Closed, gone, or starts over, even when
  we are told to close: it may want to flush (FreeBSD, Linux).  Its Closing is not
  the end: Linux of 2.6.36 to about 5.14 answers the detach of a mounted disk with
  it, goes on with I/O, and reaches Closed with the last user.  A guest that never
  reacts is the toolstack's to remove: its frontend vanishes, and that we obey.
- A guest that starts over is seen by its Initialising while we are Connected,
  since its Closed may have been hidden (none of the three can see this).  One
  that is already at Initialised when we are Closed is taken too (Linux).
- Closed means that nothing is held, not even the medium; it is opened again for the
  next connection (all three keep it open while the device is online).
- Frontend states that no frontend has (7, 8) end the connection (FreeBSD,
  Linux), InitWait does not (QEMU).  What is not a number counts as Unknown.
- A guest that was served when the daemon died is served again by the next one, which
  needs nothing of it (none of the three can: kernels do not die alone).
- A device offered to a guest whose driver never came is closed at once; the
  kernels would wait for that driver.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """States of xenbus.h, and GONE, which only a guest can be: it has no state node."""

    GONE = -1
    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8

    @property
    def node(self) -> bytes:
        """As it is written into a state node."""
        return b"%d" % self

    @property
    def label(self) -> str:
        """As xenbus.h spells it, e.g. "InitWait"."""
        return self.name.title().replace("_", "")


_STATES_BY_NODE: Final = {state.node: state for state in State if state is not State.GONE}


def parse_state(node: bytes | None) -> State:
    """The state that a state node holds: GONE if there is none, UNKNOWN for anything strange."""
    if node is None:
        return State.GONE
    return _STATES_BY_NODE.get(node, State.UNKNOWN)


class Queue(Enum):
    """The data path of a device."""

    NONE = "none"
    RUNNING = "running"
    DRAINING = "draining"
    DRAINED = "drained"
    FAILED = "failed"  # it stopped by itself and holds its ring still


class Failure(Enum):
    """What has failed since the device was last offered."""

    NONE = "none"
    ATTACH = "attach"  # the device cannot be offered; to be reported
    CONNECTION = "connection"  # this connection cannot be; to be reported
    REPORTED_ATTACH = "reported attach"
    REPORTED_CONNECTION = "reported connection"

    @property
    def reported(self) -> bool:
        return self in (Failure.REPORTED_ATTACH, Failure.REPORTED_CONNECTION)


class Action(Enum):
    """What the device has to do, in words for the log and the drawn table."""

    NONE = "-"
    WAIT = "wait"
    PUBLISH = "publish capabilities"
    OPEN = "open the medium"
    CONNECT = "connect the ring"
    ADOPT = "adopt"
    TELL = "tell what has changed"
    DRAIN = "drain"
    DISCONNECT = "disconnect the ring"
    CLOSE = "close the medium"
    FAIL = "report, take offline"
    REPORT = "report"
    REFUSE = "report the guest's state"
    ABANDON = "report the lost connection"
    RESET = "forget the failure"
    FORGET = "forget the device"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the table looks at.

    ours, guest: the two state nodes.  present: our nodes are there.  online:
    the toolstack wants the device.  announced: capabilities were published by
    this daemon.  named: the node that names the medium is there.  medium: it is
    open.  news: the frontend is to be told of a change.  guest_ready: the guest is
    in a state in which its kind of frontend wants to be connected.  withdrawn:
    the toolstack has written our state since an attach failure.  held_back: what
    a guest that comes back needs cannot be had just now.  adoptable: an earlier daemon
    served it, and we can go on.  stopping: the daemon
    leaves.  overdue: and cannot wait.
    """

    ours: State
    guest: State
    present: bool = True
    online: bool = True
    announced: bool = False
    named: bool = False
    medium: bool = False
    queue: Queue = Queue.NONE
    news: bool = False
    guest_ready: bool = False
    failure: Failure = Failure.NONE
    withdrawn: bool = False
    held_back: bool = False
    adoptable: bool = False
    stopping: bool = False
    overdue: bool = False

    @property
    def holding(self) -> bool:
        """Whether anything would be lost if the device were forgotten."""
        return self.medium or self.queue is not Queue.NONE


@dataclass(frozen=True, slots=True)
class Decision:
    """Do the action, then write the state, if any."""

    action: Action
    next: State | None


@dataclass(frozen=True, slots=True)
class Row:
    """One rule; `when` is the condition in words, `holds` in code."""

    ours: frozenset[State]
    guest: frozenset[State]
    when: str
    holds: Callable[[Facts], bool]
    action: Action
    next: State | None = None

    def fits(self, facts: Facts) -> bool:
        return facts.ours in self.ours and facts.guest in self.guest and self.holds(facts)


def _states(*states: State) -> frozenset[State]:
    return frozenset(states)


_S = State
_ANY: Final = frozenset(State)
_CONNECTED: Final = _states(_S.CONNECTED)
_NOT_CONNECTED: Final = _ANY - _CONNECTED
_ALIVE: Final = _states(_S.INITIALISED, _S.CONNECTED)
_USING: Final = _ALIVE | _states(_S.CLOSING)  # may still have requests, and make new ones
_THROUGH: Final = _ANY - _USING
_LEAVING: Final = _states(_S.CLOSING, _S.CLOSED, _S.UNKNOWN, _S.GONE)
_STRANGE: Final = _states(_S.RECONFIGURING, _S.RECONFIGURED)
_DRIVERLESS: Final = _states(_S.INITIALISING, _S.INIT_WAIT)
_LEFT: Final = _DRIVERLESS | _STRANGE | _states(_S.CLOSED, _S.UNKNOWN, _S.GONE)
_RETURNING: Final = _states(_S.INITIALISING, _S.INITIALISED)
_STOPPED: Final = (Queue.DRAINED, Queue.FAILED)


def _is_orphaned(facts: Facts) -> bool:
    can = facts.queue is Queue.NONE and facts.adoptable
    return can and facts.failure is Failure.NONE and not facts.overdue


# The first row that fits decides.
TABLE: Final[tuple[Row, ...]] = (
    # The toolstack took the nodes away: give everything back and write nothing.
    Row(_ANY, _ANY, "no nodes, queue running",
        lambda f: not f.present and f.queue is Queue.RUNNING, Action.DRAIN),
    Row(_ANY, _ANY, "no nodes, queue draining",
        lambda f: not f.present and f.queue is Queue.DRAINING, Action.WAIT),
    Row(_ANY, _ANY, "no nodes, queue stopped",
        lambda f: not f.present and f.queue in _STOPPED, Action.DISCONNECT),
    Row(_ANY, _ANY, "no nodes, medium open",
        lambda f: not f.present and f.medium, Action.CLOSE),
    Row(_ANY, _ANY, "no nodes",
        lambda f: not f.present, Action.FORGET),

    # Something failed.
    Row(_ANY, _ANY, "attach failed",
        lambda f: f.failure is Failure.ATTACH, Action.FAIL, _S.CLOSING),
    Row(_ANY, _ANY, "connection failed",
        lambda f: f.failure is Failure.CONNECTION, Action.REPORT, _S.CLOSING),
    Row(_states(_S.INIT_WAIT, _S.CONNECTED), _STRANGE, "always",
        lambda f: True, Action.REFUSE, _S.CLOSING),

    # An earlier daemon died under a guest that waits, or wants to close in peace.
    Row(_states(_S.CONNECTED, _S.CLOSING), _USING, "no queue, adoptable, held back",
        lambda f: _is_orphaned(f) and f.held_back, Action.WAIT),
    Row(_states(_S.CONNECTED, _S.CLOSING), _USING, "no queue, adoptable",
        lambda f: _is_orphaned(f), Action.ADOPT),
    # It has closed meanwhile; whoever still serves it gives it back before we say so.
    Row(_states(_S.CONNECTED, _S.CLOSING), _THROUGH, "no queue, adoptable",
        lambda f: _is_orphaned(f), Action.DRAIN, _S.CLOSING),

    # The daemon leaves: whoever is connected is asked to close, the rest is left as it is.
    Row(_ANY, _ANY, "overdue, queue running",
        lambda f: f.overdue and f.queue is Queue.RUNNING, Action.DRAIN),
    Row(_CONNECTED, _ALIVE, "stopping, queue running",
        lambda f: f.stopping and f.queue is Queue.RUNNING, Action.NONE, _S.CLOSING),
    Row(_NOT_CONNECTED, _ANY, "stopping, no queue, medium open",
        lambda f: f.stopping and f.queue is Queue.NONE and f.medium, Action.CLOSE),
    Row(_ANY - _states(_S.CONNECTED, _S.CLOSING), _ANY, "stopping, nothing held",
        lambda f: f.stopping and not f.holding, Action.FORGET),
    Row(_states(_S.CLOSING), _ALIVE | _DRIVERLESS, "stopping, nothing held",
        lambda f: f.stopping and not f.holding, Action.FORGET),
    Row(_states(_S.CLOSING), _states(_S.CLOSING), "overdue, nothing held",
        lambda f: f.overdue and not f.holding, Action.FORGET),

    # A queue that runs, or did.
    Row(_NOT_CONNECTED - _states(_S.CLOSING), _ANY, "queue running",
        lambda f: f.queue is Queue.RUNNING, Action.DRAIN),
    Row(_states(_S.CLOSING), _USING, "queue running",
        lambda f: f.queue is Queue.RUNNING, Action.WAIT),
    Row(_states(_S.CLOSING), _THROUGH, "queue running",
        lambda f: f.queue is Queue.RUNNING, Action.DRAIN),
    Row(_CONNECTED, _states(_S.CLOSING), "queue running",
        lambda f: f.queue is Queue.RUNNING, Action.NONE, _S.CLOSING),
    Row(_CONNECTED, _THROUGH, "queue running",
        lambda f: f.queue is Queue.RUNNING, Action.DRAIN, _S.CLOSING),
    Row(_CONNECTED, _ALIVE, "queue running, news",
        lambda f: f.queue is Queue.RUNNING and f.news, Action.TELL),
    Row(_CONNECTED, _ALIVE, "queue running",
        lambda f: f.queue is Queue.RUNNING, Action.WAIT),
    Row(_CONNECTED, _ANY, "queue draining or stopped",
        lambda f: f.queue is not Queue.NONE, Action.NONE, _S.CLOSING),
    Row(_CONNECTED, _ANY, "no queue",
        lambda f: f.queue is Queue.NONE, Action.ABANDON, _S.CLOSING),
    Row(_NOT_CONNECTED, _ANY, "queue draining",
        lambda f: f.queue is Queue.DRAINING, Action.WAIT),
    Row(_NOT_CONNECTED, _ANY, "queue stopped",
        lambda f: f.queue in _STOPPED, Action.DISCONNECT),

    # Offered, for the first time or again.  From here on there is no queue.
    Row(_states(_S.INITIALISING), _ANY, "failure reported",
        lambda f: f.failure.reported, Action.RESET),
    Row(_states(_S.INITIALISING), _ANY, "medium open",
        lambda f: f.medium, Action.CLOSE),
    Row(_states(_S.INITIALISING), _ANY - _states(_S.GONE), "always",
        lambda f: True, Action.PUBLISH, _S.INIT_WAIT),

    # On the way up.
    Row(_states(_S.INIT_WAIT), _LEAVING, "always",
        lambda f: True, Action.NONE, _S.CLOSING),
    Row(_states(_S.INIT_WAIT), _ANY, "not announced",
        lambda f: not f.announced, Action.PUBLISH, _S.INIT_WAIT),
    Row(_states(_S.INIT_WAIT), _ANY, "held back",
        lambda f: f.held_back, Action.WAIT),
    Row(_states(_S.INIT_WAIT), _ANY, "medium named, medium closed",
        lambda f: f.named and not f.medium, Action.OPEN),
    Row(_states(_S.INIT_WAIT), _ALIVE, "medium open, ready",
        lambda f: f.medium and f.guest_ready, Action.CONNECT, _S.CONNECTED),

    # On the way down.
    Row(_states(_S.CLOSING, _S.CLOSED), _ANY, "medium open",
        lambda f: f.medium, Action.CLOSE),
    Row(_states(_S.CLOSING), _DRIVERLESS, "attach failed, not withdrawn",
        lambda f: f.failure is Failure.REPORTED_ATTACH and not f.withdrawn, Action.WAIT),
    Row(_states(_S.CLOSING), _LEFT, "always",
        lambda f: True, Action.NONE, _S.CLOSED),
    Row(_states(_S.CLOSED), _RETURNING, "held back",
        lambda f: f.held_back, Action.WAIT),
    Row(_states(_S.CLOSED), _RETURNING, "online, failure reported",
        lambda f: f.online and f.failure.reported, Action.RESET),
    Row(_states(_S.CLOSED), _RETURNING, "online",
        lambda f: f.online, Action.PUBLISH, _S.INIT_WAIT),
)  # fmt: skip


def decide(facts: Facts) -> Decision | None:
    """What to do now; None if all that is left is to wait.

    A state that is already as it should be is not written again.
    """
    for row in TABLE:
        if row.fits(facts):
            next_state = row.next if row.next is not facts.ours else None
            if row.action is Action.WAIT or (row.action is Action.NONE and next_state is None):
                return None
            return Decision(row.action, next_state)
    return None


def draw() -> str:
    """The table as Markdown, for HACKING."""
    lines = ["| ours | guest | when | do | next |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {_names(row.ours)} | {_names(row.guest)} | {row.when} | {row.action.value} |"
        f" {row.next.label if row.next is not None else ''} |"
        for row in TABLE
    ]
    return "\n".join(lines) + "\n"


def draw_diagram() -> str:
    """Our states and what leads from one to another, as a mermaid diagram, for HACKING.

    Failures are left out: they lead to Closing from anywhere.
    """
    labels: dict[tuple[str, str], list[str]] = {}
    for row in TABLE:
        if row.next is None or row.ours == _ANY:
            continue
        for ours in sorted(row.ours - {row.next}):
            text = row.action.value if row.action is not Action.NONE else row.when
            if text == "always":
                text = f"guest {_names(row.guest)}"
            steps = labels.setdefault((ours.label, row.next.label), [])
            if text not in steps:
                steps.append(text)
    lines = ["stateDiagram-v2", "    [*] --> Initialising: the toolstack"]
    lines += [f"    {ours} --> {then}: {' / '.join(text)}" for (ours, then), text in labels.items()]
    lines += ["    Closed --> [*]: the toolstack"]
    return "\n".join(lines) + "\n"


def _names(states: Iterable[State]) -> str:
    chosen = frozenset(states)
    if chosen == _ANY:
        return "any"
    rest = _ANY - chosen
    if len(rest) < len(chosen):
        return "not " + " or ".join(state.label for state in sorted(rest))
    return ", ".join(state.label for state in sorted(chosen))
