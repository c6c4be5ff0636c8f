"""A guest's view of a disk for anybody's NBD client.

`python -m xbbd_bsd.sim nbd IMAGE`.  Starts machine and daemon, and nbdkit(1)
with its Python plugin: that process is the guest, its plugin (nbdkit_plugin.py)
turns NBD requests into requests on the ring.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable

import _cffi_backend

import xbbd_bsd
from xbbd_bsd.errors import HostError, OperatorError, XbbdError, in_words
from xbbd_bsd.host import DiskGeometry, Medium
from xbbd_bsd.host.choice import platform
from xbbd_bsd.native import PAGE_SIZE
from xbbd_bsd.sim.chain import LIMIT, Chain
from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.xenbus.states import State, parse_state
from xbbd_bsd.xenstore.waiting import wait_until

DOMID, XVDA = 1, 51712
LARGEST = 32 << 20  # bytes, of one piece of I/O: what clients take for granted
LOOK_SECONDS = 0.25  # between looks whether nbdkit still lives
PLUGIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nbdkit_plugin.py")


def nbdkit_command() -> str:
    """Where nbdkit is; OperatorError if it cannot run our plugin."""
    nbdkit = shutil.which("nbdkit")
    if nbdkit is None:
        raise OperatorError("nbdkit is not installed (Debian: nbdkit nbdkit-plugin-python)")
    dump = subprocess.run(
        [nbdkit, "--dump-plugin", "python"], capture_output=True, text=True, check=False
    )
    if dump.returncode != 0:
        raise OperatorError("nbdkit has no Python plugin (Debian: nbdkit-plugin-python)")
    theirs = dict(line.split("=", 1) for line in dump.stdout.splitlines() if "=" in line)
    version = theirs.get("python_version", "")
    if version.split(".")[:2] != [str(n) for n in sys.version_info[:2]]:
        raise OperatorError(
            f"nbdkit's plugin is for Python {version}, xbbd runs on {sys.version.split()[0]}:"
            " make .venv with that Python (PYTHON=...)"
        )
    return nbdkit


def python_path() -> str:
    """Where nbdkit's own Python finds our package and cffi's runtime."""
    places = {
        os.path.dirname(os.path.dirname(os.path.abspath(xbbd_bsd.__file__))): None,
        os.path.dirname(os.path.abspath(_cffi_backend.__file__)): None,
    }
    return os.pathsep.join((*places, os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep)


def main(options: argparse.Namespace) -> int:
    """The command `nbd`; its exit status, or that of --run."""
    try:
        nbdkit = nbdkit_command()
        image = os.path.abspath(options.image)
        with Chain() as chain:
            chain.start_daemon()
            return _export(chain, nbdkit, image, options)
    except KeyboardInterrupt:
        return 0
    except (XbbdError, OSError) as error:
        print(f"nbd: {in_words(error)}", file=sys.stderr)
        return 1


def _export(chain: Chain, nbdkit: str, image: str, options: argparse.Namespace) -> int:
    disk = DiskOffer(DOMID, XVDA, image, mode="r" if options.read_only else "w")
    socket = os.path.abspath(options.socket or os.path.join(chain.directory, "nbd.socket"))
    if os.path.lexists(socket):
        raise OperatorError(f"{socket} exists; if nobody listens there, remove it")
    geometry = _geometry(image)
    # The inner filter makes whole sectors of what is none; the outer one tells clients
    # how large these are all the same.
    command = [nbdkit, "--foreground", "--unix", socket,
               "--filter=blocksize-policy", "--filter=blocksize"]  # fmt: skip
    if options.read_only:
        command.append("--readonly")
    command += ["python", PLUGIN, f"machine={chain.layout.directory}",
                f"domid={DOMID}", f"vdev={XVDA}",
                f"holes={int(geometry.medium is Medium.FILE)}",
                f"blocksize-minimum={geometry.sector_size}",
                f"blocksize-preferred={max(geometry.physical_sector_size, PAGE_SIZE)}",
                f"blocksize-maximum={LARGEST}"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": python_path()}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)
    try:
        _connect(chain, disk, server)
        uri = f"nbd+unix:///?socket={urllib.parse.quote(socket)}"
        if options.run is None:
            print(uri, flush=True)
            return server.wait()
        # Not nbdkit's own --run: its clients would wait for ever for a server that died.
        variables = {**os.environ, "uri": uri, "unixsocket": socket}
        return subprocess.run(options.run, shell=True, env=variables, check=False).returncode
    finally:
        _stop(server)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)


def _geometry(image: str) -> DiskGeometry:
    """What the image is as a disk; OperatorError, HostError."""
    try:
        with open(image, "rb") as file:
            return platform().prepare_disk(file.fileno())
    except OSError as error:
        raise OperatorError(f"unable to open {image}: {error.strerror}") from None


def _connect(chain: Chain, disk: DiskOffer, server: subprocess.Popen[bytes]) -> None:
    """Offer the disk once the plugin's domain is born; wait until it has connected."""
    home = f"/local/domain/{DOMID}/domid"
    _await(chain, server, home, lambda: chain.store.get(home) is not None)
    chain.attach(disk)
    state = f"{disk.frontend}/state"
    _await(chain, server, state, lambda: parse_state(chain.store.get(state)) is State.CONNECTED)


def _await(
    chain: Chain, server: subprocess.Popen[bytes], path: str, holds: Callable[[], bool]
) -> None:
    """Wait for a change below `path`, as long as nbdkit lives; HostError."""
    end = time.monotonic() + LIMIT
    while not wait_until(chain.store, chain.loop, path, holds, LOOK_SECONDS):
        if server.poll() is not None:
            raise HostError(f"nbdkit has ended with status {server.returncode}")
        if time.monotonic() > end:
            raise HostError("nbdkit does not connect")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End nbdkit, whose plugin gives the disk back; insist if it does not."""
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
