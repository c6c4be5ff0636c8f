"""The other end of the control socket, for commands: asks, waits, and gives values.

Blocking, with a limit.  Runs in processes of its own, never in the daemon.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from errno import ETIMEDOUT
from typing import Any, Final

from xbbd_bsd.control.protocol import DENIED, LONGEST, Request, Values, decode_reply
from xbbd_bsd.errors import OperatorError, in_words

LIMIT: Final = 10.0  # seconds for each line


class Connection:
    """A connection to a daemon, for any number of requests."""

    def __init__(self, path: str, limit: float = LIMIT) -> None:
        """Connect to the daemon that listens at `path`; OperatorError.

        `limit`: seconds for each line of an answer.
        """
        self._path = path
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.settimeout(limit)
        try:
            self._channel.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._channel.close()
            raise OperatorError(
                f"no xbbd listens at {path}: is it running?", error.errno or 0
            ) from None
        except PermissionError as error:
            self._channel.close()
            raise OperatorError(f"{path}: {DENIED}", error.errno or 0) from None
        except TimeoutError:
            self._channel.close()
            raise OperatorError(f"{path}: the daemon does not answer", ETIMEDOUT) from None
        except OSError as error:
            self._channel.close()
            raise OperatorError(f"{path}: {in_words(error)}", error.errno or 0) from None
        self._lines = self._channel.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._channel.close()

    def ask(self, request: Request) -> Iterator[Values]:
        """The parts of the answer as they come; to be taken whole.  OperatorError."""
        with suppress(OSError):  # it has hung up, maybe with a word
            self._channel.sendall(request.encode())
        while True:
            try:
                line = self._lines.readline(LONGEST)
            except TimeoutError:
                raise OperatorError(
                    f"{self._path}: the daemon does not answer", ETIMEDOUT
                ) from None
            except OSError as error:
                raise OperatorError(f"{self._path}: {in_words(error)}", error.errno or 0) from None
            if not line.endswith(b"\n"):
                raise OperatorError(f"{self._path}: the daemon has hung up")
            values = decode_reply(line)
            if values is None:
                return
            yield values

    def follow(self, request: Request) -> Iterator[Values]:
        """As ask, of an answer that is as long as something happens.  OperatorError."""
        self._channel.settimeout(None)
        return self.ask(request)

    def whole(self, request: Request) -> dict[str, Any]:
        """The answer as one; OperatorError."""
        found: dict[str, Any] = {}
        for values in self.ask(request):
            found.update(values)
        return found


def ask(path: str, request: Request) -> dict[str, Any]:
    """The answer of the daemon that listens at `path`; OperatorError with its reason."""
    with Connection(path) as connection:
        return connection.whole(request)
