"""Disks that cannot be: the operator is told why, in time, and can try again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU, sh
from tests.real.service import Service, Toolstack, command
from xbbd_bsd.errors import HostError

XL_LIMIT = 40.0  # seconds that xl gives a hotplug script


@pytest.fixture(
    params=[
        "missing",
        pytest.param("directory", marks=pytest.mark.more),
        pytest.param("forbidden", marks=pytest.mark.more),
    ]
)
def bad_image(request: pytest.FixtureRequest, image: Path) -> Iterator[tuple[str, str]]:
    """A path that cannot be served, and the reason in the system's words."""
    if request.param == "missing":
        yield f"{image}.missing", "No such file or directory"
    elif request.param == "directory":
        yield str(image.parent), "Is a directory"
    else:
        # root may open anything, but for what a read-only file system holds.
        place = image.parent / "ro"
        place.mkdir()
        DOM0.mount_small(place)
        (place / "disk.img").write_bytes(bytes(1 << 20))
        DOM0.make_read_only(place)
        yield str(place / "disk.img"), "Read-only file system"
        sh("umount", str(place))


def test_xl_reports_our_reason(
    toolstack: Toolstack,
    guest: DomU,
    image: Path,
    hotplug_script: str,
    bad_image: tuple[str, str],
) -> None:
    path, reason = bad_image
    disk = f"vdev=xvda,access=rw,backendtype=phy,script={hotplug_script},target="
    begun = time.monotonic()
    refused = command("xl", "block-attach", guest.name, disk + path)
    assert refused.returncode != 0
    assert reason in refused.stdout
    assert path in refused.stdout
    assert time.monotonic() - begun < XL_LIMIT
    # The same virtual disk is free for a better try.
    toolstack.remove_all()
    command("xl", "block-detach", guest.name, "xvda", "--force")
    guest.attach(disk + str(image))
    guest.wait_disk("xvda")
    guest.detach("xvda")


def test_xbbctl_reports_our_reason(
    service: Service, guest: DomU, image: Path, bad_image: tuple[str, str]
) -> None:
    path, reason = bad_image
    run = str(service.directory / "run")

    def xbbctl(*words: str) -> subprocess.CompletedProcess[str]:
        return command(sys.executable, "-m", "xbbd_bsd.xbbctl", "--state-dir", run, *words)

    domid = str(guest.domid)
    refused = xbbctl("attach", domid, path, "xvda")
    assert refused.returncode == 1
    assert reason in refused.stdout
    said = xbbctl("attach", domid, str(image), "xvda").stdout
    guest.wait_disk("xvda")
    (disk,) = json.loads(xbbctl("list", "-j").stdout)
    # A daemon that is too busy to say which it is does not hold up an attach.
    assert said in ("", f"{disk['name']}\n")
    assert xbbctl("detach", domid, "xvda").stdout == ""


def test_the_error_node_has_our_reason(
    toolstack: Toolstack, guest: DomU, bad_image: tuple[str, str]
) -> None:
    """The error node is where xenbus drivers leave theirs."""
    path, reason = bad_image
    assert guest.domid is not None
    with pytest.raises(HostError, match=reason):
        toolstack.attach(guest.domid, path)
    text = toolstack.node(f"error/backend/vbd3/{guest.domid}/51712/error")
    assert text is not None
    assert reason in text
    toolstack.store.remove("error/backend")
