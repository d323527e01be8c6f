"""The two ASGI apps, one for each listener: a path of one does not exist on the other, `/healthz` aside."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, Protocol

from quart import Response, has_request_context, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from skygw.errors import Forbidden, GatewayError, Internal, TooLarge
from skygw.routers.bare_asgi import BareRouter, refuse
from skygw.routers.gates import InternalGate
from skygw.routers.problems import JSON_TYPE, problem
from skygw.routers.quart_http import use_direct_requests
from skygw.routers.quart_socket import use_direct_sockets
from skygw.routers.route_table import INTERNAL_ROUTES, NODE_ROUTES
from skygw.routers.schemas import MAX_BODY_BYTES, invalid
from skygw.serving.limits import BodyLimit

log = logging.getLogger("skygw.routers")

HttpCounter = Callable[[str, int], None]
"""Told of each answer: the route as it stands in the routing table, and the status."""

Surprise = Callable[[], None]
"""Told of each error nobody expected."""


class Router(Protocol):
    def add_to(self, app: QuartTrio) -> None: ...


def node_app(
    routers: Sequence[Router], bare: Sequence[BareRouter] = (), *, count: HttpCounter, surprised: Surprise
) -> Any:
    """What installations see. What is `bare` is answered beside Quart, and bounds its bodies itself."""

    def takes_large_body(_method: str, path: str) -> bool:
        return any(router.matches({"type": "http", "path": path}) for router in bare)

    app = _beside(_quart("node", routers, count, surprised), bare, count)
    return BodyLimit(app, max_bytes=MAX_BODY_BYTES, takes_large_body=takes_large_body)


def internal_app(
    routers: Sequence[Router],
    bare: Sequence[BareRouter],
    *,
    gate: InternalGate,
    count: HttpCounter,
    surprised: Surprise,
) -> Any:
    """What services see. The network is looked at before the path, so that a stranger does not even learn what exists
    here. What is `bare` is answered beside Quart.
    """
    answer = _beside(_quart("internal", routers, count, surprised), bare, count)

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            try:
                gate.check_network(scope)
            except Forbidden as error:
                await refuse(_counted(send, "unrouted", count), error, None)
                return
        await answer(scope, receive, send)

    return BodyLimit(dispatch, max_bytes=MAX_BODY_BYTES, takes_large_body=_nothing_takes_large_bodies)


def _beside(app: Any, bare: Sequence[BareRouter], count: HttpCounter) -> Any:
    """What is `bare`, and the app for everything else."""

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        for router in bare:
            if router.matches(scope):
                await router(scope, receive, _counted(send, router.route, count))
                return
        await app(scope, receive, send)

    return dispatch


def _nothing_takes_large_bodies(method: str, path: str) -> bool:  # noqa: ARG001 - the limit's signature
    return False


def _counted(send: Any, route: str, count: HttpCounter) -> Any:
    async def counting(message: Any) -> None:
        if message["type"] == "http.response.start":
            count(route, message["status"])
        await send(message)

    return counting


def _quart(
    name: Literal["node", "internal"], routers: Sequence[Router], count: HttpCounter, surprised: Surprise
) -> QuartTrio:
    app = QuartTrio(f"skygw.{name}", static_folder=None)
    use_direct_requests(app)
    use_direct_sockets(app)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    # The listener bounds slow bodies and slow readers; Quart's own clocks would cut long answers.
    app.config["BODY_TIMEOUT"] = None
    app.config["RESPONSE_TIMEOUT"] = None
    # A path is right or it is not: no redirects, which would lose a body or a token on the way.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.register_error_handler(GatewayError, _on_gateway_error)
    app.register_error_handler(HTTPException, partial(_on_http_exception, _NOTHING_HERE[name]))

    async def on_surprise(error: Exception) -> Response:
        surprised()
        return await _on_surprise(error)

    app.register_error_handler(Exception, on_surprise)
    for router in routers:
        router.add_to(app)

    async def count_answer(response: Response) -> Response:
        count("unrouted" if request.url_rule is None else request.url_rule.rule, response.status_code)
        return response

    app.before_request(_refuse_unknown_query)
    app.after_request(count_answer)
    return app


_QUERIES = {
    (route.method, route.path): {query.name for query in route.query} for route in (*NODE_ROUTES, *INTERNAL_ROUTES)
}


async def _refuse_unknown_query() -> None:
    """A misspelt filter must not answer with everything."""
    if request.url_rule is None:
        return
    method = "GET" if request.method == "HEAD" else request.method
    known = _QUERIES.get((method, request.url_rule.rule), set())
    for name in request.args:
        if name not in known:
            named = ", ".join(sorted(known)) or "none"
            raise invalid(f"The query parameter {name[:64]!r} is not known here; known: {named}.", "query", name[:64])


async def _on_gateway_error(error: GatewayError) -> Response:
    status, headers, body = problem(error)
    return Response(body, status, dict(headers))


_NOTHING_HERE: Final[Mapping[str, str]] = {
    "node": "There is nothing at this path on the node listener, which is for installations; services ask the internal "
    "listener, 5003 unless set otherwise.",
    "internal": "There is nothing at this path on the internal listener, which is for services; installations ask the "
    "node listener, 5002 unless set otherwise.",
}
_WRONG_METHOD: Final = "This path does not take this method; the header Allow names those it takes."


async def _on_http_exception(nothing_here: str, error: HTTPException) -> Response:
    """What the framework itself refuses: unknown paths, methods, oversized bodies."""
    if isinstance(error, RequestEntityTooLarge):
        return await _on_gateway_error(TooLarge(f"The body is over {MAX_BODY_BYTES} bytes."))
    status = error.code or 500
    code = {404: "not_found", 405: "invalid"}.get(status, "invalid" if status < 500 else "internal")
    body = {
        "detail": {404: nothing_here, 405: _WRONG_METHOD}.get(status)
        or error.description
        or "The request cannot be answered.",
        "code": code,
        "outcome": "not_sent",
        "retry": "never",
        "hop": "gateway",
        "reached": None,
        "requestId": None,
    }
    headers = {"content-type": JSON_TYPE}
    if status == 405:
        headers["allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    return Response(json.dumps(body), status, headers)


async def _on_surprise(error: Exception) -> Response:
    """Our fault: one traceback in the log, none in the answer."""
    path = request.path[:200] if has_request_context() else "a WebSocket"
    log.error("unhandled error", exc_info=error, extra={"path": path})
    return await _on_gateway_error(Internal("The gateway failed. What became of the request is not known."))
