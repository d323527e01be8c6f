"""Requests and frames with random damage: whatever comes, no fault of ours, and a bystander goes on."""

import os
import random

import pytest
import trio
import trio.testing

from skygw.serving import End
from tests.hazards.peers import Op, frame, goodbye
from tests.serving.apps import UPGRADE, EchoApp
from tests.serving.served import PATIENCE_S, Served, serving

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /?a=%ff HTTP/1.1\r\nHost: a:[\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    UPGRADE + b"Sec-WebSocket-Protocol: a, b\r\n\r\n",
)
FRAMES = (
    b"\x81\x85\x00\x00\x00\x00hello",
    b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    b"\x88\x81\x00\x00\x00\x00\x03",
    b"\x89\x80\x00\x00\x00\x00",
    b"\x01\x81\x00\x00\x00\x00a\x80\x81\x00\x00\x00\x00b",
    b"\x82\xfe\x01\x00\x01\x02\x03\x04" + b"z" * 256,
)
ROUNDS = int(os.environ.get("SKYGW_TEST_FUZZ_ROUNDS", "150"))
SEED = int(os.environ.get("SKYGW_TEST_FUZZ_SEED", "1"))

SAID = (
    frame(Op.TEXT, b"hello")
    + frame(Op.BINARY)
    + frame(Op.TEXT, "\u20ac \U0001f52d".encode()[:2], is_last=False)
    + frame(Op.PING, b"?")
    + frame(Op.CONTINUATION, "\u20ac \U0001f52d".encode()[2:6], is_last=False)
    + frame(Op.CONTINUATION, is_last=False)
    + frame(Op.CONTINUATION, "\u20ac \U0001f52d".encode()[6:])
    + frame(Op.BINARY, b"z" * 126)
)
HEARD = (
    b"\x81\x05hello",
    b"\x82\x00",
    b"\x8a\x01?",
    b"\x81\x08\xe2\x82\xac \xf0\x9f\x94\xad",
    b"\x82\x7e\x00\x7e" + b"z" * 126,
)
"""The answers to it. The pong may stand elsewhere among the others."""


def damaged(data: bytes, chance: random.Random) -> bytes:
    bytes_left = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(bytes_left))
        match chance.randrange(3):
            case 0:
                bytes_left[at] = chance.randrange(256)
            case 1 if len(bytes_left) > 8:
                del bytes_left[at : at + chance.randrange(1, 4)]
            case _:
                bytes_left[at:at] = bytes_left[: chance.randrange(1, 30)]
    return bytes(bytes_left)


async def attack(served: Served, chance: random.Random) -> None:
    """One peer: damaged requests, or damaged frames after a sound upgrade, then gone."""
    async with served.peer() as peer:
        try:
            if chance.random() < 0.5:
                pieces = chance.choices(REQUESTS, k=2)
            else:
                await peer.stream.send_all(UPGRADE + b"\r\n")
                await peer.read_until(b"\r\n\r\n")
                pieces = chance.choices(FRAMES, k=3)
            await peer.stream.send_all(b"".join(damaged(piece, chance) for piece in pieces))
            await peer.transport.send_eof()
        except trio.BrokenResourceError:
            return  # the listener was quicker
        await peer.read_to_end()


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_no_damage_is_a_fault_of_ours(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    async with serving(EchoApp()) as served, served.peer() as bystander:
        for _ in range(ROUNDS):
            await attack(served, chance)
        assert await bystander.ask() == (200, b"hello")
        with trio.fail_after(PATIENCE_S):
            while served.listener.connection_count > 1:
                await trio.lowlevel.checkpoint()
        assert served.metrics.closed_by.total() == ROUNDS
        assert served.metrics.closed_by[End.FAULT] == 0


async def conversation(served: Served, pieces: list[bytes]) -> bytes:
    """All that is heard when this is said, each piece in a segment of its own that has been taken before the next."""
    async with served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        await peer.read_until(b"\r\n\r\n")
        for piece in pieces:
            await peer.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        heard = await peer.read_exactly(sum(map(len, HEARD)))
        await peer.send(goodbye(4242))
        return heard + await peer.read_to_end()


def is_heard(answer: bytes) -> bool:
    """Whether these are the answers to `SAID` and to a goodbye: all of them, and nothing else."""
    heard = b"".join(one for one in HEARD if one in answer)
    return len(answer) == len(heard) + 4 == sum(map(len, HEARD)) + 4 and answer.endswith(b"\x88\x02\x10\x92")


async def test_frames_that_are_cut_in_two_say_the_same_wherever_it_is() -> None:
    async with serving(EchoApp()) as served:
        answers = [await conversation(served, [SAID[:cut], SAID[cut:]]) for cut in range(1, len(SAID))]
    assert [cut for cut, answer in enumerate(answers, 1) if not is_heard(answer)] == []


async def test_frames_that_come_byte_by_byte_say_the_same() -> None:
    async with serving(EchoApp()) as served:
        answer = await conversation(served, [SAID[at : at + 1] for at in range(len(SAID))])
    assert is_heard(answer)
