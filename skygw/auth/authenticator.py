"""Turns a bearer token into the installation or the service it stands for, whichever kind of token it is."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from skygw.auth.claims import Claims, check_claims, check_times, node_principal, require_node_scope, service_principal
from skygw.auth.introspection import Introspection
from skygw.auth.key_sources import KeySource
from skygw.auth.principals import NodePrincipal, ServicePrincipal
from skygw.auth.tokens import is_jwt_shaped, read_header, refuse_oversize, verify
from skygw.auth.verified_tokens import VerifiedTokens
from skygw.errors import Forbidden, Unauthenticated
from skygw.ids import InstallId

LEEWAY_S = 5.0
"""How far the issuer's clock and ours may differ."""


class InstallationLookup(Protocol):
    """The platform's records of installations, as far as a token needs them."""

    async def by_client_id(self, client_id: str) -> InstallId | None:
        """The installation that logs in as `client_id`, or None."""
        ...


class Authenticator:
    """Knows the issuer, the audiences and the keys; remembers which tokens it verified, while the keys stay the same.

    A JWT is verified with `keys`; an opaque token, or every token if there are no keys, is asked about by
    `introspection`. With `installations` a node token is matched by its client id, else by `uid_claim`.
    `now` is Unix seconds.
    """

    def __init__(
        self,
        *,
        issuer: str,
        node_audiences: Collection[str],
        service_audiences: Collection[str],
        keys: KeySource | None,
        introspection: Introspection | None = None,
        uid_claim: str = "sub",
        installations: InstallationLookup | None = None,
        leeway_s: float = LEEWAY_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises `ValueError` if there is neither a key source nor introspection: nobody could come in."""
        if keys is None and introspection is None:
            raise ValueError("tokens need keys or introspection to be verified by")
        self._issuer = issuer
        self._node_audiences = frozenset(node_audiences)
        self._service_audiences = frozenset(service_audiences)
        self._keys = keys
        self._introspection = introspection
        self._uid_claim = uid_claim
        self._installations = installations
        self._leeway_s = leeway_s
        self._now = now
        # Apart, because a token that one door may take is not meant for the other.
        self._seen = {
            self._node_audiences: VerifiedTokens(uid_claim=uid_claim),
            self._service_audiences: VerifiedTokens(uid_claim=uid_claim),
        }

    async def node(self, token: str) -> NodePrincipal:
        """The installation behind a node token.

        Raises `Unauthenticated` (the token does not hold), `Forbidden` (it holds, and names no installation
        or lacks the scope), `IssuerUnavailable` (nobody can say). Cancelling is safe.
        """
        claims = await self._claims(token, self._node_audiences)
        if self._installations is None:
            return node_principal(claims, uid_claim=self._uid_claim)
        return await self._node_by_client_id(claims, self._installations)

    async def service(self, token: str) -> ServicePrincipal:
        """The service behind an internal token. Raises `Unauthenticated` or `IssuerUnavailable`.

        While the issuer is away, one that it called active before is believed, for safing alone.
        """
        refuse_oversize(token)
        if self._introspection is None or not self.asks_issuer(token):
            return service_principal(await self._claims(token, self._service_audiences))
        said = await self._introspection.service_claims(token)
        principal = service_principal(self._held(said.claims, self._service_audiences))
        return replace(principal, only_safing=said.stale)

    def asks_issuer(self, token: str) -> bool:
        """Whether only the issuer knows if this token still holds, so that it must be asked again and again."""
        return self._introspection is not None and (self._keys is None or not is_jwt_shaped(token))

    async def issuer_reachable(self) -> bool:
        """Whether tokens could be renewed now: False gives an expired session its grace."""
        if self._keys is not None and not await self._keys.issuer_reachable():
            return False
        return self._introspection is None or await self._introspection.issuer_reachable()

    async def _claims(self, token: str, audiences: frozenset[str]) -> Claims:
        refuse_oversize(token)
        if self._keys is not None and is_jwt_shaped(token):
            return await self._verified(token, audiences, self._keys)
        if self._introspection is None:
            raise Unauthenticated("The token is not a signed JWT.")
        return self._held(await self._introspection.claims(token), audiences)

    async def _verified(self, token: str, audiences: frozenset[str], source: KeySource) -> Claims:
        seen = self._seen[audiences]
        known = seen.find(token)
        kid = read_header(token).kid if known is None else known.kid
        keys = await source.key_set(kid)
        now = self._now()
        if known is not None and known.keys is keys:
            check_times(known.claims, now=now, leeway_s=self._leeway_s)
            return known.claims
        if known is not None:
            seen.forget(token)
        claims = verify(token, keys=keys, audiences=audiences, issuer=self._issuer, now=now, leeway_s=self._leeway_s)
        seen.remember(token, claims, keys=keys, kid=kid)
        return claims

    def _held(self, said: Mapping[str, Any], audiences: Collection[str]) -> Claims:
        """What the issuer said, held against what is expected here; also against the token's own expiry, now."""
        return check_claims(
            said,
            audiences=audiences,
            issuer=self._issuer,
            now=self._now(),
            leeway_s=self._leeway_s,
            issuer_may_be_absent=True,
        )

    async def _node_by_client_id(self, claims: Claims, installations: InstallationLookup) -> NodePrincipal:
        require_node_scope(claims)
        if claims.client_id is None:
            raise Forbidden("The token names no client (“client_id”).")
        install_id = await installations.by_client_id(claims.client_id)
        if install_id is None:
            raise Forbidden("The token's client belongs to no installation.")
        return NodePrincipal(install_id=install_id, expires_at=claims.expires_at, client_id=claims.client_id)
