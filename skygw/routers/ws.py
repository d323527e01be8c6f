"""The node socket as a Quart-Trio WebSocket: handshake refusals, then one session (contract §5)."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, cast

from quart import Response, Websocket, websocket
from quart_trio import QuartTrio

from skygw.errors import Draining, GatewayError, Invalid
from skygw.ids import InstallId
from skygw.nodes.admission import Arrival, NodeDoor
from skygw.nodes.connection_registry import ConnectionRegistry, Refusal
from skygw.nodes.ports import SessionMetrics
from skygw.observability.logs import bound_ids
from skygw.protocol.schemas import SUBPROTOCOL
from skygw.routers.gates import NodeGate
from skygw.routers.problems import JSON_TYPE, problem, problem_body, status_of
from skygw.serving.handle import EXTENSION, ConnectionHandle

log = logging.getLogger("skygw.routers")


def current_websocket() -> Websocket:
    """The WebSocket of this handler itself: the proxy is dead outside the handler's context."""
    return cast("Websocket", cast("Any", websocket)._get_current_object())  # noqa: SLF001 - werkzeug's documented way


def _problem_text(sentence: str) -> bytes:
    """The members of every problem, for what has a status and no reason of its own."""
    return json.dumps({**problem_body(Invalid(sentence), None), "detail": sentence}).encode()


def upgrade_required(sentence: str) -> Response:
    """426, for a plain request where a WebSocket is."""
    headers = {"content-type": JSON_TYPE, "upgrade": "websocket", "connection": "upgrade"}
    return Response(_problem_text(sentence), 426, headers)


def subprotocol_required(subprotocol: str, sentence: str) -> Response:
    """426, for a WebSocket that offers none of the subprotocols spoken here."""
    return Response(_problem_text(sentence), 426, {"content-type": JSON_TYPE, "sec-websocket-protocol": subprotocol})


class SocketRouter:
    """`/v1/ws/node`."""

    def __init__(
        self, *, gate: NodeGate, door: NodeDoor, registry: ConnectionRegistry, metrics: SessionMetrics
    ) -> None:
        self._gate = gate
        self._door = door
        self._registry = registry
        self._metrics = metrics

    def add_to(self, app: QuartTrio) -> None:
        app.add_websocket("/v1/ws/node", "node_socket", self.node_socket)
        app.add_url_rule("/v1/ws/node", "node_socket_plain", self.node_socket_plain)

    async def node_socket_plain(self) -> Response:
        """A request that does not ask for a WebSocket."""
        return upgrade_required(f"This is a WebSocket: ask for an upgrade and offer {SUBPROTOCOL}.")

    async def node_socket(self) -> Response | None:
        socket: Websocket = current_websocket()
        scope: dict[str, Any] = cast("dict[str, Any]", socket.scope)
        address = self._gate.address(scope)
        if SUBPROTOCOL not in socket.requested_subprotocols:
            self._metrics.node_refused("subprotocol")
            return subprotocol_required(SUBPROTOCOL, f"The subprotocol {SUBPROTOCOL} must be offered.")
        install_id: InstallId | None = None
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        try:
            await self._door.handshakes.turn(lambda: handle.is_open)
            principal = await self._gate.verified(scope)
            install_id = principal.install_id
            installation = await self._gate.admitted(principal)
            if self._door.draining:
                raise Draining("This gateway is draining; connect again soon.", retry_after_s=1.0)
        except GatewayError as error:
            self._note(install_id, error, address)
            status, headers, text = problem(error)
            return Response(text, status, dict(headers))
        with bound_ids(install_id=install_id):
            await socket.accept(subprotocol=SUBPROTOCOL)
            if handle.websocket is None:
                return None  # left while it was being answered
            link = handle.websocket  # from here on by itself: a session wants more of it than ASGI has words for
            await self._door.serve(
                Arrival(
                    link=link,
                    binding=installation.binding,
                    token_expires_at=principal.expires_at,
                    token_to_recheck=self._gate.token_to_recheck(scope),
                    address=address,
                )
            )
        return None

    def _note(self, install_id: InstallId | None, error: GatewayError, address: str) -> None:
        self._metrics.node_refused(error.reason)
        known = {} if install_id is None else {"install_id": str(install_id)}
        log.info("node refused", extra={"reason": error.reason, "address": address, **known})
        if install_id is not None:
            self._registry.refused(install_id, Refusal(datetime.now(UTC), status_of(error), error.reason, address))
