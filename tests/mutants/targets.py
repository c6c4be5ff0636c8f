"""Which files are mutated, and which tests ought to notice.  Pure.

The quick ones come first: each stage is run only if no stage before noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Stage = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A file, C programs of tests/c by name, and stages of pytest's arguments.

    A file of tests is a pattern, since its tests may be spread over several files; what has
    no slash is an option.
    """

    file: str
    programs: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()

    @property
    def is_c(self) -> bool:
        """Whether it is compiled."""
        return self.file.endswith(".c")

    def arguments(self, root: Path, stage: Stage) -> list[str]:
        """The test files and options of a stage.  ValueError: there is none of that name."""
        found = []
        for pattern in stage:
            if "/" not in pattern:
                found.append(pattern)
                continue
            files = sorted(str(path.relative_to(root)) for path in root.glob(pattern))
            if not files:
                raise ValueError(f"{self.file}: no test is called {pattern}")
            found += files
        return found


QUEUE = "tests/native/test_queue*.py"
FEATURES = "tests/native/test_features*.py"
EVENTS = "tests/native/test_events.py"
CARDS = "tests/native/test_netif.py"
QUEUE_OF_CARD = "tests/native/test_net.py"
CARD_PROGRAMS = (
    "net_places",
    "net_link",
    "net",
    "net_adopt",
    "net_flipping",
    "net_hostile",
    "net_life",
    "net_noise",
    "net_takeover",
)

TARGETS = (
    Target(
        "xbbd_bsd/native/block/blkif.c",
        ("blkif", "validate", "fuzz_ring", "hostile"),
        ((QUEUE,), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/coalesce.c",
        ("coalesce", "io", "order"),
        ((QUEUE,), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/core/ring.c", ("ring", "table", "hostile", "flipping"), ((QUEUE, EVENTS),)
    ),
    Target(
        "xbbd_bsd/native/block/batch.c",
        ("counters", "flush", "disk*", "work*", "shortage", "io", "order"),
        ((QUEUE, "tests/native/test_probes.py"), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/speed.c",
        ("counters", "flush", "disk*", "work*", "io"),
        ((QUEUE,), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/queue.c",
        ("counters", "hostile", "flush", "disk*", "work*", "shortage", "io", "order"),
        ((QUEUE, EVENTS), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/sweep.c",
        ("sweep", "bulk_linux", "io", "order", "shortage"),
        ((QUEUE,), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/dispatch.c",
        ("counters", "hostile", "flush", "disk*", "work*", "shortage", "io", "order", "sweep"),
        ((QUEUE, EVENTS), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/local.c",
        ("counters", "disk*", "work*", "shortage", "io", "order", "sweep"),
        ((QUEUE, EVENTS), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/settle.c",
        ("counters", "faults*", "hostile", "flush", "disk*", "work*", "shortage", "io", "order"),
        ((QUEUE, EVENTS), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/answer.c",
        ("table", "counters", "hostile", "io", "order"),
        ((QUEUE, EVENTS), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/rate.c",
        ("rate",),
        (("tests/native/test_rates.py",),),
    ),
    Target(
        "xbbd_bsd/native/block/throttle.c",
        ("throttle", "rate", "hold", "pause"),
        (("tests/native/test_rates.py",), ("tests/sim/test_rates.py",)),
    ),
    Target(
        "xbbd_bsd/native/block/policy.c",
        ("hold", "pause"),
        (("tests/native/test_hold.py",),),
    ),
    Target(
        "xbbd_bsd/native/block/hold.c",
        ("hold", "pause"),
        (("tests/native/test_hold.py",),),
    ),
    Target(
        "xbbd_bsd/native/block/resume.c",
        ("hold", "pause"),
        (("tests/native/test_hold.py",), ("tests/native/test_kept.py",)),
    ),
    Target(
        "xbbd_bsd/native/block/pause.c",
        ("pause", "hold"),
        (("tests/native/test_hold.py",), (QUEUE, EVENTS)),
    ),
    Target(
        "xbbd_bsd/native/block/flush.c",
        ("flush", "flush_shared", "order", "counters", "hold"),
        ((QUEUE,), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/recover.c",
        ("recover", "takeover"),
        (("tests/unit/test_family_takeover.py",),),
    ),
    Target(
        "xbbd_bsd/native/block/adopt.c",
        ("handed_over", "takeover"),
        (("tests/unit/test_family_takeover.py",),),
    ),
    Target(
        "xbbd_bsd/native/core/conn.c",
        ("table", "counters", "hostile", "damage", "work*", "handed_over", "io", "net_life"),
        ((QUEUE, EVENTS, "tests/native/test_rings.py"), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/block/intake.c",
        ("table", "counters", "hostile", "fuzz_ring", "shortage", "io", "order"),
        ((QUEUE,), (FEATURES,)),
    ),
    Target(
        "xbbd_bsd/native/net/pieces.c",
        CARD_PROGRAMS,
        ((QUEUE_OF_CARD,),),
    ),
    Target(
        "xbbd_bsd/native/net/queue.c",
        CARD_PROGRAMS,
        ((QUEUE_OF_CARD,),),
    ),
    Target(
        "xbbd_bsd/native/net/receive.c",
        CARD_PROGRAMS,
        ((QUEUE_OF_CARD,),),
    ),
    Target(
        "xbbd_bsd/native/net/transmit.c",
        CARD_PROGRAMS,
        ((QUEUE_OF_CARD,),),
    ),
    Target("xbbd_bsd/native/net/netif.c", ("netif", "fuzz_netif"), ((CARDS,),)),
    Target("xbbd_bsd/native/net/headers.c", ("sums", "fuzz_offload"), ((CARDS,),)),
    Target("xbbd_bsd/native/net/sums.c", ("sums", "offload", "fuzz_offload"), ((CARDS,),)),
    Target("xbbd_bsd/native/net/offload.c", ("offload", "sums", "fuzz_offload"), ((CARDS,),)),
    Target(
        "xbbd_bsd/xenbus/states.py",
        stages=(
            ("tests/unit/test_states*.py", "-m", "not slow"),
            ("tests/unit/test_device*.py", "tests/unit/test_bus.py", "tests/test_docs.py"),
            ("tests/unit/test_states*.py", "-m", "slow"),
            ("tests/unit/test_walks.py",),
        ),
    ),
    Target(
        "xbbd_bsd/xenbus/decimals.py",
        stages=(("tests/unit/test_negotiate*.py", "tests/unit/test_net_negotiate.py"),),
    ),
    Target(
        "xbbd_bsd/block/negotiate.py",
        stages=(
            ("tests/unit/test_negotiate*.py",),
            ("tests/unit/test_family*.py", "tests/test_reference.py"),
        ),
    ),
    Target(
        "xbbd_bsd/block/heritage.py",
        stages=(
            ("tests/unit/test_heritage.py",),
            ("tests/unit/test_passport.py", "tests/unit/test_swap.py"),
            ("tests/unit/test_family_takeover.py",),
        ),
    ),
    Target(
        "xbbd_bsd/net/negotiate.py",
        stages=(("tests/unit/test_net_negotiate.py",), ("tests/unit/test_net_family.py",)),
    ),
    Target(
        "xbbd_bsd/net/heritage.py",
        stages=(
            ("tests/unit/test_net_takeover.py", "tests/unit/test_net_passport.py"),
            ("tests/unit/test_net_numbers.py", "tests/unit/test_net_family.py"),
        ),
    ),
    Target("xbbd_bsd/toolstack.py", stages=(("tests/unit/test_toolstack*.py",),)),
    Target(
        "xbbd_bsd/config.py",
        stages=(
            ("tests/unit/test_conf*.py", "tests/test_docs.py"),
            ("tests/unit/test_family*.py", "tests/unit/test_daemon*.py", "tests/test_man.py"),
        ),
    ),
)
