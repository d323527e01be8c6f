"""A peer that is dead is noticed by the pongs it owes, within what an interval and a deadline add up to."""

import pytest

from tests.hazards.peers import Op, vanish
from tests.hazards.servers import Kind, Server, new_key

SOON = {"websocket_ping_after_s": 0.3, "websocket_gone_after_s": 0.9}
"""In production 10 and 25."""


@pytest.mark.limits(**SOON)
async def test_a_peer_that_answers_no_ping_is_dead(server: Server) -> None:
    """A half-open connection behind a proxy: what is sent is taken, and nothing comes back."""
    key = new_key()
    async with server.websocket(f"/ws/echo/{key}") as silent:
        with server.patience():
            assert await silent.next_of(Op.PING) is not None
        assert (await server.told(key))["how"] == "told"


@pytest.mark.limits(**SOON)
async def test_a_peer_that_vanished_is_dead(server: Server) -> None:
    """A half-open connection without one: nothing is even acknowledged."""
    key = new_key()
    async with server.websocket(f"/ws/echo/{key}") as gone:
        vanish(gone.peer.transport)
        assert (await server.told(key))["how"] == "told"


@pytest.mark.parametrize("server", [Kind.OURS], indirect=True)
@pytest.mark.limits(**SOON)
async def test_a_peer_that_answers_pings_and_says_nothing_else_is_alive(server: Server) -> None:
    """So that the others are not noticed for their silence."""
    async with server.websocket(f"/ws/echo/{new_key()}") as quiet:
        for _ in range(4):
            with server.patience():
                found = await quiet.next_of(Op.PING, Op.CLOSE)
            assert found is not None
            await quiet.send(Op.PONG, found.payload)
        await quiet.send(Op.TEXT, b"here")
        with server.patience():
            heard = await quiet.next_of(Op.TEXT, Op.CLOSE)
        assert heard is not None
        assert heard.payload == b"here"
