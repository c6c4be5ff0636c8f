"""Circles in who knows whom, for the tests of layers.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def circle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle, from a node on and back to it; nothing if there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        open_edges = [iter([start])]
        while open_edges:
            node = next(open_edges[-1], None)
            if node is None:
                open_edges.pop()
                if path:
                    done.add(path.pop())
            elif node in path:
                return [*path[path.index(node) :], node]
            elif node not in done:
                path.append(node)
                open_edges.append(iter(sorted(edges.get(node, ()))))
    return []
