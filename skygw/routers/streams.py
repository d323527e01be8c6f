"""`/internal/ws/stream`: the published stream protocol for hub services (contract §6)."""

from typing import Any, Protocol, cast

from quart import Response, Websocket
from quart_trio import QuartTrio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.conversations.session import ServiceSession
from skygw.conversations.streams import StreamConversation
from skygw.errors import Forbidden, GatewayError
from skygw.observability.logs import bound_ids
from skygw.observability.metrics import Door
from skygw.protocol.schemas import STREAM_SOCKET_PATH
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.routers.gates import InternalGate
from skygw.routers.problems import problem
from skygw.routers.ws import current_websocket, subprotocol_required, upgrade_required
from skygw.serving.handle import EXTENSION, ConnectionHandle
from skygw.telemetry.hub import StreamHub


class SubscriberMetrics(Protocol):
    """What the doors of the streams count. Cheap; never raises."""

    def subscriber_came(self, door: Door) -> None: ...

    def subscriber_left(self, door: Door) -> None: ...


class StreamRouter:
    """The socket wants a service token with `streams:read`, and the subprotocol or none: whoever offers another means
    a protocol that is not spoken here.
    """

    def __init__(self, *, gate: InternalGate, hub: StreamHub, metrics: SubscriberMetrics) -> None:
        self._gate = gate
        self._hub = hub
        self._metrics = metrics

    def add_to(self, app: QuartTrio) -> None:
        app.add_websocket(STREAM_SOCKET_PATH, "stream_socket", self.stream_socket)
        app.add_url_rule(STREAM_SOCKET_PATH, "stream_socket_plain", self.stream_socket_plain)

    async def stream_socket_plain(self) -> Response:
        """A request that does not ask for a WebSocket."""
        return upgrade_required(f"This is a WebSocket: ask for an upgrade; {SUBSCRIBER_SUBPROTOCOL} may be offered.")

    async def stream_socket(self) -> Response | None:
        socket: Websocket = current_websocket()
        scope = cast("dict[str, Any]", socket.scope)
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        try:
            principal = await self._gate.service(scope)
            principal.require(Scope.STREAMS_READ)
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
            session = ServiceSession(
                handle.websocket,
                StreamConversation(self._hub, owner=principal.service, extensions=extensions),
                owner=principal.service,
                expires_at=principal.expires_at,
                renew=lambda token: self._renewed(principal, token),
            )
            self._metrics.subscriber_came("websocket")
            try:
                await session.run()
            finally:
                self._metrics.subscriber_left("websocket")
        return None

    async def _renewed(self, before: ServicePrincipal, token: str) -> float:
        after = await self._gate.renewed(token)
        after.require(Scope.STREAMS_READ)
        if after.service != before.service:
            raise Forbidden("The newer token is of another service.")
        return after.expires_at
