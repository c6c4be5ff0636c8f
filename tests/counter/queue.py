"""The data path of a counter: a queue in C, built on native/core and native/hv alone.

The family knows `CounterQueue` and `MakeQueue`, and nothing of what is behind them.  A
family of the product has its C files in a room beside native/block, and a part of the
contract that cffi compiles; these are a library of their own.
"""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from cffi import FFI

from tests.counter.negotiate import RingParams
from xbbd_bsd.errors import GuestError, HostError
from xbbd_bsd.host import Host
from xbbd_bsd.native.build import CFLAGS, sources

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARY = "XBBD_TEST_COUNTER"  # where it is; it is compiled if nobody says

ffi = FFI()
ffi.cdef(
    """
    struct counter;
    int counter_open(const int fds[4], uint32_t hv, uint32_t domid, uint32_t port,
        uint32_t ref, uint32_t unit, struct counter **counterp);
    uint64_t counter_count(const struct counter *c);
    int counter_drained(struct counter *c);
    void counter_drain(struct counter *c);
    void counter_close(struct counter *c);
    """
)


def compile_library(directory: Path) -> Path:
    """The library; CalledProcessError, FileNotFoundError if there is no compiler."""
    library = directory / "counter.so"
    files = [HERE / "counter.c", *(ROOT / name for name in sources(rooms=("hv", "core")))]
    flags = [*CFLAGS, "-Werror", f"-I{ROOT / 'xbbd_bsd/native'}", "-fPIC", "-shared"]
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, *flags, "-o", library, *files, "-lpthread"], check=True)
    return library


@cache
def lib() -> Any:
    """It, loaded: before anything is mapped."""
    given = os.environ.get(LIBRARY)
    if given is not None:
        return ffi.dlopen(given)
    with tempfile.TemporaryDirectory() as directory:
        return ffi.dlopen(str(compile_library(Path(directory))))


class CounterQueue(Protocol):
    """A ring that counts from when it is made, until `drain`."""

    @property
    def count(self) -> int:
        """What its guest has added up."""

    @property
    def drained(self) -> bool:
        """Whether it counts no more; who made it is woken when that comes about."""

    def drain(self) -> None:
        """Count no more."""

    def close(self) -> None:
        """Give everything back; it is drained."""


MakeQueue = Callable[
    [Host, int, int, RingParams, asyncio.AbstractEventLoop, Callable[[], None]], CounterQueue
]
"""Host, domain, unit, ring, loop, whom to wake: a queue that runs; GuestError, HostError."""


class NativeQueue:
    """A ring of a guest's, mapped, and its thread."""

    def __init__(
        self,
        host: Host,
        domid: int,
        unit: int,
        ring: RingParams,
        loop: asyncio.AbstractEventLoop,
        woken: Callable[[], None],
    ) -> None:
        descriptors = host.open_ring(domid, ring.port)
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._kept = (descriptors.grants, descriptors.events, wake, self._wake)
        self._loop = loop
        self._woken = woken
        found = ffi.new("struct counter **")
        with tempfile.TemporaryFile() as segment:
            fds = ffi.new("int[4]", (*self._kept[:3], segment.fileno()))
            e = lib().counter_open(fds, host.hv, domid, ring.port, ring.ref, unit, found)
        if e != 0:
            self._release()
            text = f"connect the ring: {os.strerror(-e)}"
            raise GuestError(text, EINVAL) if -e == EINVAL else HostError(text, -e)
        self._counter = found[0]
        loop.add_reader(self._wake, self._has_drained)

    def _has_drained(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake, 64)
        self._woken()

    @property
    def count(self) -> int:
        return int(lib().counter_count(self._counter))

    @property
    def drained(self) -> bool:
        return bool(lib().counter_drained(self._counter))

    def drain(self) -> None:
        lib().counter_drain(self._counter)

    def close(self) -> None:
        self._loop.remove_reader(self._wake)
        lib().counter_close(self._counter)
        self._release()

    def _release(self) -> None:
        for descriptor in self._kept:
            os.close(descriptor)
