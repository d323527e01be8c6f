"""Who a verified token turns out to be: an installation or a service, and the person a service acts for."""

from dataclasses import dataclass
from enum import StrEnum

from skygw.errors import Forbidden, RoutingUnavailable
from skygw.ids import InstallId

NODE_SCOPE = "node"
"""The one scope that lets a token open a node socket or call `/v1/nodes/*`."""


class Scope(StrEnum):
    """What a service may do on the internal listener."""

    NODES_READ = "nodes:read"
    NODES_CALL = "nodes:call"
    NODES_COMMAND = "nodes:command"
    NODES_ADMIN = "nodes:admin"
    STREAMS_READ = "streams:read"
    ASSETS_READ = "assets:read"
    ACT_AS = "act_as"


@dataclass(frozen=True)
class NodePrincipal:
    """An installation that showed a valid token. Whether it is still active is the database's to say."""

    install_id: InstallId
    expires_at: float
    """Unix seconds, as the token says, without leeway."""
    client_id: str | None


@dataclass(frozen=True)
class ServicePrincipal:
    """A hub service or operator that showed a valid token."""

    service: str
    scopes: frozenset[str]
    expires_at: float
    """Unix seconds, as the token says, without leeway."""
    only_safing: bool = False
    """The token's issuer is away and said a while ago that it holds: enough for a stop, and for nothing else."""

    def require(self, *scopes: Scope) -> None:
        """Return if every one of `scopes` was granted; raise `Forbidden` naming those that were not, and
        `RoutingUnavailable` while this principal is believed for safing alone.
        """
        self.require_for_safing(*scopes)
        if self.only_safing:
            raise RoutingUnavailable("The token issuer is away; until it is back only safing passes.")

    def require_for_safing(self, *scopes: Scope) -> None:
        """As `require`, where what is asked makes safe."""
        missing = [scope for scope in scopes if scope not in self.scopes]
        if missing:
            named = " and ".join(f"“{scope}”" for scope in missing)
            noun = "scope" if len(missing) == 1 else "scopes"
            raise Forbidden(f"The token lacks the {noun} {named}.", details={"missingScopes": missing})


@dataclass(frozen=True)
class Actor:
    """The person (or other cause) behind a service's request."""

    uid: str
    kind: str


def actor_for(principal: ServicePrincipal, actor: Actor | None) -> Actor | None:
    """The actor this request may be recorded under: none if none was named, `Forbidden` without `act_as`."""
    if actor is not None:
        principal.require_for_safing(Scope.ACT_AS)
    return actor
