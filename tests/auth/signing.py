"""Keys and tokens for the tests, good and bad, made without the code under test."""

import base64
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://auth.example.test"
AUDIENCE = "sky-node-gateway"
NOW = 1_800_000_000.0
INSTALL_ID = "6f1c1f0e-54b5-4cf0-9d0f-0a1c6f4c8d11"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def private_key(name: str) -> PrivateKey:
    """The same key for the same name: `rsa…`, `ed…`, `p384…`, else P-256. Making RSA keys is slow."""
    if name.startswith("rsa1024"):
        return rsa.generate_private_key(65537, 1024)  # noqa: S505 - a key that must be refused
    if name.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    if name.startswith("ed"):
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if name.startswith("p384") else ec.SECP256R1())


def jwk(name: str, **members: Any) -> dict[str, Any]:
    """The public JWK of the key called `name`, under that name as `kid`; a member set to None is left out."""
    entry = {"kid": name, **_to_jwk(private_key(name), public=True), **members}
    return {member: value for member, value in entry.items() if value is not None}


def private_jwk(name: str) -> dict[str, Any]:
    """The JWK nobody should publish."""
    return {"kid": name, **_to_jwk(private_key(name), public=False)}


def _to_jwk(private: PrivateKey, *, public: bool) -> dict[str, Any]:
    if isinstance(private, rsa.RSAPrivateKey):
        return RSAAlgorithm.to_jwk(private.public_key() if public else private, as_dict=True)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return ECAlgorithm.to_jwk(private.public_key() if public else private, as_dict=True)
    return OKPAlgorithm.to_jwk(private.public_key() if public else private, as_dict=True)


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a good node token; a claim set to None is left out."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": INSTALL_ID,
        "exp": int(NOW) + 600,
        "scope": "node",
        "client_id": "skynode-7",
    }
    return {claim: value for claim, value in {**good, **changed}.items() if value is not None}


def sign(
    payload: dict[str, Any] | bytes,
    *,
    key: str = "p256",
    algorithm: str = "ES256",
    kid: str | None = "p256",
    **headers: Any,
) -> str:
    """A token over `payload` (bytes are signed as they are) with any header."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    kid_header = {} if kid is None else {"kid": kid}
    return jwt.PyJWS().encode(body, private_key(key), algorithm, headers={**kid_header, **headers})


def unsigned(header: dict[str, Any] | bytes, payload: dict[str, Any], signature: bytes = b"") -> str:
    """A token whose parts are exactly as given."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return ".".join(encode(part) for part in (head, json.dumps(payload).encode(), signature))


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
