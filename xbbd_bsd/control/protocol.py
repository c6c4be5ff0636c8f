"""The protocol of the control socket: one line of JSON each way.

    {"version": 1, "verb": "get", "name": "dev.xbbd.0"}
    {"ok": true, "values": {"dev.xbbd.0.flush_interval": 0, ...}}

    {"version": 1, "verb": "set", "name": "dev.xbbd.0.flush_interval", "value": 8}
    {"ok": true, "values": {"dev.xbbd.0.flush_interval": 0}}

    {"version": 1, "verb": "resize", "name": "dev.xbbd.0"}
    {"ok": false, "error": "unknown oid 'dev.xbbd.0'"}

`get` takes a name or the beginning of several ("" is all of them) and gives them
in order; `set` takes one leaf and gives the value it had; `resize` has the size
of a device's disk looked at now.  A connection may carry any number of requests,
one after the other.  Lines are UTF-8 and no longer than LIMIT bytes.

Pure: whoever moves the bytes is not known here.  Any thread.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from xbbd_bsd.errors import OperatorError

VERSION: Final = 1
LIMIT: Final = 4096  # bytes of a request; replies have as many as they need
MOST_REPLY: Final = 64 << 20  # bytes, of any sane number of devices

Value = int | str


class Verb(Enum):
    """What a request wants."""

    GET = "get"
    SET = "set"
    RESIZE = "resize"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `value` only for SET."""

    verb: Verb
    name: str
    value: Value | None = None

    def encode(self) -> bytes:
        """As a line."""
        fields: dict[str, object] = {
            "version": VERSION,
            "verb": self.verb.value,
            "name": self.name,
        }
        if self.value is not None:
            fields["value"] = self.value
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Request":
        """Of a line; OperatorError that says what is wrong with it."""
        fields = _object(line)
        if fields.get("version") != VERSION:
            raise OperatorError(f"this daemon speaks version {VERSION} of the control protocol")
        try:
            verb = Verb(fields.get("verb"))
        except ValueError:
            known = ", ".join(verb.value for verb in Verb)
            raise OperatorError(f"unknown verb: known are {known}") from None
        name, value = fields.get("name"), fields.get("value")
        if not isinstance(name, str):
            raise OperatorError("name must be a string")
        if verb is Verb.SET and (not isinstance(value, int | str) or isinstance(value, bool)):
            raise OperatorError("value must be a number or a string")
        if set(fields) - {"version", "verb", "name", "value"}:
            raise OperatorError("a request has version, verb, name and value, nothing else")
        return cls(verb, name, value if verb is Verb.SET else None)  # type: ignore[arg-type]


def encode_values(values: Mapping[str, Value]) -> bytes:
    """The reply to a request that went well, as a line."""
    return json.dumps({"ok": True, "values": values}).encode() + b"\n"


def encode_error(text: str) -> bytes:
    """The reply to one that did not."""
    return json.dumps({"ok": False, "error": text}).encode() + b"\n"


def decode_reply(line: bytes) -> dict[str, Value]:
    """The values of a reply; OperatorError with the daemon's reason."""
    fields = _object(line)
    if fields.get("ok") is not True:
        raise OperatorError(str(fields.get("error", "the daemon gives no reason")))
    values = fields.get("values")
    if not isinstance(values, dict):
        raise OperatorError("the daemon's answer has no values")
    return values


def _object(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise OperatorError("not a line of JSON") from None
    if not isinstance(fields, dict):
        raise OperatorError("not a JSON object")
    return fields
