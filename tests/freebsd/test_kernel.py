"""The suites of a queue on FreeBSD's own files, over a kernel that is played (kernel.h).

Each way a ring's grants, events and disk can go wrong there ends the run with
"panic:", and so does what is left behind.  With sanitizers the disk is a
provider, without them a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.freebsd.fake import SANITIZE, build_extension
from tests.native.test_variants import SANITIZERS, SUITE, runtime


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizer", "medium"), [("none", "file"), ("address,undefined", "device")]
)
def test_queue_suite(tmp_path: Path, sanitizer: str, medium: str) -> None:
    library, environment = SANITIZERS[sanitizer]
    build_extension(tmp_path, SANITIZE if library else [])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qs", "-pno:cacheprovider", *SUITE],
        cwd=tmp_path,
        env={
            **os.environ,
            **environment,
            "LD_PRELOAD": runtime(library) if library else "",
            "PYTHONPATH": str(tmp_path),
            "XBBD_TEST_HV": "xen",
            "XBBD_TEST_MEDIUM": medium,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout
