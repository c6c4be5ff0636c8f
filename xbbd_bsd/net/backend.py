"""One network card for one guest: its interface, the negotiation, and queues served in C.

It does not know states, watches or other cards but by what all have in common; the data
path it knows as descriptors and numbers.  Control thread.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EEXIST, EINVAL
from functools import partial
from typing import Protocol

from xbbd_bsd.accounts import Accounts, Part, Share
from xbbd_bsd.charter import NODE
from xbbd_bsd.config import Config, NetConfig
from xbbd_bsd.errands import Errands, Pending, Run
from xbbd_bsd.errors import HostError, OperatorError, XbbdError
from xbbd_bsd.events import (
    Event,
    HangEnded,
    Hangs,
    InterfaceStays,
    QueueStarted,
    QueueStatus,
)
from xbbd_bsd.host import Host
from xbbd_bsd.native import (
    MAX_RINGS,
    NetOffload,
    NetParams,
    NetState,
    QueueState,
    StopReason,
)
from xbbd_bsd.net.heritage import Heritage, Inheritance, Left, key_of
from xbbd_bsd.net.negotiate import Card, FrontendParams, Offer, mac_text
from xbbd_bsd.net.numbers import CardNumbers
from xbbd_bsd.net.passport import note_passport
from xbbd_bsd.net.queues import (
    OF_DEVICE,
    Taps,
    Terms,
    asked_of,
    charter,
    describe,
    indices_of,
    most_of_queue,
    need_of,
    to_be_served,
)
from xbbd_bsd.net.segments import make_segment, name_interface, remove_segment
from xbbd_bsd.oids import Value
from xbbd_bsd.serving import ServedRings, Serving, ask_for_rings, process_facts
from xbbd_bsd.xenbus.family import Changes, Connection, Identity, Nodes
from xbbd_bsd.xenbus.states import Queue


class Common(Protocol):
    """What all cards of a daemon have in common: see NetFamily, which is this."""

    host: Host
    config: Config
    state_dir: str
    loop: asyncio.AbstractEventLoop
    run: Run
    serving: Serving[NetParams, NetState]
    taps: Taps
    heritage: Heritage
    limits: Accounts
    known: "dict[int, NetBackend]"

    def check_free(self, name: str, unit: int) -> None:
        """OperatorError if the interface of another card is called that."""

    def is_others(self, name: str) -> bool:
        """Whether there is an interface of that name which is left of no card that is gone."""

    def again(self, unit: int) -> None:
        """What a card waits for may have come."""


class NetBackend:
    """One card for one guest."""

    def __init__(
        self,
        family: Common,
        identity: Identity,
        wake: Callable[[], None],
        journal: Callable[[Event], None],
    ) -> None:
        self._family = family
        self._identity = identity
        self._wake = wake
        self._journal = journal
        self.name = str(identity)
        self._guest = self._machine = ""
        self._card = Card(identity.number)
        self._offer = Offer()
        self._open = False
        self._told = False  # that a script has seen to the interface
        self._interface = ""  # there, if it is not ""
        self._segment: NetState | None = None
        self._created_ns = 0
        self._given: dict[str, int] = {}  # tunables, as last written by us
        self._rings: ServedRings | None = None
        self._news: Mapping[str, bytes] = {}
        self._share = Share(family.limits, identity)
        left, again = family.heritage.claim(identity), partial(family.again, identity.unit)
        self._inheritance = Inheritance(left, family.serving, identity, again)
        self.claimed = self._inheritance.interface  # what its own is called, or is to be
        whose = self.name.partition(" ")[0]
        self._errands = Errands(family.run, family.loop, wake, self._hung, whose)

    # The life of a device (family.Backend).

    @property
    def medium_open(self) -> bool:
        """Whether it was opened, or something has interface and segment that was begun."""
        return self._open or self._errands.busy is not None

    @property
    def queue(self) -> Queue:
        if self._rings is None:
            return Queue.DRAINING if self._inheritance.closing else Queue.NONE
        status = self._rings.status
        if status.state is QueueState.RUNNING:
            return Queue.RUNNING
        if status.state is QueueState.DRAINING:
            return Queue.DRAINING
        return Queue.DRAINED if status.reason is StopReason.NONE else Queue.FAILED

    @property
    def fault(self) -> XbbdError | None:
        return None if self._rings is None else self._rings.fault

    @property
    def news(self) -> Mapping[str, bytes]:
        return self._news

    def told(self) -> None:
        self._news = {}

    def closing(self) -> None:
        """Nothing is held back."""

    def introduce(self, backend: Nodes, guest: str, vm: str) -> None:
        self._guest, self._machine = guest, vm
        self._inheritance.is_for(vm)
        if not self._interface:
            with suppress(OperatorError):  # it is told when the card is to be offered
                self._card = Card.from_nodes(backend, self._identity.number)

    def capabilities(self, backend: Nodes) -> Changes:
        card = Card.from_nodes(backend, self._identity.number)
        if self._config.mac_filter and card.mac is None:
            raise OperatorError("node mac is missing, which mac_filter needs", EINVAL)
        self._share.take(Part.DEVICE, OF_DEVICE)
        links = self._family.host.links
        name = card.interface(links.prefix, self._identity.domid)
        self._claim(name)
        # Ours from now on, whatever fails below.
        self._interface = self._inheritance.interface or self._interface
        left = self._inheritance.leave()
        if left or (self._segment is not None and self._segment.damaged):
            self._forget_segment()
        if self._interface not in ("", name):
            self._remove(self._interface)
            self._interface = ""
        self._card = card
        self._make(name)
        if self._segment is None:
            whose = self._family.state_dir, self._identity, self._machine
            self._use(make_segment(*whose, MAX_RINGS if links.multi else 1))
        assert self._segment is not None
        self._segment.guest = self._guest
        name_interface(self._segment, name)
        self.configure()
        most = min(self._config.max_queues, self._segment.rings) if links.multi else 1
        # A guest with fewer queues is better than one that is refused.
        self._offer = Offer(self._share.rings(most_of_queue(self._family.host.hv), most))
        return self._offer.to_nodes()

    def _claim(self, name: str) -> None:
        self._family.check_free(name, self._identity.unit)
        self.claimed = name

    @property
    def _config(self) -> NetConfig:
        return self._family.config.net

    def _make(self, name: str) -> None:
        """See that the interface is there; HostError, and it is not left if it was not there."""
        there = self._interface == name
        # The usual name is nobody else's, and one may be left of a daemon that died early.
        if not there and self._card.vifname and self._family.is_others(name):
            raise OperatorError(
                f"interface {name} is there already, and no card's: remove it, or name another",
                EEXIST,
            )
        os.close(self._open_link(name))
        self._interface = name
        self._told = self._told and there
        if self._card.mtu:
            try:
                self._family.taps.set_mtu(name, self._card.mtu)
            except HostError:
                if not there:
                    self._remove(name)
                    self._interface = ""
                raise

    def _open_link(self, name: str) -> int:
        return self._family.taps.open(name, multi=self._family.host.links.multi)

    def _use(self, segment: NetState) -> None:
        self._segment, self._created_ns = segment, time.monotonic_ns()

    def configure(self) -> None:
        """Go by the family's configuration as it is now.

        What was agreed with a guest stays until it connects again.
        """
        if self._segment is not None:
            for name, value in self._config.tunables().items():
                # What has not changed may have been set by the operator meanwhile.
                if value != self._given.get(name):
                    self._segment.set_tunable(name, value)
                    self._given[name] = value

    def medium_named(self, backend: Nodes) -> bool:
        """Whether the interface is as the toolstack wants it: in its bridge, say."""
        if not self._told:
            scripted = self._family.host.links.told and backend("script") is not None
            self._told = not scripted or backend("hotplug-status") == b"connected"
        return self._told

    def open(self, backend: Nodes) -> str:
        if not self._card.script:
            self._family.taps.bring_up(self._interface)  # nobody else does
        self._open = True
        bridge = f" for bridge {self._card.bridge}" if self._card.bridge else ""
        return f"interface {self._interface}{bridge}"

    def connect(self, frontend: Nodes) -> Connection:
        with self._share.or_give_back(Part.CONNECTION, but=Pending):
            return self._connect(frontend)

    def _connect(self, frontend: Nodes) -> Connection:
        assert self._segment is not None
        wanted = FrontendParams.from_nodes(frontend, self._offer)
        source = self._card.mac if self._config.mac_filter else None
        terms = Terms(self._offload(), source)
        asked = asked_of(wanted, terms, self._identity, self._family.host.hv)
        self._share.take(Part.CONNECTION, need_of(asked))
        self._segment.connect(len(asked))
        self._start(asked, self._segment, self._interface)
        agreed = charter(self._segment.identity, self._interface, asked)
        return Connection({NODE: agreed}, describe(asked))

    def _offload(self) -> NetOffload:
        wanted = self._config.offload
        return NetOffload[(self._family.host.links.offload if wanted == "auto" else wanted).upper()]

    def _start(
        self, asked: Mapping[int, NetParams], segment: NetState, interface: str
    ) -> ServedRings:
        """Have these queues served; may raise Pending: a guest's page may be paged out."""
        serving, who = self._family.serving, self._identity
        needs = to_be_served(who, self._guest, asked, lambda: self._open_link(interface), segment)
        found = ask_for_rings(self._errands, asked, partial(serving.serve, needs))
        self._rings, self._news = found, {}
        serving.listen(found, who, self._woken)
        for params in asked.values():
            refs = f"{params.tx_ref} {params.rx_ref}"
            self._journal(QueueStarted(self.name, params.remote_port, refs))
        return found

    @property
    def adoptable(self) -> bool:
        return self._inheritance.adoptable

    @property
    def lost(self) -> str:
        return self._inheritance.refusal

    def adopt(self, backend: Nodes) -> str:
        try:
            return self._adopt(backend)
        except XbbdError as error:
            if error.passes:
                self._inheritance.rest()
                raise
            self._inheritance.give_up(str(error))
            self._forget_segment()
            raise HostError(f"cannot be taken over: {error}", error.errno) from None

    def _adopt(self, backend: Nodes) -> str:
        self._share.keep(Part.DEVICE, OF_DEVICE)
        if self._segment is None:
            self._use(self._inheritance.take())
        segment = self._segment
        assert segment is not None
        served = self._inheritance.served(segment)
        interface, agreed = served.interface, backend(NODE)
        if agreed not in (None, served.charter):
            raise HostError("its state segment is not as its guest was connected", EINVAL)
        self._claim(interface)
        with suppress(OperatorError):  # it is as it was, whatever nodes say by now
            self._card = Card.from_nodes(backend, self._identity.number)
        self._share.keep(Part.CONNECTION, need_of(served.asked))
        self._inheritance.begin()
        found = self._start(served.asked, segment, interface)
        self._interface, self._open, self._told = interface, True, True
        segment.guest = self._guest
        self._inheritance.taken()
        if agreed != served.agreed:  # another version wrote it, or one that served cards itself
            self._news = {NODE: served.agreed}
        self.configure()
        if served.ending:
            self.drain()
        text = f"{describe(served.asked)}, interface {interface}"
        if not found.paused:
            return f"{text}, in a process that has gone on"
        segment.note_takeover()
        return text

    def leave(self) -> None:
        if self._rings is not None:
            self._rings.hand_over()

    @property
    def left(self) -> bool:
        return self._rings is None or self._rings.handed_over

    def note_passport(self) -> None:
        """It was left: say what the next daemon has to know, whatever version that is."""
        if self._segment is not None and self._rings is not None and self.left:
            answered = self.queue is not Queue.RUNNING
            note_passport(self._segment, answered=answered, journal=self._journal)

    def abandon(self) -> None:
        self._errands.abandon()
        if self._rings is None:
            self._share.give_back(Part.CONNECTION)

    def drain(self) -> None:
        if self._rings is not None:
            self._rings.drain()
        else:
            self._inheritance.close()

    def disconnect(self) -> None:
        if self._rings is not None:
            self._rings.finish()
            self._rings = None
            self._share.give_back(Part.CONNECTION)

    def _orphan(self, rings: ServedRings) -> None:
        """Nobody serves them any more; the guest waits, and we go on with them."""
        rings.close()
        self._rings, segment = None, self._segment
        if segment is not None and segment.served:
            unit, whose = self._identity.unit, key_of(self._identity)
            left = Left(segment.path, unit, whose, self._machine, self._interface)
            self._inheritance.orphan(left)
        else:  # all was given back
            self._share.give_back(Part.CONNECTION)

    def close(self) -> None:
        """Waits for what was begun to be undone."""
        self._errands.wait()
        self._open = False

    def forget(self) -> None:
        self.abandon()
        self._family.known.pop(self._identity.unit, None)
        interface, waits = self._inheritance.interface or self._interface, self.adoptable
        self._inheritance.leave()
        self._forget_segment()
        self._interface = ""
        if interface and waits:  # for whoever may serve it still
            self._family.serving.drop(self._identity, partial(self._remove, interface))
        elif interface:
            self._remove(interface)
        self._family.serving.forget(self._identity)
        self._share.forget()

    def _remove(self, interface: str) -> None:
        try:
            self._family.taps.remove(interface)
        except HostError as error:
            self._journal(InterfaceStays(self.name, interface, str(error)))

    def _forget_segment(self) -> None:
        if self._segment is not None:
            remove_segment(self._segment)
            self._segment, self._given = None, {}

    # What an operator sees of it.

    def numbers(self) -> CardNumbers:
        """What there is of it now."""
        return CardNumbers(
            self._identity.unit,
            self.name,
            segment=self._segment,
            created_ns=self._created_ns,
            facts=self._facts,
            process=lambda: process_facts(self._rings.process if self._rings is not None else None),
            indices=lambda: indices_of(self._rings),
            config=self._config,
        )

    def _facts(self) -> dict[str, Value]:
        interface = self._interface
        return {
            "guest": self._guest,
            "mac": mac_text(self._card.mac),
            "interface": interface,
            "bridge": self._card.bridge,
            "handle": self._card.handle,
            "interface_up": int(bool(interface) and self._family.taps.is_up(interface)),
        }

    def woken(self) -> None:
        self._wake()

    def _woken(self) -> None:
        if self._rings is not None and self._rings.lost is not None:
            self._orphan(self._rings)
        if self._rings is not None:
            status = self._rings.status
            state, reason = status.state.name.lower(), status.reason.name.lower()
            self._journal(QueueStatus(self.name, state, reason, status.errno))
        self._wake()

    def _hung(self, what: str, seconds: float | None) -> None:
        if seconds is None:
            self._journal(Hangs(self.name, what))
        else:
            self._journal(HangEnded(self.name, what, seconds))
