"""The Ed25519 key (RFC 8032) that checkpoints of the audit are signed with, and those an audit is checked against."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from skygw.auth.key_files import make_once, read_private
from skygw.errors import StartupError

KEY_FILE = "audit-key.pem"

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class AuditKey:
    """A signing key, never shown when printed."""

    key_id: str
    private: Ed25519PrivateKey = field(repr=False)

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return self.private.sign(text)


class TrustedKeys:
    """Whose signatures count."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id_of(key): key for key in keys}

    @property
    def key_ids(self) -> list[str]:
        return sorted(self._keys)

    def verify(self, key_id: str, signature: bytes, text: bytes) -> str | None:
        """What is wrong with the signature, or `None`."""
        key = self._keys.get(key_id)
        if key is None:
            return f"it names the key {key_id[:16]!r}, which is not one of yours ({', '.join(self.key_ids)})"
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return f"its signature is not of the key {key_id}"
        return None


def load_or_make(path: Path) -> AuditKey:
    """The key in this file, made if there is none. Blocks for a moment on the disk. Raises `StartupError` if the file
    is no such key, is open to other users, or cannot be written.
    """
    remedy = "run “chmod 600” on it, and take another key if somebody else may have read it"
    try:
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            make_once(path, pem)
        private = _private(read_private(path, "The audit key", remedy=remedy))
    except OSError as error:
        raise StartupError(f"The audit key {path} cannot be used: {error.strerror}.") from None
    if private is None:
        raise StartupError(f"The audit key {path} is not a PEM file with an Ed25519 key: correct SKYGW_AUDIT_KEY.")
    return AuditKey(key_id_of(private.public_key()), private)


def trust(paths: Iterable[Path]) -> TrustedKeys:
    """The keys in these PEM files, public or private, one or several in each. Raises `StartupError`; `OSError`."""
    keys: list[Ed25519PublicKey] = []
    for path in paths:
        found = [_public(block[0]) for block in _PEM_BLOCK.finditer(path.read_bytes())]
        good = [key for key in found if key is not None]
        if not good or len(good) < len(found):
            raise StartupError(f"{path} holds something else than Ed25519 keys in PEM.")
        keys += good
    return TrustedKeys(keys)


def key_id_of(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the key's 32 bytes."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _private(pem: bytes) -> Ed25519PrivateKey | None:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def _public(pem: bytes) -> Ed25519PublicKey | None:
    private = _private(pem)
    if private is not None:
        return private.public_key()
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None
