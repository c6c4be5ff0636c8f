"""What the process of a guest is left, as it is configured.

Any thread.
"""

import os
import pwd
from collections.abc import Collection

from xbbd_bsd.config import GuestConfig, parse_cpus
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.native.processes import Confinement


def check_user(name: str) -> None:
    """That a process could become that user; OperatorError."""
    account_of(name)


def check_cpus(text: str, there: Collection[int]) -> None:
    """That there are the processors that a key names; OperatorError."""
    missing = sorted(parse_cpus(text) - frozenset(there))
    if missing:
        what = "is no processor" if len(missing) == 1 else "are no processors"
        raise OperatorError(f"there {what} {', '.join(map(str, missing))}")


def confinement_of(config: GuestConfig) -> Confinement:
    """OperatorError if there is no such user."""
    uid, gid = account_of(config.user)
    return Confinement(
        uid=uid,
        gid=gid,
        descriptors=config.descriptors,
        address_space=config.memory_mb << 20,
        cpus=parse_cpus(config.cpus),
        cpu_percent=config.cpu_percent,
    )


def account_of(name: str) -> tuple[int | None, int | None]:
    """User and group; None for both if only root could become somebody else."""
    if os.geteuid() != 0:
        return None, None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise OperatorError(f"there is no user {name}") from None
    return found.pw_uid, found.pw_gid
