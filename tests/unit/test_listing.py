"""xbbctl list and health where there are network cards; and attach and detach as they are typed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from xbbd_bsd import xbbctl
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.control.status import Exit, tell
from xbbd_bsd.ctl import listing
from xbbd_bsd.ctl.attach import run_attach
from xbbd_bsd.ctl.cards import is_card, is_spec
from xbbd_bsd.errors import OperatorError

DISK = {"domid": 1, "guest": "web", "vdev": "xvda", "mode": "w", "sectors": 4096, "path": "/a",
        "state": "Connected", "process": 77, "process_rss_kb": 900, "process_age": 5,
        "takeovers": 1}  # fmt: skip
CARD = {"domid": 1, "guest": "web", "handle": 2, "mac": "00:16:3e:01:02:03", "state": "Closed",
        "interface": "vif1.2", "bridge": "xenbr0", "reason": "no tap", "process": 78,
        "process_rss_kb": 800, "process_age": 4, "takeovers": 3}  # fmt: skip


class Connection:
    """What a daemon with a disk and a card answers."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def whole(self, request: Request) -> Mapping[str, Any]:
        if request.verb is Verb.STAT:
            return {"dev.xbbd.0": DISK, "dev.xnb.0": CARD}
        if request.verb is Verb.CONFIGURED:
            return {"dev.xnb.0.poll_max_us": 50} if request.name == "dev.xnb.0" else {}
        return {request.name: 8}


def listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> Sequence[str]:
    monkeypatch.setattr(listing, "connect", lambda _: Connection())
    assert xbbctl.main(["list", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_disks_and_cards_in_one_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line has as many words before its path."""
    assert listed(monkeypatch, capsys) == [
        "NAME   GUEST  VDEV  MODE  MIB  STATE      PATH",
        "xbbd0  web    xvda  w       2  Connected  /a",
        "xnb0   web    vif2  -       -  Closed     vif1.2 00:16:3e:01:02:03 xenbr0 (no tap)",
    ]
    more = listed(monkeypatch, capsys, "-v")
    assert [line.split()[6:10] for line in more[:3]] == [
        ["PROCESS", "RSS_KB", "AGE", "TAKEOVERS"],
        ["77", "900", "5", "1"],
        ["78", "800", "4", "3"],
    ]
    assert more[3:] == ["    poll_max_us: 8 (configured: 50)"]
    assert [row.split()[0] for row in listed(monkeypatch, capsys, "xnb0")] == ["NAME", "xnb0"]


def test_a_card_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, card = json.loads("\n".join(listed(monkeypatch, capsys, "-j")))
    assert set(card) - set(disk) == {"handle", "interface", "mac", "bridge"}
    assert (card["vdev"], card["MiB"], card["path"], card["handle"]) == ("vif2", 0, "", 2)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (["dev.xnb.0"], "all is well: 1 card"),
        (["dev.xbbd.0", "dev.xnb.0", "dev.xnb.1"], "all is well: 1 disk, 2 cards"),
        (["dev.xbbd.0", "dev.xbbd.1", "dev.other.0"], "all is well: 2 disks, 1 other"),
    ],
)
def test_how_many_are_well(
    capsys: pytest.CaptureFixture[str], nodes: Sequence[str], said: str
) -> None:
    found: dict[str, list[dict[str, Any]]] = {node: [] for node in nodes}
    assert tell(lambda: found, verbose=False, as_json=False) is Exit.WELL
    assert capsys.readouterr().out == f"{said}\n"
    tell(lambda: found, verbose=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["cards"] == sum(".xnb." in node for node in nodes)


# What is typed.


def test_what_is_a_card() -> None:
    assert is_spec("bridge=xenbr0")
    assert not is_spec(""), "a shell's variable that is not set"
    assert not is_spec("/tank/a=b")
    assert not is_spec("a.img")
    assert is_card("vif0")
    assert is_card("00:16:3e:01:02:03")
    assert not is_card("0")
    assert not is_card("xvda")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1", "/a"], "/a: write the disk's name in the guest after it, as xvda, or a card as"),
        (["1", "bridge=a", "--cdrom"], "--cdrom is of disks, not of cards"),
        (["1", "bridge=a", "--mode", "r"], "--mode is of disks, not of cards"),
        (["1", "bridge=a", "--no-discard"], "--no-discard is of disks, not of cards"),
        (["1", "bridge=a", "--limit-group", "g"], "--limit-group is of disks, not of cards"),
        (["1", "bridg=a"], "bridg: no key of a card"),
    ],
)
def test_what_cannot_be_attached(words: Sequence[str], said: str) -> None:
    options = xbbctl._verb_parser().parse_args(["attach", *words])
    assert isinstance(options, argparse.Namespace)
    with pytest.raises(OperatorError, match=f"^{said}"):
        run_attach(options)
