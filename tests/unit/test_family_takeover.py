"""A disk that an earlier daemon served, with a real queue and the segment that it left."""

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from errno import EBUSY, EINVAL, EIO, ENOENT, ENOSPC, ESTALE
from functools import partial
from typing import Any

import pytest

from tests.descriptors import open_descriptors
from tests.native.slots import RawRing
from tests.unit.family_bench import IDENTITY, PORT, Bench, at_once
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.accounts import Part
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.served import note_passport
from xbbd_bsd.config import Config, DiskConfig
from xbbd_bsd.errands import Outcome, Pending
from xbbd_bsd.errors import HostError, OperatorError, XbbdError
from xbbd_bsd.events import QueueStarted
from xbbd_bsd.host import DiskGeometry
from xbbd_bsd.limits import Limits, Need
from xbbd_bsd.native import Abi, Op, QueueState, RequestState, State
from xbbd_bsd.native._xbb import lib
from xbbd_bsd.xenbus.states import Queue

BLOCK = os.urandom(4096)


def served(bench: Bench) -> None:
    """A guest is connected, and has written something."""
    bench.open()
    nodes = bench.connect()
    bench.backend_nodes |= {name: node for name, node in nodes.items() if node is not None}
    bench.front.transfer(Op.WRITE, 0, 8, bytearray(BLOCK), GIVE_UP)


def is_served(bench: Bench) -> bool:
    """Whether the guest has answers, which are right."""
    data = bytearray(4096)
    bench.front.transfer(Op.READ, 0, 8, data, GIVE_UP)
    return bytes(data) == BLOCK


def spoil(bench: Bench, spoils: Callable[[State], None]) -> None:
    """Change what the dead one left."""
    segment = State.open(str(bench.run / "xbbd.0"), writable=True)
    spoils(segment)
    segment.close()


def test_it_goes_on(bench: Bench) -> None:
    served(bench)
    bench.die()
    assert (bench.backend.adoptable, bench.backend.lost) == (True, "")
    assert bench.adopt() == "1 ring, 0 requests in flight"
    assert bench.queue() is Queue.RUNNING
    assert bench.backend.medium_open
    assert not bench.backend.adoptable
    assert is_served(bench)
    refs = str(bench.front.ring_refs[0])
    assert bench.events == [QueueStarted("xbbd0 (vbd/5/51712)", PORT, refs)]
    assert bench.family.devices[0].group("takeovers")["takeovers"] == 1
    assert bench.family.devices[0].group("counters")["wr_req"] == 1, "counters go on"


def test_nothing_is_said_to_be_answered_of_what_is_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version would go by that, and not by the table, which it cannot read."""
    served(bench)
    segment = State.open(str(bench.die()))
    note_passport(segment, answered=True, journal=bench.events.append)
    segment.close()
    bench.follow()
    begun: list[list[str]] = []

    def start(*_: object) -> None:
        begun.append(sorted(os.listdir(bench.run)))
        raise HostError("no room for a mapping", ENOSPC)

    monkeypatch.setattr(bench.backend, "_start", start)
    with pytest.raises(HostError, match="no room"):
        bench.adopt()
    assert begun == [["xbbd.0", "xbbd.0.begun"]]
    assert sorted(os.listdir(bench.run)) == ["xbbd.0", "xbbd.0.left"]
    monkeypatch.undo()
    bench.adopt()
    assert is_served(bench)
    assert not [name for name in os.listdir(bench.run) if name.startswith("xbbd.0.")]


def test_again_and_again(bench: Bench) -> None:
    served(bench)
    for times in (1, 2, 3):
        bench.die()
        bench.adopt()
        assert is_served(bench)
        assert bench.family.devices[0].group("takeovers")["takeovers"] == times


def test_it_serves_as_it_was_served(bench: Bench) -> None:
    """What guest and configuration say by now is for the next connection."""
    served(bench)
    bench.die(Config(disk=DiskConfig(max_indirect_segments=0, sector_size=4096, discard=False)))
    bench.frontend_nodes = {"ring-ref": b"nonsense"}
    bench.adopt()
    medium = bench.family.devices[0].group("medium")
    assert (medium["queues"], medium["abi"], medium["sector_bytes"]) == (1, "x86_64", 512)
    assert is_served(bench)


def unanswered(bench: Bench, state: RequestState, status: int = 0) -> None:
    """As if it had died before the last answer, that to the second request."""

    def before(segment: State) -> None:
        table = lib.xbb_state_table(segment.handle, 0)[0:32]
        (request,) = (entry for entry in table if entry.ring_index == 1)
        request.state, request.status, request.received_ns = state, status, 1
        segment.handle.ring[0].common.rsp_prod = 1
        bench.front.ring[8:12] = struct.pack("=I", 1)  # rsp_prod

    spoil(bench, before)


def test_a_request_that_had_no_answer_is_done_again(bench: Bench) -> None:
    """A flush, of which nobody minds another answer here."""
    served(bench)
    bench.front.transfer(Op.FLUSH_DISKCACHE, 0, 0, None, GIVE_UP)
    bench.die()
    unanswered(bench, RequestState.DISPATCHED)
    text = bench.adopt()
    assert text.startswith("1 ring, 1 request in flight, the oldest for ")
    numbers = bench.family.devices[0]
    assert numbers.group("takeovers")["takeover_longest_ms"]
    bench.backend.drain()
    bench.drained()
    counters = numbers.group("counters")
    assert (counters["flushes_done"], counters["reqs_completed"]) == (2, 2)


@pytest.mark.parametrize("state", [RequestState.DONE, RequestState.ANSWERED])
def test_what_was_done_is_answered_with_what_came_of_it(bench: Bench, state: RequestState) -> None:
    """And not done again, though it might go well by now."""
    served(bench)
    bench.front.transfer(Op.FLUSH_DISKCACHE, 0, 0, None, GIVE_UP)
    bench.die()
    unanswered(bench, state, status=-1)
    bench.adopt()
    bench.backend.drain()
    bench.drained()
    counters = bench.family.devices[0].group("counters")
    assert (counters["flushes_done"], counters["reqs_completed"]) == (1, 2)
    raw = RawRing(bench.front, Abi.NATIVE)
    raw.rsp_cons = 0
    assert raw.responses(2)[1][2] == -1


def test_it_is_resumed_while_it_is_adopted(bench: Bench) -> None:
    """Its rings sleep by then, and nobody has them yet who could wake them."""
    later: list[Callable[[], None]] = []

    def mapped_later(
        what: str, work: Callable[[], object], then: Callable[[Outcome], None], whose: str
    ) -> None:
        hears = then if "mapping" not in what else lambda done: later.append(partial(then, done))
        at_once(what, work, hears, whose)

    served(bench)
    bench.die(run=mapped_later)
    segment = State.open(str(bench.run / "xbbd.0"), writable=True)
    segment.pause()
    with ThreadPoolExecutor(1) as guest:
        answered = guest.submit(is_served, bench)
        with pytest.raises(Pending):
            bench.adopt()
        eventually(lambda: segment.followed, "it is paused")
        segment.resume()
        segment.close()
        (mapped,) = later
        mapped()
        assert bench.adopt() == "1 ring, 0 requests in flight"
        assert answered.result(GIVE_UP)


def test_an_ending_is_gone_on_with(bench: Bench) -> None:
    """A guest whose rings were to be drained has them drained."""
    served(bench)
    bench.die()

    def ends(segment: State) -> None:
        segment.handle.ring[0].common.status.state = QueueState.DRAINING

    spoil(bench, ends)
    before = bench.wakes
    bench.adopt()
    assert bench.queue() is not Queue.RUNNING
    if bench.wakes == before:
        bench.drained()
    assert bench.queue() is Queue.DRAINED


def test_news_of_a_size_that_changed_meanwhile(bench: Bench) -> None:
    served(bench)
    bench.die()
    os.truncate(bench.disk, 2 << 20)
    bench.adopt()
    assert bench.backend.news == {"sectors": b"4096"}
    assert bench.family.devices[0].group("medium")["sectors"] == 4096
    bench.backend.told()
    bench.front.transfer(Op.READ, 4088, 8, bytearray(4096), GIVE_UP)


def test_no_news_of_a_size_that_did_not(bench: Bench) -> None:
    served(bench)
    bench.die()
    bench.adopt()
    assert bench.backend.news == {}


def given_up(bench: Bench, message: str, errno: int) -> None:
    """Once, for good, and in words."""
    with pytest.raises(HostError, match=f"^cannot be taken over: .*{message}") as error:
        bench.adopt()
    assert (error.value.errno, error.value.passes) == (errno, False)
    assert not bench.backend.adoptable
    assert message in bench.backend.lost
    assert bench.queue() is Queue.NONE
    assert not (bench.run / "xbbd.0").exists()
    assert 0 not in bench.family.devices
    # As the table does.
    bench.backend.abandon()
    bench.backend.close()
    assert bench.limits.values()["event_channels"] == 0


def test_another_disk_of_that_name(bench: Bench) -> None:
    served(bench)
    bench.die()
    bench.disk.rename(bench.disk.with_suffix(".old"))
    bench.disk.write_bytes(bytes(1 << 20))
    given_up(bench, "it is another disk by now", ESTALE)


def test_no_disk_of_that_name(bench: Bench) -> None:
    served(bench)
    bench.die()
    bench.disk.rename(bench.disk.with_suffix(".old"))
    given_up(bench, "No such file", ENOENT)
    bench.disk.with_suffix(".old").rename(bench.disk)
    bench.open()
    bench.front.close()
    bench.front = bench.make_front()
    bench.frontend_nodes["ring-ref"] = b"%d" % bench.front.ring_refs[0]
    bench.connect()
    assert is_served(bench)
    assert bench.family.devices[0].group("takeovers")["takeovers"] == 0


def test_sectors_of_another_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    served(bench)
    bench.die()
    prepare = bench.host.prepare_disk

    def larger(fd: int) -> DiskGeometry:
        found = prepare(fd)
        return DiskGeometry(
            medium=found.medium, size=found.size, sector_size=4096, physical_sector_size=4096
        )

    monkeypatch.setattr(bench.host, "prepare_disk", larger)
    given_up(bench, "has sectors of another size", EINVAL)


def test_a_disk_that_lost_something_under_another(bench: Bench) -> None:
    """An operator's word may come soon, but the guest's rings are not to wait for it."""
    served(bench)
    bench.die()
    lost = State.create(str(bench.run / "other"), table_entries=32)
    segment = State.open(str(bench.run / "xbbd.0"))
    assert segment.medium is not None
    lost.medium = segment.medium
    lost.lose(EIO)
    segment.close()
    assert Marks(str(bench.run)).note(lost) is not None
    lost.close()
    (bench.run / "other").unlink()
    given_up(bench, "so that what was written before may be lost", EIO)
    assert bench.family.marks.clear(str(bench.disk))


def test_rings_that_the_guest_has_spoilt(bench: Bench) -> None:
    served(bench)
    bench.die()
    bench.front.ring[8:12] = struct.pack("=I", 0x12345)  # rsp_prod
    given_up(bench, "recover requests", 71)


def test_a_table_that_is_none_of_ours(bench: Bench) -> None:
    served(bench)
    bench.die()

    def odd(segment: State) -> None:
        lib.xbb_state_table(segment.handle, 0)[5].state = 99

    spoil(bench, odd)
    given_up(bench, "recover requests", EINVAL)


@pytest.mark.parametrize("again", [False, True])
def test_whoever_serves_it_has_not_ended(bench: Bench, again: bool) -> None:
    """Nothing is opened, let alone mapped, as long as that is so."""
    served(bench)
    path = bench.die()
    held = State.take_over(str(path))
    before = open_descriptors()
    with pytest.raises(HostError, match=r"has not ended$") as error:
        bench.adopt()
    assert (error.value.errno, error.value.passes) == (EBUSY, True)
    assert bench.backend.adoptable
    assert open_descriptors() == before
    held.close()
    if again:
        bench.adopt()
        assert is_served(bench)


def test_a_disk_that_another_program_has_just_now(bench: Bench) -> None:
    served(bench)
    bench.die()
    bench.host.locked = True
    with pytest.raises(OperatorError, match="another program uses it") as error:
        bench.adopt()
    assert error.value.passes
    assert bench.backend.adoptable
    bench.host.locked = False
    bench.adopt()
    assert is_served(bench)


def test_limits_take_nothing_away(bench: Bench) -> None:
    """Who had it keeps it, and what comes sees that there is no more."""
    served(bench)
    bench.die()
    bench.limits.configure(Limits(0, 0, 0, 0, 0, 0))
    bench.limits.keep(("xbbd", 9), Part.CONNECTION, 9, Need(event_channels=1))
    bench.adopt()
    assert is_served(bench)
    assert bench.limits.values()["event_channels"] == 2
    bench.limits.forget(("xbbd", 9))


def test_another_virtual_machine_of_that_number(bench: Bench) -> None:
    served(bench)
    path = bench.die()
    bench.backend.introduce(bench.backend_nodes.get, "vm", "/vm/2")
    assert not bench.backend.adoptable
    assert bench.backend.lost == "its state segment is another virtual machine's"
    assert not path.exists()


class Later:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.slow = False

    def __call__(
        self, what: str, work: Callable[[], object], then: Callable[[Outcome], None], whose: str
    ) -> None:
        if self.slow:
            self.waiting.append(lambda: at_once(what, work, then, whose))
        else:
            at_once(what, work, then, whose)


@pytest.fixture
def later(bench: Bench) -> Later:
    bench._run = later = Later()
    bench.family = bench.make(Config())
    bench.backend = bench.create(IDENTITY)
    return later


def test_opening_and_mapping_take_their_time(bench: Bench, later: Later) -> None:
    served(bench)
    bench.die()
    later.slow = True
    for _ in ("opening", "mapping"):
        with pytest.raises(Pending):
            bench.adopt()
        assert bench.backend.adoptable
        later.waiting.pop(0)()
    bench.adopt()
    later.slow = False
    assert is_served(bench)


def test_a_guest_that_leaves_meanwhile_begins_anew(bench: Bench, later: Later) -> None:
    """With a fresh segment: what stood in the old one is about rings that are gone."""
    served(bench)
    bench.die()

    def older(segment: State) -> None:
        segment.note_takeover(5)

    spoil(bench, older)
    later.slow = True
    with pytest.raises(Pending):
        bench.adopt()
    bench.backend.abandon()
    later.slow = False
    later.waiting.pop(0)()
    bench.front.close()
    bench.front = bench.make_front()
    bench.frontend_nodes["ring-ref"] = b"%d" % bench.front.ring_refs[0]
    bench.open()
    bench.connect()
    assert is_served(bench)
    assert bench.family.devices[0].group("takeovers")["takeovers"] == 0
    bench.die()
    bench.adopt()
    assert is_served(bench)


def test_numbers_are_promised_until_all_are_known(bench: Bench) -> None:
    served(bench)
    last = (bench.run / "xbbd.0").read_bytes()
    bench.down()
    bench.backend.forget()
    (bench.run / "xbbd.0").write_bytes(last)
    bench.family = bench.make(Config())
    assert bench.family.promised == {0}
    assert bench.family.unit_of("vbd", 5, 51712, bench.backend_nodes.get) == 0
    bench.family.settle("vbd3")
    assert bench.family.promised == {0}
    bench.family.settle("vbd")
    assert bench.family.promised == frozenset()
    assert os.listdir(bench.run) == []
    bench.backend = bench.create(IDENTITY)
    assert not bench.backend.adoptable


def test_errors_of_adopting_are_ours(bench: Bench) -> None:
    """Whatever a guest has done to its ring, its device is closed with words, not with a raise."""
    served(bench)
    bench.die()
    bench.front.ring[:] = os.urandom(len(bench.front.ring))
    with pytest.raises(XbbdError):
        bench.adopt()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: setattr(c.ring[0].params, "read_only", 1),
        lambda c: setattr(c.ring[0].params.conn, "remote_port", 99),
        lambda c: c.ring[0].params.conn.ring_ref.__setitem__(0, 99),
        lambda c: setattr(c.ring[0].params, "discard", 2),
        lambda c: c.medium.path.__setitem__(1, ord("x")),
        lambda c: setattr(c.medium, "inode", 99),
        lambda c: setattr(c.medium, "shared", 1),
        lambda c: setattr(c, "connection_rings", 2),
    ],
)
def test_a_segment_is_believed_only_as_it_was_made(
    bench: Bench, change: Callable[[Any], None]
) -> None:
    """Whoever serves a disk can write there, and shares memory with a guest."""
    served(bench)
    bench.die()
    spoil(bench, lambda segment: change(segment.handle))
    with pytest.raises(HostError, match=r"not as its guest was connected|contradicts"):
        bench.adopt()
    assert not bench.backend.adoptable
