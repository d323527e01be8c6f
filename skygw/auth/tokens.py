"""Takes bearer tokens apart and verifies their signatures, believing nothing a token says about how to do so.

Pure: keys and the time are arguments. RFC 8725 is the list of what goes wrong elsewhere.
"""

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from jwt import PyJWS, PyJWTError

from skygw.auth.claims import Claims, check_claims
from skygw.auth.keys import ALGORITHMS, MAX_KEY_ID_CHARS, KeySet
from skygw.auth.strict_json import parse_object
from skygw.errors import Unauthenticated

MAX_TOKEN_BYTES = 8 * 1024
"""A longer token is refused before a byte of it is looked at."""

_BEARER = re.compile(r"(?i:bearer) +(?P<token>[A-Za-z0-9._~+/-]++=*+) *+", re.ASCII)
"""RFC 6750 §2.1, forgiving spaces around the token."""

_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""RFC 9068 §2.1 and RFC 7519 §5.1. Other kinds of JWT (identity, logout, DPoP) open nothing here."""

_SIGNATURES = PyJWS(algorithms=sorted(ALGORITHMS))


@dataclass(frozen=True)
class TokenHeader:
    """The two things an unverified header is asked for: which key of ours, and how it claims to be signed."""

    algorithm: str
    kid: str | None


def bearer_token(header: str | None) -> str:
    """The token in the value of an `Authorization` header. Raises `Unauthenticated`."""
    if header is None or not header.strip():
        raise Unauthenticated("A token is needed: send “Authorization: Bearer <token>”.")
    if len(header) > MAX_TOKEN_BYTES + len("Bearer "):
        raise _too_large()
    match = _BEARER.fullmatch(header)
    if match is None:
        raise Unauthenticated("The Authorization header is not “Bearer <token>”.")
    return match["token"]


def is_jwt_shaped(token: str) -> bool:
    """Whether this looks like a signed JWT; what an opaque token means, only its issuer can say."""
    return token.count(".") == 2


def refuse_oversize(token: str) -> None:
    """Raise `Unauthenticated` for a token of more than `MAX_TOKEN_BYTES` or with characters no token has."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _too_large()
    if not token.isascii():
        raise Unauthenticated("The token holds characters that no token has.")


def read_header(token: str) -> TokenHeader:
    """Read the header of a JWT, unverified, only to choose a key. Raises `Unauthenticated`.

    `jku`, `jwk`, `x5u` and `x5c`, by which a token would bring its own key, are not looked at. `crit` is
    refused whatever it lists: no extension is understood here (RFC 7515 §4.1.11).
    """
    refuse_oversize(token)
    segments = token.split(".")
    if len(segments) != 3 or not all(segments):
        raise Unauthenticated("The token is not a signed JWT.")
    header = _parse_segment(segments[0], "header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Unauthenticated("The token is not signed with an accepted algorithm.")
    if "crit" in header or "b64" in header:
        raise Unauthenticated("The token demands an extension that is not understood here.")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise Unauthenticated("The token is not an access token.")
    kid = header.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID_CHARS):
        raise Unauthenticated("The token's key id is not a short text.")
    return TokenHeader(algorithm=algorithm, kid=kid)


def verify(
    token: str,
    *,
    keys: KeySet,
    audiences: Collection[str],
    issuer: str,
    now: float,
    leeway_s: float,
) -> Claims:
    """The claims of a JWT signed by one of `keys`, from `issuer`, for one of `audiences`, valid at `now`.

    `now` is Unix seconds. Raises `Unauthenticated` with a sentence that repeats nothing of the token.
    """
    header = read_header(token)
    candidates = keys.candidates(header.kid, header.algorithm)
    if not candidates:
        raise Unauthenticated("The token is signed with a key that is not known here.")
    if len(candidates) > 1:
        raise Unauthenticated("The token does not say which of several keys it is signed with.")
    try:
        # The algorithm is one this very key allows; the token only picked among those.
        payload = _SIGNATURES.decode(token, key=candidates[0].public, algorithms=[header.algorithm])
    except (PyJWTError, ValueError):
        raise Unauthenticated("The token's signature does not hold.") from None
    try:
        values = parse_object(payload)
    except ValueError as error:
        raise Unauthenticated(f"The token's claims cannot be read: {error}.") from None
    return check_claims(values, audiences=audiences, issuer=issuer, now=now, leeway_s=leeway_s)


def _parse_segment(segment: str, name: str) -> dict[str, Any]:
    try:
        return parse_object(_base64url(segment))
    except ValueError as error:
        raise Unauthenticated(f"The token's {name} cannot be read: {error}.") from None


def _base64url(segment: str) -> bytes:
    """Python's decoder skips foreign characters and stray bits; writing the bytes again shows both."""
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise ValueError("it is not base64url")
    return data


def _too_large() -> Unauthenticated:
    return Unauthenticated(f"The token is larger than {MAX_TOKEN_BYTES} bytes.")
