"""Negotiation with literal nodes, as toolstacks and frontends write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.block.negotiate import (
    Discard,
    DiskInfo,
    FrontendParams,
    Offer,
    Protocol,
    RingParams,
)
from xbbd_bsd.errors import GuestError

Frontend = dict[str, bytes]

LINUX = {  # Linux's blkfront, one page
    "ring-ref": b"8",
    "event-channel": b"12",
    "protocol": b"x86_64-abi",
    "feature-persistent": b"1",
}


OFFER = Offer(max_ring_page_order=4, max_queues=4, max_indirect_segments=256, persistent=True)


def read(nodes: Frontend, offer: Offer = OFFER) -> FrontendParams:
    return FrontendParams.from_nodes(nodes.get, offer)


def read_ring(nodes: Frontend, offer: Offer = OFFER) -> RingParams:
    (ring,) = read(nodes, offer).rings
    return ring


def refusal(nodes: Frontend, offer: Offer = OFFER) -> str:
    with pytest.raises(GuestError) as raised:
        read(nodes, offer)
    return str(raised.value)


def test_the_whole_offer() -> None:
    assert OFFER.to_nodes() == {
        "feature-barrier": b"1",
        "feature-flush-cache": b"1",
        "feature-persistent": b"1",
        "max-ring-page-order": b"4",
        "max-ring-pages": b"16",
        "multi-queue-max-queues": b"4",
        "feature-max-indirect-segments": b"256",
    }


def test_what_is_not_offered_has_no_node() -> None:
    """Nor one that was left by an earlier offer, of a daemon with another configuration."""
    assert Offer().to_nodes() == {
        "feature-barrier": b"1",
        "feature-flush-cache": b"1",
        "feature-persistent": b"0",
        "max-ring-page-order": b"0",
        "max-ring-pages": b"1",
        "multi-queue-max-queues": None,
        "feature-max-indirect-segments": None,
    }


def test_disk_of_512_byte_sectors() -> None:
    assert DiskInfo(sectors=2**41).to_nodes() == {
        "sectors": b"2199023255552",
        "info": b"0",
        "sector-size": b"512",
        "physical-sector-size": b"512",
        "feature-barrier": b"1",
        "feature-flush-cache": b"1",
        "feature-discard": b"0",
        "discard-granularity": None,
        "discard-alignment": None,
        "discard-secure": None,
    }


def test_a_4k_disk_has_its_size_in_512_byte_sectors() -> None:
    nodes = DiskInfo(sectors=8000, sector_size=4096, physical_sector_size=4096).to_nodes()
    assert (nodes["sectors"], nodes["sector-size"]) == (b"8000", b"4096")
    assert nodes["physical-sector-size"] == b"4096"


def test_physical_sectors_may_be_larger() -> None:
    nodes = DiskInfo(sectors=8000, physical_sector_size=4096).to_nodes()
    assert (nodes["sector-size"], nodes["physical-sector-size"]) == (b"512", b"4096")


def test_a_disk_that_can_discard() -> None:
    nodes = DiskInfo(sectors=8000, discard=Discard(4096, 512)).to_nodes()
    assert {name: value for name, value in nodes.items() if "discard" in name} == {
        "feature-discard": b"1",
        "discard-granularity": b"4096",
        "discard-alignment": b"512",
        "discard-secure": b"0",
    }


def test_a_disk_that_can_discard_beyond_recovery() -> None:
    assert DiskInfo(8000, discard=Discard(4096, secure=True)).to_nodes()["discard-secure"] == b"1"


def test_a_disk_whose_pieces_begin_at_its_beginning() -> None:
    nodes = DiskInfo(sectors=8000, discard=Discard(4096)).to_nodes()
    assert nodes["discard-alignment"] == b"0"


def test_a_change_of_size_is_one_node() -> None:
    assert DiskInfo(sectors=8000, sector_size=4096).size_nodes() == {"sectors": b"8000"}


def test_a_disk_without_a_cache_wants_no_flushes() -> None:
    """Of either kind: a frontend told of barriers alone would use those."""
    nodes = DiskInfo(sectors=8, durable=True).to_nodes()
    assert nodes["feature-flush-cache"] == nodes["feature-barrier"] == b"0"


@pytest.mark.parametrize(
    ("disk", "info"),
    [
        (DiskInfo(1, read_only=True), b"4"),
        (DiskInfo(1, cdrom=True), b"1"),
        (DiskInfo(1, removable=True), b"2"),
        (DiskInfo(1, read_only=True, cdrom=True, removable=True), b"7"),
    ],
)
def test_info_bits(disk: DiskInfo, info: bytes) -> None:
    assert disk.to_nodes()["info"] == info


def test_single_page() -> None:
    rings = (RingParams(12, (8,)),)
    assert read(LINUX) == FrontendParams(rings, Protocol.X86_64, persistent=True)


def test_several_pages() -> None:
    nodes = {
        "event-channel": b"4294967295",
        "ring-page-order": b"2",
        "ring-ref": b"99",  # an earlier driver's
        "ring-ref0": b"100",
        "ring-ref1": b"7",
        "ring-ref2": b"0",
        "ring-ref3": b"4294967295",
    }
    expected = RingParams(4294967295, (100, 7, 0, 4294967295))
    assert read(nodes) == FrontendParams((expected,), Protocol.NATIVE)


@pytest.mark.parametrize(
    ("offered", "wanted", "persistent"),
    [(True, b"1", True), (True, b"0", False), (True, None, False), (False, b"1", False)],
)
def test_grants_stay_mapped_if_both_like_that(
    offered: bool, wanted: bytes | None, persistent: bool
) -> None:
    nodes = {"ring-ref": b"8", "event-channel": b"12"}
    if wanted is not None:
        nodes["feature-persistent"] = wanted
    assert read(nodes, Offer(persistent=offered)).persistent is persistent


QUEUES = {
    "multi-queue-num-queues": b"2",
    "queue-0/event-channel": b"12",
    "queue-0/ring-ref": b"8",
    "queue-1/event-channel": b"13",
    "queue-1/ring-ref": b"9",
    "ring-ref": b"77",  # an earlier driver's, as are these
    "event-channel": b"78",
}


def test_several_queues() -> None:
    assert read(QUEUES).rings == (RingParams(12, (8,)), RingParams(13, (9,)))


def test_several_queues_of_several_pages() -> None:
    nodes = {"multi-queue-num-queues": b"2", "ring-page-order": b"1"}
    for queue in range(2):
        nodes[f"queue-{queue}/event-channel"] = b"%d" % queue
        for page in range(2):
            nodes[f"queue-{queue}/ring-ref{page}"] = b"%d" % (10 * queue + page)
    assert read(nodes).rings == (RingParams(0, (0, 1)), RingParams(1, (10, 11)))


def test_one_queue_is_where_it_is_without_queues() -> None:
    """Linux writes its only ring into the device's own directory, whatever the number says."""
    assert read_ring(LINUX | {"multi-queue-num-queues": b"1"}) == RingParams(12, (8,))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"multi-queue-num-queues": b"0"}, "multi-queue-num-queues is 0, not within 1 to 4"),
        ({"multi-queue-num-queues": b"5"}, "multi-queue-num-queues is 5, not within 1 to 4"),
        ({"multi-queue-num-queues": b"3"}, "queue-2/event-channel is missing"),
        ({"queue-1/ring-ref": b"x"}, "queue-1/ring-ref is 'x', not a 32-bit number"),
        ({"ring-page-order": b"1"}, "queue-0/ring-ref0 is missing"),
        ({"queue-1/event-channel": b"12"}, None),
    ],
)
def test_queues_that_are_refused(nodes: Frontend, message: str | None) -> None:
    expected = (
        f"frontend node {message}"
        if message is not None
        else "frontend nodes event-channel are not all different"
    )
    assert refusal(QUEUES | nodes) == expected


@pytest.mark.parametrize(
    ("pages", "refs"),
    [(b"1", (5,)), (b"2", (1, 2)), (b"4", (1, 2, 3, 4)), (b"16", tuple(range(16)))],
)
def test_pages_in_the_older_spelling(pages: bytes, refs: tuple[int, ...]) -> None:
    nodes = {"event-channel": b"12", "num-ring-pages": pages}
    if len(refs) == 1:
        nodes["ring-ref"] = b"5"
    for page, ref in enumerate(refs if len(refs) > 1 else ()):
        nodes[f"ring-ref{page}"] = b"%d" % ref
    assert read_ring(nodes).refs == refs


@pytest.mark.parametrize("pages", [b"0", b"3", b"32", b"4294967295"])
def test_pages_that_are_refused(pages: bytes) -> None:
    nodes = {"event-channel": b"12", "num-ring-pages": pages}
    message = f"frontend node num-ring-pages is {int(pages)}, no power of two up to 16"
    assert refusal(nodes) == message


def test_pages_beyond_an_offer_of_two() -> None:
    offer = Offer(max_ring_page_order=1)
    nodes = {"event-channel": b"12", "ring-ref0": b"1", "ring-ref1": b"2"}
    assert read_ring(nodes | {"num-ring-pages": b"2"}, offer).refs == (1, 2)
    message = "frontend node num-ring-pages is 4, no power of two up to 2"
    assert refusal(nodes | {"num-ring-pages": b"4"}, offer) == message
    message = "frontend node ring-page-order is 2, above 1"
    assert refusal(nodes | {"ring-page-order": b"2"}, offer) == message


def test_the_order_counts_more_than_the_number_of_pages() -> None:
    """FreeBSD's frontend writes both."""
    nodes = {"event-channel": b"1", "ring-page-order": b"1", "num-ring-pages": b"7"}
    assert read_ring(nodes | {"ring-ref0": b"3", "ring-ref1": b"4"}).refs == (3, 4)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        (None, Protocol.NATIVE),
        (b"x86_32-abi", Protocol.X86_32),
        (b"x86_64-abi", Protocol.X86_64),
        (b"arm-abi", Protocol.NATIVE),
    ],
)
def test_protocols(name: bytes | None, protocol: Protocol) -> None:
    nodes = {"ring-ref": b"8", "event-channel": b"12"}
    if name is not None:
        nodes["protocol"] = name
    assert read(nodes).protocol is protocol


@pytest.mark.parametrize(
    ("nodes", "refs"),
    [
        ({"ring-ref": b"1", "ring-ref0": b"2"}, (1,)),  # no order: Linux, QEMU
        ({"ring-page-order": b"0", "ring-ref0": b"2"}, (2,)),  # Linux
        ({"ring-page-order": b"0", "ring-ref": b"1"}, (1,)),  # FreeBSD, tapback
        ({"ring-page-order": b"0", "ring-ref": b"1", "ring-ref0": b"2"}, (2,)),
    ],
)
def test_both_spellings_of_a_single_page(nodes: Frontend, refs: tuple[int, ...]) -> None:
    assert read_ring({"event-channel": b"12", **nodes}).refs == refs


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({}, "frontend node event-channel is missing"),
        ({"event-channel": b"1"}, "frontend node ring-ref is missing"),
        ({"event-channel": b"1", "ring-ref0": b"1"}, "frontend node ring-ref is missing"),
        (
            {"event-channel": b"1", "ring-page-order": b"0"},
            "frontend node ring-ref is missing",
        ),
        (
            {"event-channel": b"1", "ring-page-order": b"1", "ring-ref": b"1", "ring-ref1": b"1"},
            "frontend node ring-ref0 is missing",
        ),
        (
            {"event-channel": b"1", "ring-page-order": b"1", "ring-ref0": b"1"},
            "frontend node ring-ref1 is missing",
        ),
        (LINUX | {"ring-page-order": b"5"}, "frontend node ring-page-order is 5, above 4"),
        (
            LINUX | {"ring-page-order": b"4294967295"},
            "frontend node ring-page-order is 4294967295, above 4",
        ),
        (
            LINUX | {"protocol": b"x86_64-abi\n"},
            "frontend node protocol is 'x86_64-abi\\x0a', which is unknown",
        ),
        (LINUX | {"protocol": b""}, "frontend node protocol is '', which is unknown"),
    ],
)
def test_one_error_names_the_node(nodes: Frontend, message: str) -> None:
    assert refusal(nodes) == message


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" 8",
        b"8 ",
        b"8\n",
        b"8\0",
        b"+8",
        b"-8",
        b"1_0",
        b"0x8",
        b"8.0",
        b"1e3",
        "\N{ARABIC-INDIC DIGIT EIGHT}".encode(),
        b"\xb2",  # superscript two in Latin-1
        b"4294967296",
        b"00000000008",
        b"9" * 4000,
    ],
)
@pytest.mark.parametrize("node", ["ring-ref", "event-channel", "ring-page-order"])
def test_numbers_are_plain_decimal_of_32_bits(node: str, value: bytes) -> None:
    message = refusal(LINUX | {node: value})
    assert message.startswith(f"frontend node {node} is '")
    assert message.endswith("', not a 32-bit number")
    assert len(message) < 400


NAMES = ["event-channel", "ring-ref", "ring-page-order", "num-ring-pages", "protocol"]
NAMES += ["multi-queue-num-queues", "feature-persistent"]
NAMES += [f"ring-ref{page}" for page in range(33)]


@given(
    st.dictionaries(
        st.sampled_from(NAMES), st.binary() | st.integers(-1, 2**33).map(lambda n: b"%d" % n)
    ),
    st.integers(0, 5),
)
def test_any_frontend_is_parameters_or_a_guests_error(nodes: Frontend, max_order: int) -> None:
    message = None
    try:
        ring = read_ring(nodes, Offer(max_ring_page_order=max_order))
    except GuestError as error:
        message = str(error)
    if message is not None:
        assert message.startswith("frontend node ")
    else:
        assert len(ring.refs) in [1 << order for order in range(max_order + 1)]
        assert all(0 <= number < 2**32 for number in (ring.port, *ring.refs))


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 5).flatmap(
        lambda order: st.lists(st.integers(0, 2**32 - 1), min_size=1 << order, max_size=1 << order)
    ),
)
def test_what_a_frontend_writes_is_what_we_read(port: int, refs: list[int]) -> None:
    nodes = {f"ring-ref{page}": b"%d" % ref for page, ref in enumerate(refs)}
    nodes["event-channel"] = b"%d" % port
    nodes["ring-page-order"] = b"%d" % (len(refs).bit_length() - 1)
    assert read_ring(nodes, Offer(max_ring_page_order=5)) == RingParams(port, tuple(refs))
