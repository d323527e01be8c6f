"""Writes that stick, are cut or cancelled, and how the app gets rid of its connection."""

from typing import Any, cast

import pytest
import quart
import trio
import trio.testing
from quart_trio import QuartTrio

from skygw.serving import (
    EXTENSION,
    ConnectionHandle,
    End,
)
from tests.serving.apps import UPGRADE, EchoApp, greets
from tests.serving.served import PATIENCE_S, serving


async def test_an_aborted_connection_is_reset_and_its_app_told() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer() as bystander, served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        await peer.read_until(b"\r\n\r\n")
        handle = app.scopes[0]["extensions"]["skygw.connection"]
        handle.abort()
        handle.abort()
        assert not handle.is_open
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            await peer.stream.receive_some(1)
        await served.metrics.until_closed(End.ABORTED)
        assert [told["code"] for told in app.disconnects] == [1006]
        assert await bystander.ask() == (200, b"hello")


async def test_abort_frees_a_send_that_is_stuck() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer(receive_buffer=4096) as deaf:
        await deaf.send(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        await app.busy.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not app.flooded.is_set()
        app.scopes[0]["extensions"]["skygw.connection"].abort()
        with trio.fail_after(PATIENCE_S):
            await app.flooded.wait()
        assert served.listener.connection_count <= 1


async def test_an_app_that_sends_on_after_the_peer_left_does_not_freeze_the_others() -> None:
    stop = trio.Event()

    async def sends_for_ever(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] != "/for-ever":
            await greets(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not stop.is_set():
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async with serving(sends_for_ever) as served:
        async with served.peer() as leaver:
            await leaver.send(b"GET /for-ever HTTP/1.1\r\nHost: a\r\n\r\n")
            await leaver.read_until(b"\r\n\r\n")
        async with served.peer() as bystander:
            assert await bystander.ask() == (200, b"hello")
        stop.set()
        with trio.fail_after(PATIENCE_S):
            while served.listener.connection_count:
                await trio.lowlevel.checkpoint()


async def test_an_endless_answer_to_head_does_not_freeze_the_others() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer() as bystander:
        async with served.peer() as peer:
            await peer.send(b"HEAD /flood HTTP/1.1\r\nHost: a\r\n\r\n")
            await peer.read_until(b"\r\n\r\n")
            assert await bystander.ask("/other") == (200, b"hello")
            app.scopes.reverse()  # the app looks at the last one to see whether it is still open
        with trio.fail_after(PATIENCE_S):
            await app.flooded.wait()


async def test_a_response_that_is_cut_never_ends_cleanly() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(b"GET /cut HTTP/1.0\r\n\r\n")
        await peer.read_until(b"half")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            await peer.stream.receive_some(1)


async def test_a_peer_that_half_closes_under_a_stuck_message_is_let_go() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer() as bystander, served.peer(receive_buffer=4096) as deaf:
        await deaf.send(UPGRADE + b"\r\n" + b"")
        await deaf.read_until(b"\r\n\r\n")
        await deaf.send(b"\x81\x88\x00\x00\x00\x00flood me")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await deaf.transport.send_eof()
        await served.metrics.until_closed(End.PEER_LEFT)
        assert app.flooded.is_set()
        assert await bystander.ask() == (200, b"hello")


async def test_a_write_that_is_cancelled_halfway_resets_the_connection() -> None:
    given_up = trio.Event()

    async def impatient(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = b"x" * 20_000_000
        with trio.move_on_after(1.0):  # by then the kernel has taken some of it
            await send({"type": "http.response.body", "body": body, "more_body": True})
        given_up.set()

    async with serving(impatient) as served, served.peer(receive_buffer=4096) as deaf:
        await deaf.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await served.metrics.until_closed(End.ABORTED)
        assert given_up.is_set()


async def test_abort_ends_a_quart_handler_whose_send_is_stuck() -> None:
    app = QuartTrio("floods")
    handles: list[ConnectionHandle] = []
    left = trio.Event()

    @app.websocket("/socket")
    async def flood() -> None:
        handles.append(cast("ConnectionHandle", quart.websocket.scope["extensions"][EXTENSION]))
        try:
            while True:
                await quart.websocket.send(b"x" * 65536)
        finally:
            left.set()

    async with serving(app, send_timeout_s=600) as served, served.peer(receive_buffer=4096) as deaf:
        await deaf.send(UPGRADE + b"\r\n")
        await deaf.read_until(b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not left.is_set()
        handles[0].abort()
        with trio.fail_after(PATIENCE_S):
            await left.wait()
        await served.metrics.until_closed(End.ABORTED)
