"""The other end of the control socket, for commands: asks, waits, and gives values.

Blocking, with a limit.  Runs in processes of its own, never in the daemon.
"""

import socket
from typing import Final

from xbbd_bsd.control.protocol import MOST_REPLY, Request, Value, decode_reply
from xbbd_bsd.errors import OperatorError

LIMIT: Final = 10.0  # seconds


def ask(path: str, request: Request) -> dict[str, Value]:
    """The answer of the daemon that listens at `path`; OperatorError with its reason."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(LIMIT)
        try:
            channel.connect(path)
            channel.sendall(request.encode())
            with channel.makefile("rb") as lines:
                line = lines.readline(MOST_REPLY)
        except (FileNotFoundError, ConnectionRefusedError):
            raise OperatorError(f"no xbbd listens at {path}: is it running?") from None
        except OSError as error:
            raise OperatorError(f"{path}: {error.strerror or error}", error.errno or 0) from None
    if not line.endswith(b"\n"):
        raise OperatorError(f"{path}: the daemon has hung up")
    return decode_reply(line)
