"""A stand-in for the module syslog: what it is given goes to the file SUPERVISOR_SYSLOG.

A line is written as supervisor.py does, with facility, priority, ident and pid.
Stricter than the real one, which takes any number for a priority and cuts long
lines in silence.
"""

import os

LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG = 3, 4, 6, 7
LOG_PID = 1
LOG_DAEMON = 3 << 3

_PRIORITIES = {LOG_ERR: "err", LOG_WARNING: "warning", LOG_INFO: "info", LOG_DEBUG: "debug"}
_ident: list[str] = []


def openlog(ident: str, logoption: int, facility: int) -> None:
    """Say who speaks."""
    assert (logoption, facility) == (LOG_PID, LOG_DAEMON)
    _ident[:] = [ident]


def syslog(priority: int, message: str) -> None:
    """Give syslogd a line."""
    assert "\n" not in message
    line = f"daemon.{_PRIORITIES[priority]} {_ident[0]}[{os.getpid()}]: {message}\n"
    file = os.open(os.environ["SUPERVISOR_SYSLOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode())
    os.close(file)
