"""How a hub service's socket is opened, whatever is said on it: the subprotocol, the handshake, one session."""

from collections.abc import Callable
from typing import Any, Protocol, cast

from quart import Response, Websocket

from skygw.auth.principals import ServicePrincipal
from skygw.conversations.session import Conversation, Renew, ServiceSession
from skygw.errors import Forbidden, GatewayError
from skygw.observability.logs import bound_ids
from skygw.observability.metrics import Door
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.routers.gates import InternalGate
from skygw.routers.problems import problem
from skygw.routers.ws import current_websocket, subprotocol_required
from skygw.serving.handle import EXTENSION, ConnectionHandle

Check = Callable[[ServicePrincipal], None]
"""Raises `Forbidden` where a service may not open this socket."""


class SubscriberMetrics(Protocol):
    """What the doors count. Cheap; never raises."""

    def subscriber_came(self, door: Door) -> None: ...

    def subscriber_left(self, door: Door) -> None: ...


class SpokenHere(Protocol):
    """Makes the conversation of a socket, with or without kinds of ours, and what renews its token."""

    def __call__(self, principal: ServicePrincipal, *, extensions: bool) -> tuple[Conversation, Renew]: ...


async def serve_socket(
    gate: InternalGate, metrics: SubscriberMetrics, *, door: Door, may: Check, spoken: SpokenHere
) -> Response | None:
    """Runs the socket of this handler. The subprotocol may be offered, or none: whoever offers others means a protocol
    that is not spoken here.
    """
    socket: Websocket = current_websocket()
    scope = cast("dict[str, Any]", socket.scope)
    handle: ConnectionHandle = scope["extensions"][EXTENSION]
    try:
        principal = await gate.service(scope)
        may(principal)
    except GatewayError as error:
        status, headers, text = problem(error)
        return Response(text, status, dict(headers))
    offered = socket.requested_subprotocols
    extensions = SUBSCRIBER_SUBPROTOCOL in offered
    if offered and not extensions:
        return subprotocol_required(
            SUBSCRIBER_SUBPROTOCOL,
            f"Of subprotocols only {SUBSCRIBER_SUBPROTOCOL} is spoken here: offer it, or none.",
        )
    with bound_ids(service=principal.service):
        await socket.accept(subprotocol=SUBSCRIBER_SUBPROTOCOL if extensions else None)
        if handle.websocket is None:
            return None  # left while it was being answered
        conversation, renew = spoken(principal, extensions=extensions)
        session = ServiceSession(
            handle.websocket,
            conversation,
            owner=principal.service,
            expires_at=principal.expires_at,
            renew=renew,
        )
        metrics.subscriber_came(door)
        try:
            await session.run()
        finally:
            metrics.subscriber_left(door)
    return None


async def renewed_principal(
    gate: InternalGate, before: ServicePrincipal, token: str, *, may: Check
) -> ServicePrincipal:
    """Whose newer token this is: the same service's. Raises `Forbidden`, `Unauthenticated`, `RoutingUnavailable`."""
    after = await gate.renewed(token)
    may(after)
    if after.service != before.service:
        raise Forbidden("The newer token is of another service.")
    return after
