"""The simulated XenStore without its sockets: a request goes in, replies and watch events come out.

Pure: this module must not know where requests come from. It keeps the domains, their connections
and watches, and has a Tree for the nodes. Whoever owns a StoreCore calls it from one thread. It
behaves as Xen's C xenstored 4.17 does, of which it knowingly lacks CONTROL. Arguments that are not
well formed are always EINVAL here, where that one's errors vary.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.sim.storetree import (
    DOMID_FIRST_RESERVED,
    PRIVATE,
    Access,
    Caller,
    Event,
    Permission,
    Permissions,
    Quota,
    Refusal,
    Transaction,
    Tree,
    View,
)
from xbbd_bsd.xenstore.wire import (
    PAYLOAD_MAX,
    RELATIVE_PATH_MAX,
    Error,
    Op,
    Packet,
    decode_path,
    join,
    split,
)

INTRODUCED: Final = "@introduceDomain"
RELEASED: Final = "@releaseDomain"
OK: Final = join(b"OK")

_DOM0_ONLY: Final = {
    Op.CONTROL,
    Op.INTRODUCE,
    Op.RELEASE,
    Op.IS_DOMAIN_INTRODUCED,
    Op.RESUME,
    Op.SET_TARGET,
}


@dataclass(frozen=True, slots=True)
class Watch:
    """`base` is what precedes the paths of its events: nothing, or the domain's own path."""

    path: str
    token: bytes
    base: str

    def fires(self, event: Event) -> bool:
        if event.exact or self.path == event.path:
            return self.path == event.path
        return event.path.startswith(self.path if self.path == "/" else self.path + "/")

    def payload(self, path: str) -> bytes:
        return join(
            path[len(self.base) :].removeprefix("/" if self.base else "").encode(), self.token
        )


class Outbox:
    """What waits for one client. An event that is like one still waiting is dropped, since events
    only say "look again".
    """

    def __init__(self) -> None:
        self.size = 0  # bytes on the wire
        self._packets: deque[Packet] = deque()
        self._events: set[bytes] = set()

    def put(self, packet: Packet) -> None:
        if packet.type == Op.WATCH_EVENT:
            if packet.payload in self._events:
                return
            self._events.add(packet.payload)
        self._packets.append(packet)
        self.size += len(packet)

    def take(self) -> Packet | None:
        """The oldest packet, which then does not wait any more."""
        if not self._packets:
            return None
        packet = self._packets.popleft()
        self.size -= len(packet)
        if packet.type == Op.WATCH_EVENT:
            self._events.remove(packet.payload)
        return packet


class Connection:
    """One client, who speaks as a domain. `ended`: the domain went, so should the connection."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self.ended = False
        self.outbox = Outbox()
        self.watches: dict[tuple[str, bytes], Watch] = {}
        self.transactions: dict[int, Transaction] = {}
        self.transaction_id = 0  # the one that was given last


class Domain:
    """`dying`: it is gone, but another one that has it as its target keeps it introduced."""

    def __init__(self) -> None:
        self.target: int | None = None
        self.dying = False


Handler = Callable[[Connection, Packet, View], bytes]


class StoreCore:
    """The whole store. `ready` gathers the connections that have something new in their outbox or
    have ended; the owner takes them out.
    """

    def __init__(self, quota: Quota | None = None) -> None:
        self.tree = Tree(quota)
        self.domains: dict[int, Domain] = {0: Domain()}
        self.ready: set[Connection] = set()
        self._connections: dict[Connection, None] = {}  # a set in order of arrival
        self._special: dict[str, Permissions] = {INTRODUCED: PRIVATE, RELEASED: PRIVATE}
        self._handlers: dict[int, Handler] = {
            Op.CONTROL: self._control,
            Op.DIRECTORY: self._directory,
            Op.READ: self._read,
            Op.GET_PERMS: self._get_perms,
            Op.WATCH: self._watch,
            Op.UNWATCH: self._unwatch,
            Op.TRANSACTION_START: self._transaction_start,
            Op.TRANSACTION_END: self._transaction_end,
            Op.INTRODUCE: self._introduce,
            Op.RELEASE: self._release,
            Op.GET_DOMAIN_PATH: self._get_domain_path,
            Op.WRITE: self._write,
            Op.MKDIR: self._mkdir,
            Op.RM: self._rm,
            Op.SET_PERMS: self._set_perms,
            Op.IS_DOMAIN_INTRODUCED: self._is_domain_introduced,
            Op.RESUME: self._resume,
            Op.SET_TARGET: self._set_target,
            Op.RESET_WATCHES: self._reset_watches,
            Op.DIRECTORY_PART: self._directory_part,
        }

    def connect(self, domid: int) -> Connection:
        """A new client of a domain that has been introduced."""
        assert domid in self.domains
        connection = Connection(domid)
        self._connections[connection] = None
        return connection

    def disconnect(self, connection: Connection) -> None:
        """Forgets a client, its watches and its transactions. Idempotent."""
        self._connections.pop(connection, None)
        self.ready.discard(connection)

    def request(self, connection: Connection, packet: Packet) -> None:
        """Carries out one request; its reply precedes the events that it causes at its sender."""
        try:
            reply = packet.answer(self._carry_out(connection, packet))
        except Refusal as refusal:
            reply = packet.refusal(refusal.error)
        except ValueError:  # arguments that are none
            reply = packet.refusal(Error.EINVAL)
        if not connection.ended:
            self._send(connection, reply)
        if reply.type == Op.WATCH:  # fires once at once: what it is about may be there already
            watch = next(reversed(connection.watches.values()))
            self._send_event(connection, watch, watch.path)
        self._fire_changes()

    def _carry_out(self, connection: Connection, packet: Packet) -> bytes:
        handler = self._handlers.get(packet.type)
        if handler is None:
            raise Refusal(Error.ENOSYS)
        if packet.type in _DOM0_ONLY and connection.domid != 0:
            raise Refusal(Error.EACCES)
        view: View = self.tree
        if packet.tx_id and packet.type not in (Op.WATCH, Op.UNWATCH):
            if packet.tx_id not in connection.transactions:
                raise Refusal(Error.ENOENT)
            view = connection.transactions[packet.tx_id]
        return handler(connection, packet, view)

    # Delivery of events.

    def _send(self, connection: Connection, packet: Packet) -> None:
        connection.outbox.put(packet)
        self.ready.add(connection)

    def _send_event(self, connection: Connection, watch: Watch, path: str) -> None:
        payload = watch.payload(path)
        if len(payload) <= PAYLOAD_MAX:  # xenstored, too, drops what does not fit
            self._send(connection, Packet(Op.WATCH_EVENT, payload=payload))

    def _fire(self, event: Event) -> None:
        for connection in self._connections:
            caller = self._caller(connection)
            if any(Access.READ in caller.access(readers) for readers in event.readers):
                for watch in connection.watches.values():
                    if watch.fires(event):
                        self._send_event(connection, watch, event.path)

    def _fire_changes(self) -> None:
        for event in self.tree.take_events():
            self._fire(event)

    def _fire_special(self, name: str) -> None:
        self._fire(Event(name, True, (self._special[name],)))

    # Arguments.

    def _caller(self, connection: Connection) -> Caller:
        return Caller(connection.domid, self.domains[connection.domid].target)

    def _path(self, connection: Connection, raw: bytes) -> str:
        """An absolute path; what is below a domain's own path may be as long as a relative one."""
        path = decode_path(raw)
        if path.startswith("@"):
            raise ValueError(path)
        if not path.startswith("/"):
            return f"{_home(connection.domid)}/{path}"
        top, local, domain, number, rest = (path.split("/", 4) + [""] * 4)[:5]
        if (top, local, domain) == ("", "local", "domain") and number.isdecimal():
            path_length = len(rest)
        else:
            path_length = len(path)
        if path_length > RELATIVE_PATH_MAX:
            raise ValueError(path)
        return path

    def _only_path(self, connection: Connection, packet: Packet) -> str:
        (raw,), rest = split(packet.payload, 1)
        if rest:
            raise ValueError(rest)
        return self._path(connection, raw)

    def _domain(self, raw: bytes) -> Domain:
        """A domain that is introduced, except for dom0."""
        domid = _domid(raw)
        if domid == 0:
            raise Refusal(Error.EINVAL)
        if domid not in self.domains:
            raise Refusal(Error.ENOENT)
        return self.domains[domid]

    # Nodes.

    def _read(self, connection: Connection, packet: Packet, view: View) -> bytes:
        path = self._only_path(connection, packet)
        return view.find(self._caller(connection), path, Access.READ).value

    def _directory(self, connection: Connection, packet: Packet, view: View) -> bytes:
        path = self._only_path(connection, packet)
        node = view.find(self._caller(connection), path, Access.READ)
        names = join(*(name.encode() for name in node.children))
        if len(names) > PAYLOAD_MAX:
            raise Refusal(Error.E2BIG)
        return names

    def _directory_part(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw, offset), _ = split(packet.payload, 2)
        start = int(offset)
        if start < 0:
            raise ValueError(offset)
        path = self._path(connection, raw)
        node = view.find(self._caller(connection), path, Access.READ)
        head = join(str(node.generation).encode())
        left = join(*(name.encode() for name in node.children))[start:] + b"\0"
        room = PAYLOAD_MAX - len(head)
        if len(left) > room:  # ends after a whole name
            left = left[: left.rindex(b"\0", 0, room) + 1]
        return head + left

    def _write(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw,), value = split(packet.payload, 1)
        view.write(self._caller(connection), self._path(connection, raw), value)
        return OK

    def _mkdir(self, connection: Connection, packet: Packet, view: View) -> bytes:
        view.mkdir(self._caller(connection), self._only_path(connection, packet))
        return OK

    def _rm(self, connection: Connection, packet: Packet, view: View) -> bytes:
        view.remove(self._caller(connection), self._only_path(connection, packet))
        return OK

    def _get_perms(self, connection: Connection, packet: Packet, view: View) -> bytes:
        path = self._only_path(connection, packet)
        node = view.find(self._caller(connection), path, Access.READ)
        return join(*(str(permission).encode() for permission in node.permissions))

    def _set_perms(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw, *texts), _ = split(packet.payload, PAYLOAD_MAX)
        permissions = tuple(Permission.from_text(text.decode("ascii")) for text in texts)
        if not permissions:
            raise Refusal(Error.EINVAL)
        if permissions[0].domid not in self.domains:
            raise Refusal(Error.ENOENT)
        if raw.startswith(b"@"):
            name = raw.decode("ascii")
            if name not in self._special or connection.domid != 0:
                raise Refusal(Error.ENOENT)
            self._special[name] = permissions
        else:
            view.permit(self._caller(connection), self._path(connection, raw), permissions)
        return OK

    # Watches.

    def _watch(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw, token), rest = split(packet.payload, 2)
        if rest:
            raise ValueError(rest)
        path, base = self._watched(connection, raw)
        if (path, token) in connection.watches:
            raise Refusal(Error.EEXIST)
        if connection.domid != 0:
            watches = sum(len(other.watches) for other in self._siblings(connection))
            if watches >= self.tree.quota.watches:
                raise Refusal(Error.E2BIG)
        connection.watches[path, token] = Watch(path, token, base)
        return OK

    def _unwatch(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw, token), _ = split(packet.payload, 2)
        path, _base = self._watched(connection, raw)
        if connection.watches.pop((path, token), None) is None:
            raise Refusal(Error.ENOENT)
        return OK

    def _watched(self, connection: Connection, raw: bytes) -> tuple[str, str]:
        """The path of a watch, and what to take off the paths of its events."""
        if raw.startswith(b"@"):
            return decode_path(raw), ""
        path = self._path(connection, raw)
        return path, "" if raw.startswith(b"/") else _home(connection.domid)

    def _reset_watches(self, connection: Connection, packet: Packet, view: View) -> bytes:
        connection.watches.clear()
        connection.transactions.clear()
        return OK

    def _siblings(self, connection: Connection) -> list[Connection]:
        """All connections of the same domain, which share its quota."""
        return [other for other in self._connections if other.domid == connection.domid]

    # Transactions.

    def _transaction_start(self, connection: Connection, packet: Packet, view: View) -> bytes:
        if packet.tx_id:
            raise Refusal(Error.EBUSY)
        if connection.domid != 0:
            started = sum(len(other.transactions) for other in self._siblings(connection))
            if started >= self.tree.quota.transactions:
                raise Refusal(Error.ENOSPC)
        while not connection.transaction_id or connection.transaction_id in connection.transactions:
            connection.transaction_id = (connection.transaction_id + 1) % 2**32
        connection.transactions[connection.transaction_id] = Transaction(self.tree)
        return join(str(connection.transaction_id).encode())

    def _transaction_end(self, connection: Connection, packet: Packet, view: View) -> bytes:
        if packet.payload not in (b"T\0", b"F\0"):
            raise Refusal(Error.EINVAL)
        transaction = connection.transactions.pop(packet.tx_id, None)
        if transaction is None:
            raise Refusal(Error.ENOENT)
        if packet.payload == b"T\0":
            self.tree.commit(self._caller(connection), transaction)
        return OK

    # Domains.

    def _introduce(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw, _frame, port), _ = split(packet.payload, 3)
        domid = _domid(raw)
        if int(port) <= 0:
            raise ValueError(port)
        if domid in self.domains:
            self.domains[domid].dying = False
        else:
            self.domains[domid] = Domain()
            self._fire_special(INTRODUCED)
        return OK

    def _release(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw,), _ = split(packet.payload, 1)
        self._domain(raw).dying = True
        self._bury(_domid(raw))
        return OK

    def _bury(self, domid: int) -> None:
        """Ends a dying domain, unless it is the target of another one, and then its own target."""
        if any(domain.target == domid for other, domain in self.domains.items() if other != domid):
            return
        for connection in [each for each in self._connections if each.domid == domid]:
            connection.ended = True
            self.disconnect(connection)
            self.ready.add(connection)
        target = self.domains.pop(domid).target
        self.tree.release(domid)
        self._fire_changes()
        self._fire_special(RELEASED)
        self._bury_if_dying(target)

    def _bury_if_dying(self, domid: int | None) -> None:
        if domid is not None and domid in self.domains and self.domains[domid].dying:
            self._bury(domid)

    def _get_domain_path(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw,), _ = split(packet.payload, 1)
        return join(_home(_domid(raw)).encode())

    def _is_domain_introduced(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw,), _ = split(packet.payload, 1)
        return join(b"T" if _domid(raw) in self.domains else b"F")

    def _resume(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw,), _ = split(packet.payload, 1)
        self._domain(raw)
        return OK

    def _set_target(self, connection: Connection, packet: Packet, view: View) -> bytes:
        (raw, target), _ = split(packet.payload, 2)
        domain = self._domain(raw)
        if _domid(target) not in self.domains:
            raise Refusal(Error.ENOENT)
        previous, domain.target = domain.target, _domid(target)
        self._bury_if_dying(previous)
        return OK

    def _control(self, connection: Connection, packet: Packet, view: View) -> bytes:
        raise Refusal(Error.ENOSYS)


def _home(domid: int) -> str:
    return f"/local/domain/{domid}"


def _domid(raw: bytes) -> int:
    domid = int(raw)
    if not 0 <= domid < DOMID_FIRST_RESERVED:
        raise ValueError(raw)
    return domid
