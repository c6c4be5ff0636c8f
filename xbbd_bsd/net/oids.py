"""What there is to see of a network card, and to change, by name: the driver "xnb".

Names and descriptions of the in-kernel xnb are kept (sys/dev/xen/netback/netback.c): its
two leaves are dump_rings and unit_test_results.  "tx" and "rx" are the guest's, as on the
rings.  For the family, and for tools that show its numbers.  Pure declarations: where a
value comes from is not known here.  Any thread.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from xbbd_bsd.config import NetConfig
from xbbd_bsd.oids import PROCESS, Driver, Leaf, Type, config_leaves, strings
from xbbd_bsd.stats import COUNTERS as OF_DISKS
from xbbd_bsd.stats import TUNABLES as TUNABLES_OF_DISKS

CARD: Final = (
    *strings(
        guest="name of the guest",
        mac="address of the card in the guest",
        interface="interface on the host",
        bridge="bridge that it is to be in",
    ),
    Leaf("handle", Type.UINT, "number of the card in the guest"),
    Leaf("interface_up", Type.INT, "whether the interface is up"),
    Leaf("queues", Type.UINT, "queues in use, each of two rings (negotiated)"),
    *strings(
        accepts="what the guest can receive besides plain frames (negotiated)",
        link_offload="what the interface is given: full or safe",
        data_path="how data moves: map or copy",
    ),
    Leaf("rx_full_seconds", Type.UINT, "for how long the guest has posted too few buffers"),
)

TUNABLES: Final = tuple(NetConfig().tunables())
TUNABLE: Final = tuple(
    Leaf(name, Type.INT, TUNABLES_OF_DISKS[name], writable=True, tunable=True) for name in TUNABLES
)
LIMITS: Final = tuple(leaf for leaf in config_leaves(NetConfig) if leaf.name not in TUNABLES)

_OF_ANY_RING: Final = (
    "kva_shortages",
    "grants_mapped_total",
    "grants_unmapped_total",
    "grants_copied_total",
    "grant_errors",
    "persistent_hits",
    "persistent_misses",
    "notifies_received",
    "notifies_sent",
    "ring_sleeps",
)

COUNTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tx_packets": "how many packets of the guest went to the interface",
        "tx_bytes": "how many bytes these had",
        "tx_slots": "how many slots of the ring these took",
        "tx_errors": "how many packets of the guest were refused",
        "tx_dropped": "how many packets of the guest the interface would not take",
        "tx_split": "how many frames we made of larger ones of the guest",
        "tx_summed": "how many frames of the guest we filled in sums of",
        "tx_sweeps": "how many times we have looked for packets of the guest",
        "rx_packets": "how many packets of the interface went to the guest",
        "rx_bytes": "how many bytes these had",
        "rx_slots": "how many slots of the ring these took",
        "rx_errors": "how many packets were lost for pages that could not be had",
        "rx_dropped": "how many packets the guest could not be given",
        "rx_split": "how many frames we made of larger ones for the guest",
        "rx_summed": "how many frames for the guest we filled in sums of",
        "rx_sweeps": "how many times we have looked for packets for the guest",
        "rx_full": "how many times the guest had posted too few buffers",
        **{name: OF_DISKS[name] for name in _OF_ANY_RING},
    }
)

REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "too_short": "packets too short for an Ethernet header",
        "too_long": "packets with pieces of more bytes than the whole",
        "beyond_page": "packets with a piece that leaves its page",
        "too_many": "packets of too many slots",
        "bad_extra": "packets with extra information that is unknown, or there twice",
        "bad_gso": "packets to be split in a way that was not offered, or no way",
        "bad_headers": "packets whose headers are not what the guest says",
        "bad_grant": "packets in pages that are not granted",
        "bad_source": "packets from an address that is not the card's",
    }
)

COUNTER: Final = tuple(Leaf(name, Type.U64, text) for name, text in COUNTERS.items())
REFUSAL: Final = tuple(
    Leaf(f"refused.{name}", Type.U64, f"refused: {text}") for name, text in REFUSALS.items()
)
TAKEOVERS: Final = (
    Leaf(
        "takeovers",
        Type.U64,
        "how many times another process went on where the one that served it had died",
    ),
)
DEBUG: Final = strings(
    dump_rings="Xennet Back Rings", unit_test_results="Results of builtin unit tests"
)

# Below ring.M, of a queue: the first are where its two rings stand.
RING: Final = (
    Leaf("tx_req_cons", Type.UINT, "index of the next tx request to read"),
    Leaf("tx_rsp_prod", Type.UINT, "index after the last tx response pushed"),
    Leaf("rx_req_cons", Type.UINT, "index of the next rx request to read"),
    Leaf("rx_rsp_prod", Type.UINT, "index after the last rx response pushed"),
    *COUNTER,
    *REFUSAL,
)

DRIVER: Final = Driver(
    "xnb",
    "card",
    "Backend Virtual Network Device",
    own={
        "card": CARD,
        "process": PROCESS,
        "tunables": TUNABLE,
        "limits": LIMITS,
        "counters": COUNTER,
        "refusals": REFUSAL,
        "takeovers": TAKEOVERS,
        "debug": DEBUG,
    },
    ring=RING,
)
