"""What tools do for a card where xl has a script: commands of each system, and scripts as libxl's.

The commands are played, and told of what they were asked; Linux's are done for real, too,
in a network name space of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xbbd_bsd.ctl import bridges
from xbbd_bsd.ctl.bridges import Bridges
from xbbd_bsd.ctl.freebsd_bridges import FreeBSDBridges
from xbbd_bsd.ctl.linux_bridges import LinuxBridges
from xbbd_bsd.errors import HostError, OperatorError

BACKEND = "/local/domain/0/backend/vif/7/0"

# Of iproute2 6.1 and of FreeBSD 13.2, shortened.
IP = """\
3: xenbr0: <BROADCAST,MULTICAST> mtu 9000 qdisc noop state DOWN mode DEFAULT qlen 1000
    link/ether fe:ff:ff:ff:ff:ff brd ff:ff:ff:ff:ff:ff promiscuity 0 minmtu 68 maxmtu 65535
    bridge forward_delay 1500 hello_time 200 max_age 2000 ageing_time 30000 stp_state 0
"""
IFCONFIG = """\
bridge0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 9000
\tether 58:9c:fc:10:df:1f
\tgroups: bridge
\tnd6 options=9<PERFORMNUD,IFDISABLED>
"""


class Played:
    """A command of this system, in whose place a script notes what it was asked."""

    def __init__(self, directory: Path, name: str) -> None:
        self._asked = directory / "asked"
        self.path = directory / name
        self.answers("")

    def answers(self, text: str, *, status: int = 0) -> None:
        where = " >&2" if status else ""
        self.path.write_text(
            f'#!/bin/sh\necho "$@" >>{self._asked}\ncat{where} <<\\END\n{text}END\nexit {status}\n'
        )
        self.path.chmod(0o755)

    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines()


def played(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Played(tmp_path, name)


@pytest.fixture
def ip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    return played("ip", tmp_path, monkeypatch)


@pytest.fixture
def ifconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    return played("ifconfig", tmp_path, monkeypatch)


def test_linux_as_vif_bridge(ip: Played) -> None:
    """A bridge takes the lowest of its ports' addresses: that of a card must be none."""
    ip.answers(IP)
    assert LinuxBridges().mtu("xenbr0") == 9000
    LinuxBridges().join("xenbr0", "vif7.0", 1400)
    assert ip.asked() == [
        "-d link show dev xenbr0",
        "link set dev vif7.0 address fe:ff:ff:ff:ff:ff",
        "link set dev vif7.0 addrgenmode none",
        "link set dev vif7.0 mtu 1400 master xenbr0 up",
    ]


def test_freebsd_as_vif_bridge(ifconfig: Played) -> None:
    ifconfig.answers(IFCONFIG)
    assert FreeBSDBridges().mtu("bridge0") == 9000
    FreeBSDBridges().join("bridge0", "xnb7.0", 1400)
    assert ifconfig.asked() == [
        "bridge0",
        "xnb7.0 mtu 1400",
        "bridge0 addm xnb7.0",
        "xnb7.0 up",
    ]


@pytest.mark.parametrize(
    ("host", "command", "text"),
    [
        (LinuxBridges(), "ip", 'Device "br7" does not exist.\n'),
        (FreeBSDBridges(), "ifconfig", "ifconfig: interface br7 does not exist\n"),
    ],
)
def test_what_is_no_bridge(
    host: Bridges, command: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = played(command, tmp_path, monkeypatch)
    program.answers(text, status=1)
    with pytest.raises(OperatorError, match=r"^there is no bridge br7: make it first, or name an"):
        host.mtu("br7")
    program.answers("not permitted\n", status=1)
    with pytest.raises(HostError, match=rf"^{command} .*br7: not permitted$"):
        host.mtu("br7")
    program.answers("br7: <UP> mtu 1500 \n")
    with pytest.raises(OperatorError, match=r"^br7 is an interface, but no bridge$"):
        host.mtu("br7")
    program.answers("", status=3)
    with pytest.raises(HostError, match=rf"^{command} .*: exit status 3$"):
        host.join("br7", "vif7.0", 1500)
    program.path.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=rf"^{command}: No such file"):
        host.join("br7", "vif7.0", 1500)


def test_a_command_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "LIMIT", 0.01)
    with pytest.raises(HostError, match=r"^sleep 60: not done after 0\.01 seconds$"):
        bridges.run(("sleep", "60"))


@pytest.mark.parametrize(
    ("host", "online", "wanted"),
    [
        (LinuxBridges(), True, "online type_if=vif vif7.0 backend/vif/7/0 vif backend"),
        (LinuxBridges(), False, "offline type_if=vif vif7.0 backend/vif/7/0 vif backend"),
        (FreeBSDBridges(), True, f"{BACKEND} add xnb7.0 0"),
        (FreeBSDBridges(), False, f"{BACKEND} remove xnb7.0 0"),
    ],
)
def test_a_script_is_run_as_libxl_does(
    tmp_path: Path, host: Bridges, online: bool, wanted: str
) -> None:
    script, said = tmp_path / "vif-test", tmp_path / "said"
    script.write_text(
        f"#!/bin/sh\necho $* $vif $XENBUS_PATH $XENBUS_TYPE $XENBUS_BASE_PATH $iface_dev $emulated"
        f" >{said}\n"
    )
    script.chmod(0o755)
    path = host.script(str(script))
    assert path == str(script)
    host.run_script(path, BACKEND, f"{host.prefix}7.0", online=online)
    assert said.read_text() == f"{wanted}\n"


@pytest.mark.parametrize("host", [LinuxBridges(), FreeBSDBridges()])
def test_scripts_are_found_where_xen_has_them(tmp_path: Path, host: Bridges) -> None:
    with pytest.raises(OperatorError, match=r"^script /.*etc/xen/scripts/vif-x: there is no such"):
        host.script("vif-x")
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(OperatorError, match=r"plain: it cannot be executed$"):
        host.script(str(plain))


REAL = """
import subprocess
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.ctl.linux_bridges import LinuxBridges
bridges = LinuxBridges()
print(bridges.mtu("br7"), flush=True)
for name in ("br8", "lo"):
    try:
        bridges.mtu(name)
    except OperatorError as error:
        print(error, flush=True)
bridges.join("br7", "vif7.0", 1400)
subprocess.run(("ip", "link", "show", "dev", "vif7.0"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's own")
def test_a_real_bridge_of_linux() -> None:
    tools = [shutil.which(name) for name in ("unshare", "ip")]
    made = "ip link add br7 mtu 9000 type bridge && ip tuntap add vif7.0 mode tap"
    if (
        None in tools
        or subprocess.run(
            ("unshare", "-n", "sh", "-c", made), capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("there are no network name spaces here, or not for us")
    done = subprocess.run(
        ("unshare", "-n", "sh", "-c", f'{made} && exec "$0" -c "$1"', sys.executable, REAL),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "9000\nthere is no bridge br8: make it first, or name another\n"
        "lo is an interface, but no bridge\n"
    )
    assert " mtu 1400 " in done.stdout
    assert " master br7 " in done.stdout
    assert "link/ether fe:ff:ff:ff:ff:ff" in done.stdout
