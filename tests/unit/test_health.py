"""What is judged to be wrong: each thing that health knows, and what it does not count."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from xbbd_bsd.block.health import (
    DiskFacts,
    Loss,
    SharedFacts,
    of_disk,
    of_one,
    of_shared,
)
from xbbd_bsd.control.health import DaemonFacts, Limit, bound_of, counted, examine, of_daemon
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.findings import BOUND, Finding, Kind, Severity
from xbbd_bsd.ledger import Errors, Past

BASH = shutil.which("bash")
WELL = DiskFacts(0, guest="vm1", vdev="xvda", path="/tank/vm1.img", ages=[0.0, 9.9])


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def judged(facts: DaemonFacts | SharedFacts) -> list[Finding]:
    """What is wrong with the daemon, or with what no device has."""
    return of_daemon(facts) if isinstance(facts, DaemonFacts) else of_shared(facts)


def test_a_disk_that_is_well() -> None:
    assert of_disk(WELL) == []
    assert of_disk(DiskFacts(3)) == []
    assert of_daemon(DaemonFacts()) == of_shared(SharedFacts()) == []


WRITES = Errors({"write": 311, "flush": 1}, "write of 512 bytes failed", errno.EIO, 1000.5)


@pytest.mark.parametrize(
    ("change", "severity", "kind", "what", "action"),
    [
        (
            {"errors": WRITES},
            Severity.ERROR,
            Kind.ERRORS,
            "311 writes, 1 flush failed since that was last cleared;"
            " the last: write of 512 bytes failed",
            "look into /tank/vm1.img and what it is on, then run: xbbctl clear xbbd0",
        ),
        (
            {"errors": Errors({"read": 1})},
            Severity.ERROR,
            Kind.ERRORS,
            "1 read failed since that was last cleared",
            "look into /tank/vm1.img and what it is on, then run: xbbctl clear xbbd0",
        ),
        (
            {"errors": replace(WRITES, errno=errno.ENOSPC)},
            Severity.ERROR,
            Kind.ERRORS,
            "311 writes, 1 flush failed since that was last cleared;"
            " the last: write of 512 bytes failed",
            "make room where /tank/vm1.img is, then run: xbbctl clear xbbd0",
        ),
        (
            {"hung_seconds": 34, "ages": [34.0]},
            Severity.ERROR,
            Kind.HUNG,
            "/tank/vm1.img has not answered for 34 s",
            "see whether what it is on hangs, as a file server or a file system that is frozen;"
            " what waits: xbbctl inflight xbbd0",
        ),
        (
            {"hung_seconds": 34, "path": "store:db"},
            Severity.ERROR,
            Kind.HUNG,
            "store:db has not answered for 34 s",
            "see whether what serves it runs and can be reached, xbbctl log xbbd0 says why not;"
            " what waits: xbbctl inflight xbbd0",
        ),
        (
            {"ages": [1.0, 12.0, 10.0, 17.2]},
            Severity.WARNING,
            Kind.SLOW,
            "2 requests are older than 10 s, the oldest 17 s",
            "see xbbctl inflight xbbd0, and how /tank/vm1.img does",
        ),
        (
            {"path_state": "gone"},
            Severity.ERROR,
            Kind.PATH,
            "/tank/vm1.img leads nowhere any more, and the guest uses what it led to",
            "what the guest has is lost when it lets go of it: save it from within the guest,"
            " or give the file its name back",
        ),
        (
            {"path_state": "another"},
            Severity.WARNING,
            Kind.PATH,
            "/tank/vm1.img is another file by now than the one that the guest uses",
            "the guest has the new one when it starts again: if that is meant, stop and start"
            " it; if not, put the old one back",
        ),
        (
            {"path_state": "truncated"},
            Severity.ERROR,
            Kind.PATH,
            "/tank/vm1.img was cut off while the guest uses it",
            "what was beyond its end is lost: restore it and check what is in it; if that is"
            " meant, run: xbbctl resize xbbd0",
        ),
        (
            {"held_back": "no memory"},
            Severity.ERROR,
            Kind.HELD_BACK,
            "the guest waits for its disk: no memory",
            "see to the reason, it is tried again by itself; xbbctl log xbbd0 says more",
        ),
        (
            {"closed": "the disk is gone"},
            Severity.ERROR,
            Kind.CLOSED,
            "it is closed: the disk is gone",
            "see to the reason, then attach it again, or start its guest again;"
            " xbbctl log xbbd0 says more",
        ),
        (
            {"closed": "ring-ref is missing", "by_guest": True},
            Severity.NOTICE,
            Kind.CLOSED,
            "it is closed: ring-ref is missing",
            "look into the guest",
        ),
        (
            {"held_back": "the guest connects again and again", "by_guest": True},
            Severity.NOTICE,
            Kind.HELD_BACK,
            "the guest waits for its disk: the guest connects again and again",
            "look into the guest",
        ),
        (
            {"guest_errors": Errors({"read_only": 12, "malformed": 1}, "write at sector 7")},
            Severity.NOTICE,
            Kind.GUEST,
            "the guest asked for what cannot be: 12 writes to a read-only disk,"
            " 1 malformed request; the last: write at sector 7",
            "look into the guest; nothing is wrong with the disk",
        ),
    ],
)
def test_what_a_disk_can_have(
    change: dict[str, Any], severity: Severity, kind: Kind, what: str, action: str
) -> None:
    finding = only(of_disk(replace(WELL, **change)))
    assert finding.subject == "xbbd0 (vm1 xvda)"
    assert (finding.severity, finding.kind) == (severity, kind)
    assert finding.what == what
    assert finding.action == action


@pytest.mark.parametrize(
    ("facts", "severity", "kind", "subject", "what", "action"),
    [
        (
            DaemonFacts(store_connected=False, store_since=77.0),
            Severity.ERROR,
            Kind.STORE,
            "xbbd",
            "XenStore is lost: connected guests are served, nothing else is until it is back",
            "see whether xenstored runs, and why not",
        ),
        (
            DaemonFacts(refused="xbbd.conf:3: workers: must be 1 to 64"),
            Severity.WARNING,
            Kind.CONFIGURATION,
            "xbbd",
            "the configuration was refused, and the one before is in use:"
            " xbbd.conf:3: workers: must be 1 to 64",
            "mend it, see that xbbd -t has nothing to say, then run: xbbctl reload",
        ),
        (
            DaemonFacts(shortage="file descriptors of the process (limits -n, ulimit -n)"),
            Severity.WARNING,
            Kind.LIMIT,
            "xbbd",
            "out of file descriptors of the process (limits -n, ulimit -n): whoever connects"
            " waits, devices are refused",
            "raise that limit and restart xbbd, or end what has so many",
        ),
        (
            DaemonFacts(limits=[Limit("3 of 4 threads", "max_threads in xbbd.conf", 5.0)]),
            Severity.WARNING,
            Kind.LIMIT,
            "xbbd",
            "a limit is reached, 3 of 4 threads: devices wait, are refused, or do with less",
            "see max_threads in xbbd.conf, or detach what is not needed",
        ),
        (
            SharedFacts(losses=[Loss("/tank/a b.img", "a flush failed (x)", "vm1", 9.0)]),
            Severity.ERROR,
            Kind.LOST,
            "/tank/a b.img",
            "writes may be lost, a flush failed (x) under guest vm1: it is not opened again",
            "check the disk or restore it, then run: xbbctl clear '/tank/a b.img'",
        ),
        (
            SharedFacts(losses=[Loss("PATH", "a flush failed (x)")]),
            Severity.ERROR,
            Kind.LOST,
            "xbbd",
            "of a disk that has lost something only that is known: its file is damaged",
            "the disk that does not open for that says so: check it or restore it, then run"
            " xbbctl clear with its path",
        ),
        (
            SharedFacts(past=[Past("/tank/it's", "vm1", WRITES)]),
            Severity.ERROR,
            Kind.ERRORS,
            "/tank/it's",
            "311 writes, 1 flush failed since that was last cleared while guest vm1 had it;"
            " the last: write of 512 bytes failed",
            "look into /tank/it's and what it is on, then run: xbbctl clear '/tank/it'\\''s'",
        ),
    ],
)
def test_what_the_daemon_and_disks_without_a_device_can_have(
    facts: DaemonFacts | SharedFacts,
    severity: Severity,
    kind: Kind,
    subject: str,
    what: str,
    action: str,
) -> None:
    finding = only(judged(facts))
    assert (finding.severity, finding.kind, finding.subject) == (severity, kind, subject)
    assert finding.what == what
    assert finding.action == action


def test_times() -> None:
    """Of what began or was last seen at one that is known."""
    assert only(of_disk(replace(WELL, errors=WRITES))).when == 1000.5
    assert only(of_disk(replace(WELL, errors=Errors({"read": 1})))).when is None
    assert only(of_daemon(DaemonFacts(store_connected=False, store_since=77.0))).when == 77.0
    assert only(of_daemon(DaemonFacts(store_connected=False))).when is None
    assert only(of_daemon(DaemonFacts(refused="x", refused_since=6.0))).when == 6.0
    assert only(of_daemon(DaemonFacts(refused="x"))).when is None
    assert only(of_shared(SharedFacts(losses=[Loss("/a", "x")]))).when is None
    assert only(of_daemon(DaemonFacts(limits=[Limit("x", "y", 5.0)]))).when == 5.0
    assert only(of_shared(SharedFacts(past=[Past("/a", "", WRITES)]))).when == 1000.5


def test_a_configuration_with_many_faults_does_not_fill_the_screen() -> None:
    what = only(of_daemon(DaemonFacts(refused="x" * 1000))).what
    assert what.endswith("x" * 400 + "...")
    assert "x" * 401 not in what


def test_how_old_a_request_may_be() -> None:
    facts = replace(WELL, ages=[2.5])
    assert of_disk(facts) == []
    assert only(of_disk(facts, 2.4)).what == "1 request is older than 2.4 s, the oldest 2 s"


@pytest.mark.parametrize(
    ("value", "bound"), [(None, BOUND), (3, 3.0), ("0.5", 0.5), ("86400", 86_400.0)]
)
def test_the_bound_that_is_asked_for(value: int | str | None, bound: float) -> None:
    assert bound_of(value) == bound


@pytest.mark.parametrize("value", [0, -1, "0", "x", "", "nan", "inf", "86400.1", 10**400])
def test_a_bound_that_cannot_be(value: int | str) -> None:
    with pytest.raises(OperatorError, match="more than 0 and up to 86400") as error:
        bound_of(value)
    assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize("field", ["closed", "held_back"])
def test_a_disk_that_waits_for_its_loss_is_told_once(field: str) -> None:
    reasons: dict[str, Any] = {field: "unable to open it: a flush failed"}
    facts = replace(WELL, **reasons)
    losses = [Loss(WELL.path, "a flush failed"), Loss("/other", "x")]
    shared = of_shared(SharedFacts(losses=losses))
    found = dict(examine(shared, [("dev.xbbd.0", Fixed(facts))]))
    assert [finding.kind for finding in found["hw.xbbd"]] == [Kind.LOST, Kind.LOST]
    assert found["dev.xbbd.0"] == []
    alone = of_one(facts, BOUND, shared, alone=True)
    assert [finding.subject for finding in alone] == [WELL.path]
    assert len(of_disk(facts)) == 1


class Fixed:
    """A device that is as it is told."""

    def __init__(self, facts: DiskFacts) -> None:
        self._facts = facts

    def health(self, bound: float, shared: Sequence[Finding], *, alone: bool) -> list[Finding]:
        return of_one(self._facts, bound, shared, alone=alone)


def test_what_is_asked_of_one_disk() -> None:
    """Also what is known of its path; nothing of others, nor of the daemon."""
    past = (Past(WELL.path, "vm0", WRITES), Past("/other", "vm0", WRITES))
    shared = [*of_daemon(DaemonFacts(store_connected=False)), *of_shared(SharedFacts(past=past))]
    found = of_one(replace(WELL, ages=[5.0]), 4.0, shared, alone=True)
    assert [(finding.kind, finding.subject) for finding in found] == [
        (Kind.SLOW, "xbbd0 (vm1 xvda)"),
        (Kind.ERRORS, WELL.path),
    ]


def test_all_of_a_daemon() -> None:
    bad = replace(WELL, unit=7, errors=WRITES, guest_errors=Errors({"grants": 2}))
    shared = of_daemon(DaemonFacts(refused="x"))
    disks = [("dev.xbbd.0", Fixed(WELL)), ("dev.xbbd.7", Fixed(bad))]
    found = list(examine(shared, disks, 11.0))
    assert [(root, [f.kind for f in findings]) for root, findings in found] == [
        ("hw.xbbd", [Kind.CONFIGURATION]),
        ("dev.xbbd.0", []),
        ("dev.xbbd.7", [Kind.ERRORS, Kind.GUEST]),
    ]
    everything = [finding for _, findings in found for finding in findings]
    assert counted(everything) == {"error": 1, "warning": 1}
    assert counted([]) == {"error": 0, "warning": 0}
    slow = list(examine([], disks[:1], 9.0))
    assert [len(findings) for _, findings in slow] == [0, 1]


def test_as_json() -> None:
    finding = only(of_disk(replace(WELL, errors=WRITES)))
    values = json.loads(json.dumps(finding.to_values()))
    assert values == {
        "severity": "error",
        "kind": "errors",
        "subject": "xbbd0 (vm1 xvda)",
        "what": finding.what,
        "action": finding.action,
        "when": 1000.5,
    }


@pytest.mark.skipif(BASH is None, reason="no bash")
@pytest.mark.parametrize("name", [b"/a\n1b", b"/\xff7", b"/it's\x1b[2J", b"/\\x41\t", b"/a 'b' $c"])
def test_what_is_to_be_typed_names_the_path(name: bytes) -> None:
    """Whatever its octets are, what stands there can be printed, and the shell makes it of it."""
    found = only(of_shared(SharedFacts(losses=[Loss(os.fsdecode(name), "x")])))
    word = found.action.partition("xbbctl clear ")[2]
    assert word.isprintable()
    assert BASH is not None
    command = [BASH, "-c", f"printf %s {word}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == name


def test_a_path_that_is_no_octets() -> None:
    """Somebody has damaged what is kept of it."""
    found = only(of_shared(SharedFacts(losses=[Loss("/\ud800", "x")])))
    assert found.action.endswith("xbbctl clear $'/\\355\\240\\200'")
