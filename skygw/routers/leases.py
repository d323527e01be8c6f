"""The manual control lease, as hub services and operators ask for it (contract §6)."""

from uuid import UUID

from quart import Response, request
from quart_trio import QuartTrio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.control.lease import LeaseProof, LeaseQuery, LeaseWish
from skygw.control.leases import LeaseService
from skygw.conversations.callers import holder_of
from skygw.errors import NotFound
from skygw.ids import LeaseId
from skygw.resources import ResourceKind
from skygw.routers.gates import InternalGate
from skygw.routers.json_answers import asked_flag, asked_page, body_bytes, json_answer, page_answer
from skygw.routers.lease_bodies import AcquireBody, BreakBody, ProofBody, RenewBody, lease_view
from skygw.routers.schemas import invalid, read_body


class LeaseRouter:
    """Every route wants a service token with the scope named beside it."""

    def __init__(self, *, gate: InternalGate, leases: LeaseService) -> None:
        self._gate = gate
        self._leases = leases

    def add_to(self, app: QuartTrio) -> None:
        add = app.add_url_rule
        add("/internal/leases", "lease_acquire", self.acquire, methods=["POST"])
        add("/internal/leases", "lease_page", self.page)
        add("/internal/leases/<lease_id>", "lease", self.lease)
        add("/internal/leases/<lease_id>/renew", "lease_renew", self.renew, methods=["POST"])
        add("/internal/leases/<lease_id>/release", "lease_release", self.release, methods=["POST"])
        add("/internal/leases/<lease_id>/break", "lease_break", self.break_off, methods=["POST"])

    async def _service(self, scope: Scope) -> ServicePrincipal:
        principal = await self._gate.service(request.scope)
        principal.require(scope)
        return principal

    async def acquire(self) -> Response:
        """`POST /internal/leases` (`nodes:command`)."""
        principal = await self._service(Scope.NODES_COMMAND)
        body = read_body(AcquireBody, await body_bytes())
        target = body.telescope_uid or body.device_uid
        if target is None:
            raise RuntimeError("a body without a target is invalid")
        wish = LeaseWish(
            target=target,
            kind=ResourceKind.DEVICE if body.telescope_uid is None else ResourceKind.TELESCOPE,
            lease_uid=body.lease_uid,
            holder=holder_of(principal, body.actor),
            terms=body.terms,
            while_task=body.while_task,
        )
        control, is_new = await self._leases.acquire(wish)
        return json_answer(lease_view(control, lease_uid=body.lease_uid), 201 if is_new else 200)

    async def page(self) -> Response:
        """`GET /internal/leases` (`nodes:read`), the newest first; filters `telescopeUid`, `deviceUid`, `held`."""
        await self._service(Scope.NODES_READ)
        page, size = asked_page(50)
        query = LeaseQuery(
            page=page,
            size=size,
            target=_asked_target(),
            held=asked_flag("held") if "held" in request.args else None,
        )
        found, total = await self._leases.page(query)
        return page_answer([lease_view(control) for control in found], total, page, size)

    async def lease(self, lease_id: str) -> Response:
        """`GET /internal/leases/{id}` (`nodes:read`)."""
        await self._service(Scope.NODES_READ)
        return json_answer(lease_view(await self._leases.get(_lease_id(lease_id))))

    async def renew(self, lease_id: str) -> Response:
        """`POST /internal/leases/{id}/renew` (`nodes:command`), by its holder."""
        principal = await self._service(Scope.NODES_COMMAND)
        body = read_body(RenewBody, await body_bytes())
        wanted, terms = _lease_id(lease_id), None
        if body.duration_s is not None:
            lease = (await self._leases.get(wanted)).lease
            terms = None if lease is None else body.terms(lease.terms)
        return json_answer(lease_view(await self._leases.renew(wanted, _proof(principal, body), terms)))

    async def release(self, lease_id: str) -> Response:
        """`POST /internal/leases/{id}/release` (`nodes:command`), by its holder; again is no mistake."""
        principal = await self._service(Scope.NODES_COMMAND)
        body = read_body(ProofBody, await body_bytes())
        return json_answer(lease_view(await self._leases.release(_lease_id(lease_id), _proof(principal, body))))

    async def break_off(self, lease_id: str) -> Response:
        """`POST /internal/leases/{id}/break` (`nodes:admin`): control is taken from its holder. Again is no mistake."""
        principal = await self._service(Scope.NODES_ADMIN)
        body = read_body(BreakBody, await body_bytes())
        by = holder_of(principal, body.actor)
        return json_answer(lease_view(await self._leases.break_off(_lease_id(lease_id), by, body.reason)))


def _proof(principal: ServicePrincipal, body: ProofBody) -> LeaseProof:
    return LeaseProof(holder_of(principal, body.actor), body.lease_uid)


def _lease_id(text: str) -> LeaseId:
    try:
        return LeaseId(UUID(text))
    except ValueError:
        raise NotFound(f"{text[:64]!r} is not the id of a lease: it is a UUID.") from None


def _asked_target() -> UUID | None:
    for name in ("telescopeUid", "deviceUid"):
        if name in request.args:
            try:
                return UUID(request.args[name])
            except ValueError:
                raise invalid(f"{name} must be a UUID.", "query", name) from None
    return None
