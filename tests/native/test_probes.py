"""The probes of the kernel driver: names, arguments, and one for each operation of the disk.

The functions that DTrace's pid provider would hook are replaced by ones that
write down how they are called; USDT notes are looked for where sys/sdt.h is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.test_variants import compiler
from xbbd_bsd.native.build import HERE

PROBES = {
    f"dispatch_{back_end}_{operation}"
    for back_end in ("dev", "file")
    for operation in ("flush", "read", "write")
}

TRAFFIC = """
import sys
from pathlib import Path
from tests.native.ring import ring
from xbbd_bsd.native import DiskKind, Op
with ring(Path(sys.argv[1]), unit=7, discard=True, disk_kind=DiskKind[sys.argv[2]]) as r:
    r.front.transfer(Op.WRITE, 8, 16, bytearray(8192))
    r.front.transfer(Op.READ, 80, 1, bytearray(512))
    r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
    r.front.transfer(Op.WRITE_BARRIER, 8, 8, bytearray(4096))
    r.state.set_tunable("disable_flush", 1)
    r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
"""


DEVICE = pytest.param(
    "DEVICE",
    marks=pytest.mark.skipif(
        sys.platform.startswith("freebsd"), reason="FreeBSD flushes no file as if it were a disk"
    ),
)


@pytest.mark.parametrize("kind", ["FILE", DEVICE])
def test_each_operation_of_the_disk_is_probed(tmp_path: Path, kind: str) -> None:
    """A flush that is not done is none; the probes of the two back ends are told apart."""
    library = tmp_path / "probe_log.so"
    source = Path(__file__).with_name("probe_log.c")
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", library, source], check=True)
    ran = subprocess.run(
        [sys.executable, "-c", TRAFFIC, str(tmp_path), kind],
        env={**os.environ, "LD_PRELOAD": str(library)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    prefix = "xbb_dispatch_" + ("file" if kind == "FILE" else "dev")
    assert ran.stderr.splitlines() == [
        f"{prefix}_write 7 4096 8192",
        f"{prefix}_read 7 40960 512",
        f"{prefix}_flush 7",
        f"{prefix}_write 7 4096 4096",
    ]


def test_usdt_notes(tmp_path: Path) -> None:
    """For bpftrace, perf and SystemTap; provider and arguments as in the kernel driver."""
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    probed = subprocess.run(
        [compiler(), "-E", "-include", "sys/sdt.h", "-x", "c", "/dev/null"],
        capture_output=True,
        check=False,
    )
    if probed.returncode != 0 or sys.platform.startswith("freebsd"):
        pytest.skip("no sys/sdt.h (systemtap-sdt-dev)")
    target = tmp_path / "probes.o"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", f"-I{HERE}"]
    subprocess.run([compiler(), *flags, "-c", "-o", target, HERE / "block/probes.c"], check=True)
    notes = subprocess.run(["readelf", "-n", target], capture_output=True, text=True, check=True)
    found = re.findall(r"Provider: xbb\n\s+Name: (\w+)\n.*\n\s+Arguments:((?: \S+)*)", notes.stdout)
    assert {name for name, _ in found} == PROBES
    for name, arguments in found:
        assert len(arguments.split()) == (1 if name.endswith("flush") else 3)
