"""Boots the lab: Xen and dom0 in QEMU with a job, and brings the results back.

A job is a folder with job.sh, which dom0 runs as root in a copy of it.  What the
job does is not known here.  Run on the host; needs no root and no hardware
virtualization.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.images import Images, cache, say

TIMED_OUT, NO_RESULT = 124, 125

# SMAP off: QEMU before 9.1 wrongly faults IRETQ in ring 3 under it, which kills every
# PV kernel.  XSAVE off and eager FPU: with Xen's lazy switching QEMU 7.2 mixes up the
# vector registers of guests.  README.md, Traps; jobs/fpu shows it.
CPU = "max,-smap,-smep,-xsave"
# A string instruction is charged by its units in virtual time, and with ERMS these are
# bytes: 16 us for a page, where hardware takes 0.1.  Without it they are words.
VIRTUAL_CPU = f"{CPU},-erms"
XEN_ARGUMENTS = (
    *["console=com1", "com1=115200,8n1", "spec-ctrl=no,eager-fpu=yes"],
    *["loglvl=warning", "guest_loglvl=warning"],
)
LINUX_ARGUMENTS = ["console=hvc0", "panic=3", "mitigations=off", "quiet", "selinux=0", "apparmor=0"]


@dataclass(frozen=True, slots=True)
class Boot:
    """What a boot is to be like.

    timeout: seconds from power-on to power-off.  icount: virtual time, in which
    an instruction takes 2**icount ns; None for real time.  smp: QEMU's
    processors; 2 only pays where both of the host's are idle.  mem, dom0_mem:
    MiB.  scratch: GiB of a sparse disk for the job.  plugin: of QEMU's, which is told
    where results go.
    """

    timeout: float = 600.0
    icount: int | None = None
    smp: int = 1
    mem: int = 3072
    dom0_mem: int = 1536
    scratch: int = 4
    environment: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False
    plugin: Path | None = None


def run(images: Images, job: Path, out: Path, boot: Boot) -> int:
    """Boot, run the job, bring everything back to `out`; the job's exit status.

    124: the time was over.  125: no result came back, see console.log.  In `out`:
    job.log (what the job printed), console.log (Xen and dom0), results/ (what it
    left in $RESULTS, and the logs of dom0), status.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "results", ignore_errors=True)
    for name in ("console.log", "job.log", "qemu.log", "status.json"):
        (out / name).unlink(missing_ok=True)  # nothing else: --out may name any directory
    with _work(cache()) as work:
        _write_job(work / "job.tar", job, boot)
        for name, size in (("results.img", 512 << 20), ("scratch.img", boot.scratch << 30)):
            (work / name).touch()
            os.truncate(work / name, size)
        for name, path in (("vmlinux", images.kernel), ("initrd.cpio", images.initrd)):
            (work / name).symlink_to(path)  # QEMU splits -initrd at blanks and commas
        begun = time.monotonic()
        code, timed_out = _power_on(_command(images, work, out, boot), work, out, boot)
        wall = time.monotonic() - begun
        status = TIMED_OUT if timed_out else _results(work / "results.img", out)
    (out / "status.json").write_text(
        json.dumps({"status": status, "wall_s": round(wall, 1), "qemu": code}) + "\n"
    )
    if status == TIMED_OUT:
        say("the time was over")
    elif status == NO_RESULT:
        say(f"no result, see {out}/console.log")
    return status


@contextlib.contextmanager
def _work(home: Path) -> Iterator[Path]:
    """A directory for this boot; those of boots that were killed go."""
    for old in home.glob("run-*"):
        if not Path(f"/proc/{old.name[4:]}").exists():
            shutil.rmtree(old, ignore_errors=True)
    work = home / f"run-{os.getpid()}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_job(path: Path, job: Path, boot: Boot) -> None:
    """The job as a tar file, which dom0 sees as a disk."""
    environment = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in boot.environment.items())
    limit = str(int(max(10.0, boot.timeout - 60)))
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, dereference=True) as tar:
        tar.add(job, "job")
        for name, text in (("lab.env", environment), ("lab.timeout", limit)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(text.encode()), int(time.time())
            tar.addfile(entry, io.BytesIO(text.encode()))
    with path.open("ab") as file:  # a disk is a whole number of sectors
        file.write(bytes(-file.tell() % (1 << 20)))


def _command(images: Images, work: Path, out: Path, boot: Boot) -> list[str]:
    virtual_time = boot.icount is not None
    threads = "single" if virtual_time else "multi"
    xen = [
        *XEN_ARGUMENTS,
        f"dom0_mem={boot.dom0_mem}M,max:{boot.dom0_mem}M",
        "dom0_max_vcpus=1",
        *(["dom0_vcpus_pin"] if boot.smp > 1 else []),
    ]
    linux = " ".join(LINUX_ARGUMENTS).replace(",", ",,")
    command = [
        "qemu-system-x86_64",
        *("-accel", f"tcg,thread={threads},tb-size=256"),
        *("-cpu", VIRTUAL_CPU if virtual_time else CPU, "-machine", "pc"),
        *(["-icount", f"shift={boot.icount},sleep=off"] if virtual_time else []),
        *("-smp", str(boot.smp), "-m", str(boot.mem)),
        *["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-rtc", "base=utc"],
        *("-kernel", str(images.xen), "-append", " ".join(xen)),
        *("-initrd", f"vmlinux {linux},initrd.cpio"),
        *("-chardev", f"file,id=con,path={_escaped(out / 'console.log')}"),
        *("-serial", "chardev:con", "-device", "virtio-serial-pci"),
        *("-chardev", f"file,id=job,path={_escaped(out / 'job.log')}"),
        *("-device", "virtserialport,chardev=job,name=lab.job"),
    ]
    if boot.plugin is not None:
        command += ["-plugin", f"{_escaped(boot.plugin)},out={_escaped(out)}"]
    disks = (
        ("root", images.root, "readonly=on"),
        ("job", work / "job.tar", "readonly=on"),
        ("results", work / "results.img", "cache=unsafe"),
        ("scratch", work / "scratch.img", "cache=unsafe,discard=unmap"),
    )
    for name, path, options in disks:
        command += [
            *("-drive", f"if=none,id={name},format=raw,file={_escaped(path)},{options}"),
            *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
        ]
    return command


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _power_on(command: list[str], work: Path, out: Path, boot: Boot) -> tuple[int, bool]:
    """QEMU's exit status, and whether it was ended because the time was over."""
    end = time.monotonic() + boot.timeout
    shown = 0
    with (out / "qemu.log").open("wb") as log:
        qemu = subprocess.Popen(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                qemu.wait(0.2)
            if not boot.quiet:
                shown = _follow(out / "job.log", shown)
            if qemu.returncode is not None:
                return qemu.returncode, False
            if time.monotonic() > end:
                return _stop(qemu), True
    finally:
        _stop(qemu)


def _stop(qemu: subprocess.Popen[bytes]) -> int:
    if qemu.poll() is None:
        qemu.terminate()
        try:
            qemu.wait(5)
        except subprocess.TimeoutExpired:
            qemu.kill()
    return qemu.wait()


def _follow(path: Path, shown: int) -> int:
    """Print what a file has more than was shown; how much is shown now."""
    try:
        with path.open("rb") as file:
            file.seek(shown)
            data = file.read()
    except FileNotFoundError:
        return shown
    sys.stdout.write(data.decode(errors="replace").replace("\r", ""))
    sys.stdout.flush()
    return shown + len(data)


def _results(image: Path, out: Path) -> int:
    """Unpack what dom0 has written on its results disk; the job's exit status."""
    try:
        with tarfile.open(image) as tar:
            for entry in tar:
                name = entry.name.lstrip("./")
                if name and (entry.isreg() or entry.isdir()) and ".." not in name.split("/"):
                    entry.name = name
                    entry.mode |= 0o600 if entry.isreg() else 0o700
                    tar.extract(entry, out / "results", set_attrs=False)
        return int((out / "results/lab.status").read_text())
    except (tarfile.TarError, OSError, ValueError):
        return NO_RESULT


def summary_line(log: str) -> str | None:
    """The last line of pytest's own summary in a job's log."""
    found = re.findall(r"^=+ .*\b(?:passed|failed|error)\b.* =+$", log, re.M)
    return found[-1] if found else None
