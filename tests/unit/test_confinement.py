"""What guests' processes are left: from the configuration to what they are started with."""

import os
import threading

import pytest

from xbbd_bsd.config import MOST_CPUS, GuestConfig, parse_cpus
from xbbd_bsd.conftext import parse
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.guests.confinement import check_cpus, confinement_of
from xbbd_bsd.host.choice import platform
from xbbd_bsd.native._xbb import lib

WORDS = 'must be processors like "0-3,6", which '


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        ("0", {0}),
        ("0-3,6", {0, 1, 2, 3, 6}),
        ("6,0-3,2", {0, 1, 2, 3, 6}),
        ("5-5", {5}),
        (" 1 , 3 - 4 ", {1, 3, 4}),
        ("1023", {1023}),
        ("007", {7}),
    ],
)
def test_processors(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus
    config = parse(f'[guest]\ncpus = "{text}"', "f").guest
    assert config.cpus == text
    assert confinement_of(GuestConfig(user="root", cpus=text)).cpus == cpus


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('"a"', WORDS + '"a" is not'),
        ('"1,"', WORDS + '"" is not'),
        ('",1"', WORDS + '"" is not'),
        ('" "', WORDS + '" " is not'),
        ('"1-"', WORDS + '"1-" is not'),
        ('"-1"', WORDS + '"-1" is not'),
        ('"1-2-3"', WORDS + '"1-2-3" is not'),
        ('"0-8:2"', WORDS + '"0-8:2" is not'),
        ('"1 2"', WORDS + '"1 2" is not'),
        ('"\u0661"', WORDS + '"\u0661" is not'),
        ('"3-0"', "3-0 has its end first"),
        ('"1,1024"', "processors are 0 to 1023, not 1024"),
        ('"0-999999999"', "processors are 0 to 1023, not 999999999"),
        ("3", 'must be text like "0-3,6"; did you mean "3"?'),
        ("-3", 'must be text like "0-3,6"'),
        ("true", 'must be text like "0-3,6"'),
        ("[0, 1]", 'must be text like "0-3,6"'),
    ],
)
def test_what_are_no_processors(value: str, reason: str) -> None:
    with pytest.raises(OperatorError) as raised:
        parse(f"[guest]\ncpus = {value}", "f")
    assert str(raised.value) == f"f:2: [guest] cpus = {value}: {reason}"


def test_processor_time() -> None:
    assert confinement_of(GuestConfig(user="root", cpu_percent=150)).cpu_percent == 150


def test_as_many_as_the_data_path_has_bits() -> None:
    assert lib.XBB_GUEST_CPUS == MOST_CPUS == 64 * lib.XBB_GUEST_CPU_WORDS


def test_processors_that_are_not_there() -> None:
    check_cpus("0-1,3", {0, 1, 2, 3})
    check_cpus("", set())
    with pytest.raises(OperatorError, match=r"^there is no processor 9$"):
        check_cpus("0,9", {0, 1})
    with pytest.raises(OperatorError, match=r"^there are no processors 2, 3, 9$"):
        check_cpus("0-3,9", {0, 1})


def test_processors_of_this_host() -> None:
    """A daemon that is bound to one may give others, and stays where it is."""
    there = platform().processors()
    if not hasattr(os, "sched_setaffinity"):
        assert there == frozenset(range(os.cpu_count() or 1))
        return
    assert there >= os.sched_getaffinity(0)
    found = []

    def bound() -> None:
        os.sched_setaffinity(0, {min(there)})
        found.append(platform().processors())
        found.append(frozenset(os.sched_getaffinity(0)))

    thread = threading.Thread(target=bound)
    thread.start()
    thread.join()
    assert found == [there, {min(there)}]


def test_no_thread_to_ask_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("FreeBSD's kernel is asked by sysctl(3)")
    monkeypatch.setattr(threading.Thread, "start", short)
    with pytest.raises(HostError, match="which processors there are: can't start new thread"):
        platform().processors()
