"""Circles in who knows whom, for the tests of layers.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter


def circle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """The members of a circle, each knowing the next and the last the first; none: []."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))[:-1]
    return []
