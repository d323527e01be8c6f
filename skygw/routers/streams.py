"""`/internal/ws/stream`: the published stream protocol for hub services (contract §6)."""

from quart import Response
from quart_trio import QuartTrio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.conversations.session import Renew
from skygw.conversations.streams import StreamConversation
from skygw.protocol.schemas import STREAM_SOCKET_PATH
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.routers.gates import InternalGate
from skygw.routers.service_sockets import SubscriberMetrics, renewed_principal, serve_socket
from skygw.routers.ws import upgrade_required
from skygw.telemetry.hub import StreamHub


class StreamRouter:
    """The socket wants a service token with `streams:read`."""

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
        return await serve_socket(self._gate, self._metrics, door="websocket", may=_may_read, spoken=self._spoken)

    def _spoken(self, principal: ServicePrincipal, *, extensions: bool) -> tuple[StreamConversation, Renew]:
        async def renew(token: str) -> float:
            return (await renewed_principal(self._gate, principal, token, may=_may_read)).expires_at

        return StreamConversation(self._hub, owner=principal.service, extensions=extensions), renew


def _may_read(principal: ServicePrincipal) -> None:
    principal.require(Scope.STREAMS_READ)
