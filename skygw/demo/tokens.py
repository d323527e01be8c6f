"""Tokens of the development key, for simulated installations and for the callers of a gateway on this machine."""

import time
from collections.abc import Collection

from skygw.auth import development
from skygw.auth.development import DevelopmentKey
from skygw.client.node import Token
from skygw.ids import InstallId
from skygw.sim.node import TokenOf

EVERY_SCOPE = ("nodes:read", "nodes:call", "nodes:command", "nodes:admin", "streams:read", "assets:read", "act_as")
LIFETIME_S = 3_600.0


def node_token(key: DevelopmentKey, install_id: InstallId, *, audience: str, lifetime_s: float = LIFETIME_S) -> str:
    """What an installation shows at the node listener."""
    return development.mint(
        key, subject=str(install_id), audience=audience, scopes=("node",), lifetime_s=lifetime_s, now=time.time()
    )


def service_token(
    key: DevelopmentKey,
    *,
    audience: str,
    service: str = "demo",
    scopes: Collection[str] = EVERY_SCOPE,
    lifetime_s: float = LIFETIME_S,
) -> str:
    """What a service of the hub shows at the internal listener."""
    return development.mint(
        key, subject=service, audience=audience, scopes=scopes, lifetime_s=lifetime_s, now=time.time()
    )


def node_tokens(key: DevelopmentKey, *, audience: str, lifetime_s: float = LIFETIME_S) -> TokenOf:
    """Mints for whichever installation asks; a node renews in good time."""

    async def token_of(install_id: InstallId) -> Token:
        return Token(node_token(key, install_id, audience=audience, lifetime_s=lifetime_s), lifetime_s)

    return token_of
