"""A Linux guest from its birth to its end, as jobs and tests in dom0 drive it.

Commands go in by the guest's console, and their output comes back by it.  What
kind of disk a guest has is not known here.  Run in dom0.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
import os
import re
import select
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.lab.dom0 import DOM0

MEMORY = 384  # MiB; the initramfs alone unpacks to 100
LIMIT = 180.0  # seconds; an emulated machine, on one that may be busy

T = TypeVar("T")


class GuestError(Exception):
    """A guest did not do what it was told, or not in time."""


def sh(*words: str, check: bool = True, limit: float = 120.0) -> str:
    """Run a command of dom0; all it printed.  GuestError if it fails and that matters."""
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    if check and done.returncode:
        raise GuestError(f"{' '.join(words)}: {done.returncode}: {done.stdout}")
    return done.stdout.strip()


def wait_for(what: str, look: Callable[[], T], limit: float, step: float = 0.1) -> T:
    """Ask again and again until the answer is true; GuestError after `limit` seconds."""
    end = time.monotonic() + limit
    while not (answer := look()):
        if time.monotonic() > end:
            raise GuestError(f"not within {limit:.0f} s: {what}")
        select.select([], [], [], step)
    return answer


class DomU:
    """A PV guest with the lab's kernel and initramfs."""

    def __init__(
        self,
        name: str,
        disks: Sequence[str] = (),
        *,
        memory: int = MEMORY,
        vcpus: int = 1,
        on_reboot: str = "destroy",
        blkfront: Mapping[str, int] | None = None,
        cards: Sequence[str] = (),
        root: str = "",
        tsc: str = "",
    ) -> None:
        """`disks` and `cards` as in xl.cfg(5), not yet born.

        `blkfront`: parameters of its disk driver.  `root`: the disk, as "xvda", that it makes
        a file system on and moves to before it takes commands, for all its programs.
        `tsc`: its tsc_mode; "" is what xl takes.
        """
        self.name = name
        self.domid: int | None = None
        self.log = DOM0.consoles / f"guest-{name}.log"
        self.uuid = uuid.uuid4()
        self._births = 0
        self._console = ""  # so far
        self._console_bytes = 0  # of its log
        words = ["console=hvc0 quiet panic=1 mitigations=off"]
        words += [f"xen_blkfront.{key}={value}" for key, value in (blkfront or {}).items()]
        words += [f"lab.root={root}"] if root else []
        lines = [
            f'name = "{name}"',
            f'uuid = "{self.uuid}"',
            'type = "pv"',
            f'kernel = "{DOM0.images}/vmlinux"',
            f'ramdisk = "{DOM0.images}/domu.cpio"',
            f"memory = {memory}",
            f"vcpus = {vcpus}",
            f'extra = "{" ".join(words)}"',
            'on_poweroff = "destroy"',
            f'on_reboot = "{on_reboot}"',
            'on_crash = "destroy"',
            f"disk = {json.dumps(list(disks))}",
            f"vif = {json.dumps(list(cards))}",
            *([f'tsc_mode = "{tsc}"'] if tsc else []),
        ]
        self.config = "\n".join(lines) + "\n"

    def start(self, limit: float = 120.0) -> Self:
        """Create it and wait until it takes commands; GuestError."""
        self.log.unlink(missing_ok=True)
        self._console, self._console_bytes = "", 0
        path = Path(f"/tmp/{self.name}.cfg")
        path.write_text(self.config)
        sh("xl", "create", "-q", str(path), limit=limit)
        self.domid = int(sh("xl", "domid", self.name))
        self._births = 1
        self.expect(r"^domu: ready", limit)
        return self

    def restarted(self, limit: float = 120.0) -> None:
        """Wait for its next life, begun by itself with on_reboot=restart."""
        old = self.domid

        def reborn() -> int | None:
            found = sh("xl", "domid", self.name, check=False)
            return int(found) if found.isdigit() and int(found) != old else None

        self.domid = wait_for(f"{self.name} is restarted", reborn, limit)
        self._births += 1
        self.expect("(?s)" + r"^domu: ready.*?" * self._births, limit)

    def save(self, path: Path, leave: str = "", limit: float = 180.0) -> None:
        """Save it to a file; it is gone then, or as `leave` says: "-p" paused, "-c" running."""
        sh("xl", "save", *leave.split(), self.name, str(path), limit=limit)
        if not leave:
            self.domid = None

    def restore(self, path: Path, *, paused: bool = False, limit: float = 180.0) -> None:
        """Make it of a file, where it goes on in the middle of what it did; GuestError."""
        config = Path(f"/tmp/{self.name}.cfg")
        config.write_text(self.config)
        sh("xl", "restore", *(["-p"] if paused else []), str(config), str(path), limit=limit)
        self.domid = int(sh("xl", "domid", self.name))

    def copy(self, name: str) -> DomU:
        """Another domain that is the same virtual machine, as its UUID says; not yet born."""
        twin = copy.copy(self)
        twin.name = name
        twin.domid = None
        twin.log = DOM0.consoles / f"guest-{name}.log"
        twin._console, twin._console_bytes = "", 0
        twin.config = self.config.replace(f'name = "{self.name}"', f'name = "{name}"', 1)
        return twin

    def unpause(self) -> None:
        """Let it run that was restored paused."""
        sh("xl", "unpause", self.name)

    def shutdown(self, limit: float = 60.0) -> None:
        """Have it power off."""
        self.send("poweroff -f")
        wait_for(f"{self.name} is off", lambda: not self.alive(), limit)
        self.domid = None

    def destroy(self) -> None:
        """End it at once, if it is there at all."""
        sh("xl", "destroy", self.name, check=False)
        self.domid = None

    def alive(self) -> bool:
        """Whether Xen knows it."""
        return self.domid is not None and sh("xl", "domid", self.name, check=False).isdigit()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def text(self) -> str:
        """All that its console has printed, over all its lives."""
        if self.domid is not None:
            DOM0.follow_console(self.name, self.log)
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(self._console_bytes)  # what is new: it is asked again and again
            new = log.read()
            self._console_bytes += len(new)
            # Of whatever was cut in two each half is replaced; what we look for is ASCII.
            self._console += new.decode(errors="replace").replace("\r", "")
        return self._console

    def expect(self, pattern: str, limit: float = LIMIT, start: int = 0) -> re.Match[str]:
        """Wait for something on its console; GuestError with the console's end."""
        search = re.compile(pattern, re.M)
        try:
            found = wait_for(pattern, lambda: search.search(self.text(), start), limit)
        except GuestError as error:
            raise GuestError(f"{self.name}: {error}; its console:\n{self.text()[-2000:]}") from None
        assert found is not None
        return found

    def send(self, command: str) -> str:
        """Give it a command without waiting; what its answer will end with."""
        token = "@" + uuid.uuid4().hex[:12]
        line = f"{token} {base64.b64encode(command.encode()).decode()}\n".encode()
        if len(line) > 4000:
            raise ValueError("too long for a line of the console")
        tty = sh("xenstore-read", f"/local/domain/{self.domid}/console/tty")
        fd = os.open(tty, os.O_RDWR | os.O_NOCTTY)
        try:
            while line:
                line = line[os.write(fd, line) :]
        finally:
            os.close(fd)
        return token

    def run(self, command: str, timeout: float = LIMIT, check: bool = False) -> tuple[int, str]:
        """Run a shell command in it: exit status and output; GuestError if late, or `check`."""
        start = len(self.text())
        end = self.expect(rf"{self.send(command)} rc=(\d+)$", timeout, start)
        status, output = int(end[1]), self.text()[start : end.start()]
        if check and status:
            raise GuestError(f"{self.name}: {command}: {status}: {output}")
        return status, output

    def wait_disk(self, device: str, limit: float = LIMIT) -> None:
        """Wait until it has a block device of that name."""
        self.run(
            f"n=0; until [ -b /dev/{device} ]; do n=$((n+1));"
            f" [ $n -gt {limit * 10:.0f} ] && exit 1; usleep 100000; done",
            limit + 5,
            check=True,
        )

    def attach(self, disk: str, limit: float = LIMIT) -> None:
        """Give it a disk, as in xl.cfg(5)."""
        sh("xl", "block-attach", self.name, disk, limit=limit)

    def detach(self, vdev: str, limit: float = LIMIT) -> None:
        """Take a disk that xl gave."""
        sh("xl", "block-detach", self.name, vdev, limit=limit)

    def fio(self, options: str, timeout: float = 120.0) -> dict[str, Any]:
        """Run fio(1) with one job; what it reports of it in JSON."""
        command = (
            f"fio --name=f --output-format=json --output=/tmp/fio.json {options}"
            " >/dev/null 2>/tmp/fio.err || cat /tmp/fio.err; gzip -c /tmp/fio.json | base64"
        )
        _, output = self.run(command, timeout)
        try:
            report = json.loads(gzip.decompress(base64.b64decode(output)))
        except (ValueError, OSError):
            raise GuestError(f"{self.name}: fio: {output[-800:]}") from None
        job: dict[str, Any] = report["jobs"][0]
        return job
