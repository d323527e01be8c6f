"""Whatever one peer sends, its connection alone ends: a bystander on HTTP and one on a WebSocket go on."""

import json
import struct
from contextlib import suppress

import pytest
import trio

from skygw.serving import End
from skygw.serving.asgi import Receive, Scope, Send
from skygw.serving.hypercorn_seam import MAX_EARLY_BYTES
from skygw.websocket.frames import BINARY, frame
from tests.serving.apps import UPGRADE, EchoApp, greets
from tests.serving.served import PATIENCE_S, Served, serving


async def test_a_head_that_cannot_be_read_is_not_quoted_because_it_may_hold_a_token() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer hunter2\r\n\r\n")
        status, body = await peer.response()
        assert status == 400
        assert b"illegal header line" in body
        assert b"hunter2" not in body


async def test_an_offer_of_h2c_is_answered_in_http_1_1() -> None:
    async with serving(EchoApp()) as served, served.peer() as bystander, served.peer() as peer:
        await peer.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAAA\r\n\r\n"
        )
        assert await peer.response() == (200, b"hello")
        assert await peer.ask() == (200, b"hello")
        assert await bystander.ask() == (200, b"hello")


async def test_a_client_that_offered_h2c_and_leaves_is_noticed() -> None:
    app = EchoApp()
    async with serving(app) as served:
        async with served.peer() as peer:
            await peer.send(
                b"GET /hang HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            )
            await app.busy.wait()
            handle = app.scopes[0]["extensions"]["skygw.connection"]
            assert handle.is_open
        with trio.fail_after(PATIENCE_S):
            while handle.is_open:
                await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize(
    "odd",
    [
        b"Connection: keep-alive\r\n",
        b"Connection: \xff\r\n",
        b"Sec-WebSocket-Protocol: \xff\r\n",
        b"Sec-WebSocket-Extensions: \xff\r\n",
    ],
    ids=["two connection lines", "no ASCII", "a subprotocol in no ASCII", "an extension in no ASCII"],
)
async def test_an_odd_handshake_that_holds_is_taken(odd: bytes) -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(UPGRADE + odd + b"\r\n")
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


NO_MASK = bytes(4)


async def upgraded(served: Served, sent: bytes) -> bytes:
    """Upgrade, send, and return all that comes after the 101."""
    async with served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await peer.send(sent)
        return await peer.read_to_end()


def close_code(frame: bytes) -> int:
    assert frame[0] == 0x88
    return int(struct.unpack("!H", frame[2:4])[0])


BAD_FRAMES = {
    "a message over the bound": (1009, b"\x82\xfe" + struct.pack("!H", 3000) + NO_MASK),
    "fragments over the bound": (1009, b"\x02\xfe\x03\xe8" + NO_MASK + b"x" * 1000 + b"\x00\xfe\x03\xe8" + NO_MASK),
    "an unmasked frame": (1002, b"\x81\x05hello"),
    "a reserved bit": (1002, b"\xc1\x85" + NO_MASK + b"hello"),
    "text that is no UTF-8": (1007, b"\x81\x82" + NO_MASK + b"\xff\xfe"),
    "an unknown opcode": (1002, b"\x83\x80" + NO_MASK),
}


@pytest.mark.parametrize("told", [None, 4500])
@pytest.mark.parametrize(("code", "sent"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_frame_ends_its_socket_with_a_code_and_a_reason(code: int, sent: bytes, told: int | None) -> None:
    """A code of the listener's own replaces those for broken framing, and never that for size."""
    if told is not None and code != 1009:
        code = told
    app = EchoApp()
    settings = {"websocket_max_message_bytes": 1024, "websocket_violation_code": told}
    async with serving(app, **settings) as served, served.peer() as bystander:
        frame = await upgraded(served, sent)
        assert close_code(frame) == code
        await served.metrics.until_closed(End.PROTOCOL)
        assert [(told["code"], bool(told["reason"])) for told in app.disconnects] == [(code, True)]
        assert await bystander.ask() == (200, b"hello")


class LongHandshakeApp:
    """Answers an upgrade with more than the kernel takes from a peer that does not read, then echoes."""

    def __init__(self) -> None:
        self.has_left = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await greets(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-long", b"x" * LONG_BYTES)]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        self.has_left.set()


LONG_BYTES = 512 * 1024
EARLY = frame(BINARY, b"e" * 1024, NO_MASK)


async def test_frames_that_come_while_the_upgrade_is_being_answered_are_kept() -> None:
    count = MAX_EARLY_BYTES // len(EARLY) // 2
    async with serving(LongHandshakeApp()) as served, served.peer(receive_buffer=4096) as peer:
        await peer.send(UPGRADE + b"\r\n")
        await peer.read_until(b"HTTP/1.1 101 ")
        await peer.send(EARLY * count)
        assert (await peer.read_until(b"\r\n\r\n")).endswith(b"\r\n\r\n")
        echo = frame(BINARY, b"e" * 1024)
        assert await peer.read_exactly(len(echo) * count) == echo * count


async def test_frames_without_end_while_the_upgrade_is_being_answered_end_their_connection() -> None:
    """Nobody reads them yet: what is kept of them is bounded."""
    app = LongHandshakeApp()
    async with serving(app) as served, served.peer() as bystander, served.peer(receive_buffer=4096) as peer:
        await peer.send(UPGRADE + b"\r\n")
        await peer.read_until(b"HTTP/1.1 101 ")
        with suppress(trio.BrokenResourceError):  # it is cut in the middle of them
            await peer.send(EARLY * (2 * MAX_EARLY_BYTES // len(EARLY)))
        await served.metrics.until_closed(End.PROTOCOL)
        with trio.fail_after(PATIENCE_S):
            await app.has_left.wait()
        assert await bystander.ask() == (200, b"hello")


async def test_a_peer_that_never_reads_is_reset_after_the_send_deadline() -> None:
    app = EchoApp()
    async with (
        serving(app, send_timeout_s=0.2) as served,
        served.peer() as bystander,
        served.peer(receive_buffer=4096) as deaf,
    ):
        await deaf.send(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        await served.metrics.until_closed(End.NOT_READING)
        assert app.flooded.is_set()
        assert await bystander.ask() == (200, b"hello")


async def test_a_head_that_trickles_is_refused_after_the_header_deadline() -> None:
    async with serving(EchoApp(), header_timeout_s=0.2) as served, served.peer() as bystander:
        assert await bystander.ask() == (200, b"hello")
        async with served.peer() as slow:
            await slow.send(b"GET / HTTP/1.1\r\nHost:")
            assert (await slow.response())[0] == 408
        await served.metrics.until_closed(End.SLOW_HEADER)
        assert await bystander.ask() == (200, b"hello")


async def test_a_body_that_stalls_is_given_up_and_the_app_is_told() -> None:
    app = EchoApp()
    async with serving(app, body_idle_timeout_s=0.2) as served, served.peer() as slow:
        await slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        assert (await slow.response())[0] == 408
        await served.metrics.until_closed(End.SLOW_BODY)
        assert app.disconnects == [{"type": "http.disconnect"}]


async def test_a_body_that_was_asked_for_and_never_comes_is_given_up() -> None:
    async with serving(EchoApp(), body_idle_timeout_s=0.2) as served, served.peer() as slow:
        await slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert (await slow.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        assert (await slow.response())[0] == 408
        await served.metrics.until_closed(End.SLOW_BODY)


async def test_a_body_below_the_floor_is_given_up_though_it_never_stalls() -> None:
    async with (
        serving(EchoApp(), body_grace_s=0.3, body_min_bytes_per_s=1e6) as served,
        served.peer() as slow,
    ):
        await slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        with trio.fail_after(PATIENCE_S):
            while not served.metrics.closed_by[End.SLOW_BODY]:
                try:
                    await slow.stream.send_all(b"x")
                except trio.BrokenResourceError:
                    await served.metrics.until_closed(End.SLOW_BODY)
                await trio.testing.wait_all_tasks_blocked(0.02)
        assert served.metrics.closed_by == {End.SLOW_BODY: 1}


async def test_a_resting_connection_is_closed_without_blame(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(EchoApp(), keep_alive_timeout_s=0.2) as served, served.peer() as peer:
        assert await peer.ask() == (200, b"hello")
        assert await peer.read_to_end() == b""
        await served.metrics.until_closed(End.IDLE)
    assert [record.getMessage() for record in caplog.records if record.name == "skygw.serving"] == []


async def test_garbage_after_a_head_request_is_refused_with_a_body() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n")
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        status, body = await peer.response()
        assert (status, json.loads(body)["code"]) == (400, "invalid")


async def test_a_refused_head_request_gets_no_body() -> None:
    async with serving(EchoApp()) as served, served.peer() as peer:
        await peer.send(b"HEAD ?a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert await peer.read_to_end() == b""
