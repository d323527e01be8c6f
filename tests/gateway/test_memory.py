"""Whatever a peer sends or does not read, the gateway's memory stays what it was, and it goes on serving others.

The gateway runs in a process of its own; what is judged is the peak of its resident memory, as Linux counts it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from skygw.auth.development import load_or_make
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.gateway_frames import DirectCancel, DirectCredit, DirectRequest
from tests.fakes.gateway_process import gateway_process
from tests.fakes.postgres import PostgresServer
from tests.fakes.process_memory import ProcessMemory
from tests.gateway.test_hostile_peers import upgrade
from tests.gateway.world import PATIENCE_S, AnyWorld, ScriptedNode, start_of, world_of

KIB = 1024
MIB = 1024 * KIB

MAY_RISE_BYTES = 16 * MIB

BAD_FRAMES = 20_000
BROKEN_LINKS = 200
CALLERS = 200
CALLERS_TIMEOUT_S = 3.0

SETTINGS = {
    "max_calls_per_node": 2 * CALLERS,
    "direct_credit_bytes": 8 * KIB,
    "max_in_flight_bytes_per_node": 2 * CALLERS * 8 * KIB,
}
"""So that all callers, who are one service and have its share, may wait at once, with little under way to each: what is
judged is everything else."""


def frame(payload: bytes, *, first_byte: int) -> bytes:
    """A WebSocket frame of a client, masked with zeros."""
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    elif len(payload) < 65_536:
        length = b"\xfe" + len(payload).to_bytes(2, "big")
    else:
        length = b"\xff" + len(payload).to_bytes(8, "big")
    return bytes([first_byte]) + length + bytes(4) + payload


TEXT, REST, WHOLE_TEXT = 0x01, 0x00, 0x81


@asynccontextmanager
async def upgraded(world: AnyWorld) -> AsyncIterator[trio.SocketStream]:
    """A socket that has not said hello."""
    stream = await trio.open_tcp_stream("127.0.0.1", world.node_port)
    try:
        with trio.fail_after(PATIENCE_S):
            await stream.send_all(upgrade(world))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += await stream.receive_some(1)
        yield stream
    finally:
        stream.socket.close()


async def sent_until_cut(stream: trio.SocketStream, data: bytes) -> bytes:
    """Sends it, as far as the gateway takes it; what it said until it ended the connection."""
    heard = b""
    with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        while more := await stream.receive_some():
            heard += more
    return heard


async def flood_of_bad_frames(world: AnyWorld) -> None:
    """A node that reads none of the answers to its mistakes."""
    async with world.node() as node:
        with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            await node.socket._stream.send_all(frame(b'{"kind":7}', first_byte=WHOLE_TEXT) * BAD_FRAMES)


async def endless_messages(world: AnyWorld) -> None:
    """Fragments without an end, and messages that are too large as they stand."""
    piece = b"x" * 64 * KIB
    fragments = frame(piece, first_byte=TEXT) + frame(piece, first_byte=REST) * 20
    oversize = frame(piece * 20, first_byte=WHOLE_TEXT)
    for number in range(BROKEN_LINKS):
        async with upgraded(world) as stream:
            await sent_until_cut(stream, fragments if number % 2 else oversize)


async def callers_that_never_read(world: AnyWorld) -> None:
    """Until the deadline of each has ended its call."""
    async with world.node() as node, AsyncExitStack() as callers:
        for _ in range(CALLERS):
            await callers.enter_async_context(world.caller("big", receive_buffer=4 * KIB, timeoutS=CALLERS_TIMEOUT_S))
        await answer_without_end(node, until_canceled=CALLERS)


async def answer_without_end(node: ScriptedNode, *, until_canceled: int) -> None:
    """Sends each caller whatever its credit allows, as a good node does."""
    seqs: Counter[object] = Counter()
    while until_canceled:
        found = await node.hear_one_of(DirectRequest, DirectCredit, DirectCancel)
        if isinstance(found, DirectCancel):
            until_canceled -= 1
            continue
        if isinstance(found, DirectRequest):
            size = found.credit
            await node.say(start_of(found.id, None))
        else:
            assert isinstance(found, DirectCredit)
            size = found.bytes
        await node.say(pack_chunk(Chunk(found.id, seqs[found.id], bytes(size))))
        seqs[found.id] += 1


@pytest.mark.parametrize(
    "attack",
    [flood_of_bad_frames, endless_messages, callers_that_never_read],
    ids=lambda it: it.__name__,
)
async def test_memory_does_not_rise(
    attack: Callable[[AnyWorld], Awaitable[None]], postgres: PostgresServer, tmp_path: Path
) -> None:
    data_dir = tmp_path / "hub"
    async with gateway_process(data_dir, database_url=postgres.gateway_url, **SETTINGS) as process:
        memory = ProcessMemory(process.pid)
        key = load_or_make(data_dir)
        async with world_of(AnyWorld, process, key, postgres.owner_url) as world, world.bystander() as bystander:
            async with upgraded(world):
                assert await bystander.is_served()
            memory.forget_peak()
            before = memory.now()
            await attack(world)
            assert await bystander.is_served()
            assert memory.peak() - before <= MAY_RISE_BYTES + SETTINGS["max_in_flight_bytes_per_node"]
    assert process.complaints() == []
