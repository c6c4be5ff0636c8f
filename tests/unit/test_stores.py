"""What a disk's name means: paths, URIs, sections; and what is refused in words without secrets."""

from __future__ import annotations

import pytest

from xbbd_bsd.block.disk import disk_path
from xbbd_bsd.block.stores import store_named
from xbbd_bsd.config import Config, difference
from xbbd_bsd.conftext import examine
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.storeuri import NbdAddress, RbdAddress, is_store, parse_uri

SECTION = '[store.db]\nuri = "nbds://[fe80::1]:1234/my%20disk"\npsk_file = "/etc/psk"\n'


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("nbd://host/a", NbdAddress("a", False, host="host")),
        ("NBD://host", NbdAddress("", False, host="host")),
        ("nbd://[::1]:99/a,b%2Cc", NbdAddress("a,b,c", False, host="::1", port=99)),
        ("nbds://host/a/b", NbdAddress("a/b", True, host="host")),
        ("nbd+unix:///?socket=/run/x", NbdAddress("", False, socket="/run/x")),
        ("nbd+unix:///a%20b?socket=/x%20y", NbdAddress("a b", False, socket="/x y")),
        ("nbds+unix:///a?socket=/x", NbdAddress("a", True, socket="/x")),
        ("rbd:pool/image", RbdAddress("pool", "image")),
        ("RBD:pool/space/image@then", RbdAddress("pool", "image", "space", "then")),
        ("rbd:a%20pool/an,image%2C%3a", RbdAddress("a pool", "an,image,:")),
    ],
)
def test_where_a_uri_leads_to(uri: str, address: NbdAddress) -> None:
    assert parse_uri(uri) == address


@pytest.mark.parametrize(
    "uri",
    [
        "nbd://me:secret@host/x",
        "nbd://secret@host/x",
        "nbd://host:secret/x",
        "nbd://host:70000/x",
        "nbd:///secret",
        "nbd://host/x?secret=1",
        "nbd+unix:///x?socket=secret",
        "nbd+unix:///x",
        "nbd+unix://host/x?socket=/secret",
        "nbd://host/x#secret",
        "nbd://host/%00secret",
        "nbd://host/" + "x" * 256,
        "nbd+unix:///x?socket=/" + "x" * 103,
        "rbd:secret",
        "rbd:/secret",
        "rbd:secret/",
        "rbd:a/b/c/secret",
        "rbd:pool/secret@",
        "rbd:pool/a%2Fsecret",
        "rbd:pool/secret%00",
        "rbd:pool/" + "x" * 256,
        "rbd://secret/image",
        "rbd:pool/image?secret",
        "rbd:pool/image#secret",
        "rbd:pool/image:id=admin:key=secret",
        "rbd:pool/sec\nret",
        "nbd://host/sec\tret",
        "ssh:secret",
    ],
)
def test_what_is_no_uri_is_not_repeated(uri: str) -> None:
    with pytest.raises(OperatorError) as refused:
        parse_uri(uri)
    assert "secret" not in str(refused.value)


def test_names() -> None:
    stores = examine(SECTION, "").config.stores
    assert store_named(b"/dev/nbd://x", stores) is None
    assert not is_store(b"nbd0")
    found = store_named(b"store:db", stores)
    assert found is not None
    assert found.address == NbdAddress("my disk", True, host="fe80::1", port=1234)
    assert found.shown == "store:db"
    assert "/etc/psk" not in repr(found)
    with pytest.raises(OperatorError, match=r"there is no section \[store.x\]"):
        store_named(b"store:x", stores)
    with pytest.raises(OperatorError, match="UTF-8"):
        store_named(b"store:\xff", stores)


def test_a_store_is_one_by_all_its_names() -> None:
    stores = examine('[store.a]\nuri = "nbd://HOST/x"\n', "").config.stores
    names = (b"store:a", b"nbd://host:10809/x", b"nbd://host/y")
    one, other, third = (store_named(name, stores) for name in names)
    assert one is not None
    assert other is not None
    assert third is not None
    assert isinstance(one.address, NbdAddress)
    assert isinstance(other.address, NbdAddress)
    assert isinstance(third.address, NbdAddress)
    assert one.address.text == other.address.text
    assert third.address.text != one.address.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[store.a]\n", "must have uri"),
        ("[store.a]\nuri = 3\n", "uri must be text"),
        ('[store."a b"]\nuri = "nbd://h"\n', "its name must be"),
        ('[store.a]\nuri = "nbd://h"\nuser = "x"\n', "user is of TLS"),
        ('[store.a]\nuri = "nbds://h"\npsk_file = "/x"\ncertificates = "/y"\n', "together"),
        ('[store.a]\nuri = "nbds://h"\npsk_file = "x"\n', "absolute path"),
        ('[store.a]\nuri = "nbd://h"\ntimeout = 0\n', "1 to 3600"),
        ('[store.a]\nuri = "nbd://h"\nkeyring = "/x"\n', "keyring is of Ceph"),
        ('[store.a]\nuri = "rbd:a/b"\npsk_file = "/x"\n', "psk_file is of TLS"),
        ('[store.a]\nuri = "rbd:a/b"\nconf = "x"\n', "absolute path"),
        ('[store.a]\nuri = "rbd:a/b"\nid = ""\n', "must be a name"),
        ('[store.a]\nuri = "nbd://h"\nfoo = 0\n', "unknown key"),
        ("store = 3\n", "must be sections"),
    ],
)
def test_sections_that_are_wrong(text: str, reason: str) -> None:
    reading = examine(text, "f")
    assert reason in str(reading.faults[0])
    assert reading.config.store == ()


def test_an_image_of_ceph() -> None:
    text = '[store.a]\nuri = "rbd:p/i"\nid = "xen"\nconf = "/c"\nkeyring = "/k"\n'
    found = store_named(b"store:a", examine(text, "").config.stores)
    assert found is not None
    assert found.address == RbdAddress("p", "i")
    assert (found.config.id, found.config.conf, found.config.keyring) == ("xen", "/c", "/k")
    assert "/k" not in repr(found)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"rbd:pool/image@then", "rbd:pool/image@then"),
        (b"rbd:pool/image:key=secret", ""),
        (b"nbd://me:secret@host/x", ""),
        (b"store:db", "store:db"),
    ],
)
def test_names_with_a_password_are_not_shown(name: bytes, shown: str) -> None:
    assert disk_path(name) == shown


def test_a_change_is_told_without_keys() -> None:
    (change,) = difference(Config(), examine(SECTION, "").config)
    assert change.key == "store.db"
    assert "psk" not in "".join(change.told())
