"""Checks what a token says about itself and who it therefore stands for.

Sources: RFC 7519 §4, RFC 9068, RFC 7662 §2.2.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from skygw.auth.principals import NODE_SCOPE, NodePrincipal, ServicePrincipal
from skygw.errors import Forbidden, Unauthenticated
from skygw.ids import InstallId

MAX_NAME_CHARS = 255
"""Longest `sub` or `client_id` taken: they end up in logs and in the audit."""

_LAST_SECOND = 253_402_300_799
"""The end of the year 9999: a later time is a mistake in units or an attack, not a time."""


@dataclass(frozen=True)
class Claims:
    """What a verified token says. Times are Unix seconds."""

    subject: str | None
    client_id: str | None
    scopes: frozenset[str]
    expires_at: float
    not_before: float | None
    values: Mapping[str, Any] = field(repr=False)
    """Every claim as it came, for the configurable one that names the installation."""


def check_claims(
    values: Mapping[str, Any],
    *,
    audiences: Collection[str],
    issuer: str,
    now: float,
    leeway_s: float,
    issuer_may_be_absent: bool = False,
) -> Claims:
    """Hold the claims of a token whose origin is already proven against this gateway's expectations.

    `now` is Unix seconds; `leeway_s` forgives clocks that differ. `issuer_may_be_absent` is for
    introspection, where the issuer itself is asked and RFC 7662 lets it leave `iss` out. Raises
    `Unauthenticated`; what the token says is never repeated in the message.
    """
    if "iss" in values or not issuer_may_be_absent:
        _check_issuer(values.get("iss"), issuer)
    _check_audience(values.get("aud"), audiences)
    if "exp" not in values:
        raise Unauthenticated("The token has no expiry (“exp”).")
    claims = Claims(
        subject=_name(values, "sub"),
        client_id=_name(values, "client_id"),
        scopes=_scopes(values.get("scope")),
        expires_at=_time(values, "exp"),
        not_before=_time(values, "nbf") if "nbf" in values else None,
        values=values,
    )
    check_times(claims, now=now, leeway_s=leeway_s)
    return claims


def check_times(claims: Claims, *, now: float, leeway_s: float) -> None:
    """Raise `Unauthenticated` for a token whose time is over or has not come. `now` is Unix seconds."""
    if claims.expires_at <= now - leeway_s:
        raise Unauthenticated("The token has expired.")
    if claims.not_before is not None and claims.not_before > now + leeway_s:
        raise Unauthenticated("The token is not valid yet.")


def require_node_scope(claims: Claims) -> None:
    """Raise `Forbidden` unless the token may speak for an installation at all."""
    if NODE_SCOPE not in claims.scopes:
        raise Forbidden(f"The token lacks the scope “{NODE_SCOPE}”.", details={"missingScopes": [NODE_SCOPE]})


def node_principal(claims: Claims, *, uid_claim: str) -> NodePrincipal:
    """The installation whose uid stands in `uid_claim`. Raises `Forbidden` without the scope or the uid."""
    require_node_scope(claims)
    text = claims.values.get(uid_claim)
    install_id = _canonical_uuid(text) if isinstance(text, str) else None
    if install_id is None:
        raise Forbidden(f"The token names no installation: its claim “{uid_claim}” is not a UUID.")
    return NodePrincipal(install_id=InstallId(install_id), expires_at=claims.expires_at, client_id=claims.client_id)


def service_principal(claims: Claims) -> ServicePrincipal:
    """The service named by `sub`. Raises `Unauthenticated` if none is named."""
    if claims.subject is None:
        raise Unauthenticated("The token names no service (“sub”).")
    return ServicePrincipal(service=claims.subject, scopes=claims.scopes, expires_at=claims.expires_at)


def _check_issuer(named: object, issuer: str) -> None:
    if named != issuer:
        raise Unauthenticated(f"The token is not from the issuer {issuer}.")


def _check_audience(named: object, audiences: Collection[str]) -> None:
    audience = [named] if isinstance(named, str) else named
    if not isinstance(audience, list) or not all(isinstance(one, str) for one in audience):
        raise Unauthenticated("The token has no readable audience (“aud”).")
    if set(audiences).isdisjoint(audience):
        raise Unauthenticated(f"The token is not meant for {' or '.join(sorted(audiences))}.")


def _time(values: Mapping[str, Any], claim: str) -> float:
    moment = values[claim]
    # bool is an int to Python, and `true` is no time.
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment <= _LAST_SECOND:
        raise Unauthenticated(f"The token's “{claim}” is not a time in seconds.")
    return float(moment)


def _name(values: Mapping[str, Any], claim: str) -> str | None:
    if claim not in values:
        return None
    name = values[claim]
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise Unauthenticated(f"The token's “{claim}” is not a short printable text.")
    return name


def _scopes(named: object) -> frozenset[str]:
    """RFC 9068 has one string separated by spaces; several issuers send a list."""
    if named is None:
        return frozenset()
    if isinstance(named, str):
        return frozenset(named.split(" ")) - {""}
    if isinstance(named, list) and all(isinstance(one, str) for one in named):
        return frozenset(named) - {""}
    raise Unauthenticated("The token's “scope” is neither a text nor a list of texts.")


def _canonical_uuid(text: str) -> UUID | None:
    """Only the hyphenated form: `uuid.UUID` would also take braces, URNs and bare digits."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None
