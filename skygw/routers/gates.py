"""Who may come in by which door: networks, tokens, and the hub's word on an installation (contract §1, §2)."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from skygw.auth.networks import Network, allowed, client_address
from skygw.auth.principals import NodePrincipal, ServicePrincipal
from skygw.auth.tokens import bearer_token
from skygw.errors import Forbidden, RoutingUnavailable, Unauthenticated
from skygw.ids import InstallId
from skygw.nodes.connection_registry import REMEMBERED_INSTALLATIONS
from skygw.nodes.ports import InstallationDirectory, InstallationRecord

Scope = Mapping[str, Any]
"""An ASGI scope."""


class TokenVerifier(Protocol):
    """Raises `Unauthenticated`, `Forbidden`, or `RoutingUnavailable` when nobody can say."""

    async def node(self, token: str) -> NodePrincipal: ...

    async def service(self, token: str) -> ServicePrincipal: ...

    def asks_issuer(self, token: str) -> bool: ...

    async def issuer_reachable(self) -> bool: ...


def headers_of(scope: Scope, name: bytes) -> list[str]:
    """All values of one header, in order. `name` in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _token(scope: Scope) -> str:
    values = headers_of(scope, b"authorization")
    if len(values) > 1:
        raise Unauthenticated("More than one Authorization header was sent.")
    return bearer_token(values[0] if values else None)


class Door:
    """What both gates know: where a request really comes from."""

    def __init__(self, *, trusted_proxies: Collection[Network]) -> None:
        self._trusted_proxies = trusted_proxies

    def address(self, scope: Scope) -> str:
        """The client's address as far as trusted proxies vouch for it, for people to read."""
        found = self._client(scope)
        return "unknown" if found is None else str(found)

    def _client(self, scope: Scope) -> Any:
        peer = (scope.get("client") or ("",))[0]
        return client_address(peer, headers_of(scope, b"x-forwarded-for"), self._trusted_proxies)


class InternalGate(Door):
    """Lets services in: by network, then by token."""

    def __init__(
        self, *, verifier: TokenVerifier, networks: Collection[Network], trusted_proxies: Collection[Network]
    ) -> None:
        super().__init__(trusted_proxies=trusted_proxies)
        self._verifier = verifier
        self._networks = networks

    def check_network(self, scope: Scope) -> None:
        """Raises `Forbidden` for an address outside the allowed networks."""
        address = self._client(scope)
        if not allowed(address, self._networks):
            raise Forbidden(f"The address {self.address(scope)} is outside the networks that may call this listener.")

    async def service(self, scope: Scope) -> ServicePrincipal:
        """Raises `Forbidden`, `Unauthenticated`, `RoutingUnavailable`."""
        self.check_network(scope)
        return await self._verifier.service(_token(scope))

    async def renewed(self, token: str) -> ServicePrincipal:
        """Whose newer token this is, sent on a socket that is open. Raises as `service` does."""
        return await self._verifier.service(token)


class NodeGate(Door):
    """Lets installations in: by token, then by the hub's record."""

    def __init__(
        self, *, verifier: TokenVerifier, directory: InstallationDirectory, trusted_proxies: Collection[Network]
    ) -> None:
        super().__init__(trusted_proxies=trusted_proxies)
        self._verifier = verifier
        self._directory = directory
        self._last_known: OrderedDict[InstallId, InstallationRecord] = OrderedDict()

    async def verified(self, scope: Scope) -> NodePrincipal:
        """Whose token this is. Raises `Unauthenticated`, `Forbidden`, `RoutingUnavailable`."""
        return await self._verifier.node(_token(scope))

    def token_to_recheck(self, scope: Scope) -> str | None:
        """The token, if only its issuer knows whether it still holds; it was verified before."""
        token = _token(scope)
        return token if self._verifier.asks_issuer(token) else None

    async def admitted(self, principal: NodePrincipal) -> InstallationRecord:
        """The hub's record of the installation; the last one seen while the database is away, because a node that lost
        its link must be reachable for a stop. Raises `Forbidden` when it may not connect, `RoutingUnavailable`.
        """
        install_id = principal.install_id
        try:
            installation = await self._directory.find(install_id)
        except RoutingUnavailable:
            if install_id not in self._last_known:
                raise
            return self._last_known[install_id]
        self._last_known.pop(install_id, None)
        if installation is None:
            raise Forbidden(f"No installation {install_id} is known.")
        if installation.refusal is not None:
            raise Forbidden(installation.refusal)
        self._last_known[install_id] = installation
        if len(self._last_known) > REMEMBERED_INSTALLATIONS:
            self._last_known.popitem(last=False)
        return installation

    async def install_id(self, scope: Scope) -> InstallId:
        """Whose request this is, if its installation may be here; what it controls is not looked up, which costs more
        than many an answer where there are thousands of devices. Raises as the two above do.
        """
        install_id = (await self.verified(scope)).install_id
        if await self._directory.refused_among([install_id]):
            raise Forbidden(f"No installation {install_id} is known that may be here.")
        return install_id

    async def renew(self, install_id: InstallId, token: str) -> float:
        """When a newer token of the same installation expires. Raises as the two above do."""
        principal = await self._verifier.node(token)
        if principal.install_id != install_id:
            raise Forbidden("The newer token is of another installation.")
        await self.admitted(principal)
        return principal.expires_at

    async def issuer_reachable(self) -> bool:
        return await self._verifier.issuer_reachable()
