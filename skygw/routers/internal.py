"""What hub services and operators ask: `/internal/*` (contract §6), but for direct requests (`direct.py`)."""

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from quart import Response, request
from quart_trio import QuartTrio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.control.commands import CommandService
from skygw.control.direct_rpc import DirectRpc
from skygw.control.ledger import ENDS, OUTCOMES, CommandQuery, CommandRecord, CommandState
from skygw.control.order import Budget, order_of
from skygw.control.receipts import receipt_of
from skygw.conversations.callers import caller_of, canceler_of
from skygw.errors import GatewayError, NodeOffline, NotFound, RoutingUnavailable
from skygw.ids import CommandId, RequestId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.loopback import LOOPBACK_ID
from skygw.nodes.ports import EpochLedger, InstallationDirectory
from skygw.observability.tracing import Trace
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.safing import is_safing
from skygw.routers.command_bodies import misfit, read_cancel, read_command, read_resolve
from skygw.routers.gates import InternalGate
from skygw.routers.json_answers import asked_flag, asked_page, body_bytes, json_answer, page_answer
from skygw.routers.lookup import find_install_id
from skygw.routers.problems import JSON_TYPE
from skygw.routers.quart_http import outlive_the_caller, until_the_caller_leaves
from skygw.routers.schemas import TransferBody, invalid, read_body
from skygw.routers.views import call_view, command_view, node_view, receipt_view, validation_view
from skygw.telemetry.retained import RetainedValues

ENDS_BY_WORD: dict[str, CommandState] = {OUTCOMES[end].value: end for end in ENDS}
"""What an administrator may say became of a command, as the state it then has."""


class InternalRouter:
    """Every route wants a service token with the scope named beside it."""

    def __init__(
        self,
        *,
        gate: InternalGate,
        registry: ConnectionRegistry,
        directory: InstallationDirectory,
        epochs: EpochLedger,
        rpc: DirectRpc,
        commands: CommandService,
        snapshots: RetainedValues,
        start_drain: Callable[[], None],
        budget: Budget,
    ) -> None:
        self._gate = gate
        self._registry = registry
        self._directory = directory
        self._epochs = epochs
        self._rpc = rpc
        self._commands = commands
        self._snapshots = snapshots
        self._start_drain = start_drain
        self._budget = budget

    def add_to(self, app: QuartTrio) -> None:
        add = app.add_url_rule
        add("/internal/nodes", "nodes", self.nodes)
        add("/internal/nodes/<id>", "node", self.node)
        add("/internal/nodes/<id>/disconnect", "disconnect", self.disconnect, methods=["POST"])
        add("/internal/nodes/<id>/transfer", "transfer", self.transfer, methods=["POST"])
        add("/internal/calls/<request_id>", "call", self.call)
        add("/internal/commands", "command_submit", self.command_submit, methods=["POST"])
        add("/internal/commands", "command_page", self.command_page)
        add("/internal/commands/<command_id>", "command", self.command)
        add("/internal/commands/<command_id>/cancel", "command_cancel", self.command_cancel, methods=["POST"])
        add("/internal/commands/<command_id>/resolve", "command_resolve", self.command_resolve, methods=["POST"])
        add("/internal/drain", "drain", self.drain, methods=["POST"])

    async def _service(self, scope: Scope) -> ServicePrincipal:
        principal = await self._gate.service(request.scope)
        principal.require(scope)
        return principal

    # Nodes.

    async def nodes(self) -> Response:
        """`GET /internal/nodes` (`nodes:read`). With `connected=true` it is answered from memory alone: whoever stops
        everything must not have to wait for the database.
        """
        principal = await self._gate.service(request.scope)
        principal.require_for_safing(Scope.NODES_READ)
        page, size = asked_page(50)
        if asked_flag("connected"):
            return self._connected_nodes(page, size)
        principal.require(Scope.NODES_READ)
        found, total = await self._directory.list_page(page=page, size=size)
        items = [
            node_view(
                installation.binding,
                key=installation.id,
                session=self._registry.current(installation.binding.install_id),
                memory=self._registry.memory(installation.binding.install_id),
                snapshots=self._snapshots,
            )
            for installation in found
        ]
        return page_answer(items, total, page, size)

    def _connected_nodes(self, page: int, size: int) -> Response:
        sessions = sorted(
            (session for session in self._registry if session.binding.install_id != LOOPBACK_ID),
            key=lambda session: session.binding.install_id,
        )
        items = [
            node_view(
                session.binding,
                key=None,
                session=session,
                memory=self._registry.memory(session.binding.install_id),
                snapshots=self._snapshots,
            )
            for session in sessions[(page - 1) * size : page * size]
        ]
        return page_answer(items, len(sessions), page, size)

    async def node(self, id: str) -> Response:  # noqa: A002 - the path's name for it
        """`GET /internal/nodes/{id}` (`nodes:read`). A connected node is shown without the database, but for `id`."""
        await self._service(Scope.NODES_READ)
        install_id = await find_install_id(id, registry=self._registry, directory=self._directory)
        try:
            installation = await self._directory.find(install_id)
        except RoutingUnavailable:
            if self._registry.current(install_id) is None:
                raise
            installation = None
        session = self._registry.current(install_id)
        if session is not None:
            binding = session.binding
        elif installation is not None:
            binding = installation.binding
        else:
            raise NotFound("No such installation.")
        view = node_view(
            binding,
            key=None if installation is None else installation.id,
            session=session,
            memory=self._registry.memory(install_id),
            snapshots=self._snapshots,
        )
        return json_answer(view)

    async def disconnect(self, id: str) -> Response:  # noqa: A002
        """`POST /internal/nodes/{id}/disconnect` (`nodes:admin`). The node comes back by itself."""
        await self._service(Scope.NODES_ADMIN)
        install_id = await find_install_id(id, registry=self._registry, directory=self._directory)
        session = self._registry.current(install_id)
        if session is None:
            raise NodeOffline("This installation is not connected.")
        session.end(CloseCode.DRAINING, "disconnected by an administrator")
        return Response("", 204)

    async def transfer(self, id: str) -> Response:  # noqa: A002
        """`POST /internal/nodes/{id}/transfer` (`nodes:admin`): another machine takes the installation over."""
        await self._service(Scope.NODES_ADMIN)
        body = read_body(TransferBody, await body_bytes())
        install_id = await find_install_id(id, registry=self._registry, directory=self._directory)
        await self._epochs.transfer(install_id, body.instance_uid)
        rival = self._registry.rival(install_id, body.instance_uid)
        if rival is not None:
            rival.end(CloseCode.SUPERSEDED, "an administrator transferred this installation to another machine")
        return Response("", 204)

    async def call(self, request_id: str) -> Response:
        """`GET /internal/calls/{requestId}` (`nodes:call`): what became of one's own direct request, for 60 s."""
        principal = await self._service(Scope.NODES_CALL)
        record = self._rpc.log.find(principal.service, RequestId(request_id))
        if record is None:
            raise NotFound("No direct request of yours with this id is known; they are kept for 60 s.")
        return json_answer(call_view(record))

    # Commands.

    async def command_submit(self) -> Response:
        """`POST /internal/commands` (`nodes:command`). Goes on when its caller leaves, unless `onCallerGone` says
        otherwise.
        """
        outlive_the_caller()
        principal = await self._gate.service(request.scope)
        principal.require_for_safing(Scope.NODES_COMMAND)
        body = read_command(await body_bytes())
        caller = caller_of(principal, body.actor)
        order = order_of(
            body,
            caller,
            budget=self._budget,
            traceparent=Trace.parent(request.headers.get("traceparent")).traceparent,
        )
        if not is_safing(order.command_type):
            principal.require(Scope.NODES_COMMAND)
        wrong = misfit(body)
        if body.validate_only:
            refusals, duplicate = await self._commands.validate(order)
            found = [*([] if wrong is None else [wrong]), *refusals]
            return json_answer(validation_view(order.command_id, found, duplicate=duplicate))
        if wrong is not None:
            raise wrong
        record, duplicate = await self._commands.submit(order)
        if body.on_caller_gone == "cancel":
            with until_the_caller_leaves() as wait:
                record = await self._waited(record, body.wait_s)
            if wait.cancelled_caught:
                with suppress(GatewayError):  # then the node runs its link-loss policy
                    await self._commands.cancel(order.command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=caller)
        else:
            record = await self._waited(record, body.wait_s)
        return json_answer(command_view(record, duplicate=duplicate), 200 if record.state in ENDS else 202)

    async def command_page(self) -> Response:
        """`GET /internal/commands` (`nodes:read`), the newest first; filters `state`, `installId`."""
        await self._service(Scope.NODES_READ)
        page, size = asked_page(50)
        state = request.args.get("state")
        if state is not None and state not in {known.value for known in CommandState}:
            raise invalid(f"state must be one of {', '.join(CommandState)}.", "query", "state")
        install_id = request.args.get("installId")
        query = CommandQuery(
            page=page,
            size=size,
            state=None if state is None else CommandState(state),
            install_id=None
            if install_id is None
            else await find_install_id(install_id, registry=self._registry, directory=self._directory),
        )
        records, total = await self._commands.page(query)
        return page_answer([command_view(record) for record in records], total, page, size)

    async def command(self, command_id: str) -> Response:
        """`GET /internal/commands/{id}` (`nodes:read`)."""
        await self._service(Scope.NODES_READ)
        return json_answer(command_view(await self._commands.get(_command_id(command_id))))

    async def command_cancel(self, command_id: str) -> Response:
        """`POST /internal/commands/{id}/cancel` (`nodes:command`): safing; answers with a receipt."""
        outlive_the_caller()
        principal = await self._gate.service(request.scope)
        principal.require_for_safing(Scope.NODES_COMMAND)
        body = read_cancel(await body_bytes())
        wanted, by = _command_id(command_id), canceler_of(principal, body.actor)
        cancellation = await self._commands.cancel(wanted, mode=body.mode, grace_s=body.grace_s, by=by)
        record = cancellation.record
        if cancellation.met != "before_start" and record is not None:
            record = await self._waited(record, body.wait_s, for_cancel=True)
        return json_answer(receipt_view(wanted, receipt_of(cancellation, record)))

    async def command_resolve(self, command_id: str) -> Response:
        """`POST /internal/commands/{id}/resolve` (`nodes:admin`): closes what is unknown; answers with the record."""
        outlive_the_caller()
        principal = await self._service(Scope.NODES_ADMIN)
        body = read_resolve(await body_bytes())
        record = await self._commands.resolve(
            _command_id(command_id), ENDS_BY_WORD[body.outcome], reason=body.reason, by=caller_of(principal, body.actor)
        )
        return json_answer(command_view(record))

    async def _waited(self, record: CommandRecord, wait_s: float, *, for_cancel: bool = False) -> CommandRecord:
        """The record after a wait for its end. What was sent stays sent: a ledger that is away meanwhile makes the
        answer older, not an error.
        """
        if wait_s > 0 and record.state not in ENDS:
            with suppress(RoutingUnavailable):
                return await self._commands.wait(record.command_id, wait_s, for_cancel=for_cancel)
        return record

    async def drain(self) -> Response:
        """`POST /internal/drain` (`nodes:admin`): stop accepting, say goodbye, end."""
        await self._service(Scope.NODES_ADMIN)
        self._start_drain()
        return Response('{"draining":true}', 202, {"content-type": JSON_TYPE})


def _command_id(text: str) -> CommandId:
    try:
        return CommandId(UUID(text))
    except ValueError:
        raise NotFound(f"{text[:64]!r} is not the id of a command: it is a UUID.") from None
