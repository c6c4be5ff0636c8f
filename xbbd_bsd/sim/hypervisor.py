"""The simulated hypervisor from Python: where things lie, backends' and guests' ends.

A machine is a directory.  `SimHost` is what the daemon uses in place of a real
host; `Domain` is what a guest process lives in.  Neither knows what travels on
a ring.  Any thread; a Domain belongs to one process.
"""

import contextlib
import errno
import itertools
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.host import (
    DiskGeometry,
    Links,
    MediumName,
    Platform,
    RingDescriptors,
    path_itself,
)
from xbbd_bsd.host.resources import Resources, resources
from xbbd_bsd.native import HvKind, sim_format

SOCKET_PATH_MAX: Final = 103  # bytes; FreeBSD's sun_path holds 104 with the NUL
LONGEST_NAME: Final = len("/domains/32751/ports/4095")
DOMAIN_PAGES: Final = 16384  # 64 MiB, sparse
FIRST_PORT: Final = 1
LARGEST_PORT: Final = 4095  # of the two-level ABI
LARGEST_DOMID: Final = 0x7FEF  # the last before xen.h's reserved ones


@dataclass(frozen=True, slots=True)
class Layout:
    """The names in a machine's directory."""

    directory: str

    @property
    def store(self) -> str:
        """Where the store's sockets are."""
        return os.path.join(self.directory, "store")

    @property
    def store_pid(self) -> str:
        """The number of the store's process."""
        return os.path.join(self.directory, "store.pid")

    @property
    def domains(self) -> str:
        """Where the domains are."""
        return os.path.join(self.directory, "domains")

    @property
    def lifelines(self) -> str:
        """The socket at which domains are born; they live as long as the connection."""
        return os.path.join(self.directory, "machine")

    @property
    def run(self) -> str:
        """Where the daemon keeps its state segments."""
        return os.path.join(self.directory, "run")

    def store_socket(self, domid: int) -> str:
        """The store's socket for a domain; 0 is dom0."""
        return os.path.join(self.store, f"{domid}.socket" if domid else "socket")

    def domain(self, domid: int) -> str:
        """The directory that is a domain."""
        return os.path.join(self.domains, str(domid))

    def port(self, domid: int, port: int) -> str:
        """The listening end of an event channel."""
        return os.path.join(self.domain(domid), "ports", str(port))

    def state_segment(self, unit: int) -> str:
        """The state segment of a device of the daemon."""
        return os.path.join(self.run, f"xbbd.{unit}")


def layout(directory: str) -> Layout:
    """The layout of a machine; OperatorError if its sockets' paths would be too long."""
    path = os.path.abspath(directory)
    if len(os.fsencode(path)) + LONGEST_NAME > SOCKET_PATH_MAX:
        raise OperatorError(
            f"{path}: too long for a machine; Unix sockets need a directory of at most"
            f" {SOCKET_PATH_MAX - LONGEST_NAME} bytes"
        )
    return Layout(path)


class SimHost:
    """The simulated hypervisor as the daemon's host."""

    transports = ("best", "map", "copy")

    def __init__(self, directory: str, platform: Platform) -> None:
        """`platform` has the disks: they are not simulated."""
        self._layout = layout(directory)
        self._platform = platform

    @property
    def name(self) -> str:
        return f"sim:{self._layout.directory}"

    @property
    def hv(self) -> int:
        return HvKind.SIM

    @property
    def store_path(self) -> str:
        return self._layout.store_socket(0)

    @property
    def media(self) -> Mapping[str, MediumName]:
        return {"physical-device-path": path_itself}

    @property
    def resources(self) -> Resources:
        return resources(event_channels=LARGEST_PORT + 1, threads=self._platform.most_threads())

    def check_kinds(self, kinds: Collection[str]) -> None:
        """Nobody else serves anything on a simulated machine."""

    @property
    def links(self) -> Links:
        """Interfaces are not simulated: they are this computer's."""
        return self._platform.links

    grant_path = ""

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        """Bind a guest's event channel by connecting to it, and open its memory."""
        if port > LARGEST_PORT:
            raise GuestError(f"domain {domid} has no event channel {port}", errno.EINVAL)
        events = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            events.setblocking(False)
            events.connect(self._layout.port(domid, port))
            if grants < 0:
                grants = os.open(self._layout.domain(domid), os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            events.close()
            raise GuestError(
                f"domain {domid} has no event channel {port}", error.errno or 0
            ) from None
        except OSError as error:
            events.close()
            raise HostError(
                f"unable to bind event channel {port} of domain {domid}: {error.strerror}",
                error.errno or 0,
            ) from None
        return RingDescriptors(grants, events.detach())

    def prepare_disk(self, fd: int) -> DiskGeometry:
        return self._platform.prepare_disk(fd)

    def disk_size(self, fd: int) -> int:
        return self._platform.disk_size(fd)

    def lock_disk(self, fd: int, *, writable: bool) -> int | None:
        return self._platform.lock_disk(fd, writable=writable)


class Domain:
    """A domain that this process is: alive until it is closed or the process ends."""

    def __init__(self, machine: Layout, domid: int) -> None:
        """Come to life, introduced to the store; HostError if the machine does not let us."""
        self.domid = domid
        self.machine = machine
        self._listeners: dict[int, socket.socket] = {}
        self._ports = itertools.count(FIRST_PORT)
        self.lifeline = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.lifeline.connect(machine.lifelines)
            self.lifeline.sendall(b"%d\n" % domid)
            with self.lifeline.makefile("rb") as answers:
                answer = answers.readline()
        except OSError as error:
            self.lifeline.close()
            raise HostError(
                f"no machine at {machine.directory}: {error.strerror}", error.errno or 0
            ) from None
        if answer != b"ok\n":
            self.lifeline.close()
            raise HostError(f"domain {domid}: {answer.decode('ascii', 'replace').strip()}")
        self.grant_fd = os.open(machine.domain(domid), os.O_RDONLY | os.O_DIRECTORY)

    @property
    def store_path(self) -> str:
        """This domain's own way to the store."""
        return self.machine.store_socket(self.domid)

    @property
    def hv(self) -> HvKind:
        """The data path's number for this hypervisor."""
        return HvKind.SIM

    def unbound_port(self) -> tuple[int, int]:
        """A new event channel for dom0 to bind: its number, and our end's descriptor."""
        port = next(self._ports)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(self.machine.port(self.domid, port))
        listener.listen()
        self._listeners[port] = listener
        return port, listener.fileno()

    def close_port(self, port: int) -> None:
        """Close an event channel; the backend sees no event any more."""
        self._listeners.pop(port).close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.machine.port(self.domid, port))

    def close(self) -> None:
        """Die.  The machine cleans up."""
        for listener in self._listeners.values():
            listener.close()
        os.close(self.grant_fd)
        self.lifeline.close()


def make_domain(machine: Layout, domid: int) -> None:
    """The hypervisor's part of a birth: directory, memory, grant table."""
    path = machine.domain(domid)
    os.makedirs(os.path.join(path, "ports"), 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sim_format(fd, DOMAIN_PAGES)
    finally:
        os.close(fd)
