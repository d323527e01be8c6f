"""Whether the process lives, whether it can do its work, and its numbers: `/healthz`, `/readyz`, `/metrics`."""

import json
from collections.abc import Awaitable, Callable, Mapping

import trio
from quart import Response
from quart_trio import QuartTrio

from skygw.routers.problems import JSON_TYPE

CHECK_S = 2.0
"""How long one readiness check may take."""

Check = Callable[[], Awaitable[str | None]]
"""Says what is wrong, or `None`. May raise nothing."""


class HealthRouter:
    """`/healthz`, on both listeners, without a token: the process answers."""

    def add_to(self, app: QuartTrio) -> None:
        app.add_url_rule("/healthz", "healthz", self.healthz)

    async def healthz(self) -> Response:
        return Response('{"status":"ok"}', 200, {"content-type": JSON_TYPE})


class SystemRouter:
    """`/readyz` and `/metrics`: for the allowed networks, which the app looks at, without a token."""

    def __init__(self, *, checks: Mapping[str, Check], metrics: Callable[[], tuple[str, bytes]]) -> None:
        self._checks = checks
        self._metrics = metrics

    def add_to(self, app: QuartTrio) -> None:
        app.add_url_rule("/readyz", "readyz", self.readyz)
        app.add_url_rule("/metrics", "metrics", self.metrics)

    async def readyz(self) -> Response:
        """200 when every check holds, 503 with what does not. The checks run side by side, each within 2 s."""
        found: dict[str, str | None] = {}
        async with trio.open_nursery() as nursery:
            for name, check in self._checks.items():
                nursery.start_soon(_run_check, name, check, found)
        body = {
            "ready": not any(found.values()),
            "checks": {name: found[name] or "ok" for name in self._checks},
        }
        return Response(json.dumps(body), 200 if body["ready"] else 503, {"content-type": JSON_TYPE})

    async def metrics(self) -> Response:
        content_type, text = self._metrics()
        return Response(text, 200, {"content-type": content_type})


async def _run_check(name: str, check: Check, found: dict[str, str | None]) -> None:
    found[name] = f"no answer within {CHECK_S:g} s"
    with trio.move_on_after(CHECK_S):
        found[name] = await check()
