"""Watch events that wait to be delivered: pure, it knows neither connection nor loop.

Events only say "look again", so what a guest can make us remember is bounded twice: the same event
is kept once, and when too many paths wait for one watch, the watch's own path replaces them all
("look at everything again", what its first event says). The owner calls it from one thread.
"""

from typing import Final

PATHS: Final = 256  # different paths kept for one watch


class PendingEvents:
    """For each watch, by its token, the paths that changed, oldest first."""

    def __init__(self, limit: int = PATHS) -> None:
        self._limit = limit
        self._paths: dict[bytes, dict[str, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._paths)

    def __len__(self) -> int:
        return sum(map(len, self._paths.values()))

    def add(self, token: bytes, path: str, watched: str) -> None:
        """Keeps the event `path` of the watch `token`, which is set on the path `watched`."""
        paths = self._paths.setdefault(token, {})
        if path not in paths and len(paths) >= self._limit:
            paths.clear()
            path = watched
        paths[path] = None

    def take(self) -> list[tuple[bytes, str]]:
        """Removes and returns one event of each watch: a busy one does not hold up others."""
        taken = []
        for token, paths in list(self._paths.items()):
            path = next(iter(paths))
            del paths[path]
            if not paths:
                del self._paths[token]
            taken.append((token, path))
        return taken
