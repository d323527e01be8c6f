"""The app's lifespan around the listener's, with pure ASGI apps and with Quart-Trio."""

from typing import Any

import pytest
import quart
import trio
import trio_websocket
from quart_trio import QuartTrio

from skygw.errors import StartupError
from skygw.serving import Listener, ListenerConfig, NoMetrics
from skygw.serving.asgi import App
from tests.serving.served import PATIENCE_S, serving


def quart_app(events: list[str]) -> QuartTrio:
    app = QuartTrio("lively")

    @app.before_serving
    async def start() -> None:
        events.append("started")

    @app.after_serving
    async def stop() -> None:
        events.append("stopped")

    @app.get("/")
    async def hello() -> str:
        return "hello"

    @app.websocket("/socket")
    async def echo() -> None:
        while True:
            await quart.websocket.send(await quart.websocket.receive())

    return app


async def run_until_it_fails(app: App) -> None:
    config = ListenerConfig(name="node", host="127.0.0.1", port=0)
    with trio.fail_after(PATIENCE_S):
        await Listener.bind(config, metrics=NoMetrics()).run(app)


async def test_quart_is_started_served_and_stopped() -> None:
    events: list[str] = []
    async with serving(quart_app(events)) as served, served.peer() as peer:
        assert events == ["started"]
        assert await peer.ask() == (200, b"hello")
        host, port = served.listener.address
        async with trio_websocket.open_websocket_url(f"ws://{host}:{port}/socket", disconnect_timeout=2) as socket:
            await socket.send_message("there")
            with trio.fail_after(PATIENCE_S):
                assert await socket.get_message() == "there"
    assert events == ["started", "stopped"]


async def test_two_listeners_serve_two_apps_in_one_process() -> None:
    first: list[str] = []
    second: list[str] = []
    async with (
        serving(quart_app(first)) as node,
        serving(quart_app(second), name="internal") as internal,
        node.peer() as outside,
        internal.peer() as inside,
    ):
        assert await outside.ask() == (200, b"hello")
        assert await inside.ask() == (200, b"hello")
    assert (first, second) == (["started", "stopped"], ["started", "stopped"])


@pytest.mark.usefixtures("expects_errors")  # Quart logs it too
async def test_an_app_that_cannot_start_is_one_sentence() -> None:
    app = QuartTrio("broken")

    @app.before_serving
    async def start() -> None:
        raise ValueError("no catalogue")

    with pytest.raises(StartupError, match=r"^the app of the node listener does not start: no catalogue$"):
        await run_until_it_fails(app)


async def test_what_the_app_leaves_at_startup_is_in_each_scope() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["catalogue"] = "m13"
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(scope["state"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(app) as served, served.peer() as peer:
        assert await peer.ask() == (204, b"")
    assert seen == [{"catalogue": "m13"}]


async def test_a_lifespan_that_fails_later_ends_the_listener() -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("gone")

    with pytest.raises(ExceptionGroup) as failure:
        await run_until_it_fails(app)
    assert failure.group_contains(ValueError, match="gone")
