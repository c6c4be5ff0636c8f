"""Who may ask a running daemon for what, and clients that are mad or say nothing."""

from __future__ import annotations

import grp
import json
import os
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.circumstances import in_more
from tests.sim.conftest import Machine, running_machine
from tests.sim.test_operator import busy, end, values, xbbctl
from tests.waiting import eventually
from xbbd_bsd.control.client import ask
from xbbd_bsd.control.protocol import LIMIT, Request, Verb
from xbbd_bsd.errors import OperatorError, XbbdError
from xbbd_bsd.host import control_path

pytestmark = pytest.mark.slow


def as_nobody(machine: Machine, request: Request, groups: tuple[int, ...]) -> str:
    """What a user without rights gets for an answer: values, or the reason why not."""
    reader, writer = os.pipe()
    answer = "?"
    if os.fork() == 0:
        try:
            os.setgroups(groups)
            os.setgid(65534)
            os.setuid(65534)
            answer = str(ask(control_path(machine.chain.layout.run), request))
        except (OSError, XbbdError) as error:
            answer = str(error)
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    os.wait()
    return answer


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_may_read_and_who_may_write(image: Path) -> None:
    group = grp.getgrgid(1)
    with running_machine(f'[daemon]\ngroup = "{group.gr_name}"\n') as machine:
        machine.connected(image)
        os.chmod(machine.chain.directory, 0o711)
        os.chmod(machine.chain.layout.directory, 0o711)
        name = "dev.xbbd.0.flush_interval"
        get, put = Request(Verb.GET, name), Request(Verb.SET, name, 8)
        member, stranger = (group.gr_gid,), ()
        assert as_nobody(machine, get, member) == f"{{'{name}': 0}}"
        assert (
            as_nobody(machine, put, member) == f"{name}=8: Operation not permitted: only root may"
        )
        assert "Permission denied" in as_nobody(machine, get, stranger)
        assert os.stat(machine.chain.layout.state_segment(0)).st_mode & 0o077 == 0
        assert xbbctl(machine, "-n", name) == "0\n"


# Who follows the log is answered when something happens, which nobody here waits for.
ANSWERED = [verb.value for verb in Verb if verb is not Verb.EVENTS]
CLIENTS = 8


def _message(source: random.Random) -> bytes:
    """A line that is nearly a request, or nothing like one."""
    kind = source.randrange(8)
    if kind == 0:
        return bytes(source.randrange(256) for _ in range(source.randrange(40))) + b"\n"
    if kind == 1:
        return b"[" * source.randrange(LIMIT - 2) + b"\n"
    fields: dict[str, Any] = {
        "version": source.choice((1, 1, 1, 2, None, "1")),
        "verb": source.choice([*ANSWERED, "", "put", 1, None]),
        "name": source.choice(
            ("", "dev", "dev.xbbd.0", "dev.xbbd.0.flush_interval", "dev.xbbd.9", "hw.xbbd.pid",
             "dev.xbbd.0.ring.0", "dev.xbbd.0.wr_req", "x" * source.randrange(300), 7, None)
        ),
        "value": source.choice((0, 1, -1, 1 << 70, "8", "", "0x", "latency", [], None, 1.5)),
    }  # fmt: skip
    for name in list(fields):
        if source.random() < 0.1:
            del fields[name]
    line = json.dumps(fields).encode()
    if kind == 2:
        at = source.randrange(len(line))
        line = line[:at] + bytes((source.randrange(256),)) + line[at + 1 :]
    return line.replace(b"\n", b" ") + b"\n"


def _mad_client(path: str, seed: int, messages: int) -> None:
    """Sends messages, reads now and then, and hangs up in the middle of things."""
    source = random.Random(seed)
    while messages > 0:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(5)
            try:
                channel.connect(path)
                for _ in range(source.randrange(1, 400)):
                    channel.sendall(_message(source))
                    messages -= 1
                    if source.random() < 0.9:
                        channel.recv(1 << 20)
                if source.random() < 0.5:
                    channel.shutdown(socket.SHUT_WR)  # half open, and gone
            except OSError:
                continue


@pytest.mark.parametrize("messages", [20_000, in_more(100_000)])
def test_mad_clients(machine: Machine, image: Path, messages: int) -> None:
    """Of every kind, with a guest at work that must not notice."""
    guest = busy(machine, image, "depth=4")
    path = control_path(machine.chain.layout.run)
    clients = [
        threading.Thread(target=_mad_client, args=(path, seed, messages // CLIENTS))
        for seed in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert values(machine, "hw.xbbd.devices") == {"hw.xbbd.devices": 1}
    end(guest)


def test_there_is_room_again_after_clients_that_do_nothing(machine: Machine) -> None:
    path = control_path(machine.chain.layout.run)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for channel in silent:
        channel.connect(path)
    for channel in silent:
        channel.close()

    def answered() -> bool:
        try:
            return bool(values(machine, "hw.xbbd.pid"))
        except OperatorError:
            return False

    eventually(answered, "an answer")
