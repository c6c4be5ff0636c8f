"""Real NBD clients on a guest's view of a disk: they exercise ring and backend."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.sim import nbd

pytestmark = pytest.mark.slow


def need(*tools: str) -> None:
    """Skip unless nbdkit can run our plugin and the tools are there."""
    try:
        nbd.nbdkit_command()
    except OperatorError as error:
        pytest.skip(str(error))
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def export(image: Path, command: str, *options: str) -> str:
    """Run a shell command against the export of an image; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.sim", "nbd", str(image), *options, "--run", command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(16 << 20))
    return path


def test_nbdinfo(image: Path) -> None:
    need("nbdinfo")
    info = json.loads(export(image, 'nbdinfo --json "$uri"'))["exports"][0]
    assert info["export-size"] == 16 << 20
    assert info["can_flush"]
    assert info["can_fua"]
    assert not info["is_read_only"]


def test_read_only_export(image: Path) -> None:
    need("nbdinfo")
    info = json.loads(export(image, 'nbdinfo --json "$uri"', "--read-only"))["exports"][0]
    assert info["is_read_only"]


def test_nbdcopy_out_and_in(image: Path, tmp_path: Path) -> None:
    need("nbdcopy")
    export(image, f'nbdcopy "$uri" {tmp_path}/out.img')
    assert (tmp_path / "out.img").read_bytes() == image.read_bytes()
    new = os.urandom(16 << 20)
    (tmp_path / "in.img").write_bytes(new)
    export(image, f'nbdcopy --flush {tmp_path}/in.img "$uri"')
    assert hashlib.sha256(image.read_bytes()).digest() == hashlib.sha256(new).digest()


def test_qemu_img_compare(image: Path, tmp_path: Path) -> None:
    need("qemu-img")
    shutil.copy(image, tmp_path / "same.img")
    output = export(image, f'qemu-img compare -f raw -F raw {tmp_path}/same.img "$uri"')
    assert "identical" in output


@pytest.mark.parametrize("size", ["512", "4k", "256k"])
def test_fio_verifies(image: Path, tmp_path: Path, size: str) -> None:
    """Blocks of one size: with several, fio 3.33 finds fault with any server at depth 32."""
    need("fio")
    job = (
        f'fio --name=verify --ioengine=nbd --uri="$uri" --rw=randwrite --bs={size}'
        " --iodepth=32 --size=4M --verify=crc32c --verify_state_save=0 --fsync=32 --randseed=1"
        f" --output-format=json --output={tmp_path}/fio.json"
    )
    export(image, job)
    result = json.loads((tmp_path / "fio.json").read_text())["jobs"][0]
    assert result["error"] == 0
    assert result["write"]["io_bytes"] == result["read"]["io_bytes"] == 4 << 20
