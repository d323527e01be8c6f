"""The ASGI lifespan of one listener's app: started before the first request, ended after the last."""

import logging
from typing import Any

import trio

from skygw.errors import StartupError
from skygw.serving.asgi import App, Message

logger = logging.getLogger("skygw.serving")

SHUTDOWN_S = 5.0


class Lifespan:
    """Owns the app's lifespan call. Apps that take none (they raise or return) are served without it."""

    def __init__(self, app: App, *, listener: str) -> None:
        self._app = app
        self._listener = listener
        self._to_app, self._for_app = trio.open_memory_channel[Message](2)  # startup and shutdown, once each
        self._scope = trio.CancelScope()
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._failure: str | None = None
        self.state: dict[str, Any] = {}
        """What the app leaves here at startup is copied into the scope of each request."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ready when the app is. Raise `StartupError` if it says that it cannot start.

        Once started, ends by `shutdown` only: cancelling the surrounding nursery waits for it.
        """
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._call_app)
                self._to_app.send_nowait({"type": "lifespan.startup"})
                await self._started.wait()
                if self._failure is not None:
                    nursery.cancel_scope.cancel()
                else:
                    self._scope.shield = True
                    task_status.started()
        if self._failure is not None:
            raise StartupError(f"the app of the {self._listener} listener does not start: {self._failure}")

    async def shutdown(self) -> None:
        """Tell the app, give it `SHUTDOWN_S`, and end its call. Call it shielded; it always returns."""
        with trio.move_on_after(SHUTDOWN_S) as patience:
            if not self._stopped.is_set():
                self._to_app.send_nowait({"type": "lifespan.shutdown"})
            await self._stopped.wait()
        if patience.cancelled_caught:
            logger.error("%s: the app did not shut down within %g s", self._listener, SHUTDOWN_S)
        self._scope.cancel()

    async def _call_app(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._for_app.receive, self._send)
        except Exception as error:
            if self._started.is_set():
                raise
            # The specification's way for an app to say that it takes no lifespan.
            logger.info("%s: the app takes no lifespan: %r", self._listener, error)
        finally:
            self._started.set()
            self._stopped.set()

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = message.get("message") or "it does not say why"
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.shutdown.failed":
                logger.error("%s: the app failed to shut down: %s", self._listener, message.get("message", ""))
                self._stopped.set()
            case other:
                raise ValueError(f"{other} is no lifespan message")
