"""log: the last lines of the daemon or of a disk, and those that come.

Runs in xbbctl's process.
"""

import argparse
import json
import time
from typing import Final

from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.ctl.daemon import connect, find_device
from xbbd_bsd.errors import one_line

BEFORE: Final = 10  # lines that a follower sees first, as of tail(1)


def run_log(options: argparse.Namespace) -> None:
    """The verb."""
    name = find_device(options, options.device) if options.device else ""
    if options.follow:
        _follow(options, name)
        return
    with connect(options) as daemon:
        (lines,) = daemon.whole(Request(Verb.LOG, name)).values()
    if options.lines is not None:
        lines = lines[-options.lines :] if options.lines else []
    if options.json:
        fields = ("time", "severity", "text")
        print(json.dumps([dict(zip(fields, line, strict=True)) for line in lines], indent=2))
        return
    for when, severity, text in lines:
        _print(when, severity, text)


def _follow(options: argparse.Namespace, name: str) -> None:
    """Until the daemon or the disk is gone, or somebody has enough."""
    before = BEFORE if options.lines is None else options.lines
    with connect(options) as daemon:
        for event in daemon.follow(Request(Verb.EVENTS, name, before)):
            if options.json:
                print(json.dumps(event), flush=True)
            elif "missed" in event:
                print(f"({event['missed']} lines missed: the log was quicker)", flush=True)
            elif "text" in event:
                _print(event["time"], event["severity"], event["text"])


def _print(when: float, severity: str, text: str) -> None:
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    print(f"{date}.{int(when % 1 * 1000):03} {severity:7} {one_line(text)}", flush=True)
