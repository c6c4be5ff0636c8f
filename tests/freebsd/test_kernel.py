"""The suites of a queue on FreeBSD's own files, over a kernel that is played (kernel.h).

Each way a ring's grants, events and disk can go wrong there ends the run with
"panic:", and so does what is left behind.  With sanitizers the disk is a
provider, without them a file.  What only whole queues can show to be forgotten
is shown here too; the rest is in test_traps.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.freebsd.fake import Extension, changed
from tests.native.test_variants import SANITIZERS, SUITE, run_suites, runtime

pytestmark = pytest.mark.slow

INSIDE = "tests/freebsd/inside.py"
PROBES = "tests/native/test_probes.py"
EACH_OPERATION = "test_each_operation_of_the_disk_is_probed"
LIMIT = 300.0


def run(tree: Path, sanitizer: str, medium: str, *tests: str) -> tuple[int, str]:
    """Status and words of tests in a tree with such an extension."""
    library, environment = SANITIZERS[sanitizer]
    done = run_suites(
        tree,
        tests,
        {
            **environment,
            "LD_PRELOAD": runtime(library) if library else "",
            "XBBD_TEST_HV": "xen",
            "XBBD_TEST_MEDIUM": medium,
            "XBBD_TEST_SANITIZED": "yes" if library else "no",
            "XBBD_GUEST_OUTPUT": "yes",  # what they have to say of guests' processes, too
        },
        LIMIT,
    )
    return done.returncode, done.stdout[-6000:] + done.stderr[-6000:]


def test_queue_suite_on_a_file(tmp_path: Path, plain: Extension) -> None:
    plain.link(tmp_path)
    status, words = run(tmp_path, "none", "file", *SUITE, INSIDE)
    assert status == 0, words


@pytest.mark.more
def test_queue_suite_on_a_provider_under_sanitizers(tmp_path: Path, sanitized: Extension) -> None:
    sanitized.link(tmp_path)
    status, words = run(tmp_path, "address,undefined", "device", *SUITE, INSIDE)
    assert status == 0, words


def test_probes(tmp_path: Path, plain: Extension) -> None:
    """Of a file and of a provider, told apart as FreeBSD's files must tell them apart."""
    plain.link(tmp_path)
    status, words = run(tmp_path, "none", "file", f"{PROBES}::{EACH_OPERATION}")
    assert status == 0, words


GUESTS = "tests/native/test_guest_process.py"
CARDS = "tests/native/test_guest_cards.py"
DEATHS = "tests/native/test_guest_deaths.py"
LIMITS = "tests/native/test_guest_limits.py"


def test_a_guests_process(tmp_path: Path, plain: Extension) -> None:
    """Confined as capsicum confines: what its descriptors lack the right for is a panic.

    How it is called is not played, nor in another process what a provider is.
    """
    plain.link(tmp_path)
    status, words = run(tmp_path, "none", "file", GUESTS, CARDS, DEATHS, LIMITS, "-k", "not named")
    assert status == 0, words


# Whole machines, the most telling ones: the daemon serves its guests by FreeBSD's files.
MACHINES = (
    "tests/sim/test_attach.py::test_nodes_of_an_attached_disk",
    "tests/sim/test_end.py::test_one_ring_lies_and_the_others_go_on",
    "tests/sim/test_end.py::test_the_guest_is_killed_under_load",
    "tests/sim/test_takeover.py::test_the_daemon_is_killed_under_load[rings]",
    "tests/sim/test_end.py::test_sigterm_under_load",
    "tests/sim/test_features.py::test_all_features_at_once[native]",
)


def test_whole_machines(tmp_path: Path, plain: Extension) -> None:
    plain.link(tmp_path)
    host = tmp_path / "xbbd_bsd/sim/hypervisor.py"
    daemons, guests = host.read_text().split("class Domain:")
    assert daemons.count("return HvKind.SIM") == 1
    daemons = daemons.replace("return HvKind.SIM", "return HvKind.XEN")
    host.write_text(f"{daemons}class Domain:{guests}")
    status, words = run(tmp_path, "none", "file", *MACHINES)
    assert status == 0, words


# What is forgotten: file, what is there, what would be instead, medium, test, what is said then.
FORGOTTEN = {
    "2: one bad grant fails all": (
        "block/batch.c",
        "XBB_SHORT_NONE &&\n\t    (batch->nreq == 1 || batch->nsectors == 0)",
        "XBB_SHORT_NONE",
        "file",
        "tests/native/test_queue.py::test_bad_grant_in_a_merged_batch_hits_only_its_request",
        "AssertionError",
    ),
    "3: there is no grant copy": (
        "core/conn.c",
        "ops->copy != NULL && ops->can_copy(conn->hv)",
        "ops->copy == NULL",
        "file",
        INSIDE,
        "DID NOT RAISE",
    ),
    "capsicum: a right that a disk must have": (
        "guest/confine_freebsd.c",
        "CAP_FSYNC);",
        "CAP_PREAD);",
        "file",
        f"{GUESTS}::test_two_disks_with_two_rings_each",
        "fdatasync",
    ),
    "capsicum: a right that a segment must have": (
        "guest/confine_freebsd.c",
        "CAP_FLOCK, CAP_FSTAT,",
        "CAP_FSTAT,",
        "file",
        f"{GUESTS}::test_two_disks_with_two_rings_each",
        "flock",
    ),
    "capsicum: a right that an interface must have": (
        "guest/confine_freebsd.c",
        "CAP_READ, CAP_WRITE, CAP_EVENT);",
        "CAP_READ, CAP_WRITE);",
        "file",
        f"{CARDS}::test_its_interface_is_waited_for",
        "not capable",
    ),
    "capsicum: a request of ioctl that a grant device must have": (
        "hv/freebsd.c",
        "IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF, 0,",
        "IOCTL_GNTDEV_MAP_GRANT_REF, 0,",
        "file",
        f"{GUESTS}::test_two_disks_with_two_rings_each",
        "not capable",
    ),
    "6: vectors go one after the other": (
        "block/data.c",
        "return (q->set.params.bounce || q->conn.copies);",
        "return (q->conn.copies);",
        "device",
        "tests/native/test_queue.py::test_segments_with_gaps_between_them",
        "which a disk gets one after the other",
    ),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_forgetting_it_is_noticed(tmp_path: Path, plain: Extension, what: str) -> None:
    name, old, new, medium, test, said = FORGOTTEN[what]
    plain.link(tmp_path, changed(tmp_path, name, old, new))
    status, words = run(tmp_path, "none", medium, test)
    assert status != 0
    assert said in words
