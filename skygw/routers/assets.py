"""Assets, as installations declare them and hub services ask for them (contract §4, §6), but for their bytes."""

from quart import Response, request
from quart_trio import QuartTrio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.control.asset_calls import AssetCalls
from skygw.nodes.ports import Binding
from skygw.observability.tracing import Trace
from skygw.observing.assets import AssetQuery, AssetRole, AssetService, TransferState
from skygw.routers.asked import asked_moment, asked_uid, asked_word
from skygw.routers.asset_bodies import AssetBody, declared_view, hub_view, own_view
from skygw.routers.gates import InternalGate, NodeGate
from skygw.routers.json_answers import asked_page, body_bytes, json_answer, page_answer
from skygw.routers.schemas import read_body


class NodeAssetRouter:
    """Every route shows an installation what it has declared itself; anything else is 404."""

    def __init__(self, *, gate: NodeGate, assets: AssetService) -> None:
        self._gate = gate
        self._assets = assets

    def add_to(self, app: QuartTrio) -> None:
        add = app.add_url_rule
        add("/v1/nodes/me/assets", "asset_declare", self.declare, methods=["POST"])
        add("/v1/nodes/me/assets", "asset_page", self.page)
        add("/v1/nodes/me/assets/<asset_id>", "asset", self.asset)

    async def _binding(self) -> Binding:
        return (await self._gate.admitted(await self._gate.verified(request.scope))).binding

    async def declare(self) -> Response:
        """`POST /v1/nodes/me/assets`."""
        binding = await self._binding()
        body = read_body(AssetBody, await body_bytes())
        declared = await self._assets.declare(binding.install_id, binding.telescopes, body.declaration())
        created = declared.is_new and declared.asset.arrived_at is None
        return json_answer(declared_view(declared.asset), 201 if created or declared.is_to_be_sent else 200)

    async def page(self) -> Response:
        """`GET /v1/nodes/me/assets`; filters `taskUid`, `transferState`."""
        binding = await self._binding()
        page, size = asked_page(50)
        query = AssetQuery(
            page=page,
            size=size,
            install_id=binding.install_id,
            task_uid=asked_uid("taskUid"),
            state=asked_word("transferState", TransferState),
        )
        found, total = await self._assets.page(query)
        return page_answer([own_view(asset) for asset in found], total, page, size)

    async def asset(self, asset_id: str) -> Response:
        """`GET /v1/nodes/me/assets/{id}`, by uid or the hub's integer key."""
        binding = await self._binding()
        return json_answer(own_view(await self._assets.get(asset_id, install_id=binding.install_id)))


class InternalAssetRouter:
    """Every route wants a service token with the scope named beside it."""

    def __init__(self, *, gate: InternalGate, assets: AssetService, calls: AssetCalls) -> None:
        self._gate = gate
        self._assets = assets
        self._calls = calls

    def add_to(self, app: QuartTrio) -> None:
        add = app.add_url_rule
        add("/internal/assets", "asset_page", self.page)
        add("/internal/assets/<asset_id>", "asset", self.asset)
        add("/internal/assets/<asset_id>/transfer", "asset_transfer", self.transfer, methods=["POST"])

    async def _service(self, scope: Scope) -> ServicePrincipal:
        principal = await self._gate.service(request.scope)
        principal.require(scope)
        return principal

    async def page(self) -> Response:
        """`GET /internal/assets` (`assets:read`), the newest first."""
        await self._service(Scope.ASSETS_READ)
        page, size = asked_page(50)
        query = AssetQuery(
            page=page,
            size=size,
            task_uid=asked_uid("taskUid"),
            observation_uid=asked_uid("observationUid"),
            result_uid=asked_uid("resultUid"),
            role=asked_word("role", AssetRole),
            state=asked_word("transferState", TransferState),
            created_after=asked_moment("createdAfter"),
        )
        found, total = await self._assets.page(query)
        return page_answer([hub_view(asset) for asset in found], total, page, size)

    async def asset(self, asset_id: str) -> Response:
        """`GET /internal/assets/{id}` (`assets:read`), by uid or the hub's integer key."""
        await self._service(Scope.ASSETS_READ)
        return json_answer(hub_view(await self._assets.get(asset_id)))

    async def transfer(self, asset_id: str) -> Response:
        """`POST /internal/assets/{id}/transfer` (`nodes:call`): its node is asked, and answers when it will send it."""
        principal = await self._service(Scope.NODES_CALL)
        asset = await self._assets.get(asset_id)
        if asset.arrived_at is not None:
            return json_answer(hub_view(asset))
        wanted = await self._assets.want(asset)
        trace = Trace.parent(request.headers.get("traceparent"))
        await self._calls.ask_for(wanted, service=principal.service, traceparent=trace.traceparent)
        return json_answer(hub_view(await self._assets.get(asset_id)), 202)
