"""A connection to a guest's process: what the daemon asks, and what it is told.

What it says is copied once and then looked at: it shares memory with an adversary, and
may be one.  Whatever it says becomes a value or a :class:`HostError`, nothing else, and
nothing here waits for it longer than it was told to.

Any thread.  Whoever waits for an answer reads for all others too; the loop reads when
there is something and nobody waits (`Link.receive`).  Calls that say so wait, and are
meant for a thread of their own (errands.py).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from errno import EAGAIN, EBUSY, EEXIST, ENOENT, EPIPE, EPROTO, ETIMEDOUT
from typing import Any, Final

from xbbd_bsd.errors import HostError
from xbbd_bsd.native import packets
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.addition import MAX_KEPT, Kind, P
from xbbd_bsd.native.binding import StopReason, known
from xbbd_bsd.native.nbd import NbdExport, c_export
from xbbd_bsd.native.rates import Level
from xbbd_bsd.native.vitals import Process

for _name in ("hello", "request", "done", "report", "devices", "params"):
    ffi.new(f"struct xbb_guest_{_name} *")  # fails at import if the header does not fit

VERSION: Final[int] = lib.XBB_GUEST_VERSION
BUILD: Final[int] = lib.xbb_build()
"""What processes are that were made from the very files that we were."""
MAX_DEVICES: Final[int] = lib.XBB_GUEST_DEVICES
_LARGEST: Final[int] = ffi.sizeof("struct xbb_guest_devices")
_MOST_GIVEN: Final = 1 + MAX_KEPT
_AT_ONCE: Final = 64  # messages that are read in one go
_SLICE: Final = 0.02  # seconds; somebody else may have read what is waited for


class DeviceState(IntEnum):
    """Where a device is in its life, in its guest's process."""

    OPENING = lib.XBB_GUEST_OPENING
    RUNNING = lib.XBB_GUEST_RUNNING
    DRAINING = lib.XBB_GUEST_DRAINING
    DRAINED = lib.XBB_GUEST_DRAINED
    CLOSING = lib.XBB_GUEST_CLOSING
    GONE = lib.XBB_GUEST_GONE


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a process says of a device: where it is, and if it stopped by itself, why."""

    device: int
    state: DeviceState | int
    reason: StopReason | int
    errno: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a process may have of what there is only once, as xbb.h has it."""

    io_threads: int
    io_bytes: int
    mappings: int
    grants: int
    guest_grants: int


@dataclass(frozen=True, slots=True)
class _Answer:
    errno: int
    words: str
    descriptors: list[int]


def listens(path: str) -> bool:
    """Whether a process does."""
    try:
        Link.connect(path).close()
    except HostError:
        return False
    return True


class Link:
    """A connection to the process of a guest."""

    def __init__(self, channel: socket.socket) -> None:
        """By a connected socket, which is this object's from now on."""
        channel.setblocking(False)
        self._channel = channel
        self._lock = threading.Lock()
        self._serial = 0
        self._awaited: dict[int, _Answer | None] = {}
        self._late: dict[int, int] = {}  # by device: what it was asked to hand over by
        self._reports: dict[int, DeviceReport] = {}
        self._lost: HostError | None = None
        self.build = 0  # as it says
        # Called when something was taken, by whatever thread: whoever watches the descriptor
        # does not see it become readable then.
        self.heard: Callable[[], None] = lambda: None
        self.process = Process.behind(channel.fileno())

    @classmethod
    def connect(cls, path: str) -> Link:
        """To the process that listens there; HostError if there is none."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.setblocking(False)
        try:
            channel.connect(path)
        except OSError as error:
            channel.close()
            text = f"no process listens at {path}: {error.strerror}"
            raise HostError(text, error.errno or ENOENT) from None
        return cls(channel)

    def fileno(self) -> int:
        """Readable when the process has said something, or has gone."""
        return self._channel.fileno()

    @property
    def lost(self) -> HostError | None:
        """Why there is no connection any more; None while there is."""
        return self._lost

    @property
    def reports(self) -> dict[int, DeviceReport]:
        """What was said last of each device that there is."""
        with self._lock:
            return dict(self._reports)

    def meet(self, *, limit: float) -> dict[int, DeviceReport]:
        """Be its daemon: hear which devices it has, and of what build it is.  Waits; HostError."""
        self._ask_about("meet its process", lib.XBB_GUEST_MEET, 0, limit)
        return self.reports

    def hello(self, bounds: Bounds, *, idle_seconds: int, limit: float) -> dict[int, DeviceReport]:
        """Say what it may have, hear which devices it has.  Waits; HostError.

        Without a daemon and without a device it ends after so many seconds.
        """
        budget = {
            "mappings": bounds.mappings,
            "grants": bounds.grants,
            "guest_grants": bounds.guest_grants,
        }
        message = ffi.new(
            "struct xbb_guest_hello *",
            {
                "idle_seconds": idle_seconds,
                "io_threads": min(bounds.io_threads, (1 << 32) - 1),
                "io_bytes": bounds.io_bytes,
                "budget": budget,
            },
        )
        self._ask("greet its process", lib.XBB_GUEST_HELLO, message, (), limit)
        return self.reports

    def look(self, *, limit: float) -> dict[int, DeviceReport]:
        """Which devices it has now.  Waits; HostError."""
        self._ask_about("look at its process", lib.XBB_GUEST_STATUS, 0, limit)
        return self.reports

    def add(
        self,
        device: int,
        kind: Kind[P],
        rings: Sequence[P],
        *,
        segment: int,
        kept: Sequence[int] = (),
        rates: Mapping[Level, int] | None = None,
        limit: float,
    ) -> None:
        """Have a device of a family served: all its rings are when this returns.

        `segment` is a descriptor that only this process of the guest's will have, and not
        locked; `kept` are those that it keeps open as long as it has the device; `rates`
        files of limits that it shares.  All descriptors stay the caller's.  A ring's
        `grant_fd` below 0: the process has its own.  Waits; HostError.
        """
        with self._lock:  # how it was handed over before
            self._await_no_more(self._late.pop(device, 0))
        message, descriptors = kind.addition(device, rings, segment=segment, kept=kept, rates=rates)
        try:
            self._ask("serve its rings", lib.XBB_GUEST_ADD, message, descriptors, limit)
        except HostError as error:
            if error.errno == ETIMEDOUT:  # it may come to be yet, and nobody wants it then
                with suppress(HostError):
                    self._post(lib.XBB_GUEST_CLOSE, self._about(device), ())
            raise

    def drain(self, device: int) -> None:
        """Take no new request; a report tells when all accepted ones are answered.  HostError."""
        self._post(lib.XBB_GUEST_DRAIN, self._about(device), ())

    def have_look(self, device: int) -> None:
        """Have its rings look at what its segment says, sooner or later.  HostError."""
        self._post(lib.XBB_GUEST_LOOK, self._about(device), ())

    def connect_device(self, device: int, fd: int, export: NbdExport) -> None:
        """Give the ring of a device a connected socket, which stays the caller's.  HostError.

        Nobody is told whether it was wanted.
        """
        message = ffi.new("struct xbb_guest_connect *", {"device": device})
        message.export_name = c_export(export).name
        self._post(lib.XBB_GUEST_CONNECT, message, (fd,))

    def begin_quiesce(self, device: int) -> None:
        """As `quiesce`; a report tells when that is done.  HostError."""
        self._post(lib.XBB_GUEST_QUIESCE, self._about(device), ())

    def begin_close(self, device: int) -> None:
        """Give everything back; a report tells when that is done.  HostError."""
        self._post(lib.XBB_GUEST_CLOSE, self._about(device), ())

    def quiesce(self, device: int, *, limit: float) -> None:
        """Answer what was accepted, give everything back, unlock.  Waits; HostError.

        The next that opens its segment finds nothing unanswered.  If time is up it goes on,
        and to ask again is to wait on: how it ended is said only once.
        """
        end, what = time.monotonic() + limit, "hand over its rings"
        with self._lock:
            serial = self._late.pop(device, 0)
        if not serial:
            serial = self._post(lib.XBB_GUEST_QUIESCE, self._about(device), (), awaited=True)
        with suppress(HostError):
            self._wait(serial, what, end)
        with self._lock:
            if self._lost is None and self._awaited[serial] is None:
                self._late[device] = serial
                raise HostError(f"unable to {what}: no answer in time", ETIMEDOUT)
        self._hear(serial, what, end)

    def close_device(self, device: int, *, limit: float) -> None:
        """Give everything back.  Waits, for I/O in flight too; HostError.

        If time is up it goes on; to ask again is an error as long as it does.
        """
        self._ask_about("close its rings", lib.XBB_GUEST_CLOSE, device, limit)

    def give(self, device: int, *, limit: float) -> list[int]:
        """Copies of the descriptors of its disk, and of those that are kept with it.

        They are the caller's to close, and to look at: a process that lies gives others.  For a
        daemon that finds the disk locked by the process that serves it.  Waits; HostError.
        """
        what = "have its descriptors"
        return self._ask(what, lib.XBB_GUEST_GIVE, self._about(device), (), limit).descriptors

    def wait_open(self, device: int, *, limit: float) -> DeviceReport | None:
        """What is said of a device that is not just being opened; None: there is none.

        A daemon that has died may have wanted it.  Waits; HostError.
        """
        end = time.monotonic() + limit
        while (report := self.reports.get(device)) and report.state == DeviceState.OPENING:
            self._wait_a_moment(f"wait for device {device} to be open", end)
        return report

    def wait_gone(self, device: int, *, limit: float) -> None:
        """Wait until a device that is being closed is no more; HostError if it is not closed."""
        end = time.monotonic() + limit
        while (report := self.reports.get(device)) is not None:
            if report.state != DeviceState.CLOSING:
                raise HostError(f"device {device} is served already", EEXIST)
            self._wait_a_moment(f"wait for device {device} to be closed", end)

    def bye(self, *, limit: float) -> None:
        """Have it end.  Waits; HostError, also if it has devices."""
        self._ask_about("end its process", lib.XBB_GUEST_BYE, 0, limit)

    def receive(self) -> bool:
        """Take what it has said by now; whether it had.  Never raises: see `lost`."""
        taken = 0
        with self._lock:
            while taken < _AT_ONCE and self._lost is None and self._receive_one():
                taken += 1
        if taken:
            self.heard()
        return taken > 0

    def close(self) -> None:
        """Leave it alone; it serves on, and listens for the next daemon."""
        with self._lock:
            self._lose("it was left")
            for serial in self._late.values():
                self._await_no_more(serial)
            self._channel.close()

    # Requests.

    def _about(self, device: int) -> Any:
        return ffi.new("struct xbb_guest_request *", {"device": device})

    def _ask_about(self, what: str, kind: int, device: int, limit: float) -> None:
        self._ask(what, kind, self._about(device), (), limit)

    def _ask(
        self, what: str, kind: int, message: Any, descriptors: Sequence[int], limit: float
    ) -> _Answer:
        end = time.monotonic() + limit
        serial = self._post(kind, message, descriptors, awaited=True)
        return self._hear(serial, what, end, wanted=kind == lib.XBB_GUEST_GIVE)

    def _hear(self, serial: int, what: str, end: float, *, wanted: bool = False) -> _Answer:
        """The answer, or that it is not waited for any longer; descriptors, if they are wanted."""
        answer = None
        try:
            answer = self._wait(serial, what, end)
        finally:
            with self._lock:
                fine = answer is not None and not answer.errno
                self._await_no_more(serial, wanted=wanted and fine)
        if answer.errno:
            words = f": {answer.words}" if answer.words else ""
            text = f"unable to {what}{words}: {os.strerror(answer.errno)}"
            raise HostError(text, answer.errno)
        return answer

    def _post(
        self, kind: int, message: Any, descriptors: Sequence[int], *, awaited: bool = False
    ) -> int:
        with self._lock:
            if self._lost is not None:
                raise self._end()
            self._serial = self._serial % 0xFFFFFFFF + 1
            serial = self._serial
            head = message.head
            head.version, head.type, head.serial = VERSION, kind, serial
            head.size = ffi.sizeof(message[0])
            try:
                packets.send(self._channel, bytes(ffi.buffer(message)), descriptors)
            except BlockingIOError:
                raise HostError("the guest's process does not listen", EAGAIN) from None
            except OSError as error:
                if error.errno == EPIPE:
                    while self._lost is None and self._receive_one():
                        pass  # it may have said why
                    self._lose("it has ended")
                    raise self._end() from None
                text = f"unable to tell the guest's process: {error.strerror}"
                raise HostError(text, error.errno or EPIPE) from None
            if awaited:
                self._awaited[serial] = None
            return serial

    def _wait(self, serial: int, what: str, end: float) -> _Answer:
        while True:
            with self._lock:
                answer = self._awaited.get(serial)
            if answer is not None:
                return answer
            self._wait_a_moment(what, end)

    def _wait_a_moment(self, what: str, end: float) -> None:
        """Until something is said, or a moment: another thread may have heard it."""
        if self._lost is not None:
            raise self._end()
        left = end - time.monotonic()
        if left <= 0:
            raise HostError(f"unable to {what}: no answer in time", ETIMEDOUT)
        poll = select.poll()
        with suppress(ValueError):  # closed by somebody else
            poll.register(self._channel.fileno(), select.POLLIN)
            poll.poll(min(left, _SLICE) * 1000)
        self.receive()

    # What is said: the lock is held.

    def _await_no_more(self, serial: int, *, wanted: bool = False) -> None:
        said = self._awaited.pop(serial, None)
        if said is not None and not wanted:
            _close_all(said.descriptors)

    def _end(self) -> HostError:
        """To be raised: one that is kept would keep us with all that called us, and the socket."""
        assert self._lost is not None
        return HostError(str(self._lost), self._lost.errno)

    def _lose(self, why: str, errnum: int = EPIPE) -> None:
        if self._lost is None:
            self._lost = HostError(f"the guest's process: {why}", errnum)
            # It shall know, so that it listens to the next connection.
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)

    def _receive_one(self) -> bool:
        try:
            data, descriptors, whole = packets.receive(self._channel, _LARGEST, _MOST_GIVEN)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(error.strerror or "it has ended")
            return False
        if not data:
            _close_all(descriptors)
            self._lose("it has ended")
            return False
        fault = "it talks too much"
        if whole:
            fault = self._take(data, descriptors)
        _close_all(descriptors)  # which nobody has taken
        if fault:
            self._lose(fault)
        return True

    def _take(self, data: bytes, descriptors: list[int]) -> str:
        """Believe a message or not; what is wrong with it, if anything."""
        if len(data) < ffi.sizeof("struct xbb_guest_head"):
            return "it talks nonsense"
        head = ffi.new("struct xbb_guest_head *")
        ffi.memmove(head, data, ffi.sizeof("struct xbb_guest_head"))
        shape = _REPORTS.get(head.type)
        if shape is None or head.size != len(data) or len(data) != ffi.sizeof(shape):
            return "it talks nonsense"
        report = ffi.new(f"{shape} *")
        ffi.memmove(report, data, len(data))
        if head.type == lib.XBB_GUEST_STATE:
            self._believe(report.device)
        elif head.type == lib.XBB_GUEST_DONE:
            self._answer(head.serial, report.errnum, bytes(report.words), descriptors)
            if report.errnum == EBUSY and head.serial == 0:
                self._lose("it has another daemon", EBUSY)
        else:
            if report.ndevices > MAX_DEVICES:
                return "it claims more devices than there can be"
            self.build = int(report.build)
            self._reports.clear()
            for number in range(report.ndevices):
                self._believe(report.device[number])
            self._answer(head.serial, 0, b"", [])
        return ""

    def _believe(self, c: Any) -> None:
        report = DeviceReport(
            int(c.device),
            known(DeviceState, c.state),
            known(StopReason, c.reason),
            sane(int(c.errnum)),
        )
        if report.state == DeviceState.GONE:
            self._reports.pop(report.device, None)
        elif report.device in self._reports or len(self._reports) < MAX_DEVICES:
            self._reports[report.device] = report

    def _answer(self, serial: int, errnum: int, words: bytes, descriptors: list[int]) -> None:
        """The first one that is awaited counts, and takes the descriptors."""
        if self._awaited.get(serial, _NOT_AWAITED) is None:
            text = words.partition(b"\0")[0].decode("ascii", "replace")
            plain = "".join(c if c.isprintable() else "?" for c in text)
            self._awaited[serial] = _Answer(sane(errnum), plain, list(descriptors))
            descriptors.clear()


_NOT_AWAITED: Final = _Answer(0, "", [])


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def sane(errnum: int) -> int:
    """An errno, whatever it is said to be."""
    return errnum if 0 <= errnum < 4096 else EPROTO


_REPORTS: Final = {
    lib.XBB_GUEST_DONE: "struct xbb_guest_done",
    lib.XBB_GUEST_STATE: "struct xbb_guest_report",
    lib.XBB_GUEST_DEVICE_LIST: "struct xbb_guest_devices",
}
