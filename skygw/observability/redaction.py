"""Keeps secrets and payloads out of the log, whoever forgot to."""

import re
from functools import lru_cache

from structlog.typing import EventDict, WrappedLogger

from skygw.observability.plain_text import escaped

REDACTED = "[redacted]"

MAX_TEXT_CHARS = 2_000
"""A log line is no place for a document; a traceback may be longer."""
MAX_TRACEBACK_CHARS = 16_000
MAX_DEPTH = 4
MAX_ITEMS = 50

_SECRET_WORDS = (
    "token",
    "authorization",
    "secret",
    "password",
    "passwd",
    "cookie",
    "credential",
    "private_key",
    "lease_uid",
)
_PAYLOAD_KEYS = frozenset({"payload", "body", "params", "command", "data", "result"})
"""Opaque values of nodes and callers: never ours to write down."""

_HARMLESS = frozenset({"token_expires_at", "token_expires_in_s", "token_state"})

# Each can begin only where a run of its own characters begins: a peer's long text costs linear time.
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_BEARER = re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}")
_USER_INFO = re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]*@")
_QUERY_SECRET = re.compile(r"(?i)\b(access_token|client_secret|token|password)=[^&\s\"']+")


def without_secrets(text: str) -> str:
    """`text` with JWTs, `Authorization` values, passwords in URLs and secret query parameters blotted out."""
    # Most texts are an id or a word: what a pattern cannot do without is looked for first.
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    if " " in text:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    if "://" in text:
        text = _USER_INFO.sub(f"{REDACTED}@", text)
    return _QUERY_SECRET.sub(rf"\1={REDACTED}", text) if "=" in text else text


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor: secret keys and payloads are dropped, all other text is cleaned and cut."""
    return {escaped(str(key)): _cleaned(str(key), value, depth=0) for key, value in event.items()}


def _cleaned(key: str, value: object, *, depth: int) -> object:
    if _is_hidden(key):
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < MAX_DEPTH and isinstance(value, dict):
        items = list(value.items())[:MAX_ITEMS]
        return {escaped(str(inner)): _cleaned(str(inner), item, depth=depth + 1) for inner, item in items}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(key, item, depth=depth + 1) for item in list(value)[:MAX_ITEMS]]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if key == "exception":
        return escaped(without_secrets(str(value)[-MAX_TRACEBACK_CHARS:]), keep="\n\t")
    return escaped(_cut(without_secrets(str(value))))


@lru_cache(maxsize=1_024)  # the names of fields are few
def _is_hidden(key: str) -> bool:
    key = key.lower()
    if key in _PAYLOAD_KEYS:
        return True
    key = key.replace("-", "_")
    return key not in _HARMLESS and any(word in key for word in _SECRET_WORDS)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"
