"""The public keys tokens are verified with, read from a JSON Web Key Set that is not trusted to be sane.

Source: RFC 7517.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from skygw.auth.strict_json import parse_object

MAX_JWKS_BYTES = 128 * 1024
"""64 keys of 8192-bit RSA are about 100 KiB."""
MAX_KEYS = 64
MAX_KEY_ID_CHARS = 256
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""A verification costs time that grows with the modulus; nobody signs tokens with more."""

_MAX_COORDINATE_CHARS = MAX_RSA_BITS // 6 + 4
"""An unpadded base64url number of `MAX_RSA_BITS`; longer ones are not even decoded."""

_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EC_ALGORITHM_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

ALGORITHMS = _RSA_ALGORITHMS | frozenset(_EC_ALGORITHM_BY_CURVE.values()) | {"EdDSA"}
"""Every signature algorithm a token may be signed with: asymmetric ones only."""

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class KeySetError(ValueError):
    """A key set that cannot be used; the message is a sentence without any key material."""


class _UnusableKeyError(Exception):
    """Why one key of a set is passed over."""


@dataclass(frozen=True)
class VerificationKey:
    """One public key, and the only algorithms it may be used with, whatever a token says."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


class KeySet:
    """An immutable set of verification keys."""

    def __init__(self, keys: Sequence[VerificationKey]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, kid: object) -> bool:
        return any(key.kid == kid for key in self._keys)

    def candidates(self, kid: str | None, algorithm: str) -> list[VerificationKey]:
        """The keys a token with this header may have been signed with.

        Without a `kid` every key for `algorithm` is a candidate. More than one candidate means the token
        does not say which key it means; the verifier refuses rather than tries them in turn.
        """
        return [key for key in self._keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]


def parse_jwks(data: bytes) -> KeySet:
    """Read a JWKS document of at most `MAX_JWKS_BYTES`.

    Keys that cannot verify signatures are passed over, as RFC 7517 §5 asks: symmetric ones, ones that publish
    their private half (anybody could sign with them), other uses, unknown types, unsafe sizes. Raises
    `KeySetError` if the document is not a key set or no usable key is left.
    """
    if len(data) > MAX_JWKS_BYTES:
        raise KeySetError(f"The key set is larger than {MAX_JWKS_BYTES} bytes.")
    try:
        document = parse_object(data)
    except ValueError as error:
        raise KeySetError(f"The key set cannot be read: {error}.") from None
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeySetError("The key set has no list of “keys”.")
    if len(entries) > MAX_KEYS:
        raise KeySetError(f"The key set holds more than {MAX_KEYS} keys.")

    keys: dict[tuple[str | None, bytes], VerificationKey] = {}
    passed_over: list[str] = []
    for entry in entries:
        try:
            key = _parse_key(entry)
        except _UnusableKeyError as reason:
            passed_over.append(str(reason))
        else:
            # The same key listed twice is one key; two keys under one id stay two, and so ambiguous.
            keys.setdefault((key.kid, _fingerprint(key.public)), key)
    if not keys:
        why = f": {'; '.join(sorted(set(passed_over)))}" if passed_over else ""
        raise KeySetError(f"The key set holds no key that can verify a token{why}.")
    return KeySet(list(keys.values()))


def _parse_key(entry: object) -> VerificationKey:
    if not isinstance(entry, dict):
        raise _UnusableKeyError("an entry is not an object")
    kty = entry.get("kty")
    if kty == "oct":
        raise _UnusableKeyError("a key is symmetric")
    if not _PRIVATE_MEMBERS.isdisjoint(entry):
        raise _UnusableKeyError("a key publishes its private half")
    if entry.get("use", "sig") != "sig":
        raise _UnusableKeyError("a key is not for signatures")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _UnusableKeyError("a key is not for verifying")
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID_CHARS):
        raise _UnusableKeyError("a key id is not a short text")
    public, possible = _parse_public_key(kty, entry)
    return VerificationKey(kid=kid, algorithms=_narrowed(possible, entry), public=public)


def _narrowed(possible: frozenset[str], entry: dict[str, Any]) -> frozenset[str]:
    """What the key's own `alg` leaves of what its type could do."""
    if "alg" not in entry:
        return possible
    named = entry["alg"]
    if not isinstance(named, str) or named not in possible:
        raise _UnusableKeyError("a key is for an algorithm that is not accepted")
    return frozenset({named})


def _parse_public_key(kty: object, entry: dict[str, Any]) -> tuple[PublicKey, frozenset[str]]:
    curve = entry.get("crv")
    if curve is not None and not isinstance(curve, str):
        raise _UnusableKeyError("a key is malformed")
    # Only the named public members reach the library, so that nothing else in the entry can matter.
    public: object
    try:
        if kty == "RSA":
            public = RSAAlgorithm.from_jwk(_members(entry, "kty", "n", "e"))
            algorithms = _RSA_ALGORITHMS
        elif kty == "EC" and curve in _EC_ALGORITHM_BY_CURVE:
            public = ECAlgorithm.from_jwk(_members(entry, "kty", "crv", "x", "y"))
            algorithms = frozenset({_EC_ALGORITHM_BY_CURVE[curve]})
        elif kty == "OKP" and curve == "Ed25519":
            public = OKPAlgorithm.from_jwk(_members(entry, "kty", "crv", "x"))
            algorithms = frozenset({"EdDSA"})
        else:
            raise _UnusableKeyError("a key is of a type that is not accepted")
    except (PyJWTError, ValueError):
        # The library's messages may quote the key; they end here.
        raise _UnusableKeyError("a key is malformed") from None
    if not isinstance(public, PublicKey):
        raise _UnusableKeyError("a key is malformed")
    if isinstance(public, RSAPublicKey) and not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise _UnusableKeyError(f"an RSA key is not of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    return public, algorithms


def _members(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    members = {name: entry.get(name) for name in names}
    if any(not isinstance(text, str) or len(text) > _MAX_COORDINATE_CHARS for text in members.values()):
        raise _UnusableKeyError("a key is malformed")
    return members


def _fingerprint(public: PublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
