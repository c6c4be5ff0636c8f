"""Real NBD clients on a guest's view of a disk: they exercise ring and backend."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
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


def says(image: Path, *options: str) -> dict[str, object]:
    """What a client is told of the export."""
    found = json.loads(export(image, 'nbdinfo --json "$uri"', *options))["exports"][0]
    assert isinstance(found, dict)
    return found


def test_clients_are_told_what_the_disk_says_of_itself(image: Path) -> None:
    need("nbdinfo")
    info = says(image)
    assert (info["block_size_minimum"], info["block_size_preferred"]) == (512, 4096)
    assert info["can_trim"]
    assert info["can_zero"]
    assert info["can_fast_zero"]
    info = says(image, "--read-only")
    assert not info["can_trim"]
    assert not info["can_fast_zero"]


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="no loop devices"
)
def test_a_disk_with_large_sectors(image: Path, tmp_path: Path) -> None:
    """A real one; what is not of whole sectors is served all the same."""
    need("nbdinfo", "nbdcopy", "losetup", "qemu-io")
    made = subprocess.run(
        ["losetup", "--find", "--show", "--sector-size", "4096", image],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(made.stderr)
    device = Path(made.stdout.strip())
    try:
        info = says(device)
        assert (info["block_size_minimum"], info["block_size_preferred"]) == (4096, 4096)
        assert not info["can_fast_zero"], "nobody knows what a device reads after a discard"
        before = image.read_bytes()
        export(device, 'qemu-io -f raw -c "write -P 0x5a 1000 100" "$uri"')
        after = before[:1000] + b"\x5a" * 100 + before[1100:]
        assert image.read_bytes() == after
        export(device, f'nbdcopy "$uri" {tmp_path}/out.img')
        assert (tmp_path / "out.img").read_bytes() == after
        source = tmp_path / "sparse.img"
        source.write_bytes(os.urandom(4096))
        os.truncate(source, 16 << 20)
        export(device, f'nbdcopy --flush {source} "$uri"')
        assert image.read_bytes() == source.read_bytes()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("full", [False, True])
def test_a_sparse_copy_stays_sparse(tmp_path: Path, full: bool) -> None:
    need("nbdcopy")
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(4096))
    os.truncate(source, 64 << 20)
    target.write_bytes(os.urandom(64 << 20) if full else b"")
    os.truncate(target, 64 << 20)
    export(target, f'nbdcopy --flush {source} "$uri"')
    assert target.read_bytes() == source.read_bytes()
    assert allocated(target) < 1 << 20


def test_trim_and_zeroes(image: Path) -> None:
    """Space that has to be kept is written; what is not of whole sectors stays."""
    need("qemu-io")
    before = image.read_bytes()
    full = allocated(image)
    export(image, 'qemu-io -f raw -c "write -z 4096 8192" "$uri"')
    assert image.read_bytes() == before[:4096] + bytes(8192) + before[12288:]
    assert allocated(image) == full
    export(image, 'qemu-io -f raw -c "write -z -u 1M 1M" "$uri"')
    export(image, 'qemu-io -f raw -d unmap -c "discard 4M 1M" "$uri"')
    assert allocated(image) <= full - (2 << 20)
    export(image, 'qemu-io -f raw -c "write -z -u 8000100 1000" "$uri"')
    wanted = bytearray(before)
    for begin, size in ((4096, 8192), (1 << 20, 1 << 20), (4 << 20, 1 << 20), (8000100, 1000)):
        wanted[begin : begin + size] = bytes(size)
    assert image.read_bytes() == bytes(wanted)


def refused(image: Path, temporary: Path, *options: str) -> str:
    """The command's complaint when it cannot export an image; it must come at once."""
    done = subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.sim", "nbd", str(image), *options],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(temporary)},
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_no_image(tmp_path: Path, temporary: Path) -> None:
    """Clients are not started, so none waits for a server that will never be."""
    need()
    touched = tmp_path / "touched"
    complaint = refused(tmp_path / "missing.img", temporary, "--run", f"touch {touched}")
    assert "No such file or directory" in complaint
    assert not touched.exists()


def test_a_socket_that_exists(image: Path, tmp_path: Path, temporary: Path) -> None:
    need()
    busy = tmp_path / "busy"
    busy.touch()
    assert f"{busy} exists" in refused(image, temporary, "--socket", str(busy))
    assert busy.exists()


def test_nbdkit_ends_before_it_serves(image: Path, temporary: Path, tmp_path: Path) -> None:
    """As when it cannot listen; nobody waits for it."""
    need()
    socket = tmp_path / "no-such-directory" / "socket"
    assert "nbdkit has ended" in refused(image, temporary, "--socket", str(socket))


def test_status_of_the_command(image: Path) -> None:
    need()
    done = subprocess.run(
        [sys.executable, "-m", "xbbd_bsd.sim", "nbd", str(image), "--run", "exit 7"],
        timeout=120,
        check=False,
    )
    assert done.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal(image: Path, temporary: Path, number: signal.Signals) -> None:
    need("nbdinfo")
    socket = temporary / "nbd"
    with subprocess.Popen(
        [sys.executable, "-m", "xbbd_bsd.sim", "nbd", str(image), "--socket", str(socket)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        size = subprocess.run(
            ["nbdinfo", "--size", uri], capture_output=True, text=True, timeout=120, check=True
        )
        assert int(size.stdout) == 16 << 20
        server.send_signal(number)
        assert server.wait(30) == 0


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
