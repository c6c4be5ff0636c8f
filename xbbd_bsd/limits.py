"""What the host has only once: how much of it devices need, and may have.

Pure declarations: who has taken what is known by accounts.py, and what a disk or a card
needs by its family.  Any thread.
"""

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final, Protocol

from xbbd_bsd.config import DaemonConfig

RESERVED_DESCRIPTORS: Final = 128
"""Not for devices: the control socket's and the metrics' connections (32 each), the store,
the log, and what is open for a moment."""

MIB: Final = 1 << 20


class Resource(Enum):
    """What is bounded; the value is the field of `Need` and `Limits`."""

    DISKS = "disks"
    CARDS = "cards"
    EVENT_CHANNELS = "event_channels"
    THREADS = "threads"
    DESCRIPTORS = "descriptors"
    BUFFERS = "buffers"

    @property
    def of_guests(self) -> bool:
        """Whether a guest may have so many, whatever others have: of all there is no bound."""
        return self in (Resource.DISKS, Resource.CARDS)


@dataclass(frozen=True, slots=True)
class Need:
    """An amount of each resource, buffers in bytes."""

    disks: int = 0
    cards: int = 0
    event_channels: int = 0
    threads: int = 0
    descriptors: int = 0
    buffers: int = 0

    def of(self, resource: Resource) -> int:
        """The amount of one."""
        return int(getattr(self, resource.value))

    def __add__(self, other: "Need") -> "Need":
        return Need(*(self.of(r) + other.of(r) for r in Resource))

    def __sub__(self, other: "Need") -> "Need":
        return Need(*(self.of(r) - other.of(r) for r in Resource))

    def times(self, n: int) -> "Need":
        """So many times as much."""
        return Need(*(n * self.of(r) for r in Resource))


class Resources(Protocol):
    """What the host has of each, as of host.Resources."""

    @property
    def event_channels(self) -> int:
        """Of our domain."""

    @property
    def threads(self) -> int:
        """Of a process."""

    @property
    def descriptors(self) -> int:
        """Of our process."""

    @property
    def memory(self) -> int:
        """Bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of all devices together, buffers in bytes; `guest_share`: percent of each for a guest.

    `disks` and `cards` are of one guest.
    """

    disks: int
    cards: int
    event_channels: int
    threads: int
    descriptors: int
    buffers: int
    guest_share: int = 100

    @classmethod
    def of(cls, config: DaemonConfig, host: Resources) -> "Limits":
        """As configured, within what the host has; 0 is what suits the host.

        That leaves a quarter of event channels and threads, and half of the memory, to
        others; of descriptors, which are the process's own, only the reserve.
        """

        def bound(configured: int, suits: int, most: int) -> int:
            return max(0, min(configured or suits, most))

        descriptors = host.descriptors - RESERVED_DESCRIPTORS
        return cls(
            config.max_disks_per_guest,
            config.max_cards_per_guest,
            bound(config.max_event_channels, host.event_channels * 3 // 4, host.event_channels),
            bound(config.max_threads, host.threads * 3 // 4, host.threads),
            bound(config.max_descriptors, descriptors, descriptors),
            bound(config.max_buffer_mb * MIB, host.memory // 2, host.memory),
            config.max_guest_share,
        )

    def total(self, resource: Resource) -> float:
        """Of all guests."""
        return inf if resource.of_guests else int(getattr(self, resource.value))

    def of_guest(self, resource: Resource) -> int:
        """Of one guest."""
        share = 100 if resource.of_guests else self.guest_share
        return int(getattr(self, resource.value)) * share // 100
