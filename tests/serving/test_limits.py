"""The bound on bodies, in front of a pure ASGI app and of Quart-Trio."""

import json

import pytest
import quart
from quart_trio import QuartTrio

from skygw.serving import BodyLimit
from skygw.serving.asgi import App
from tests.serving.apps import EchoApp
from tests.serving.served import serving

KIB = 1024


def quart_echo() -> QuartTrio:
    app = QuartTrio("echo")

    @app.post("/<path:_path>")
    async def echo(_path: str) -> bytes:
        return bytes(await quart.request.body)

    return app


@pytest.fixture(params=["asgi", "quart"])
def limited(request: pytest.FixtureRequest) -> App:
    app: App = EchoApp() if request.param == "asgi" else quart_echo()
    return BodyLimit(app, max_bytes=KIB, takes_large_body=lambda method, path: (method, path) == ("POST", "/large"))


def chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


async def test_a_body_at_the_limit_is_taken(limited: App) -> None:
    async with serving(limited) as served, served.peer() as peer:
        assert await peer.ask("/small", method="POST", body=b"x" * KIB) == (200, b"x" * KIB)
        await peer.send(chunked("/small", b"x" * 1000, b"y" * 24, b""))
        assert await peer.response() == (200, b"x" * 1000 + b"y" * 24)


async def test_a_declared_length_over_the_limit_is_refused_unread(limited: App) -> None:
    async with serving(limited) as served, served.peer() as peer:
        await peer.send(b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n")
        status, body = await peer.response()
        assert status == 413
        assert json.loads(body) == {
            "detail": "The body is larger than 1024 bytes.",
            "code": "invalid",
            "outcome": "not_sent",
            "retry": "never",
            "hop": "gateway",
            "reached": None,
            "requestId": None,
        }
        assert await peer.read_to_end() == b""


async def test_a_chunked_body_is_refused_at_the_byte_that_is_too_much(limited: App) -> None:
    async with serving(limited) as served, served.peer() as bystander, served.peer() as peer:
        await peer.send(chunked("/small", b"x" * KIB, b"x"))
        assert (await peer.response())[0] == 413
        assert await peer.read_to_end() == b""
        assert await bystander.ask("/small", method="POST", body=b"ok") == (200, b"ok")


async def test_a_client_that_pushes_on_still_gets_to_read_the_refusal(limited: App) -> None:
    async with serving(limited) as served, served.peer() as peer:
        await peer.send(chunked("/small", *[b"x" * 60_000] * 20))
        assert (await peer.response())[0] == 413


async def test_a_path_that_bounds_its_bodies_itself_takes_large_ones(limited: App) -> None:
    async with serving(limited) as served, served.peer() as peer:
        assert await peer.ask("/large", method="POST", body=b"x" * 500_000) == (200, b"x" * 500_000)
