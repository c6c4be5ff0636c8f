"""Part of the conformance suite: permissions, the life of domains, quotas."""

import pytest

from tests.store.connection import Connection, permitted, refused, watching
from tests.store.servers import StoreUnderTest
from xbbd_bsd.xenstore.wire import Error, Op

# Permissions.


def test_permissions_come_back_as_set(dom0: Connection) -> None:
    dom0.write("/a")
    dom0.permit("/a", "n0", "r5", "w6", "b7", "n8")
    assert dom0.permissions("/a") == ["n0", "r5", "w6", "b7", "n8"]


@pytest.mark.parametrize("text", ["", "n", "5", "x5", "n5x", "nn", "r-"])
def test_invalid_permissions(dom0: Connection, text: str) -> None:
    dom0.write("/a")
    refused(Error.EINVAL, dom0.permit, "/a", text)
    refused(Error.EINVAL, dom0.permit, "/a", "n0", text)
    refused(Error.EINVAL, dom0.permit, "/a")
    assert dom0.permissions("/a") == ["n0"]


def test_an_owner_exists(dom0: Connection) -> None:
    dom0.write("/a")
    refused(Error.ENOENT, dom0.permit, "/a", "n77")


def test_new_nodes_inherit(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    dom0.write("/a")
    dom0.permit("/a", "r0", "w5", "r7")
    dom0.write("/a/b/c")
    assert dom0.permissions("/a/b/c") == ["r0", "w5", "r7"]
    guest.write("/a/d/e")
    assert dom0.permissions("/a/d") == ["r5", "w5", "r7"]
    assert guest.permissions("/a/d/e") == ["r5", "w5", "r7"]


def test_a_guest_without_permission(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    dom0.write("/a/b", b"secret")
    for op in (Op.READ, Op.DIRECTORY, Op.GET_PERMS, Op.RM, Op.MKDIR):
        for path in ("/a", "/a/b", "/a/absent", "/absent"):
            refused(Error.EACCES, guest.call, op, path)
    refused(Error.EACCES, guest.write, "/a/b", b"1")
    refused(Error.EACCES, guest.permit, "/a/b", "n5")
    refused(Error.EACCES, guest.call, Op.DIRECTORY_PART, "/a", 0)
    assert dom0.read("/a/b") == b"secret"


def test_read_permission(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    dom0.write("/a/b", b"1")
    dom0.permit("/a", "n0", "r5")
    refused(Error.EACCES, guest.read, "/a/b")  # had been made before
    assert guest.names("/a") == ["b"]
    refused(Error.ENOENT, guest.read, "/a/absent/below")
    refused(Error.EACCES, guest.write, "/a", b"2")
    refused(Error.EACCES, guest.write, "/a/absent", b"2")
    refused(Error.EACCES, guest.remove, "/a/absent")


def test_write_permission(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    dom0.write("/a/b", b"1")
    dom0.permit("/a", "n0", "w5")
    guest.write("/a", b"2")
    refused(Error.EACCES, guest.read, "/a")
    refused(Error.EACCES, guest.remove, "/a/b")
    refused(Error.EACCES, guest.permit, "/a", "n0", "b5")
    guest.write("/a/mine", b"3")
    assert guest.read("/a/mine") == b"3"
    guest.remove("/a/mine")
    assert dom0.names("/a") == ["b"]


def test_the_first_entry_is_for_everybody_not_listed(
    store: StoreUnderTest, dom0: Connection
) -> None:
    guest = store.guest(5)
    dom0.write("/a", b"1")
    dom0.permit("/a", "b0", "n7")
    assert guest.read("/a") == b"1"
    guest.write("/a", b"2")
    dom0.permit("/a", "b0", "n5")
    refused(Error.EACCES, guest.read, "/a")
    refused(Error.EACCES, guest.write, "/a")


def test_only_dom0_gives_nodes_away(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    guest.write("a")
    guest.permit("a", "n5", "r0")
    refused(Error.EPERM, guest.permit, "a", "n0")
    refused(Error.ENOENT, guest.permit, "a", "n77")
    dom0.permit("/local/domain/5/a", "n0", "r5")
    refused(Error.EACCES, guest.permit, "a", "n5")
    assert guest.read("a") == b""


def test_watches_show_only_what_may_be_read(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    dom0.write("/a/b/c")
    guest.watch("/a")
    assert guest.events() == [("/a", "t")]  # the first one tells nothing
    dom0.write("/a/b")
    assert guest.events() == []
    dom0.permit("/a/b", "n0", "r5")
    assert guest.events() == [("/a/b", "t")]
    dom0.write("/a/b/c")  # may list the directory that it is in
    assert guest.events() == [("/a/b/c", "t")]
    dom0.permit("/a/b", "n0")  # may not read it any more, and should know
    assert guest.events() == [("/a/b", "t")]
    dom0.write("/a/b/c")
    assert guest.events() == []


def test_removals_show_where_they_may_be_read(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    for name in ("hidden", "shown"):
        dom0.write(f"/a/{name}")
    dom0.permit("/a/shown", "n0", "r5")
    guest.watch("/a")
    guest.events()
    dom0.remove("/a/hidden")
    dom0.remove("/a/shown")
    assert guest.events() == [("/a/shown", "t")]
    dom0.write("/a/shown")
    dom0.permit("/a/shown", "n0", "r5")
    guest.events()
    tx = dom0.begin()
    dom0.remove("/a/shown", tx)
    dom0.end(tx)
    assert guest.events() == [("/a/shown", "t")]


# Domains.


def test_what_only_dom0_may_ask(store: StoreUnderTest) -> None:
    guest = store.guest(5)
    refused(Error.EACCES, guest.call, Op.INTRODUCE, 6, 1, 1)
    refused(Error.EACCES, guest.call, Op.SET_TARGET, 5, 0)
    for op in (Op.RELEASE, Op.IS_DOMAIN_INTRODUCED, Op.RESUME):
        refused(Error.EACCES, guest.call, op, 5)
    refused(Error.EACCES, guest.call, Op.CONTROL, "help")


def test_domain_paths(store: StoreUnderTest, dom0: Connection) -> None:
    assert dom0.call(Op.GET_DOMAIN_PATH, 5) == b"/local/domain/5\0"
    assert store.guest(5).call(Op.GET_DOMAIN_PATH, 6) == b"/local/domain/6\0"


def test_domains_come_and_go(store: StoreUnderTest, dom0: Connection) -> None:
    watching(dom0, "@introduceDomain", "@releaseDomain")
    assert dom0.call(Op.IS_DOMAIN_INTRODUCED, 5) == b"F\0"
    assert dom0.call(Op.IS_DOMAIN_INTRODUCED, 0) == b"T\0"
    store.server.introduce(5)
    assert dom0.event() == ("@introduceDomain", "@introduceDomain")
    assert dom0.call(Op.IS_DOMAIN_INTRODUCED, 5) == b"T\0"
    assert dom0.call(Op.RESUME, 5) == b"OK\0"
    assert dom0.call(Op.INTRODUCE, 5, 1, 1) == b"OK\0"
    assert dom0.events() == []
    store.server.release(5)
    assert dom0.event() == ("@releaseDomain", "@releaseDomain")
    assert dom0.call(Op.IS_DOMAIN_INTRODUCED, 5) == b"F\0"


def test_domains_that_are_none(dom0: Connection) -> None:
    for op in (Op.RELEASE, Op.RESUME):
        refused(Error.ENOENT, dom0.call, op, 66)
        refused(Error.EINVAL, dom0.call, op, 0)
        refused(Error.EINVAL, dom0.call, op)
    refused(Error.ENOENT, dom0.call, Op.SET_TARGET, 66, 0)
    refused(Error.EINVAL, dom0.call, Op.SET_TARGET, 66)
    refused(Error.EINVAL, dom0.call, Op.INTRODUCE, 5)
    refused(Error.EINVAL, dom0.call, Op.INTRODUCE, 5, 1, 0)


def test_the_nodes_of_a_released_domain_go(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    guest.write("a/b")
    dom0.write("/local/domain/5/dom0s")
    dom0.permit("/local/domain/5/dom0s", "n0")
    dom0.write("/backend/5/state")
    dom0.permit("/backend/5/state", "n5", "r0")
    watching(dom0, "/local", "/local/domain/5/a/b", "/backend", "@releaseDomain")
    store.server.release(5)
    events = [dom0.event() for _ in range(4)]
    assert events[3] == ("@releaseDomain", "@releaseDomain")  # with its nodes gone
    assert sorted(events[:3]) == [
        ("/backend/5/state", "/backend"),
        ("/local/domain/5", "/local"),
        ("/local/domain/5/a/b", "/local/domain/5/a/b"),
    ]
    assert dom0.names("/local/domain") == []
    assert dom0.names("/backend/5") == []


def test_a_domid_may_be_used_again(store: StoreUnderTest, dom0: Connection) -> None:
    watching(dom0, "@releaseDomain")
    for _ in range(3):
        guest = store.guest(5)
        refused(Error.ENOENT, guest.read, "a")
        guest.write("a")
        guest.watch("a")
        guest.begin()
        guest.close()
        store.server.release(5)
        assert dom0.event() == ("@releaseDomain", "@releaseDomain")


def test_a_guest_hears_of_domains_only_if_permitted(
    store: StoreUnderTest, dom0: Connection
) -> None:
    guest = store.guest(5)
    guest.watch("@releaseDomain")
    assert guest.events() == [("@releaseDomain", "t")]
    watching(dom0, "@releaseDomain")
    store.server.introduce(6)
    store.server.release(6)
    dom0.event()
    assert guest.events() == []
    dom0.permit("@releaseDomain", "n0", "r5")
    store.server.introduce(6)
    store.server.release(6)
    assert guest.event() == ("@releaseDomain", "t")
    refused(Error.ENOENT, dom0.permit, "@unknown", "n0")


def test_a_target_s_nodes_may_be_used(store: StoreUnderTest, dom0: Connection) -> None:
    served, stubdom = store.guest(5), store.guest(6)
    served.write("a", b"5")
    refused(Error.EACCES, stubdom.read, "/local/domain/5/a")
    assert dom0.call(Op.SET_TARGET, 6, 5) == b"OK\0"
    stubdom.write("/local/domain/5/a", b"6")
    stubdom.write("/local/domain/5/b", b"6")
    assert served.read("a") == b"6"
    assert dom0.permissions("/local/domain/5/b") == ["n6"]
    refused(Error.EACCES, served.read, "/local/domain/6")


def test_a_target_stays_as_long_as_who_has_it(store: StoreUnderTest, dom0: Connection) -> None:
    store.guest(5)
    store.guest(6)
    dom0.call(Op.SET_TARGET, 6, 5)
    watching(dom0, "@releaseDomain")
    store.server.release(5)
    assert dom0.call(Op.IS_DOMAIN_INTRODUCED, 5) == b"T\0"
    assert dom0.names("/local/domain") == ["5", "6"]
    store.server.release(6)
    dom0.event()
    while dom0.names("/local/domain"):  # each of them fires, and the real one may do so in turn
        dom0.event()
    assert dom0.call(Op.IS_DOMAIN_INTRODUCED, 5) == b"F\0"


# Quotas.


@pytest.mark.slow
def test_the_quota_of_nodes(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)  # owns one node then

    def write(number: int) -> None:
        guest.write(f"d{number // 50}/n{number}")

    assert permitted(write, 1100) == 999 - 20  # and the directories
    guest.write("d0/n0", b"1")  # changes no number
    guest.remove("d0/n0")
    write(0)
    refused(Error.ENOSPC, guest.write, "more")
    guest.remove("d0")
    assert permitted(lambda number: guest.write(f"m{number}"), 100) == 51
    dom0.write("/local/domain/5/dom0s")  # is not held up by a guest's quota


@pytest.mark.slow
def test_the_quota_of_nodes_at_commit(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    for number in range(960):
        guest.write(f"d{number // 50}/n{number}")  # 981 nodes in all
    for more, fits in ((19, False), (18, True)):
        tx = guest.begin()
        for number in range(more):
            guest.write(f"m{number}", tx=tx)
        if fits:
            guest.end(tx)
        else:
            refused(Error.ENOSPC, guest.end, tx)
        assert ("m0" in guest.names("/local/domain/5")) is fits


def test_the_quota_of_watches(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    assert permitted(lambda number: guest.watch(f"w{number}"), 140) == 129
    guest.call(Op.UNWATCH, "w0", "t")
    guest.watch("again")
    assert permitted(lambda number: dom0.watch(f"w{number}"), 140) == 140


def test_the_quota_of_transactions(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    numbers: list[int] = []
    assert permitted(lambda _: numbers.append(guest.begin()), 20) == 11
    guest.end(numbers[0], keep=False)
    guest.begin()
    assert permitted(lambda _: dom0.begin(), 20) == 20


def test_the_quota_of_permissions(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    guest.write("a")
    guest.permit("a", "n5", "r1", "r2", "r3", "r4")
    refused(Error.ENOSPC, guest.permit, "a", "n5", "r1", "r2", "r3", "r4", "r6")
    dom0.permit("/local/domain/5/a", "n5", *(f"r{domid}" for domid in range(50)))


def test_the_quota_of_a_node_s_size(store: StoreUnderTest, dom0: Connection) -> None:
    guest = store.guest(5)
    guest.write("a", b"x" * 2015)
    refused(Error.ENOSPC, guest.write, "a", b"x" * 2016)
    refused(Error.ENOSPC, guest.write, "b", b"x" * 2016)
    refused(Error.ENOSPC, guest.write, "a/b")  # a name is part of its parent
    refused(Error.ENOSPC, guest.permit, "a", "n5", "r0")
    assert guest.read("a") == b"x" * 2015
    dom0.write("/local/domain/5/a/b", b"x" * 4000)
    refused(Error.ENOSPC, guest.write, "a", b"x" * 2014)


def test_a_guest_s_directory_fills_up(store: StoreUnderTest) -> None:
    guest = store.guest(5)
    names = [f"{number:09}" for number in range(300)]
    assert permitted(lambda number: guest.write(f"d/{names[number]}"), 300) == 201
    guest.remove(f"d/{names[0]}")
    guest.write("d/again")
