"""What each frontend in the field writes and reads, and what negotiation makes of it.

Two tables.  PEERS: the nodes a frontend leaves in its directory, and the rings,
layout and grants it must get for them, or how its refusal must begin.  READERS:
the backend's nodes a frontend looks at, and what it then knows.  The first word
of a row's name is its file in FILES, `source` the version and the function there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from xbbd_bsd.block.negotiate import (
    Discard,
    DiskInfo,
    FrontendParams,
    Offer,
    Protocol,
    RingParams,
)
from xbbd_bsd.errors import GuestError

FILES = {
    "freebsd": "sys/dev/xen/blkfront/blkfront.c",
    "grub": "grub-core/disk/xen/xendisk.c",
    "linux": "drivers/block/xen-blkfront.c",
    "backend": "Linux drivers/block/xen-blkback/xenbus.c",
    "minios": "blkfront.c",
    "mirage": "mirage-block-xen lib/front/blkfront.ml",
    "netbsd": "sys/arch/xen/xen/xbd_xenbus.c",
    "openbsd": "sys/dev/pv/xbf.c",
    "osv": "bsd/sys/dev/xen/blkfront/blkfront.cc",
    "ovmf": "edk2 OvmfPkg/XenPvBlkDxe/BlockFront.c",  # iPXE has network frontends only
    "uboot": "drivers/xen/pvblock.c",
    "uvp": "Huawei's and SUSE's own Linux frontend, file not known",
    "vmdp": "SUSE/vmdp, xenblk, file not known",
    "xen": "xen/include/public/io",
    "xenvbd": "win-xenvbd src/xenvbd/ring.c, frontend.c",
}

Nodes = dict[str, bytes]

WIDE = Offer(max_ring_page_order=4, max_queues=4, max_indirect_segments=256, persistent=True)
BARE = Offer()


def pages(count: int, first: int = 100) -> Nodes:
    return {f"ring-ref{page}": b"%d" % (first + page) for page in range(count)}


def queue(number: int, nodes: Nodes) -> Nodes:
    return {f"queue-{number}/{name}": value for name, value in nodes.items()}


def without(nodes: Nodes, gone: str) -> Nodes:
    return {name: value for name, value in nodes.items() if name != gone}


AMD64: Nodes = {"protocol": b"x86_64-abi"}
I386: Nodes = {"protocol": b"x86_32-abi"}
ARM: Nodes = {"protocol": b"arm-abi"}
STAY: Nodes = {"feature-persistent": b"1"}
LIMITS: Nodes = {"max-requests": b"32", "max-request-segments": b"11", "max-request-size": b"40960"}
PAGE: Nodes = {"ring-ref": b"8", "event-channel": b"12"}
ORDER_2: Nodes = {"ring-page-order": b"2", "event-channel": b"12", **pages(4)}
ORDER_4: Nodes = {"ring-page-order": b"4", "event-channel": b"12", **pages(16)}
BOTH_2: Nodes = {"num-ring-pages": b"4", **ORDER_2}
QUEUES: Nodes = {
    "multi-queue-num-queues": b"2",
    **queue(0, PAGE),
    **queue(1, {"ring-ref": b"9", "event-channel": b"13"}),
}
QUEUES_2: Nodes = {
    "multi-queue-num-queues": b"2",
    "ring-page-order": b"2",
    **queue(0, {"event-channel": b"12", **pages(4)}),
    **queue(1, {"event-channel": b"13", **pages(4, 200)}),
}
# The oldest spelling of pages: the first is ring-ref, whatever their number.
RING_PAGES: Nodes = {"ring-pages": b"4", **without(pages(4), "ring-ref0"), **PAGE}
EMPTY: Nodes = {"ring-ref": b"", "event-channel": b""}


def asks(
    *rings: RingParams, layout: Protocol = Protocol.X86_64, stay: bool = False
) -> FrontendParams:
    return FrontendParams(rings, layout, stay)


ONE = RingParams(12, (8,))
FOUR = RingParams(12, (100, 101, 102, 103))
SIXTEEN = RingParams(12, tuple(range(100, 116)))
TWICE_ONE = (ONE, RingParams(13, (9,)))
TWICE_FOUR = (FOUR, RingParams(13, (200, 201, 202, 203)))


@dataclass(frozen=True)
class Peer:
    """One frontend: `expected` is what it must get, or how its refusal begins."""

    name: str
    source: str
    nodes: Nodes
    expected: FrontendParams | str
    offer: Offer = WIDE


PEERS = [
    # Older than num-ring-pages; in which releases could not be checked.  It
    # follows max-ring-pages, and knows no order.
    Peer("freebsd-8", "setup_blkring()", PAGE | {"ring-pages": b"1"} | LIMITS | AMD64, asks(ONE)),
    Peer(
        "freebsd-8-order-2",
        "setup_blkring(), blkfront_initialize()",
        RING_PAGES | LIMITS | AMD64,
        asks(RingParams(12, (8, 101, 102, 103))),
    ),
    Peer("freebsd-10", "xbd_alloc_ring(): no size of one page", PAGE | LIMITS | AMD64, asks(ONE)),
    Peer(
        "freebsd-10-order-2-i386",
        "xbd_initialize(): both sizes",
        BOTH_2 | LIMITS | I386,
        asks(FOUR, layout=Protocol.X86_32),
    ),
    Peer("freebsd-14", "xbd_initialize(): no limits", PAGE | AMD64, asks(ONE), BARE),
    Peer(
        "freebsd-14-order-4",
        "xbd_initialize(): as max-ring-pages says",
        ORDER_4 | {"num-ring-pages": b"16"} | AMD64,
        asks(SIXTEEN),
    ),
    Peer("osv-order-2", "setup_blkring()", BOTH_2 | LIMITS | AMD64, asks(FOUR)),
    Peer("openbsd-order-2", "xbf_init()", BOTH_2 | I386, asks(FOUR, layout=Protocol.X86_32)),
    Peer("netbsd", "of about 2018, xbd_xenbus_resume()", PAGE | AMD64, asks(ONE)),
    Peer(
        "linux-2.6",
        "2.6.36 talk_to_blkback(): nothing stays",
        PAGE | I386,
        asks(ONE, layout=Protocol.X86_32),
    ),
    Peer("linux-3.10", "talk_to_blkback()", PAGE | AMD64 | STAY, asks(ONE, stay=True)),
    Peer(
        "linux-3.10-not-offered", "the same, without asking", PAGE | AMD64 | STAY, asks(ONE), BARE
    ),
    Peer(
        "linux-4.14-order-2",
        "talk_to_blkback(): then no ring-ref",
        ORDER_2 | AMD64 | STAY,
        asks(FOUR, stay=True),
    ),
    # One queue is as in 3.10: in the root, and no number of queues.
    Peer("linux-6.1", "write_per_ring_nodes()", QUEUES | AMD64 | STAY, asks(*TWICE_ONE, stay=True)),
    Peer(
        "linux-6.1-order-2",
        "talk_to_blkback(): the order is in the root",
        QUEUES_2 | AMD64 | STAY,
        asks(*TWICE_FOUR, stay=True),
    ),
    Peer(
        "linux-6.1-feature_persistent=N",
        "talk_to_blkback(): writes 0",
        QUEUES | AMD64 | {"feature-persistent": b"0"},
        asks(*TWICE_ONE),
    ),
    Peer(
        "linux-6.1-arm",
        "a guest's directory as listed on xen-devel",
        QUEUES | ARM | STAY,
        asks(*TWICE_ONE, layout=Protocol.NATIVE, stay=True),
    ),
    Peer("uvp-order-2", "talk_to_blkback()", BOTH_2 | AMD64 | STAY, asks(FOUR, stay=True)),
    Peer("vmdp-order-2", "talk_to_backend()", BOTH_2 | AMD64, asks(FOUR)),
    Peer("xenvbd-8", "RingStoreWrite(): no order 0", PAGE | AMD64 | {"target-id": b"0"}, asks(ONE)),
    Peer("xenvbd-8-order-4", "RingStoreWrite(): at most 4", ORDER_4 | AMD64, asks(SIXTEEN)),
    Peer(
        "xenvbd-9",
        "BlkifRingStoreWrite(): one queue is in the root, and its number written",
        PAGE | AMD64 | {"multi-queue-num-queues": b"1", "feature-large-sector-size": b"1"},
        asks(ONE),
        BARE,
    ),
    Peer("xenvbd-9-queues", "BlkifRingStoreWrite()", QUEUES_2 | AMD64, asks(*TWICE_FOUR)),
    Peer("minios-pvgrub", "init_blkfront()", PAGE | I386, asks(ONE, layout=Protocol.X86_32)),
    Peer("grub", "fill()", PAGE | AMD64, asks(ONE)),
    Peer("ovmf", "XenPvBlockFrontInitialization()", PAGE | AMD64, asks(ONE)),
    Peer("uboot", "init_blkfront()", PAGE | ARM, asks(ONE, layout=Protocol.NATIVE)),
    Peer("mirage", "plug(): 'backwards compat'", PAGE | AMD64, asks(ONE), BARE),
    Peer("mirage-order-2", "plug(): at most 2", ORDER_2 | AMD64, asks(FOUR)),
    # No frontend that was read says order 0: these are what backends accept.
    Peer(
        "backend-order-0",
        "connect_ring() since 2021: ring-ref0 if there is an order",
        {"multi-queue-num-queues": b"2", "ring-page-order": b"0", **AMD64}
        | queue(0, {"event-channel": b"12", "ring-ref0": b"8", "ring-ref": b"900"})
        | queue(1, {"event-channel": b"13", "ring-ref0": b"9"}),
        asks(*TWICE_ONE),
    ),
    Peer(
        "backend-order-0-other-spelling",
        "read_per_ring_refs() of 2019: ring-ref if no ring-ref0",
        QUEUES | {"ring-page-order": b"0"} | AMD64,
        asks(*TWICE_ONE),
    ),
    # Left behind by an earlier driver; none of them removes pages or queues.
    Peer(
        "backend-stale-ring-ref0",
        "'xen-blkback: fix compatibility bug with single page rings', 2021",
        pages(16, 900) | PAGE | AMD64,
        asks(ONE),
    ),
    Peer(
        "linux-4.14-stale-pages",
        "talk_to_blkback(), after order 4",
        pages(16, 900) | ORDER_2 | AMD64,
        asks(FOUR),
    ),
    # If the number of queues is left too, no backend can tell.
    Peer(
        "minios-stale-queues",
        "init_blkfront(), after a kernel with queues",
        without(QUEUES, "multi-queue-num-queues")
        | {"ring-ref": b"7", "event-channel": b"14"}
        | AMD64,
        asks(RingParams(14, (7,))),
    ),
    Peer(
        "xenvbd-9-stale-queues",
        "RingStoreWrite(), after two queues",
        QUEUES_2 | ORDER_4 | {"multi-queue-num-queues": b"1"} | AMD64,
        asks(SIXTEEN),
    ),
    Peer("grub-then-linux", "grub_xendisk_fini()", EMPTY | QUEUES | AMD64, asks(*TWICE_ONE)),
    Peer("grub-gone", "grub_xendisk_fini()", EMPTY | AMD64, "frontend node event-channel is ''"),
    Peer("ovmf-gone", "XenPvBlockFrontShutdown()", {}, "frontend node event-channel is missing"),
    # More than is offered: as no frontend asks for that, it is left from a wider
    # offer, and the ring-ref is good.  Where one page or queue is offered that is certain.
    Peer(
        "linux-4.14-order-of-a-wider-offer",
        "talk_to_blkback(): does not write order 0",
        ORDER_4 | PAGE | AMD64,
        asks(ONE),
        BARE,
    ),
    Peer(
        "linux-6.1-queues-of-a-wider-offer",
        "talk_to_blkback(): does not write number 1",
        QUEUES | PAGE | AMD64,
        asks(ONE),
        BARE,
    ),
    Peer(
        "xen-pages-above-the-offer",
        "blkif.h, the maximum of num-ring-pages",
        without(ORDER_4, "ring-page-order") | {"num-ring-pages": b"16"} | AMD64,
        "frontend node num-ring-pages is 16",
        Offer(max_ring_page_order=2),
    ),
    Peer(
        "backend-no-queues",
        "connect_ring(): at least one",
        QUEUES | {"multi-queue-num-queues": b"0"},
        "frontend node multi-queue-num-queues is 0",
    ),
    Peer(
        "linux-6.1-without-channel",
        "write_per_ring_nodes()",
        without(QUEUES, "queue-1/event-channel"),
        "frontend node queue-1/event-channel is missing",
    ),
    Peer(
        "linux-6.1-without-page",
        "write_per_ring_nodes()",
        without(QUEUES_2, "queue-1/ring-ref3"),
        "frontend node queue-1/ring-ref3 is missing",
    ),
    Peer(
        "xen-ia64",
        "protocols.h of Xen 3, not checked",
        PAGE | {"protocol": b"ia64-abi"},
        "frontend node protocol is 'ia64-abi', which is unknown",
    ),
]


def where(row: "Peer | Reader") -> str:
    return f"{FILES[row.name.partition('-')[0]]}: {row.source}"


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_what_a_frontend_writes(peer: Peer) -> None:
    if isinstance(peer.expected, str):
        with pytest.raises(GuestError) as raised:
            FrontendParams.from_nodes(peer.nodes.get, peer.offer)
        assert str(raised.value).startswith(peer.expected), where(peer)
    else:
        assert FrontendParams.from_nodes(peer.nodes.get, peer.offer) == peer.expected, where(peer)


# What the toolstack writes into our directory (libxl_disk.c) for frontends to read.
TOOLSTACK = {"mode", "type", "params", "dev", "removable", "online", "discard-enable"}

Reads = dict[str, int | None]
"""Node to what a frontend takes if it is absent; None: it gives up without."""

SIZE: Reads = {"sectors": None, "sector-size": None}
DISK: Reads = {"info": None, **SIZE}
FLUSHES: Reads = {"feature-barrier": 0, "feature-flush-cache": 0}
DISCARDS: Reads = {
    "feature-discard": 0,
    "discard-granularity": 0,
    "discard-alignment": 0,
    "discard-secure": 0,
}
ORDER: Reads = {"max-ring-page-order": 0}
PAGES: Reads = {"max-ring-pages": 1}
INDIRECT: Reads = {"feature-max-indirect-segments": 0}
STAYING: Reads = {"feature-persistent": 0}
SEVERAL: Reads = {"multi-queue-max-queues": 1}
PHYSICAL: Reads = {"physical-sector-size": 0}


@dataclass(frozen=True)
class Reader:
    """One frontend: what it reads, and what must not be there, for it would act on it."""

    name: str
    source: str
    reads: Reads
    absent: frozenset[str] = frozenset()


# Requests over several ring slots, which nobody offers any more.
SLOTS = frozenset(LIMITS)

READERS = [
    Reader("freebsd-8", "blkfront_connect()", DISK | PAGES | FLUSHES, SLOTS),
    Reader("freebsd-10", "xbd_connect()", DISK | ORDER | PAGES | FLUSHES, SLOTS),
    # max-ring-pages counts more than the order.
    Reader(
        "freebsd-14",
        "xbd_initialize(), xbd_connect()",
        DISK | ORDER | PAGES | FLUSHES | INDIRECT | PHYSICAL,
    ),
    Reader("osv", "blkfront_connect()", DISK | ORDER | PAGES | FLUSHES | INDIRECT, SLOTS),
    Reader("openbsd", "xbf_init()", SIZE | ORDER | PAGES | FLUSHES),
    Reader("netbsd", "xbd_connect(): panics without", DISK | {"feature-flush-cache": 0}),
    # Discards only with the toolstack's type "phy" or "file".
    Reader("linux-3.10", "blkfront_connect()", DISK | FLUSHES | STAYING | DISCARDS),
    Reader(
        "linux-6.1",
        "blkfront_gather_backend_features(), negotiate_mq(), blkfront_connect()",
        DISK | ORDER | FLUSHES | STAYING | DISCARDS | INDIRECT | SEVERAL | PHYSICAL,
    ),
    Reader(
        "xenvbd-8",
        "__ReadDiskInfo(), FrontendReadFeatures()",
        DISK | ORDER | FLUSHES | STAYING | DISCARDS | INDIRECT | PHYSICAL,
    ),
    Reader("xenvbd-9", "FrontendSetNumQueues()", DISK | FLUSHES | DISCARDS | SEVERAL),
    Reader("vmdp", "xenblk_get_ring_details(): they agree", ORDER | PAGES),
    Reader("uvp", "talk_to_blkback(): they agree", ORDER | PAGES),
    Reader("minios", "init_blkfront(): and mode", DISK | FLUSHES),
    Reader("uboot", "init_blkfront(): and mode", DISK | FLUSHES),
    Reader("ovmf", "XenPvBlockFrontInitialization()", DISK | FLUSHES),
    Reader("grub", "grub_virtmedium_open()", SIZE),
    Reader("mirage", "plug(): and mode, but no info", SIZE | ORDER | INDIRECT),
]


def published(offer: Mapping[str, bytes | None], disk: Mapping[str, bytes | None]) -> Nodes:
    """The nodes that are there once both are written; None removes one."""
    return {name: value for name, value in {**offer, **disk}.items() if value is not None}


EVERYTHING = (
    published(
        WIDE.to_nodes(),
        DiskInfo(
            2**41, 512, 4096, read_only=True, removable=True, discard=Discard(65536, 512)
        ).to_nodes(),
    ),
    {
        "sectors": 2**41,
        "info": 6,
        "sector-size": 512,
        "physical-sector-size": 4096,
        "feature-barrier": 1,
        "feature-flush-cache": 1,
        "feature-discard": 1,
        "discard-granularity": 65536,
        "discard-alignment": 512,
        "discard-secure": 0,
        "max-ring-page-order": 4,
        "max-ring-pages": 16,
        "multi-queue-max-queues": 4,
        "feature-max-indirect-segments": 256,
        "feature-persistent": 1,
    },
)
NOTHING = (
    published(BARE.to_nodes(), DiskInfo(8, 4096, 4096, durable=True).to_nodes()),
    dict.fromkeys(EVERYTHING[1], 0)
    | {"sectors": 8, "sector-size": 4096, "physical-sector-size": 4096}
    | {"max-ring-pages": 1, "multi-queue-max-queues": 1},
)


@pytest.mark.parametrize("offered", [EVERYTHING, NOTHING], ids=["everything", "nothing"])
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_a_frontend_reads(reader: Reader, offered: tuple[Nodes, dict[str, int]]) -> None:
    nodes, truth = offered
    known = {
        node: int(nodes[node]) if node in nodes else default
        for node, default in reader.reads.items()
    }
    assert known == {node: truth[node] for node in reader.reads}, where(reader)
    assert not reader.absent & nodes.keys(), where(reader)


@pytest.mark.parametrize("nodes", [EVERYTHING[0], NOTHING[0]], ids=["everything", "nothing"])
def test_any_frontend_can_parse_it(nodes: Nodes) -> None:
    """xenvbd, mini-os, OVMF and OpenBSD take a feature for offered only if it is exactly 1."""
    assert all(value.isdigit() for value in nodes.values())
    features = {name for name in nodes if name.startswith("feature-")}
    assert {nodes[name] for name in features - INDIRECT.keys()} <= {b"0", b"1"}
    assert not TOOLSTACK & nodes.keys()
