"""`/internal/ws/commands`: the published command protocol for hub services (contract §6)."""

from functools import partial

from quart import Response
from quart_trio import QuartTrio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.control.commands import CommandService
from skygw.control.direct_rpc import DirectRpc
from skygw.control.leases import LeaseService
from skygw.control.order import Budget
from skygw.control.published_leases import PublishedLeases
from skygw.conversations.commands import CommandConversation
from skygw.conversations.direct import DirectRequests
from skygw.conversations.orders import Orders
from skygw.conversations.session import Renew
from skygw.conversations.streams import Subscriptions
from skygw.errors import Forbidden
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.ports import InstallationDirectory
from skygw.protocol.schemas import COMMAND_SOCKET_PATH
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.routers.gates import InternalGate
from skygw.routers.lookup import find_install_id
from skygw.routers.service_sockets import SubscriberMetrics, renewed_principal, serve_socket
from skygw.routers.ws import upgrade_required
from skygw.telemetry.dialects import AS_PUBLISHED, WITH_EXTENSIONS
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.outlet import SubscriberOutlet

SCOPES = (Scope.NODES_COMMAND, Scope.STREAMS_READ, Scope.NODES_CALL)
"""One of them opens the socket; each frame wants its own."""


class CommandSocketRouter:
    """The socket wants a service token with one of `SCOPES`."""

    def __init__(
        self,
        *,
        gate: InternalGate,
        hub: StreamHub,
        commands: CommandService,
        leases: LeaseService,
        rpc: DirectRpc,
        registry: ConnectionRegistry,
        directory: InstallationDirectory,
        metrics: SubscriberMetrics,
        command_budget: Budget,
        direct_budget: Budget,
    ) -> None:
        self._gate = gate
        self._hub = hub
        self._commands = commands
        self._leases = PublishedLeases(leases)
        self._rpc = rpc
        self._registry = registry
        self._directory = directory
        self._metrics = metrics
        self._command_budget = command_budget
        self._direct_budget = direct_budget

    def add_to(self, app: QuartTrio) -> None:
        app.add_websocket(COMMAND_SOCKET_PATH, "command_socket", self.command_socket)
        app.add_url_rule(COMMAND_SOCKET_PATH, "command_socket_plain", self.command_socket_plain)

    async def command_socket_plain(self) -> Response:
        """A request that does not ask for a WebSocket."""
        return upgrade_required(f"This is a WebSocket: ask for an upgrade; {SUBSCRIBER_SUBPROTOCOL} may be offered.")

    async def command_socket(self) -> Response | None:
        return await serve_socket(self._gate, self._metrics, door="commands", may=_may_enter, spoken=self._spoken)

    def _spoken(self, principal: ServicePrincipal, *, extensions: bool) -> tuple[CommandConversation, Renew]:
        outlet = SubscriberOutlet(WITH_EXTENSIONS if extensions else AS_PUBLISHED, owner=principal.service)
        conversation = CommandConversation(
            principal,
            outlet=outlet,
            orders=Orders(self._commands, self._leases, outlet, budget=self._command_budget, extensions=extensions),
            direct=DirectRequests(
                self._rpc,
                partial(find_install_id, registry=self._registry, directory=self._directory),
                outlet,
                budget=self._direct_budget,
                binary=extensions,
            ),
            subscriptions=Subscriptions(self._hub, outlet),
        )

        async def renew(token: str) -> float:
            conversation.principal = await renewed_principal(self._gate, conversation.principal, token, may=_may_enter)
            return conversation.principal.expires_at

        return conversation, renew


def _may_enter(principal: ServicePrincipal) -> None:
    """Also whoever is believed for safing alone: each frame is asked for its scope. Raises `Forbidden`."""
    if not principal.scopes.intersection(SCOPES):
        named = ", ".join(f"“{scope}”" for scope in SCOPES)
        raise Forbidden(
            f"The token has none of the scopes {named}.", details={"missingScopes": [scope.value for scope in SCOPES]}
        )
