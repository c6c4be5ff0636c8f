"""Tests on a real Xen: they run in dom0 of the lab (make test-xen, tests/lab/README.md), or of
a FreeBSD (make test-freebsd-dom0, HACKING.md).

One boot serves them all.  A guest that a test leaves well is used again by the
next one.  After each test no disk may be left, the daemon's process must hold
what it held before the first one, and Xen must know of no grant in use.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.real.service import Service, Toolstack, active_grants, command, eventually

# On any other computer there is nothing to test, and nothing to install either.
HERE = os.path.exists("/dev/xen/gntdev") and (DOM0.images / "vmlinux").exists()
collect_ignore_glob = [] if HERE else ["test_*.py"]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The daemon; the same process for all tests that do not end it."""
    first = DOM0.kernel_backend()
    assert not first, f"the kernel's backend would be first: {first}"
    running = Service(tmp_path_factory.mktemp("xbbd"))
    running.start()
    yield running
    assert running.child is not None
    if running.child.poll() is None:
        running.child.terminate()
        assert running.child.wait(60) == 0, running.log()
    print(running.log())


@pytest.fixture(scope="session")
def toolstack() -> Iterator[Toolstack]:
    """A connection to the real xenstored."""
    stack = Toolstack()
    yield stack
    stack.close()


@pytest.fixture(autouse=True)
def nothing_left(service: Service, toolstack: Toolstack) -> Iterator[None]:
    """What every test must leave as it was."""
    if service.child is None or service.child.poll() is not None:
        service.start()
    service.mark()
    yield
    try:
        eventually(lambda: not toolstack.disks(), f"no disk left, not {toolstack.disks()}", 20)
        service.check_idle()
        assert not any(active_grants().values()), sh("xl", "dmesg")
        assert "(null)" not in sh("xl", "list"), "a domain that cannot die"
    finally:
        toolstack.remove_all()


class Guests:
    """Living guests by name."""

    def __init__(self) -> None:
        self.living: dict[str, DomU] = {}

    def get(self, name: str = "g1") -> DomU:
        """A guest that is well: the one of that name, or a new one."""
        guest = self.living.get(name)
        if guest is None or not guest.alive():
            self.forget(name)
            guest = DomU(name)
            guest.start()
            self.living[name] = guest
        return guest

    def forget(self, name: str) -> None:
        """Destroy a guest, if it is there at all."""
        self.living.pop(name, None)
        command("xl", "destroy", name)


@pytest.fixture(scope="session")
def guests() -> Iterator[Guests]:
    """Guests that may outlive a test."""
    pool = Guests()
    yield pool
    for name in list(pool.living):
        pool.forget(name)


@pytest.fixture
def guest(guests: Guests) -> DomU:
    """A Linux guest without a disk."""
    return guests.get()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A sparse disk of 64 MiB."""
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 64 << 20)
    return path


@pytest.fixture
def ram_disk() -> Iterator[str]:
    """One that never has to be waited for."""
    sh("modprobe", "brd", "rd_nr=1", f"rd_size={32 * 1024}")
    yield "/dev/ram0"
    sh("rmmod", "brd")


@pytest.fixture
def loop_device(image: Path) -> Iterator[str]:
    """The image as a block device, which is what xl wants of a backendtype=phy."""
    with DOM0.disk(image) as device:
        yield device


_FIGURES: list[str] = []


@pytest.fixture
def figures() -> list[str]:
    """Lines about what a test measured, printed at the end."""
    return _FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Measured in an emulated machine: for comparison with other runs only."""
    for line in _FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def hotplug_script() -> str:
    """Our hotplug script, where xl looks for scripts; its name."""
    source = Path(__file__).parents[2] / "etc" / "block-xbbd"
    target = DOM0.scripts / "block-xbbd"
    shutil.copy(source, target)
    return target.name


def pytest_exception_interact(report: pytest.TestReport) -> None:
    """A failure is told at once: the others take long, and may not come to an end."""
    sys.stdout.write(f"\n{report.longreprtext}\n")
