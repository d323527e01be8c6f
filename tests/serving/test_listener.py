"""What a listener promises to the program that runs it."""

import logging
import socket
import struct
from pathlib import Path
from typing import Any, cast

import pytest
import quart
import trio
import trio.testing
from quart_trio import QuartTrio

from skygw.errors import StartupError
from skygw.serving import (
    EXTENSION,
    BodyLimit,
    ConnectionHandle,
    End,
    Listener,
    ListenerConfig,
    NoMetrics,
    Refusal,
    TlsFiles,
)
from skygw.serving.hypercorn_seam import Http11
from tests.serving.apps import UPGRADE, EchoApp, greets
from tests.serving.served import PATIENCE_S, serving


def config(**settings: object) -> ListenerConfig:
    return ListenerConfig(**{"name": "node", "host": "127.0.0.1", "port": 0, **settings})  # type: ignore[arg-type]


def bind(**settings: object) -> Listener:
    return Listener.bind(config(**settings), metrics=NoMetrics())


def test_port_0_picks_one() -> None:
    listener = bind()
    assert listener.address[1] > 0
    listener.stop_accepting()


def test_a_taken_port_is_one_sentence() -> None:
    first = bind()
    port = first.address[1]
    with pytest.raises(StartupError, match=rf"^port {port} on 127\.0\.0\.1 is taken: another program listens there"):
        bind(port=port)
    first.stop_accepting()


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("192.0.2.1", "this machine does not have that address"),
        ("no-such-host.invalid", "the node listener's address no-such-host.invalid cannot be resolved"),
    ],
)
def test_an_address_that_is_not_ours_is_one_sentence(host: str, sentence: str) -> None:
    with pytest.raises(StartupError, match=sentence):
        bind(host=host, allow_cleartext=True)


def test_cleartext_beyond_loopback_must_be_asked_for() -> None:
    with pytest.raises(StartupError, match="SKYGW_ALLOW_CLEARTEXT") as refusal:
        bind(host="0.0.0.0")
    assert "SKYGW_BEHIND_TLS_PROXY" in str(refusal.value)


@pytest.mark.parametrize("asked", ["allow_cleartext", "behind_tls_proxy"])
def test_cleartext_beyond_loopback_is_served_when_asked_for(asked: str) -> None:
    listener = bind(host="0.0.0.0", **{asked: True})
    assert listener.address[0] == "0.0.0.0"
    listener.stop_accepting()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    bind(host=host).stop_accepting()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the platform has no TCP_USER_TIMEOUT")
async def test_accepted_sockets_inherit_the_user_timeout() -> None:
    listener = bind()
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run, greets)
        accepting = listener._accepting
        assert accepting is not None
        assert accepting.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000
        nursery.cancel_scope.cancel()


async def test_a_pure_asgi_app_without_lifespan_is_served() -> None:
    async with serving(greets) as served, served.peer() as peer:
        assert await peer.ask() == (200, b"hello")
        assert await peer.ask(method="POST", body=b"x" * 100_000) == (200, b"hello")


async def test_the_app_finds_the_connection_in_its_scope() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer() as peer:
        await peer.ask()
        handle = app.scopes[0]["extensions"]["skygw.connection"]
        assert handle.peer == peer.transport.socket.getsockname()
        assert handle.listener == "node"
        assert handle.is_open


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


@pytest.mark.usefixtures("expects_errors")
async def test_a_failing_app_is_a_500_and_one_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(EchoApp()) as served, served.peer() as bystander, served.peer() as peer:
        assert (await peer.ask("/fail"))[0] == 500
        assert await bystander.ask() == (200, b"hello")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info
    assert errors[0].getMessage() == "node: the app failed on /fail: the app is broken"


@pytest.mark.usefixtures("expects_errors")
async def test_a_fault_of_ours_ends_its_connection_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(self: Http11) -> None:
        raise KeyError("ours")

    async with serving(EchoApp()) as served, served.peer() as bystander, served.peer() as peer:
        assert await bystander.ask() == (200, b"hello")
        with monkeypatch.context() as patched:
            patched.setattr(Http11, "_handle_events", breaks)
            await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await served.metrics.until_closed(End.FAULT)
        assert await bystander.ask() == (200, b"hello")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info


async def test_a_response_that_is_cut_never_ends_cleanly() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(b"GET /cut HTTP/1.0\r\n\r\n")
        await peer.read_until(b"half")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            await peer.stream.receive_some(1)


async def test_over_the_cap_a_connection_is_closed_unread_and_counted() -> None:
    async with serving(EchoApp(), max_connections=1) as served, served.peer() as first:
        assert await first.ask() == (200, b"hello")
        async with served.peer() as second:
            assert await second.read_to_end() == b""
        assert served.metrics.refused_by == {Refusal.TOO_MANY: 1}
        assert await first.ask() == (200, b"hello")


async def test_one_address_cannot_take_all_connections() -> None:
    async with serving(EchoApp(), max_connections_per_address=1) as served:
        async with served.peer() as first:
            assert await first.ask() == (200, b"hello")
            async with served.peer() as second:
                assert await second.read_to_end() == b""
            assert served.metrics.refused_by == {Refusal.TOO_MANY_FROM_ADDRESS: 1}
        await served.metrics.until_closed(End.PEER_LEFT)
        async with served.peer() as third:
            assert await third.ask() == (200, b"hello")


async def test_behind_a_proxy_its_one_address_is_not_capped() -> None:
    settings = {"max_connections_per_address": 1, "behind_tls_proxy": True}
    async with serving(EchoApp(), **settings) as served, served.peer() as first, served.peer() as second:
        assert await first.ask() == (200, b"hello")
        assert await second.ask() == (200, b"hello")


async def test_continue_is_sent_when_the_app_asks_for_the_body() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await peer.send(b"abc")
        assert await peer.response() == (200, b"abc")


async def test_a_refusal_comes_in_place_of_continue() -> None:
    app = BodyLimit(EchoApp(), max_bytes=2, takes_large_body=lambda _method, _path: False)
    async with serving(app) as served, served.peer() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await peer.response())[0] == 413
        assert await peer.read_to_end() == b""


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


def test_the_tls_files_are_read_by_the_listener_alone() -> None:
    missing = TlsFiles(certificate=Path("/nowhere/cert.pem"), key=Path("/nowhere/key.pem"))
    with pytest.raises(StartupError, match=r"^the TLS file /nowhere/cert\.pem cannot be read: No such file"):
        bind(tls=missing)


async def test_requests_in_one_segment_are_answered_in_order() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
        await peer.send(post + b"1" + post + b"2" + post + b"3")
        assert [await peer.response() for _ in range(3)] == [(200, b"1"), (200, b"2"), (200, b"3")]
        assert await peer.ask() == (200, b"hello")


async def test_a_whole_url_as_target_reaches_the_same_path() -> None:
    app = EchoApp()
    async with serving(app) as served, served.peer() as peer:
        assert await peer.ask("http://here:5002/v1/nodes/me?a=b") == (200, b"hello")
        assert (app.scopes[0]["path"], app.scopes[0]["query_string"]) == ("/v1/nodes/me", b"a=b")


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
        with trio.move_on_after(0.2):
            await send({"type": "http.response.body", "body": b"x" * 50_000_000, "more_body": True})
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


async def test_unread_messages_do_not_keep_the_disconnect_from_the_app() -> None:
    read_on = trio.Event()
    told: list[str] = []
    handles: list[ConnectionHandle] = []

    async def reads_late(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        handles.append(scope["extensions"][EXTENSION])
        await receive()
        await send({"type": "websocket.accept"})
        await read_on.wait()
        while not told or told[-1] != "websocket.disconnect":
            told.append((await receive())["type"])

    async with serving(reads_late) as served, served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        await peer.read_until(b"\r\n\r\n")
        await peer.send(b"\x81\x85\x00\x00\x00\x00hello" * 1000)
        await trio.testing.wait_all_tasks_blocked(0.05)
        handles[0].abort()
        read_on.set()
        await served.metrics.until_closed(End.ABORTED)
        assert 0 < len(told) < 100
