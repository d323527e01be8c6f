"""The four ways of `slowhttptest`, by hand and by the dozen: attackers are cut, and one who asks meanwhile is served.

`nox -s slowhttp` is the long version, with the real program, a whole gateway and figures.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from skygw.serving import End
from tests.serving.apps import EchoApp
from tests.serving.served import PATIENCE_S, Peer, Served, serving

ATTACKERS = 40
EVERY_S = 0.03

Attack = Callable[[Peer], Awaitable[None]]


async def drip(peer: Peer, first: bytes, piece: bytes) -> None:
    """One piece after another until the connection is gone."""
    try:
        await peer.stream.send_all(first)
        while True:
            await trio.sleep(EVERY_S)
            await peer.stream.send_all(piece)
    except trio.BrokenResourceError:
        return


async def slow_head(peer: Peer) -> None:
    await drip(peer, b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-a: b\r\n")


async def slow_body(peer: Peer) -> None:
    await drip(peer, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"a=b&")


async def slow_chunks(peer: Peer) -> None:
    """Each chunk brings one byte and a hundred of padding."""
    chunk = b"1;a=" + b"b" * 100 + b"\r\nx\r\n"
    await drip(peer, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", chunk)


async def slow_read(peer: Peer) -> None:
    try:
        await peer.stream.send_all(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        while True:
            if not await peer.stream.receive_some(1):
                return
            await trio.sleep(EVERY_S)
    except trio.BrokenResourceError:
        return


@asynccontextmanager
async def under_attack(served: Served, attack: Attack) -> AsyncIterator[None]:
    async def one() -> None:
        async with served.peer(receive_buffer=4096) as peer:
            await attack(peer)

    async with trio.open_nursery() as nursery:
        for _ in range(ATTACKERS):
            nursery.start_soon(one)
        await served.metrics.until_opened(ATTACKERS)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("attack", "end"),
    [
        (slow_head, End.SLOW_HEADER),
        (slow_body, End.SLOW_BODY),
        (slow_chunks, End.SLOW_BODY),
        (slow_read, End.NOT_READING),
    ],
    ids=["slow heads", "slow bodies", "slow chunks", "slow reading"],
)
async def test_attackers_are_cut_and_others_are_served_meanwhile(attack: Attack, end: End) -> None:
    patience = {
        "header_timeout_s": 0.5,
        "body_grace_s": 0.5,
        "body_min_bytes_per_s": 2_000.0,
        "send_timeout_s": 0.5,
        "send_min_bytes_per_s": 100_000.0,
    }
    async with serving(EchoApp(), **patience) as served, under_attack(served, attack):
        answers = 0
        with trio.fail_after(PATIENCE_S):
            while served.metrics.closed_by[end] < ATTACKERS:
                async with served.peer() as other:
                    assert await other.ask() == (200, b"hello")
                    answers += 1
        assert answers > 0
        assert set(served.metrics.closed_by) <= {end, End.PEER_LEFT}


async def test_a_thousand_ranges_are_answered_once_and_in_full() -> None:
    ranges = ",".join(f"5-{end}" for end in range(2_000))
    sent = f"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-,{ranges}\r\n\r\n".encode()

    answers: list[tuple[int, bytes]] = []

    async with serving(EchoApp()) as served, served.peer() as other:

        async def ask_for_ranges() -> None:
            async with served.peer() as peer:
                for _ in range(5):
                    await peer.send(sent)
                    answers.append(await peer.response())

        async with trio.open_nursery() as nursery:
            for _ in range(ATTACKERS):
                nursery.start_soon(ask_for_ranges)
            for _ in range(20):
                assert await other.ask() == (200, b"hello")
    assert answers == [(200, b"hello")] * ATTACKERS * 5
