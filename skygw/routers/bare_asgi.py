"""What doors share that answer beside Quart, because their answers are streams that outlive a handler."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from skygw.errors import GatewayError, Invalid
from skygw.routers.gates import Scope
from skygw.routers.problems import JSON_TYPE, problem

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class BareRouter(Protocol):
    """`route` is how the routing table spells its path, for the numbers and the documents."""

    @property
    def route(self) -> str: ...

    def matches(self, scope: Scope) -> bool:
        """Whether this path is its own, whatever the method: Quart knows nothing of it."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


async def answer_method(send: Send, method: str, *, allow: str, sentence: str) -> None:
    """`OPTIONS` asks what may be done here; every other method that comes here may not, for what `sentence` says."""
    allowed = (b"allow", allow.encode())
    if method == "OPTIONS":
        await send({"type": "http.response.start", "status": 200, "headers": [allowed, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    _, _, body = problem(Invalid(sentence))
    headers = [(b"content-type", JSON_TYPE.encode()), (b"content-length", str(len(body)).encode()), allowed]
    await send({"type": "http.response.start", "status": 405, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body, "more_body": False})


async def refuse(send: Send, error: GatewayError, request_id: str | None) -> None:
    """Answers with a problem."""
    status, headers, body = problem(error, request_id)
    if request_id is not None:
        headers.append(("x-skygw-request-id", request_id))
    headers.append(("content-length", str(len(body))))
    encoded = [(key.encode(), value.encode()) for key, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})
