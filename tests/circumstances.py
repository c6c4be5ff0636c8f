"""What shows in other circumstances what is shown anyway: tests of `make test-more`.

A parameter of a test, or a whole one that is marked `more`, is left out by `make test`,
which has to end soon; CI runs both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet  # which has no public name


def in_more(*values: object) -> ParameterSet:
    """The parameters of a case that `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.more)
