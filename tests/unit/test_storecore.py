"""The simulated store without sockets: whatever comes in, one reply goes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbbd_bsd.sim.storecore import Connection, Outbox, StoreCore
from xbbd_bsd.xenstore.wire import Op, Packet


def taken(connection: Connection) -> list[Packet]:
    packets = []
    while (packet := connection.outbox.take()) is not None:
        packets.append(packet)
    return packets


WORDS = st.sampled_from(
    b"/ /a /a/b a @releaseDomain @x T F 0 1 5 6 -1 99999999999 n0 r5 n5 token \xff".split()
) | st.sampled_from([b"", b"1" * 4000])
PAYLOADS = (
    st.lists(WORDS, max_size=4)
    .map(b"\0".join)
    .flatmap(lambda joined: st.sampled_from([joined, joined + b"\0", joined + b"\0\0"]))
    .filter(lambda payload: len(payload) <= 4096)
)
REQUESTS = st.builds(
    Packet,
    st.sampled_from(Op) | st.integers(0, 30),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2),
    PAYLOADS | st.binary(max_size=30),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), REQUESTS), max_size=20))
def test_every_request_has_one_reply(script: list[tuple[int, Packet]]) -> None:
    core = StoreCore()
    dom0 = core.connect(0)
    core.request(dom0, Packet(Op.INTRODUCE, payload=b"5\0001\0001\0"))
    core.request(dom0, Packet(Op.WRITE, payload=b"/local/domain/5\0"))
    core.request(dom0, Packet(Op.SET_PERMS, payload=b"/local/domain/5\0n5\0"))
    clients = [dom0, core.connect(5), core.connect(5)]
    taken(dom0)
    for number, request in script:
        client = clients[number]
        if client.ended:
            continue
        core.request(client, request)
        replies = [packet for packet in taken(client) if packet.type != Op.WATCH_EVENT]
        assert len(replies) == 1
        assert (replies[0].req_id, replies[0].tx_id) == (request.req_id, request.tx_id)
        assert replies[0].type in (request.type, Op.ERROR)


def test_an_outbox_merges_what_waits() -> None:
    outbox = Outbox()
    first = Packet(Op.WATCH_EVENT, payload=b"/a\0t\0")
    second = Packet(Op.WATCH_EVENT, payload=b"/b\0t\0")
    reply = Packet(Op.READ, 1, 0, b"/a\0t\0")
    for packet in (first, second, reply, first, reply, second):
        outbox.put(packet)
    assert outbox.size == 4 * 21
    assert [outbox.take() for _ in range(3)] == [first, second, reply]
    outbox.put(first)
    assert [outbox.take() for _ in range(3)] == [reply, first, None]
    assert outbox.size == 0


def test_ready_names_who_has_something_to_hear() -> None:
    core = StoreCore()
    first, second, third = (core.connect(0) for _ in range(3))
    core.request(first, Packet(Op.WATCH, payload=b"/a\0t\0"))
    core.request(second, Packet(Op.WATCH, payload=b"/b\0t\0"))
    core.ready.clear()
    core.request(third, Packet(Op.WRITE, payload=b"/a\0"))
    assert core.ready == {first, third}
    core.disconnect(first)
    core.disconnect(first)
    core.ready.clear()
    core.request(third, Packet(Op.WRITE, payload=b"/a\0"))
    assert core.ready == {third}


@pytest.mark.parametrize("quit_first", [5, 6])
def test_two_domains_with_each_other_as_target(quit_first: int) -> None:
    """They keep each other, as they do in xenstored, until one is given another target."""
    core = StoreCore()
    dom0 = core.connect(0)
    for payload in (b"5\0001\0001\0", b"6\0001\0001\0"):
        core.request(dom0, Packet(Op.INTRODUCE, payload=payload))
    core.request(dom0, Packet(Op.SET_TARGET, payload=b"5\0006\0"))
    core.request(dom0, Packet(Op.SET_TARGET, payload=b"6\0005\0"))
    for domid in (quit_first, 11 - quit_first):
        core.request(dom0, Packet(Op.RELEASE, payload=f"{domid}\0".encode()))
    assert core.domains.keys() == {0, 5, 6}
    core.request(dom0, Packet(Op.SET_TARGET, payload=b"5\0000\0"))
    assert core.domains.keys() == {0}


def test_a_domain_with_itself_as_target_can_end() -> None:
    core = StoreCore()
    dom0 = core.connect(0)
    core.request(dom0, Packet(Op.INTRODUCE, payload=b"5\0001\0001\0"))
    core.request(dom0, Packet(Op.SET_TARGET, payload=b"5\0005\0"))
    guest = core.connect(5)
    core.ready.clear()
    core.request(dom0, Packet(Op.RELEASE, payload=b"5\0"))
    assert core.domains.keys() == {0}
    assert guest.ended
    assert core.ready == {dom0, guest}
