"""A key of the gateway's own, for one developer's machine: `skygw token` signs with it, `serve` verifies."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from skygw.auth.key_files import make_once, read_private
from skygw.auth.key_sources import FixedKeys
from skygw.auth.keys import KeySet, VerificationKey
from skygw.errors import StartupError

ISSUER = "skygw-development"
KEY_FILE = "development-key.pem"

_ALGORITHM = "ES256"


@dataclass(frozen=True)
class DevelopmentKey:
    """A signing key, never shown when printed."""

    kid: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)


def load_or_make(data_dir: Path) -> DevelopmentKey:
    """The key in `data_dir`, made there if there is none; processes that start at once agree on one.

    Blocks for a moment on the disk. Raises `StartupError` if the file is not a key, is open to other users,
    or cannot be written.
    """
    path = data_dir / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        return _load(path)
    except OSError as error:
        raise _unusable(path, error) from None


def load(data_dir: Path) -> DevelopmentKey:
    """The key a gateway made in `data_dir`; writes nothing, since a key no gateway knows would open nothing.

    Blocks for a moment on the disk. Raises `StartupError` if there is none, and as `load_or_make`.
    """
    path = data_dir / KEY_FILE
    try:
        return _load(path)
    except FileNotFoundError:
        raise StartupError(
            f"There is no development key in {data_dir}: “skygw serve” makes one at its start, so no gateway has "
            "started on that directory."
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None


def key_source(key: DevelopmentKey) -> FixedKeys:
    """What the gateway verifies development tokens with."""
    verification = VerificationKey(kid=key.kid, algorithms=frozenset({_ALGORITHM}), public=key.private.public_key())
    return FixedKeys(KeySet([verification]))


def mint(
    key: DevelopmentKey,
    *,
    subject: str,
    audience: str,
    scopes: Collection[str],
    lifetime_s: float,
    now: float,
) -> str:
    """A signed access token for `subject`, valid for `lifetime_s` from `now` (Unix seconds)."""
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "client_id": subject,
        "aud": audience,
        "scope": " ".join(sorted(scopes)),
        "iat": int(now),
        "exp": now + lifetime_s,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, key.private, algorithm=_ALGORITHM, headers={"typ": "at+jwt", "kid": key.kid})


def _make(path: Path) -> None:
    make_once(
        path,
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _unusable(path: Path, error: OSError) -> StartupError:
    return StartupError(f"The development key {path} cannot be used: {error.strerror}.")


def _load(path: Path) -> DevelopmentKey:
    pem = read_private(path, "The development key", remedy="remove it, a new one is made at the next start")
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise StartupError(
            f"The development key {path} is not a P-256 key: remove it, a new one is made at the next start."
        )
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return DevelopmentKey(kid=sha256(public).hexdigest()[:16], private=private)
