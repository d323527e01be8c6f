"""Requests: patience that knows what it waits for, one reading of where a body ends, and nobody believed unasked."""

import pytest
import trio

from tests.hazards.servers import Server, new_key

TRICKLE_S = 0.05


@pytest.mark.limits(header_timeout_s=0.5, body_idle_timeout_s=0.5, read_timeout_s=0.5)
async def test_the_clock_of_slow_requests_does_not_cut_a_slow_answer(server: Server) -> None:
    key = new_key()
    async with server.peer() as peer:
        await peer.send(f"GET /slow/{key} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await server.told(f"{key}-asked")
        await trio.sleep(1.0)  # twice as long as any request may take to come
        await server.open_gate(key)
        with server.patience():
            assert await peer.response() == (200, b"worth waiting for")


@pytest.mark.limits(body_idle_timeout_s=0.5, body_grace_s=0.3, body_min_bytes_per_s=1e6, read_timeout_s=0.5)
async def test_a_body_that_trickles_is_given_up(server: Server) -> None:
    async with server.peer() as slow:
        await slow.send(b"POST /count HTTP/1.1\r\nHost: here\r\nContent-Length: 900000\r\n\r\n")
        answered = False

        async def hear() -> None:
            nonlocal answered
            answered = (await slow.response())[0] in (0, 408)
            nursery.cancel_scope.cancel()

        with trio.move_on_after(2.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear)
                try:
                    while True:
                        await slow.stream.send_all(b"x")
                        await trio.sleep(TRICKLE_S)  # the pace of this peer
                except trio.BrokenResourceError:
                    await trio.sleep_forever()
        assert answered


async def test_a_body_of_two_lengths_is_refused(server: Server) -> None:
    async with server.peer() as smuggler:
        await smuggler.send(
            b"POST /count HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /hello HTTP/1.1\r\nHost: here\r\n\r\n"
        )
        with server.patience():
            assert (await smuggler.response())[0] == 400
            assert await smuggler.read_to_end() == b""


async def test_a_stranger_is_not_believed_about_whom_it_speaks_for(server: Server) -> None:
    async with server.peer() as stranger:
        await stranger.send(b"GET /caller HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
        with server.patience():
            assert await stranger.response() == (200, b"127.0.0.1")
