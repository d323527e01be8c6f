"""Requests and frames with random damage: whatever comes, no fault of ours, and a bystander goes on."""

import random

import pytest
import trio

from skygw.serving import End
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
ROUNDS = 150


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


@pytest.mark.parametrize("seed", [1, 2])
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
