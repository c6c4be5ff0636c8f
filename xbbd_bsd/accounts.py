"""What all devices share and the host has only once: how much of it who has taken.

Event channels, threads, descriptors and memory each have a bound of all devices, of
which one guest may have a share; and there is a bound of disks, and of cards, a guest.  Whoever
needs something asks first and gives it back later, in the pieces in which it asked.
What is bounded here is an estimate from above, made before anything is opened; it
knows neither devices nor rings, and one account is of all families.  Pure: what the data path
makes by itself, threads beyond the first of each ring, is bounded and looked at by a function
that is handed in.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from errno import EAGAIN, EMFILE, ENOMEM, ENOSPC
from math import inf
from typing import Final, Protocol

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Event, LimitReached
from xbbd_bsd.limits import MIB, Limits, Need, Resource
from xbbd_bsd.xenbus.family import Identity

_QUIET_SECONDS: Final = 600.0  # until it is news again that a bound is reached

Taker = tuple[str, int]
"""A device: its driver's name, and its unit."""

# What it is called, the key of [daemon] with its bound, and the errno of having none left.
_WORDS: Final[Mapping[Resource, tuple[str, str, int]]] = {
    Resource.DISKS: ("disks", "max_disks_per_guest", EAGAIN),
    Resource.CARDS: ("network cards", "max_cards_per_guest", EAGAIN),
    Resource.EVENT_CHANNELS: ("event channels", "max_event_channels", ENOSPC),
    Resource.THREADS: ("threads", "max_threads", EAGAIN),
    Resource.DESCRIPTORS: ("file descriptors", "max_descriptors", EMFILE),
    Resource.BUFFERS: ("MiB of buffers", "max_buffer_mb", ENOMEM),
}


class Beyond(Protocol):
    """What the data path has made by itself, as of native.IoUse."""

    @property
    def threads(self) -> int:
        """Threads beyond those that were asked for."""

    @property
    def bytes(self) -> int:
        """Their buffers."""

    @property
    def over_bound(self) -> int:
        """How often one more was wanted and not allowed."""

    @property
    def failed(self) -> int:
        """How often the host had none."""


class LimitError(OperatorError):
    """A bound is in the way; what is given back, or another bound, may change that."""


class Part(Enum):
    """The pieces in which a device takes and gives back."""

    DEVICE = "device"
    MEDIUM = "medium"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True)
class Reached:
    """A bound of all devices in somebody's way: how much of what, where it is set, since when."""

    what: str
    where: str
    since: float  # seconds of the clock


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a device did not get, since when."""

    resource: Resource
    amount: int
    since: float


@dataclass(frozen=True, slots=True)
class _Held:
    domid: int
    need: Need


class Accounts:
    """Who holds what."""

    def __init__(
        self,
        limits: Limits,
        *,
        bound_beyond: Callable[[int, int], Beyond],
        freed: Callable[[tuple[Taker, ...]], None] = lambda takers: None,
        journal: Callable[[Event], None] = lambda event: None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`bound_beyond` bounds threads and bytes that the data path may make by itself,
        and says what it has.  `freed` is called with those that were
        refused, the first of them first, when something was given back.  `clock`: seconds.
        """
        self.limits = limits
        self._bound_beyond = bound_beyond
        self._freed = freed
        self._journal = journal
        self._clock = clock
        self._held: dict[tuple[Taker, Part], _Held] = {}
        self._total = Need()
        self._guests: dict[int, Need] = {}
        self._refused: dict[Taker, None] = {}  # in order
        self._told: dict[str, float] = {}  # when, by the text without numbers
        self._wanting: dict[tuple[Taker, Part], _Wish] = {}
        self._short: dict[Resource, float] = {}  # of the data path, since when
        self._failed = -inf  # when the host had no thread for it
        self._beyond = self._share_rest(Need())
        self._seen = self._beyond

    def configure(self, limits: Limits) -> None:
        """Other bounds for what comes; nothing is taken away from anybody."""
        self.limits = limits
        self._told.clear()
        self._beyond = self._share_rest(self._total)
        self._try_again()

    def take(self, taker: Taker, part: Part, domid: int, need: Need) -> None:
        """Note that a device of a guest takes something; LimitError, and nothing is noted.

        What it had of that part is replaced.
        """
        before = self._held.get((taker, part))
        if before == _Held(domid, need):
            self._wanting.pop((taker, part), None)
            return
        mine = self._guests.get(domid, Need())
        rest = self._total
        if before is not None:
            rest -= before.need
            if before.domid == domid:
                mine -= before.need
        # Bound the data path first: what it makes after that does not come in between.
        self._beyond = self._share_rest(rest + need)
        short = self._shortage(mine, rest, need)
        if short is not None:
            error = self._obstacle(domid, mine, rest, need, *short)
            self._beyond = self._share_rest(self._total)
            self._refused[taker] = None
            self._note_wish(taker, part, need, *short)
            raise error
        self.keep(taker, part, domid, need)
        self._refused.pop(taker, None)

    def keep(self, taker: Taker, part: Part, domid: int, need: Need) -> None:
        """As `take`, of what it has already: nothing is taken away from anybody."""
        self._wanting.pop((taker, part), None)
        self._drop(taker, part)
        self._held[taker, part] = _Held(domid, need)
        self._total += need
        self._guests[domid] = self._guests.get(domid, Need()) + need
        self._beyond = self._share_rest(self._total)

    def give_back(self, taker: Taker, part: Part) -> None:
        """What a device took of that part is free again; harmless if it had none."""
        if self._drop(taker, part):
            self._beyond = self._share_rest(self._total)
            self._try_again()

    def forget(self, taker: Taker) -> None:
        """A device is gone, with all that it had."""
        self._refused.pop(taker, None)
        for part in Part:
            self._wanting.pop((taker, part), None)
            self.give_back(taker, part)

    def rings(self, domid: int, ring: Need, most: int) -> int:
        """How many rings that need so much each a guest could have now, 1 to `most`."""
        self._beyond = self._share_rest(self._total)
        mine = self._guests.get(domid, Need())
        for n in range(most, 1, -1):
            if self._shortage(mine, self._total, ring.times(n)) is None:
                return n
        return 1

    def look(self) -> None:
        """Somebody in the data path wanted more threads than there were: say so."""
        self._beyond = self._share_rest(self._total)
        if self._beyond.over_bound != self._seen.over_bound:
            by_memory = self._at_bound(Resource.BUFFERS)
            resource = Resource.BUFFERS if by_memory else Resource.THREADS
            self._short.setdefault(resource, self._clock())
            self._tell(resource)
        if self._beyond.failed != self._seen.failed:
            self._failed = self._clock()
            if self._is_news("failed"):
                self._journal(LimitReached(*self._host_has_none()))
        self._seen = self._beyond

    def reached(self) -> list[Reached]:
        """The bounds of all guests that are in somebody's way now.

        A bound is in the way of a device that was refused until that is gone, or could have what
        it wants, and of the data path as long as that has all that it may; that the host itself
        had no thread is remembered for a while.
        """
        self.look()
        self._short = {r: since for r, since in self._short.items() if self._at_bound(r)}
        since = dict(self._short)
        for wish in self._wanting.values():
            if self._used(wish.resource) + wish.amount > self.limits.total(wish.resource):
                since[wish.resource] = min(wish.since, since.get(wish.resource, wish.since))
        found = [Reached(*self._words(resource), when) for resource, when in since.items()]
        if self._clock() - self._failed < _QUIET_SECONDS:
            found.append(Reached(*self._host_has_none(), self._failed))
        return found

    def values(self) -> dict[str, int]:
        """What is taken now and the bounds, by the names of leaves (oids.py)."""
        self._beyond = self._share_rest(self._total)
        used = {r.value: self._used(r) for r in Resource if not r.of_guests}
        limits = self.limits
        return {
            "event_channels": used["event_channels"],
            "threads": used["threads"],
            "descriptors": used["descriptors"],
            "buffer_kb": used["buffers"] >> 10,
            "max_event_channels": limits.event_channels,
            "max_threads": limits.threads,
            "max_descriptors": limits.descriptors,
            "max_buffer_mb": limits.buffers // MIB,
        }

    @property
    def idle(self) -> bool:
        """Whether nobody holds anything."""
        return not self._held and not self._guests and self._total == Need()

    def _used(self, resource: Resource) -> int:
        beyond = {Resource.THREADS: self._beyond.threads, Resource.BUFFERS: self._beyond.bytes}
        return self._total.of(resource) + beyond.get(resource, 0)

    def _share_rest(self, total: Need) -> Beyond:
        """What rings do not need is for those that want more, but no more than half of all."""
        return self._bound_beyond(*self._rest(total))

    def _rest(self, total: Need) -> tuple[int, int]:
        limits = self.limits
        return (
            max(0, min(limits.threads // 2, limits.threads - total.threads)),
            max(0, min(limits.buffers // 2, limits.buffers - total.buffers)),
        )

    def _drop(self, taker: Taker, part: Part) -> bool:
        held = self._held.pop((taker, part), None)
        if held is None:
            return False
        self._total -= held.need
        left = self._guests.pop(held.domid) - held.need
        if left != Need():
            self._guests[held.domid] = left
        return True

    def _try_again(self) -> None:
        if self._refused:
            takers, self._refused = tuple(self._refused), {}
            self._freed(takers)

    def _shortage(self, mine: Need, rest: Need, need: Need) -> tuple[Resource, bool] | None:
        """What is not there, and whether that is only for this guest."""
        beyond = Need(threads=self._beyond.threads, buffers=self._beyond.bytes)
        for resource in Resource:
            wanted = need.of(resource)
            if wanted == 0:
                continue
            if (rest + beyond).of(resource) + wanted > self.limits.total(resource):
                return resource, False
            if mine.of(resource) + wanted > self.limits.of_guest(resource):
                return resource, True
        return None

    def _obstacle(
        self, domid: int, mine: Need, rest: Need, need: Need, resource: Resource, of_guest: bool
    ) -> LimitError:
        what, key, errno = _WORDS[resource]
        beyond = Need(threads=self._beyond.threads, buffers=self._beyond.bytes)
        wanted = _shown(resource, need.of(resource), up=True)
        if of_guest:
            has = _shown(resource, mine.of(resource))
            most = _shown(resource, self.limits.of_guest(resource))
            key = key if resource.of_guests else f"max_guest_share of {key}"
            text = f"guest {domid} has {has} {what}, may have {most}, and wants {wanted} more"
        else:
            self._tell(resource)
            has = _shown(resource, (rest + beyond).of(resource))
            most = _shown(resource, int(self.limits.total(resource)))
            text = f"all guests' devices have {has} {what} of {most}, and {wanted} more are wanted"
        return LimitError(f"{text}: see {key} in [daemon] of xbbd.conf", errno)

    def _note_wish(
        self, taker: Taker, part: Part, need: Need, resource: Resource, of_guest: bool
    ) -> None:
        """Since when a bound of all is in a device's way; one of its guest is its own matter."""
        before = self._wanting.pop((taker, part), None)
        if not of_guest:
            same = before is not None and before.resource is resource
            since = before.since if before is not None and same else self._clock()
            self._wanting[taker, part] = _Wish(resource, need.of(resource), since)

    def _at_bound(self, resource: Resource) -> bool:
        """Whether the data path has by itself what it may, or nearly that."""
        threads, size = self._rest(self._total)
        if resource is Resource.BUFFERS:
            return self._beyond.bytes * 8 >= size * 7
        return self._beyond.threads >= threads

    def _words(self, resource: Resource) -> tuple[str, str]:
        """How much there is of something, and where that is set."""
        what, key, _ = _WORDS[resource]
        used = _shown(resource, self._used(resource))
        bound = _shown(resource, int(self.limits.total(resource)))
        return f"{used} of {bound} {what}", f"{key} in [daemon] of xbbd.conf"

    def _host_has_none(self) -> tuple[str, str]:
        used = self._used(Resource.THREADS)
        return f"the host has no thread beyond {used}", "its own limits"

    def _tell(self, resource: Resource) -> None:
        """That the bound of all guests is reached; once in a while."""
        if self._is_news(_WORDS[resource][1]):
            self._journal(LimitReached(*self._words(resource)))

    def _is_news(self, key: str) -> bool:
        when, now = self._told.get(key), self._clock()
        if when is not None and now - when < _QUIET_SECONDS:
            return False
        self._told[key] = now
        return True


class Share:
    """What one device of a guest has of it."""

    def __init__(self, accounts: Accounts, who: Identity) -> None:
        self._accounts = accounts
        self._taker = who.driver, who.unit
        self._domid = who.domid

    def take(self, part: Part, need: Need) -> None:
        """As Accounts.take; LimitError."""
        self._accounts.take(self._taker, part, self._domid, need)

    def keep(self, part: Part, need: Need) -> None:
        """As Accounts.keep."""
        self._accounts.keep(self._taker, part, self._domid, need)

    def rings(self, ring: Need, most: int) -> int:
        """As Accounts.rings."""
        return self._accounts.rings(self._domid, ring, most)

    def give_back(self, part: Part) -> None:
        """As Accounts.give_back."""
        self._accounts.give_back(self._taker, part)

    @contextmanager
    def or_give_back(self, part: Part, *, but: type[Exception]) -> Iterator[None]:
        """What is taken of that part meanwhile is given back if it ends by an error.

        Except by `but`: then it is not at its end.
        """
        try:
            yield
        except but:
            raise
        except BaseException:
            self.give_back(part)
            raise

    def forget(self) -> None:
        """As Accounts.forget."""
        self._accounts.forget(self._taker)


def _shown(resource: Resource, amount: int, *, up: bool = False) -> int:
    """As people count it: memory in MiB, rounded down or up."""
    if resource is not Resource.BUFFERS:
        return amount
    return -(-amount // MIB) if up else amount // MIB
