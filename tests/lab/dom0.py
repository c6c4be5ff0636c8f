"""What differs between the dom0s that tests/real runs in: the lab's Linux, and a FreeBSD.

Chosen once, at the end of this file.  Guests are the same in both, and so is what xl
and xenstored do.  What a system says of a process other tests ask here too.  Nothing of
the product is known here.  Run in dom0; the console's followers are threads of their own.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.waiting import eventually

LAB = Path("/lab")


class Dom0(Protocol):
    """A kind of dom0."""

    name: str
    images: Path
    """Where a guest's kernel (vmlinux) and initramfs (domu.cpio) lie."""
    consoles: Path
    """Where guests' consoles are logged, as guest-NAME.log."""
    scripts: Path
    """Where xl looks for hotplug scripts."""
    devices: tuple[str, ...]
    """Of Xen, in /dev/xen: those that we use."""
    store: str
    """xenstored's socket."""

    def kernel_backend(self) -> str:
        """Why the kernel's own backend would be first at disks of kind vbd, "" if it is not."""

    def kernel_cards(self) -> str:
        """Why there can be no cards of kind vif, "" if there can."""

    def scratch(self) -> Path:
        """Where there is room for large files, and direct I/O; made when asked."""

    def follow_console(self, guest: str, log: Path) -> None:
        """See to it that what a guest's console prints gets into `log`; any number of times."""

    def disk(self, image: Path, sector_size: int = 512) -> contextlib.AbstractContextManager[str]:
        """A file as a disk device, for the length of a block."""

    def makes_holes(self, place: Path) -> bool:
        """Whether discarding in files there gives space back, so that it is offered."""

    def mount_small(self, place: Path) -> None:
        """A file system in memory."""

    def make_read_only(self, place: Path) -> None:
        """What `mount_small` mounted."""

    card: str
    """What interfaces of guests' cards are called before their numbers."""

    def bridge(self, name: str, *addresses: str) -> contextlib.AbstractContextManager[None]:
        """A bridge with addresses of dom0's, for the length of a block."""

    queues: bool
    """Whether a card can have several."""

    def listens(self, port: int) -> bool:
        """Whether somebody takes connections of TCP there."""

    def interfaces(self) -> set[str]:
        """The names of all network interfaces."""

    def descriptors(self, pid: int) -> int:
        """How many a process has open."""

    def threads(self, pid: int) -> int:
        """How many it has."""

    def thread_names(self, pid: int) -> list[str]:
        """What they are called."""

    def mappings(self, pid: int) -> list[str]:
        """A line for each in its address space, with the file that is mapped."""

    def grant_mappings(self, pid: int) -> int:
        """How many mappings of grants it has."""

    def ports(self) -> int:
        """Event channels of all daemons here, as far as the kernel can tell."""


def _output(*words: str) -> str:
    """What a command prints; CalledProcessError."""
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout


def _succeeds(*words: str) -> bool:
    """Whether a command does."""
    return subprocess.run(words, check=False, capture_output=True, timeout=120).returncode == 0


class Linux:
    """The lab's: Debian, without udev (README.md)."""

    name = "linux"
    images = LAB
    consoles = Path("/var/log/xen/console")
    scripts = Path("/etc/xen/scripts")
    devices: tuple[str, ...] = ("gntdev", "gntalloc", "evtchn")
    store = "/run/xenstored/socket"
    card = "vif"
    queues = True

    def kernel_backend(self) -> str:
        return "xen_blkback is loaded" if os.path.exists("/sys/module/xen_blkback") else ""

    def kernel_cards(self) -> str:
        return "xen-netback is loaded" if os.path.exists("/sys/module/xen_netback") else ""

    def scratch(self) -> Path:
        """A disk of its own as ext4, since tmpfs takes no direct I/O."""
        if not os.path.ismount("/scratch"):
            disk = os.environ["SCRATCH_DISK"]
            _output("modprobe", "-a", "ext4", "crc32c_generic")
            lazily = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
            _output("mkfs.ext4", "-q", "-E", lazily, "-O", "^has_journal", disk)
            _output("mount", disk, "/scratch")
        return Path("/scratch")

    def follow_console(self, guest: str, log: Path) -> None:
        """Nothing: xenconsoled logs them (its option --log=guest)."""

    @contextmanager
    def disk(self, image: Path, sector_size: int = 512) -> Iterator[str]:
        size = [] if sector_size == 512 else ["--sector-size", str(sector_size)]
        device = _output("losetup", "--show", "-f", *size, str(image)).strip()
        try:
            yield device
        finally:
            _output("losetup", "-d", device)

    def makes_holes(self, place: Path) -> bool:
        return True

    def mount_small(self, place: Path) -> None:
        _output("mount", "-t", "tmpfs", "none", str(place))

    def make_read_only(self, place: Path) -> None:
        _output("mount", "-o", "remount,ro", str(place))

    @contextmanager
    def bridge(self, name: str, *addresses: str) -> Iterator[None]:
        _output("ip", "link", "add", name, "type", "bridge")
        try:
            for address in addresses:
                _output("ip", "addr", "add", address, "dev", name, *_at_once(address))
            _output("ip", "link", "set", name, "up")
            yield
        finally:
            _output("ip", "link", "del", name)

    def listens(self, port: int) -> bool:
        return f":{port}" in _output("ss", "-Hltn")

    def interfaces(self) -> set[str]:
        return set(os.listdir("/sys/class/net"))

    def descriptors(self, pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    def threads(self, pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/task"))

    def thread_names(self, pid: int) -> list[str]:
        names = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                names.append((task / "comm").read_text().strip())
        return names

    def mappings(self, pid: int) -> list[str]:
        return Path(f"/proc/{pid}/maps").read_text().splitlines()

    def grant_mappings(self, pid: int) -> int:
        return Path(f"/proc/{pid}/maps").read_text().count("/dev/xen/gntdev")

    def ports(self) -> int:
        return Path("/proc/interrupts").read_text().count("evtchn:python")


class FreeBSD:
    """A FreeBSD as dom0, with xen-tools and e2fsprogs from packages (HACKING.md)."""

    name = "freebsd"
    images = Path(os.environ.get("XBBD_TEST_GUEST", LAB))
    consoles = Path("/var/log/xen")
    scripts = Path("/usr/local/etc/xen/scripts")
    devices: tuple[str, ...] = ("gntdev", "evtchn")
    store = "/var/run/xenstored/socket"
    card = "xnb"
    queues = False

    def __init__(self) -> None:
        """Nothing is followed yet."""
        self._followers: dict[str, XlConsole] = {}

    def kernel_backend(self) -> str:
        return _hint("xbbd")

    def kernel_cards(self) -> str:
        if not _succeeds("sysctl", "-n", "net.link.tap.devfs_cloning"):
            return "run: kldload if_tuntap"
        return _hint("xnb")

    def scratch(self) -> Path:
        return Path(tempfile.gettempdir())

    def follow_console(self, guest: str, log: Path) -> None:
        follower = self._followers.get(guest)
        if follower is None or follower.ended():
            self._followers[guest] = XlConsole(guest, log)

    @contextmanager
    def disk(self, image: Path, sector_size: int = 512) -> Iterator[str]:
        unit = _output(
            "mdconfig", "-a", "-t", "vnode", "-S", str(sector_size), "-f", str(image)
        ).strip()
        try:
            yield f"/dev/{unit}"
        finally:
            # Unlike Linux's it does not go by itself once the last user has.
            eventually(lambda: _succeeds("mdconfig", "-d", "-u", unit), f"{unit} is free")

    def makes_holes(self, place: Path) -> bool:
        """_PC_DEALLOC_PRESENT of sys/unistd.h."""
        try:
            return os.pathconf(place, 65) == 1
        except OSError:
            return False

    def mount_small(self, place: Path) -> None:
        _output("mount", "-t", "tmpfs", "tmpfs", str(place))

    def make_read_only(self, place: Path) -> None:
        _output("mount", "-u", "-o", "ro", str(place))

    @contextmanager
    def bridge(self, name: str, *addresses: str) -> Iterator[None]:
        _output("ifconfig", "bridge", "create", "name", name)
        try:
            for address in addresses:
                family = "inet6" if ":" in address else "inet"
                _output("ifconfig", name, family, address, "alias")
            _output("ifconfig", name, "up")
            yield
        finally:
            _output("ifconfig", name, "destroy")

    def listens(self, port: int) -> bool:
        return f":{port}" in _output("sockstat", "-46l", "-P", "tcp", "-p", str(port))

    def interfaces(self) -> set[str]:
        return set(_output("ifconfig", "-l").split())

    def descriptors(self, pid: int) -> int:
        """procstat(1) also lists the text, directories and the like, which stay as they are."""
        return len(_output("procstat", "-h", "-f", str(pid)).splitlines())

    def threads(self, pid: int) -> int:
        return len(_output("procstat", "-h", "-t", str(pid)).splitlines())

    def thread_names(self, pid: int) -> list[str]:
        return names_of_threads(_output("procstat", "-h", "-t", str(pid)))

    def mappings(self, pid: int) -> list[str]:
        return _output("procstat", "-h", "-v", str(pid)).splitlines()

    def grant_mappings(self, pid: int) -> int:
        return managed_mappings(_output("procstat", "-h", "-v", str(pid)))

    def ports(self) -> int:
        """None: no tool tells whose they are.  Each has a descriptor of its own, though."""
        return 0


def _hint(driver: str) -> str:
    """What to run, unless the kernel's own driver leaves its devices alone."""
    variable = f"hint.{driver}.0.disabled"
    done = subprocess.run(["kenv", "-q", variable], capture_output=True, text=True, check=False)
    return "" if done.stdout.strip().strip('"') == "1" else f"run: kenv {variable}=1"


def _at_once(address: str) -> list[str]:
    """Of IPv6 it is not asked first whether somebody else has it."""
    return ["nodad"] if ":" in address else []


def managed_mappings(table: str) -> int:
    """Mappings of memory that a device driver manages, as gntdev's is (procstat -v: type md)."""
    return len(re.findall(r"^\s*\d+\s.*\smd\s*(?:/\S*)?$", table, re.M))


def names_of_threads(table: str) -> list[str]:
    """By procstat -t, in columns of 19 characters (procstat_threads.c; read there, not seen)."""
    return [name.strip() for name in re.findall(r"^ *\d+ +\d+ .{19} (.{19}) ", table, re.M)]


class XlConsole:
    """``xl console`` on a terminal of ours; what it prints goes to a file until it ends."""

    def __init__(self, guest: str, log: Path) -> None:
        """Begin; what the guest printed before is still there for the first who looks."""
        self._terminal, theirs = pty.openpty()
        self._child = subprocess.Popen(
            ["xl", "console", guest], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._thread = threading.Thread(target=self._copy, args=(log,), daemon=True)
        self._thread.start()

    def _copy(self, log: Path) -> None:
        with log.open("ab", buffering=0) as file:
            with contextlib.suppress(OSError):  # EIO, once nobody has the other end
                while data := os.read(self._terminal, 65536):
                    file.write(data)
            self._child.wait()
        os.close(self._terminal)

    def ended(self) -> bool:
        """Whether it did, as when the guest is gone."""
        return not self._thread.is_alive()


DOM0: Dom0 = FreeBSD() if sys.platform.startswith("freebsd") else Linux()
