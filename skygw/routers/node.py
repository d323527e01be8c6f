"""What an installation asks over HTTP: `/v1/nodes/*` (contract §4)."""

from quart import Response, request
from quart_trio import QuartTrio

from skygw.protocol.frame import write_body
from skygw.routers.gates import NodeGate
from skygw.routers.problems import JSON_TYPE
from skygw.routers.schemas import InstallationView


class NodeRouter:
    """Every route here is authenticated as an installation and shows what is bound to it, nothing else."""

    def __init__(self, *, gate: NodeGate) -> None:
        self._gate = gate

    def add_to(self, app: QuartTrio) -> None:
        app.add_url_rule("/v1/nodes/me", "me", self.me)

    async def me(self) -> Response:
        """`GET /v1/nodes/me`: the installation, its binding, what it may do."""
        principal = await self._gate.verified(request.scope)
        installation = await self._gate.admitted(principal)
        binding = installation.binding
        view = InstallationView(
            uid=binding.install_id,
            name=binding.name,
            node_type=binding.node_type,
            telescope_uid=installation.telescope_uid,
            observatory_uid=binding.observatory_uid,
            telescopes=sorted(binding.telescopes),
            devices=sorted(binding.devices),
            may=["connect"],
        )
        return Response(write_body(view), 200, {"content-type": JSON_TYPE})
