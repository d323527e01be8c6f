"""The load generator measures what it says: wrong answers end it, and pings in between are answered."""

import os
import socket
import threading
from contextlib import suppress

import pytest

from tests.benchmarks.loads.asking import ask
from tests.benchmarks.loads.dialing import Link, LoadBroken
from tests.benchmarks.loads.nodes import devices_of
from tests.benchmarks.loads.subscribers import Subscriber, different_wants
from tests.benchmarks.profiling import shares
from tests.benchmarks.wire import PONG, TEXT, message

ASKED = message(TEXT, b"hello")
ANSWER = b"\x81\x05hello"
PING = b"\x89\x02hi"


def answering(*answers: bytes) -> Link:
    """A peer that answers each request with the next of these, and then goes on with the last."""
    here, there = socket.socketpair()
    here.setblocking(False)

    def serve() -> None:
        left = list(answers)
        with there, suppress(ConnectionError):
            while data := there.recv(1_024):
                if ASKED in data:
                    there.sendall(left.pop(0) if len(left) > 1 else left[0])

    threading.Thread(target=serve, daemon=True).start()
    return Link(here)


def asked(link: Link) -> dict[str, float]:
    try:
        return ask([link], ASKED, answer=ANSWER, seconds=0.02, server=os.getpid())
    finally:
        link.sock.close()


@pytest.mark.parametrize("odd", [PING + ANSWER, ANSWER + PING])
def test_a_ping_beside_an_answer_is_no_answer(odd: bytes) -> None:
    figures = asked(answering(odd, ANSWER))

    assert figures["per_s"] > 0


@pytest.mark.parametrize("wrong", [b"\x81\x05hullo", b"HTTP/1.1 500", ANSWER + b"\x81", b"\x88\x02\x03\xe8"])
def test_an_answer_that_is_not_the_measured_one_ends_the_load(wrong: bytes) -> None:
    with pytest.raises(LoadBroken, match="not the answer"):
        asked(answering(wrong, ANSWER))


def test_a_pong_is_masked_as_a_client_must() -> None:
    assert message(PONG, b"hi")[1] & 0x80


def test_a_sample_counts_once_for_the_innermost_part_it_belongs_to() -> None:
    loop = "<module> (x.py:1);run (trio/_core/_run.py:2407)"
    samples = f"""{loop};feed (skygw/websocket/frames.py:90);__new__ (enum.py:1) 3
{loop};spawn (trio/_core/_run.py:12) 1
_work (trio/_core/_thread_cache.py:211) 50
"""

    assert shares(samples) == {
        "frames: taken apart and built": 0.75,
        "Trio: tasks, cancel scopes, checkpoints": 0.25,
    }


def test_subscribers_want_everything_a_telescope_a_type_and_a_device_in_turn() -> None:
    install_ids = ["cd613e30-d8f1-4adf-91b7-584a2265b1f5", "9620181d-40d4-4951-b4ac-40d5ca6f758c"]

    told = [
        sum(want.fits(install_id, device) for install_id in install_ids for device in devices_of(install_id))
        for want in different_wants(5, install_ids)
    ]

    devices = len(devices_of(install_ids[0]))
    assert told == [2 * devices, devices, 2, 1, 2 * devices]


def test_a_subscriber_that_is_told_what_it_did_not_ask_for_ends_the_load() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b'\x81\x12{"kind":"welcome"}')
        with pytest.raises(LoadBroken, match="not what a subscriber is told"):
            Subscriber(Link(here)).read()
