"""What a listener does with ordinary connections, and with too many of them."""

import logging
import socket
from ipaddress import ip_network
from itertools import pairwise

import pytest
import trio

from skygw.serving import (
    BodyLimit,
    End,
    ListenerConfig,
    Refusal,
)
from skygw.serving.asgi import Receive, Scope, Send
from skygw.serving.hypercorn_seam import Http11
from skygw.serving.listener import ACCEPTED_AT_ONCE
from tests.serving.apps import EchoApp, greets
from tests.serving.served import PATIENCE_S, serving


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
@pytest.mark.parametrize(
    "field",
    [
        (b"a", b"b\r\nset-cookie: c"),
        (b"a", b"b\nset-cookie: c"),
        (b"a", b"b\r\n\r\n<script>"),
        (b"a: b\r\nset-cookie", b"c"),
        (b"a", b"b\x00"),
        (b"a b", b"c"),
        (b"", b"c"),
    ],
    ids=repr,
)
async def test_a_field_that_would_be_more_than_a_field_does_not_go_out(field: tuple[bytes, bytes]) -> None:
    async def splits(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2"), field]})
        await send({"type": "http.response.body", "body": b"hi"})

    async with serving(splits) as served, served.peer() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await peer.read_to_end()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"cookie" not in answer
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.usefixtures("expects_errors")
async def test_an_answer_that_is_begun_twice_is_cut() -> None:
    async def begins_twice(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"ha", "more_body": True})

    async with serving(begins_twice) as served, served.peer() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await peer.read_to_end()
        await served.metrics.until_all_closed()
    assert answer.count(b"HTTP/1.1") <= 1
    assert not answer.endswith(b"haha")


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


async def test_a_stranger_takes_no_place_and_is_counted() -> None:
    networks = (ip_network("127.0.0.1/32"),)
    async with serving(EchoApp(), allowed_networks=networks, max_connections=1) as served:
        async with served.peer(source="127.0.0.2") as stranger, served.peer() as caller:
            assert await stranger.read_to_end() == b""
            assert await caller.ask() == (200, b"hello")
        assert served.metrics.refused_by == {Refusal.STRANGER: 1}


@pytest.mark.parametrize(
    ("peer", "is_let_in"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fe80::7%eth0", True),
        ("11.1.2.3", False),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", False),
    ],
)
def test_who_is_let_in_is_said_by_networks(peer: str, *, is_let_in: bool) -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("fe80::/64"))
    config = ListenerConfig(name="internal", host="::", port=0, allowed_networks=networks)
    assert config.lets_in(peer) is is_let_in


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


async def test_a_storm_of_connects_is_taken_in_order_a_few_at_a_time() -> None:
    """What waits is in the kernel: between two steps of whoever is connected already, only a handful comes in."""
    most = ACCEPTED_AT_ONCE
    counts: list[int] = []
    async with serving(EchoApp()) as served, served.peer() as connected:
        assert await connected.ask() == (200, b"hello")
        sockets = [socket.create_connection(served.listener.address) for _ in range(10 * ACCEPTED_AT_ONCE)]
        try:
            with trio.fail_after(PATIENCE_S):
                while not counts or counts[-1] < len(sockets) + 1:
                    counts.append(served.listener.connection_count)
                    await trio.lowlevel.checkpoint()
            taken = [later - earlier for earlier, later in pairwise(counts)]
            assert max(taken) <= most
            assert await connected.ask() == (200, b"hello")
            first = [connection.peer for connection in served.listener._connections]
            assert {sock.getsockname() for sock in sockets} < set(first)
        finally:
            for sock in sockets:
                sock.close()
