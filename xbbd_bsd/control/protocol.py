"""The protocol of the control socket: lines of JSON, version 1.

A request is one line:

    {"version": 1, "verb": "get", "name": "dev.xbbd.0"}
    {"version": 1, "verb": "set", "name": "dev.xbbd.0.flush_interval", "value": 8}

The reply is any number of lines with parts of the answer, then one that ends it:

    {"values": {"dev.xbbd.0.flush_interval": 0, ...}}
    {"ok": true}

or, in place of all that or after some of it:

    {"ok": false, "error": "unknown oid 'dev.xbbd.0'", "errno": "ENOENT"}

with "errors", a list, where several things are wrong, all of which "error" has too.

The verbs, and what the values are:

get       the leaves at or below a name ("" is all of them), in order
describe  the same names: [type, writable, tunable, description]
set       one leaf; the value it had
configured  of dev.xbbd.N or "": the leaves that can be written and that xbbd.conf sets;
          what it says of them
reload    reads the configuration again; by key what has changed: before, after, a note
stat      of dev.xbbd.N or "": the records of devstat(9) and what goes with
          them; with the value "latency" the histograms too; with the names of leaves,
          separated by blanks, these, as far as there are such, with the guest's number,
          the state and why it is that, and nothing else
inflight  of dev.xbbd.N or "": the requests in flight
health    of dev.xbbd.N or "": what is wrong, by the name of the device, and of
          "hw.xbbd" for the daemon; a value is the seconds that a request may take
log       of dev.xbbd.N its last events, of "" the daemon's: [time, severity, line]
events    of dev.xbbd.N or "": each line that is logged from now on, and as many of those
          before as the value says; see below
note      has a line logged that says what an operator did elsewhere, to the device whose
          directory in XenStore the name is; "device", which is dev.xbbd.N or ""

and those that only the devices of one driver know, here of disks:

resize    has the size of a device's disk looked at now; what its leaf "sectors" was
clear     has the errors of a disk counted from now on, and it opened again if it
          has lost something, by its path, or that of dev.xbbd.N; nothing
pause     has nothing of a device's disk begun any more; nothing, when nothing of it is
          under way
resume    has what waits of a device's disk begun again; nothing
swap      exchanges a device's disk for the one that the value names; nothing, when its
          guest goes on with that

The answer of "events" has no end but that of the device: a part for each line,

    {"values": {"time": 1.5, "severity": "error", "device": "xbbd0", "event": "Hangs",
                "fields": {"what": "requests at the disk"}, "text": "xbbd0 (vbd/5/51712): ..."}}

with null for a device where the daemon itself speaks.  {"values": {"missed": 7}} stands
where a reader was too slow for seven lines.  A client that follows sends nothing more,
and ends that by hanging up.

A connection may carry any number of requests, one after the other.  Lines are
UTF-8; one of a request is no longer than LIMIT bytes.

Pure: whoever moves the bytes is not known here.  Any thread.
"""

import errno
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Protocol

from xbbd_bsd.errors import OperatorError, Refused, XbbdError

VERSION: Final = 1
LIMIT: Final = 4096  # bytes of a request's line
DENIED: Final = "Permission denied: root may read and write, a group that xbbd.conf names may read"
LONGEST: Final = 16 << 20  # bytes of a line of a reply: the requests of all rings in flight

Value = int | str
Values = Mapping[str, Any]


class Verb(Enum):
    """What a request wants."""

    GET = "get"
    DESCRIBE = "describe"
    SET = "set"
    RELOAD = "reload"
    STAT = "stat"
    INFLIGHT = "inflight"
    HEALTH = "health"
    LOG = "log"
    EVENTS = "events"
    CONFIGURED = "configured"
    NOTE = "note"

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self in (Verb.SET, Verb.NOTE, Verb.RELOAD)


@dataclass(frozen=True, slots=True)
class FamilyVerb:
    """A verb that devices of some driver know (oids.Driver): for who may write."""

    value: str
    writes: ClassVar[bool] = True


class Awaited(Protocol):
    """What an answer waits for."""

    def when_there(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once, when the answer can go on."""


Part = Values | Awaited | None
"""Of an answer: values, what has to be waited for, or None to be asked again in a moment."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `value` for SET, for STAT "latency" or names, for HEALTH seconds, for
    EVENTS a number, for NOTE a text.

    `who` sends it, in words and as the kernel says; that is not in its line.
    """

    verb: Verb | FamilyVerb
    name: str = ""
    value: Value | None = None
    who: str = ""

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
    def decode(cls, line: bytes, more: Collection[str] = ()) -> "Request":
        """Of a line; OperatorError that says what is wrong with it.

        `more`: verbs of families.
        """
        fields = _object(line)
        if fields.get("version") != VERSION:
            raise OperatorError(
                f"the daemon speaks version {VERSION} of the control protocol,"
                f" not {json.dumps(fields.get('version')):.20}: restart it, or use its own tools",
                errno.EPROTONOSUPPORT,
            )
        verb = _verb(fields.get("verb"), more)
        name, value = fields.get("name"), fields.get("value")
        if not isinstance(name, str):
            raise OperatorError("name must be a string", errno.EINVAL)
        if verb in (Verb.SET, Verb.NOTE) and value is None:
            raise OperatorError("value is missing", errno.EINVAL)
        if value is not None and (not isinstance(value, int | str) or isinstance(value, bool)):
            raise OperatorError("value must be a number or a string", errno.EINVAL)
        if set(fields) - {"version", "verb", "name", "value"}:
            raise OperatorError(
                "a request has version, verb, name and value, nothing else", errno.EINVAL
            )
        return cls(verb, name, value)


def _verb(name: object, more: Collection[str]) -> Verb | FamilyVerb:
    if isinstance(name, str) and name in more:
        return FamilyVerb(name)
    try:
        return Verb(name)
    except ValueError:
        known = ", ".join((*(verb.value for verb in Verb), *more))
        raise OperatorError(f"unknown verb: known are {known}", errno.EINVAL) from None


def encode_values(values: Values) -> bytes:
    """A part of an answer, as a line."""
    return json.dumps({"values": values}).encode() + b"\n"


def encode_end() -> bytes:
    """The end of one that went well."""
    return b'{"ok": true}\n'


def encode_error(error: XbbdError) -> bytes:
    """The end of one that did not."""
    fields: dict[str, object] = {"ok": False, "error": str(error)}
    if error.lines != (str(error),):
        fields["errors"] = error.lines
    if error.errno in errno.errorcode:
        fields["errno"] = errno.errorcode[error.errno]
    return json.dumps(fields).encode() + b"\n"


def decode_reply(line: bytes) -> Values | None:
    """The values of a line of a reply, None of its end; OperatorError with the daemon's reason.

    Refused with all of them, if there are several.
    """
    fields = _object(line)
    if isinstance(values := fields.get("values"), dict):
        return values
    if fields.get("ok") is True:
        return None
    name = fields.get("errno")
    number = getattr(errno, name, 0) if isinstance(name, str) and name.startswith("E") else 0
    if isinstance(reasons := fields.get("errors"), list):
        raise Refused(map(str, reasons))
    reason = str(fields.get("error", "the daemon gives no reason"))
    raise OperatorError(reason, number)


def _object(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise OperatorError("not a line of JSON", errno.EINVAL) from None
    if not isinstance(fields, dict):
        raise OperatorError("not a JSON object", errno.EINVAL)
    return fields
