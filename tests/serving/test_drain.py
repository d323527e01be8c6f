"""How a listener ends: every connection is gone in bounded time, whatever peers do."""

import struct
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.trio.worker_context import WorkerContext

from skygw.serving import (
    End,
    ListenerConfig,
)
from skygw.serving.binding import listening_socket
from skygw.serving.connection import Connection
from skygw.serving.places import Places
from skygw.turnstile import Turnstile
from tests.serving.apps import UPGRADE, EchoApp, greets
from tests.serving.served import PATIENCE_S, serving


def config(**settings: object) -> ListenerConfig:
    return ListenerConfig(**{"name": "node", "host": "127.0.0.1", "port": 0, **settings})  # type: ignore[arg-type]


async def test_the_drain_ends_whatever_peers_do() -> None:
    app = EchoApp()
    async with (
        serving(app, send_timeout_s=600, linger_s=0.1) as served,
        served.peer() as idle,
        served.peer(receive_buffer=4096) as deaf,
        served.peer() as uploading,
        served.peer() as half_open,
        served.peer() as hanging,
        served.peer(receive_buffer=4096) as silent,
    ):
        assert await idle.ask() == (200, b"hello")
        await deaf.send(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        await uploading.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        await half_open.send(UPGRADE + b"\r\n")
        await half_open.read_until(b"\r\n\r\n")
        await hanging.send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        await silent.send(b"GET / HT")
        await served.metrics.until_opened(6)
        await app.until_called(5)
        assert served.listener.connection_count == 6

        with trio.fail_after(PATIENCE_S):
            await served.listener.end_connections(within_s=0.3)
        assert served.listener.connection_count == 0
        assert await idle.read_to_end() == b""
        assert served.metrics.closed_by[End.DRAINED] == 6
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream(*served.listener.address)


async def test_the_drain_closes_resting_connections_without_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(EchoApp()) as served, served.peer() as idle, served.peer() as fresh:
        assert await idle.ask() == (200, b"hello")
        await served.metrics.until_opened(2)
        await served.listener.end_connections(within_s=PATIENCE_S)
        assert await idle.read_to_end() == b""
        assert await fresh.read_to_end() == b""
        # The answer may reach its reader just before the connection rests: then it was the last one.
        assert set(served.metrics.closed_by) <= {End.DRAINED, End.FINISHED}
        assert served.metrics.closed_by.total() == 2
    assert [record.getMessage() for record in caplog.records if record.name == "skygw.serving"] == []


async def test_a_connection_killed_before_it_ran_ends_quietly() -> None:
    listening = listening_socket(config())
    async with await trio.open_tcp_stream(*listening.getsockname()):
        await trio.lowlevel.wait_readable(listening)
        accepted, _ = listening.accept()
        places = Places(config(), refused=lambda _why, _client: None)
        connection = Connection(
            accepted, peer=("127.0.0.1", 1), config=config(), tls=None, places=places, partings=Turnstile(pause_turns=0)
        )
        connection.end_if_idle()
        await connection.run(greets, context=WorkerContext(max_requests=None), state={})
        assert connection.ending.why is End.DRAINED
    listening.close()


async def test_the_drain_lets_a_running_request_finish_and_says_it_is_the_last() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await app.until_called(1)
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                await served.listener.end_connections(within_s=PATIENCE_S)

            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(b"def")
            head = await peer.read_until(b"\r\n\r\n")
            assert b"connection: close" in head.lower()
            assert await peer.read_to_end() == b"abcdef"
        assert served.metrics.closed_by == {End.FINISHED: 1}


async def test_a_session_that_says_goodbye_while_draining_ends_with_its_own_code() -> None:
    leave = trio.Event()

    async def session(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        await send({"type": "websocket.accept"})
        await leave.wait()
        await send({"type": "websocket.close", "code": 4001, "reason": "draining"})

    async with serving(session) as served, served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        await peer.read_until(b"\r\n\r\n")
        served.listener.stop_accepting()
        leave.set()
        await served.listener.end_connections(within_s=PATIENCE_S)
        frame = await peer.read_to_end()
        assert struct.unpack("!H", frame[2:4])[0] == 4001
        assert served.metrics.closed_by == {End.FINISHED: 1}
