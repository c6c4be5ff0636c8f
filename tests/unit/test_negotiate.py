"""Negotiation with literal nodes, as toolstacks and frontends write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.block.negotiate import DiskInfo, Protocol, RingParams, capabilities
from xbbd_bsd.errors import GuestError

Frontend = dict[str, bytes]

LINUX = {  # Linux's blkfront, one page
    "ring-ref": b"8",
    "event-channel": b"12",
    "protocol": b"x86_64-abi",
    "feature-persistent": b"1",
}


def read(nodes: Frontend, max_order: int = 4) -> RingParams:
    return RingParams.from_nodes(nodes.get, max_order)


def refusal(nodes: Frontend, max_order: int = 4) -> str:
    with pytest.raises(GuestError) as raised:
        read(nodes, max_order)
    return str(raised.value)


def test_capabilities() -> None:
    assert capabilities(4) == {
        "feature-barrier": b"1",
        "feature-flush-cache": b"1",
        "max-ring-page-order": b"4",
    }


def test_disk_of_512_byte_sectors() -> None:
    assert DiskInfo(sectors=2**41).to_nodes() == {
        "sectors": b"2199023255552",
        "info": b"0",
        "sector-size": b"512",
    }


def test_a_4k_disk_has_its_size_in_512_byte_sectors() -> None:
    disk = DiskInfo(sectors=8000, sector_size=4096, physical_sector_size=4096)
    assert disk.to_nodes() == {"sectors": b"8000", "info": b"0", "sector-size": b"4096"}


def test_physical_sectors_are_told_when_they_differ() -> None:
    nodes = DiskInfo(sectors=8000, physical_sector_size=4096).to_nodes()
    assert nodes["physical-sector-size"] == b"4096"
    assert nodes["sector-size"] == b"512"


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
    assert read(LINUX) == RingParams(12, (8,), Protocol.X86_64)


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
    expected = RingParams(4294967295, (100, 7, 0, 4294967295), Protocol.NATIVE)
    assert read(nodes) == expected


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
    assert read({"event-channel": b"12", **nodes}).refs == refs


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


NAMES = ["event-channel", "ring-ref", "ring-page-order", "protocol"]
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
        ring = read(nodes, max_order)
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
    assert read(nodes, 5) == RingParams(port, tuple(refs), Protocol.NATIVE)
