"""One backend device: turns XenStore nodes into facts and does what the table decides.

It knows neither disks nor rings, only a `Backend` of some family, and decides
nothing itself (states.py does).  It trusts its own directory, which only the
toolstack can write; of the frontend's, which the guest can, it takes single
values and follows no path (XSA-175).  Control thread.
"""

import asyncio
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import GuestError, HostError, OperatorError, XbbdError, one_line, printable
from xbbd_bsd.events import (
    AttachFailed,
    Connected,
    ConnectionFailed,
    DeviceFound,
    DeviceGone,
    Disconnected,
    Event,
    GuestFailed,
    GuestSays,
    HeldBack,
    InternalError,
    Opened,
    StateChanged,
    StoreRefused,
    TakenAlong,
)
from xbbd_bsd.takeovers import Adopted
from xbbd_bsd.xenbus.complaint import Complaint
from xbbd_bsd.xenbus.family import Changes, Family, Identity
from xbbd_bsd.xenbus.frontend import frontend_path
from xbbd_bsd.xenbus.nodes import DeviceNodes, Foresight, Overtaken, change
from xbbd_bsd.xenbus.orphan import Orphan
from xbbd_bsd.xenbus.pace import LAST_WAIT, RESTLESS, Pace
from xbbd_bsd.xenbus.states import (
    Action,
    Decision,
    Facts,
    Failure,
    Queue,
    State,
    decide,
    parse_state,
)
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Watch

_MOST_STEPS: Final = 32  # from any state to rest; more means a defect in the table
_REASON_LIMIT: Final = 1000  # bytes of a reason in XenStore, far below a packet

_FOR_GUEST: Final = (Action.PUBLISH, Action.OPEN, Action.CONNECT, Action.ADOPT)
_READS: Final = (*_FOR_GUEST, Action.REFUSE)
_LOST: Final = "connected by an earlier daemon that is gone; the guest must connect again"
_STARTED: Final = (State.CONNECTED, State.CLOSING, State.CLOSED)


class Device:
    """A device from its first node to its last."""

    def __init__(
        self,
        identity: Identity,
        family: Family,
        *,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        journal: Callable[[Event], None],
        on_gone: Callable[["Device"], None],
        foresight: Foresight,
    ) -> None:
        """Nothing is read or written before `look` is called.

        `on_gone` is called once, when nothing is held any more; `foresight` is that of all
        devices of the kind.
        """
        self.identity = identity
        self.name = str(identity)
        self._path = identity.path
        self._domain = f"/local/domain/{identity.domid}"
        self._nodes = DeviceNodes(store, foresight, self._path, self._domain)
        self._connect_on = family.connect_on
        self._store = store
        self._loop = loop
        self._journal = journal
        self._on_gone = on_gone
        self._backend = family.create(identity, self.look, journal)
        self._frontend_watch: Watch | None = None
        self._state_watch: Watch | None = None
        self._look: asyncio.Handle | None = None
        self._seen: bytes | None = None  # our state, when it was last looked at
        self._facts_seen: Facts | None = None
        self._failure = Failure.NONE
        self._error: XbbdError | None = None
        self._introduced = False
        self._announced = False
        self._served = False  # it had its medium once, by us or by an earlier daemon
        self._withdrawn = False
        self._retry: asyncio.TimerHandle | None = None  # held back until then
        self._held_for = ""
        self._begun: Action | None = None  # and not done yet
        self._pace = Pace()
        self._orphan = Orphan(
            store,
            loop,
            domain=self._domain,
            nodes=(self._path, self._error_node.removesuffix("/error")),
            removed=lambda: journal(TakenAlong(self.name)),
        )
        self._complaint = Complaint(store, lambda words: journal(GuestSays(self.name, words)))
        self._stopping = False
        self._leaving: Callable[[], None] | None = None
        self._overdue = False
        self._gone = False
        journal(DeviceFound(self.name))

    def look(self) -> None:
        """Something may have changed.  However often it is called, the loop looks once a turn.

        A guest can cause it at will, so a device has only so many looks a second.
        """
        if self._leaving is not None:
            self._leaving()
        elif self._look is None and not self._gone:
            due = self._pace.look(now := self._loop.time())
            soon = self._loop.call_soon if due <= now else partial(self._loop.call_at, due)
            self._look = soon(self._evaluate)

    def look_now(self) -> None:
        """As look, of an operator or our own: it need not wait for its turn."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if not self._gone and self._leaving is None:
            self._look = self._loop.call_soon(self._evaluate)

    def leave(self, woken: Callable[[], None]) -> None:
        """From now on all stays as it is for the next daemon; `woken`: look at `left`."""
        self._leaving = woken
        if self._look is not None:
            self._look.cancel()
        self._backend.leave()

    @property
    def left(self) -> bool:
        """Whether nothing is under way any more."""
        return self._backend.left

    def stop(self) -> None:
        """The daemon leaves: close the connection when the guest lets us."""
        self._stopping = True
        self.look_now()

    def hurry(self) -> None:
        """After `stop`: wait for the guest no more, only for I/O in flight."""
        self._overdue = True
        self.look_now()

    @property
    def failed(self) -> XbbdError | None:
        """Why it could not be attached, or its connection ended; None if neither."""
        return self._error if self._failure is not Failure.NONE else None

    @property
    def held_back(self) -> str:
        """Why a guest that came back, or waits, does not have its device yet; "" if it has."""
        lacks = self.states[0] is not State.CONNECTED or self._backend.adoptable
        waits = self._retry is not None and lacks
        return self._held_for if waits else ""

    @property
    def closed_reason(self) -> str:
        """What failed, of a device that is Closing or Closed for it; "" of any other."""
        return "" if self._failure is Failure.NONE else self._reason().decode("utf-8", "ignore")

    def try_again(self) -> None:
        """What held it back may be over: somebody has seen to it."""
        if self._retry is not None:
            self._retry.cancel()
            self._end_of_wait()

    @property
    def frontend(self) -> str:
        """The frontend's directory; "" as long as none is known."""
        return self._nodes.frontend

    @property
    def states(self) -> tuple[State, State]:
        """Ours and the guest's, when the nodes were last looked at."""
        facts = self._facts_seen
        return (facts.ours, facts.guest) if facts is not None else (State.UNKNOWN, State.UNKNOWN)

    # From nodes to facts.

    def _evaluate(self) -> None:
        """Look and act until nothing is left to do.  Raises nothing."""
        self._look = None
        try:
            for _ in range(_MOST_STEPS):
                facts = self._facts_seen = self._facts()
                self._complaint.look(facts, self._nodes.frontend)
                decision = decide(facts)
                if decision is None or decision.action is not self._begun:
                    self._backend.abandon()
                    self._begun = None
                if decision is None:
                    self._orphan.look(
                        alone=facts.guest is State.GONE and facts.present and not facts.holding
                    )
                    return
                if self._begun is None:
                    self._journal_decision(facts, decision)
                self._perform(decision)
                if self._gone or self._begun is not None:
                    return
            self._journal(InternalError(self.name, f"no end of steps, last {decision}"))
        except StoreLost:
            return  # the bus makes everybody look again when the store is back
        except StoreError as error:
            self._journal(StoreRefused(self.name, str(error)))
        except Exception:
            trace = traceback.format_exc().strip().replace("\n", " | ")
            self._journal(InternalError(self.name, trace))

    def _facts(self) -> Facts:
        if self._overdue and not self._store.connected:
            # Nobody to agree with, and no time: as if the toolstack had removed us.
            return self._facts_of(
                State.UNKNOWN, State.GONE, present=False, queue=self._backend.queue
            )
        self._nodes.read_for("look" if self._introduced else "first look")
        ours = self._seen = self._nodes.own("state")
        if self._failure is Failure.REPORTED_ATTACH and self._state_watch is None:
            self._watch_state()  # it was lost with the store
        frontend = self._nodes.own("frontend")
        present = frontend is not None
        state = parse_state(ours) if ours is not None else State.UNKNOWN
        if present and not self._introduced:
            self._introduced = True
            self._served = state in _STARTED
            self._introduce()
        guest = self._guest(frontend, state) if frontend is not None else State.GONE
        # In this order: a queue that was seen to have stopped has said why before.
        queue, fault = self._backend.queue, self._backend.fault
        if state is State.CLOSING:
            self._backend.closing()
        if fault is not None and state is State.CONNECTED and self._failure is Failure.NONE:
            self._fail(Failure.CONNECTION, fault)
        return self._facts_of(
            state,
            guest,
            present=present,
            queue=queue,
            online=self._nodes.own("online") == b"1",
            named=present and self._backend.medium_named(self._nodes.own),
        )

    def _facts_of(
        self,
        ours: State,
        guest: State,
        *,
        present: bool,
        queue: Queue,
        online: bool = False,
        named: bool = False,
    ) -> Facts:
        """What the nodes say, and what we know ourselves."""
        return Facts(
            ours=ours,
            guest=guest,
            present=present,
            online=online,
            announced=self._announced,
            named=named,
            medium=self._backend.medium_open,
            queue=queue,
            news=bool(self._backend.news),
            guest_ready=guest in self._connect_on,
            failure=self._failure,
            withdrawn=self._withdrawn,
            held_back=self._retry is not None,
            adoptable=self._backend.adoptable,
            stopping=self._stopping,
            overdue=self._overdue,
        )

    def _guest(self, frontend: bytes, ours: State) -> State:
        """The guest's state; GONE when the toolstack's nodes do not lead to this very guest."""
        try:
            path = frontend_path(self.identity, frontend, self._nodes.own("frontend-id"))
        except OperatorError as error:
            if ours in (State.INITIALISING, State.INIT_WAIT) and self._failure is Failure.NONE:
                self._fail(Failure.ATTACH, error)
            return State.GONE
        if path != self._nodes.frontend or self._frontend_watch is None:
            self._watch_frontend(path)
        return parse_state(self._nodes.guests("state"))

    def _watch_frontend(self, path: str) -> None:
        if self._frontend_watch is not None:
            self._frontend_watch.cancel()
            self._frontend_watch = None
        self._frontend_watch = self._store.watch(f"{path}/state", lambda _: self.look())
        self._nodes.frontend = path

    # From decisions to deeds.

    def _perform(self, decision: Decision) -> None:
        """Do the action, then write the state; what fails becomes a fact."""
        self._begun = None
        try:
            nodes = self._act(decision.action)
            if decision.next is not None:
                nodes = {**nodes, "state": decision.next.node}
            if nodes:
                self._write(nodes)
        except Pending:
            self._begun = decision.action
        except Overtaken:
            return  # its own event makes us look again
        except StoreLost:
            if decision.action is Action.OPEN:
                with suppress(Pending):
                    self._backend.close()  # the nodes do not say so yet: to be done again
            raise
        except StoreError as error:
            self._blame(decision.action, HostError(str(error), error.errno or 0))
        except XbbdError as error:
            self._blame(decision.action, error)
        else:
            self._done(decision.action)

    def _act(self, action: Action) -> Changes:
        """Do it; the nodes to write with the next state."""
        backend = self._backend
        if action in _READS:
            self._nodes.read_for(action)
        match action:
            case Action.PUBLISH:
                self._introduce()
                return backend.capabilities(self._nodes.own)
            case Action.OPEN:
                self._journal(Opened(self.name, backend.open(self._nodes.own)))
                return {"hotplug-status": b"connected"}
            case Action.CONNECT:
                connection = backend.connect(self._nodes.guests)
                self._journal(Connected(self.name, connection.text))
                return connection.nodes
            case Action.ADOPT:
                self._journal(Adopted(self.name, backend.adopt(self._nodes.own)))
            case Action.TELL:
                # With our state once more, which is what frontends watch.
                return {**backend.news, "state": State.CONNECTED.node}
            case Action.DRAIN:
                backend.drain()
            case Action.DISCONNECT:
                backend.disconnect()
                self._journal(Disconnected(self.name))
            case Action.CLOSE:
                backend.close()
            case Action.FAIL:
                return self._reported(
                    {"hotplug-error": self._reason(), "hotplug-status": b"error", "online": b"0"}
                )
            case Action.REPORT:
                return self._reported({})
            case Action.REFUSE:
                state = parse_state(self._nodes.guests("state"))
                self._fail(Failure.CONNECTION, GuestError(f"saw state {int(state)} at frontend"))
                return self._reported({})
            case Action.ABANDON:
                why = f" ({backend.lost})" if backend.lost else ""
                self._fail(Failure.CONNECTION, HostError(f"{_LOST}{why}"))
                return self._reported({})
            case Action.RESET:
                self._reset()
            case Action.FORGET:
                self._forget()
        return {}

    def _introduce(self) -> None:
        """Tell the backend who it is for; the guest can only read these nodes (libxl_create.c)."""
        name, machine = (self._nodes.domains(node) or b"" for node in ("name", "vm"))
        name = name.removesuffix(b"--incoming")  # so libxl calls it while it arrives by migration
        self._backend.introduce(self._nodes.own, printable(name), printable(machine))

    def _done(self, action: Action) -> None:
        match action:
            case Action.PUBLISH:
                self._announced = True
            case Action.OPEN:
                self._served = True
            case Action.ADOPT | Action.CONNECT:
                self._held_for = ""  # nobody is restless whose daemon dies
                if action is Action.CONNECT and (wait := self._pace.connected(self._loop.time())):
                    self._hold_back(RESTLESS, wait)
            case Action.TELL:
                self._backend.told()
            case Action.FAIL:
                self._failure = Failure.REPORTED_ATTACH
                # Asked to close while we failed: that was it, there will be no other event.
                self._withdrawn = self._seen == State.CLOSING.node
                self._watch_state()
            case Action.REPORT | Action.REFUSE | Action.ABANDON:
                self._failure = Failure.REPORTED_CONNECTION

    def _watch_state(self) -> None:
        """To be set after our own write; between the two somebody else's is missed.

        Its own first event names the directory, so one that names the state is theirs.
        """
        self._state_watch = self._store.watch(self._path, self._rewritten)

    def _rewritten(self, path: str) -> None:
        if path == f"{self._path}/state":
            self._withdrawn = True
            self.look()

    def _blame(self, action: Action, error: XbbdError) -> None:
        """An action failed.  If it was telling somebody, there is nobody left to tell."""
        if action in (Action.FAIL, Action.REPORT, Action.REFUSE, Action.ABANDON, Action.TELL):
            self._journal(StoreRefused(self.name, str(error)))
            self._done(action)
        elif error.passes and self._served and action in _FOR_GUEST:
            self._hold_back(str(error), self._pace.failed())
        else:
            attaching = action in (Action.PUBLISH, Action.OPEN)
            self._fail(Failure.ATTACH if attaching else Failure.CONNECTION, error)

    def _hold_back(self, reason: str, seconds: float) -> None:
        """Try again later, as often as it takes: the guest waits, and its device stays online."""
        if reason != self._held_for:
            self._held_for = reason
            self._journal(HeldBack(self.name, reason, LAST_WAIT))
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(seconds, self._end_of_wait)

    def _end_of_wait(self) -> None:
        self._retry = None
        self.look_now()

    def _fail(self, failure: Failure, error: XbbdError) -> None:
        self._failure = failure
        self._error = error
        if failure is Failure.ATTACH:
            self._journal(AttachFailed(self.name, str(error)))
        elif isinstance(error, GuestError):
            self._journal(GuestFailed(self.name, str(error)))
        else:
            self._journal(ConnectionFailed(self.name, str(error)))

    def _reason(self) -> bytes:
        return one_line(str(self._error)).encode()[:_REASON_LIMIT]

    def _reported(self, nodes: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Adds the error node; its place and form are those of xenbus_dev_fatal."""
        number = self._error.errno if self._error is not None else 0
        return {**nodes, self._error_node: b"%d %s" % (number, self._reason())}

    @property
    def _error_node(self) -> str:
        return f"error/{self._path}/error"

    def _reset(self) -> None:
        self._write({"hotplug-error": None, "hotplug-status": None, self._error_node: None})
        self._failure = Failure.NONE
        self._error = None
        self._withdrawn = False
        self._unwatch_state()

    def _forget(self) -> None:
        self._gone = True
        self._unwatch_state()
        self._orphan.cancel()
        for waiting in (self._retry, self._frontend_watch, self._look):
            if waiting is not None:
                waiting.cancel()
        self._backend.forget()
        self._journal(DeviceGone(self.name))
        self._on_gone(self)

    def _unwatch_state(self) -> None:
        if self._state_watch is not None:
            self._state_watch.cancel()
            self._state_watch = None

    def _write(self, nodes: Changes) -> None:
        change(self._store, self._path, nodes, self._seen)

    def _journal_decision(self, facts: Facts, decision: Decision) -> None:
        after = decision.next if decision.next is not None else facts.ours
        ours, guest, then = facts.ours.label, facts.guest.label, after.label
        self._journal(StateChanged(self.name, ours, guest, decision.action.value, then))
