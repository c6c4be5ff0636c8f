"""Lines of the control protocol, as literal bytes and as anything at all."""

import errno
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.control.protocol import (
    FamilyVerb,
    Request,
    Verb,
    decode_reply,
    encode_end,
    encode_error,
    encode_values,
)
from xbbd_bsd.errors import OperatorError, Refused


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (Request(Verb.GET, ""), b'{"version": 1, "verb": "get", "name": ""}\n'),
        (
            Request(Verb.SET, "dev.xbbd.0.flush_interval", 8),
            b'{"version": 1, "verb": "set", "name": "dev.xbbd.0.flush_interval", "value": 8}\n',
        ),
        (
            Request(FamilyVerb("resize"), "dev.xbbd.3"),
            b'{"version": 1, "verb": "resize", "name": "dev.xbbd.3"}\n',
        ),
    ],
)
def test_requests(request_: Request, line: bytes) -> None:
    assert request_.encode() == line
    assert Request.decode(line, ("clear", "resize")) == request_


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not a line of JSON"),
        (b"get x\n", "not a line of JSON"),
        (b"\xff\n", "not a line of JSON"),
        (b"[" * 4000 + b"\n", "not a line of JSON"),
        (b"[]\n", "not a JSON object"),
        (b"{}\n", "speaks version 1 of the control protocol, not null"),
        (b'{"version": 2, "verb": "get", "name": ""}\n', "speaks version 1"),
        (b'{"version": 1, "verb": "put", "name": ""}\n', "known are get, describe, set"),
        (b'{"version": 1, "verb": [], "name": ""}\n', "known are get, describe, set"),
        (b'{"version": 1, "verb": "resize", "name": ""}\n', "known are get, describe, set"),
        (b'{"version": 1, "verb": "get", "name": 5}\n', "name must be a string"),
        (b'{"version": 1, "verb": "set", "name": "a"}\n', "value is missing"),
        (b'{"version": 1, "verb": "set", "name": "a", "value": 0.5}\n', "value must be a number"),
        (b'{"version": 1, "verb": "set", "name": "a", "value": true}\n', "value must be"),
        (b'{"version": 1, "verb": "get", "name": "", "x": 1}\n', "nothing else"),
    ],
)
def test_requests_that_are_none(line: bytes, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        Request.decode(line)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(lambda thing: json.dumps(thing).encode())
)
def test_anything_is_a_request_or_an_operators_error(line: bytes) -> None:
    for decode in (Request.decode, decode_reply):
        with suppress(OperatorError):
            decode(line)


def test_replies() -> None:
    assert encode_values({"a": 1, "b": "x"}) == b'{"values": {"a": 1, "b": "x"}}\n'
    assert decode_reply(encode_values({"a": 1})) == {"a": 1}
    assert decode_reply(encode_end()) is None
    refused = encode_error(OperatorError("no such thing", errno.ENOENT))
    assert refused == b'{"ok": false, "error": "no such thing", "errno": "ENOENT"}\n'
    with pytest.raises(OperatorError, match=r"^no such thing$") as raised:
        decode_reply(refused)
    assert raised.value.errno == errno.ENOENT
    several = encode_error(Refused(["a: b", "c; d"]))
    assert several == (
        b'{"ok": false, "error": "a: b; c; d", "errors": ["a: b", "c; d"], "errno": "EINVAL"}\n'
    )
    with pytest.raises(Refused) as both:
        decode_reply(several)
    assert both.value.lines == ("a: b", "c; d")
    assert b"errors" not in encode_error(Refused(["a: b"]))
    with pytest.raises(OperatorError, match="gives no reason"):
        decode_reply(b'{"ok": false, "errno": "__name__"}\n')


@pytest.mark.parametrize("verb", Verb)
def test_only_some_verbs_change_anything(verb: Verb) -> None:
    assert verb.writes == (verb.value in ("set", "note", "reload"))


def test_verbs_of_families_are_for_who_may_write() -> None:
    """They are known only where there is such a family, and are named then."""
    assert FamilyVerb("resize").writes
    line = Request(FamilyVerb("resize"), "dev.xbbd.3").encode()
    with pytest.raises(OperatorError, match=r"known are .*, note, clear$"):
        Request.decode(line, ("clear",))
