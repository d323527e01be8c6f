"""Resumable uploads as the IETF's text of 1 July 2026 has them (draft 12 of httpbis' resumable-upload).

Interim responses (104) are not sent: an upload's address comes with the final answer, or from a declared asset.
docs/uploads.md lists what the text requires, each with its test.
"""

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Final

from skygw.errors import GatewayError, Invalid, QuotaExceeded, TooLarge
from skygw.observing.upload_errors import Digest, DigestMismatch, LengthMismatch, OffsetMismatch
from skygw.observing.upload_store import Upload, UploadState
from skygw.observing.uploads import Append, UploadRules, Wanted
from skygw.routers import structured_fields
from skygw.routers.upload_dialects import (
    Asked,
    Creation,
    Headers,
    ImpossibleDigest,
    UnsupportedDigest,
    UnsupportedType,
    UnsupportedVersion,
    upload_url,
)

INTEROP_VERSION: Final = 8
BODY_TYPE: Final = "application/partial-upload"
DIGESTS: Final = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64)}
"""Of a body: as hashlib calls them, and how many bytes each has. Of the whole, SHA-256 alone is kept."""


class IetfUploads:
    """`Dialect` for requests without `Tus-Resumable`: as an RFC, the text will have no header that names it. `now` is
    the clock on the wall.
    """

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now

    def check(self, asked: Asked) -> None:
        """A draft's client names the version it speaks; of another one nothing can be known."""
        text = asked.one("Upload-Draft-Interop-Version")
        if text is not None and structured_fields.integer(text) != INTEROP_VERSION:
            sentence = f"Of the draft for resumable uploads interop version {INTEROP_VERSION} is spoken here."
            raise UnsupportedVersion(sentence)

    def method(self, asked: Asked, method: str) -> str:  # noqa: ARG002
        return method

    def creation(self, asked: Asked) -> Creation:
        is_last = _completeness(asked)
        size = _length(asked)
        length = asked.body_length
        whole = _digest_of_whole(asked)
        if is_last and length is not None:
            if size not in (None, length):
                raise LengthMismatch(f"The length of this upload is said to be {size} and {length} bytes.")
            size = length
        wanted = Wanted(size=size, sha256=None if whole is None else whole.value.hex())
        first = Append(0, length, size=size, is_last=is_last, digests=_digests_of_body(asked), whole=whole)
        return Creation(wanted, first)

    def append(self, asked: Asked) -> Append:
        if asked.content_type != BODY_TYPE:
            raise UnsupportedType(f"What is appended to an upload has the Content-Type {BODY_TYPE}.")
        offset = structured_fields.integer(asked.one("Upload-Offset"))
        if offset is None or offset < 0:
            raise Invalid("Upload-Offset must be there, as a whole number of at most 15 digits.")
        return Append(
            offset,
            asked.body_length,
            size=_length(asked),
            is_last=_completeness(asked),
            digests=_digests_of_body(asked),
            whole=_digest_of_whole(asked),
        )

    def created(self, upload: Upload, rules: UploadRules, *, first: Append | None) -> tuple[int, Headers]:  # noqa: ARG002
        return 201, [("location", upload_url(upload)), *self._state(upload, rules)]

    def appended(self, upload: Upload, rules: UploadRules) -> tuple[int, Headers]:
        return 204, self._state(upload, rules)

    def seen(self, upload: Upload, rules: UploadRules) -> tuple[int, Headers]:
        length = [] if upload.size is None else [("upload-length", str(upload.size))]
        return 204, [*self._state(upload, rules), *length, ("cache-control", "no-store")]

    def always(self) -> Headers:
        return [("upload-draft-interop-version", str(INTEROP_VERSION))]

    def status_of(self, error: GatewayError) -> int | None:  # noqa: ARG002
        return None

    def refused(self, error: GatewayError, rules: UploadRules) -> Headers:
        match error:
            case OffsetMismatch():
                return [("upload-offset", str(error.expected)), ("upload-complete", _flag(error.is_complete))]
            case DigestMismatch(is_of_whole=True):
                return [("upload-complete", "?1")]  # all of it came: sending more will not help
            case UnsupportedType():
                return [("accept-patch", BODY_TYPE)]
            case UnsupportedDigest():
                wanted = "sha-256=10" if error.field == "Repr-Digest" else "sha-256=10, sha-512=5"
                return [(f"want-{error.field.lower()}", wanted)]
        return [("upload-limit", _limits(rules))] if isinstance(error, TooLarge | QuotaExceeded) else []

    def _state(self, upload: Upload, rules: UploadRules) -> Headers:
        is_complete = upload.state is UploadState.COMPLETE
        headers = [("upload-offset", str(upload.offset)), ("upload-complete", _flag(is_complete))]
        if is_complete and upload.sha256 is not None:
            digest = b64encode(bytes.fromhex(upload.sha256)).decode()
            return [*headers, ("repr-digest", f"sha-256=:{digest}:"), ("upload-limit", _limits(rules))]
        left_s = max(0, int((upload.expires_at - self._now()).total_seconds()))
        return [*headers, ("upload-limit", f"{_limits(rules, is_sized=upload.size is not None)}, max-age={left_s}")]


def capabilities(rules: UploadRules) -> Headers:
    """What `OPTIONS` says."""
    return [("accept-patch", BODY_TYPE), ("upload-limit", _limits(rules))]


def _completeness(asked: Asked) -> bool:
    found = structured_fields.boolean(asked.one("Upload-Complete"))
    if found is None:
        raise Invalid("Upload-Complete must say whether this body is the last: ?1 or ?0.")
    return found


def _length(asked: Asked) -> int | None:
    """What is no length is as if it were not there (§4.1.3)."""
    found = structured_fields.integer(asked.one("Upload-Length"))
    return None if found is None or found < 0 else found


def _digests_of_body(asked: Asked) -> tuple[Digest, ...]:
    """Each that can be checked (RFC 9530 §2)."""
    found = [(name, value) for name, value in _digests(asked, "Content-Digest").items() if name in DIGESTS]
    return tuple(Digest(DIGESTS[name][0], value, name, "Content-Digest") for name, value in found)


def _digest_of_whole(asked: Asked) -> Digest | None:
    """RFC 9530 §3."""
    found = _digests(asked, "Repr-Digest", needs="sha-256")
    return Digest("sha256", found["sha-256"], "sha-256", "Repr-Digest") if found else None


def _digests(asked: Asked, field: str, *, needs: str | None = None) -> dict[str, bytes]:
    """None of which can be checked is refused: whoever sends a digest relies on it."""
    text = asked.all(field)
    if text is None:
        return {}
    found = structured_fields.byte_dictionary(text)
    if found is None:
        raise Invalid(f"{field} cannot be read: it has digests as sha-256=:…base64…:, between commas.")
    if not found.keys() & ({needs} if needs else DIGESTS.keys()):
        named = needs or ", ".join(DIGESTS)
        sentence = f"Of {field} these algorithms can be checked: {named}."
        raise UnsupportedDigest(sentence, field=field, algorithms=[name[:32] for name in found])
    for name, (_, size) in DIGESTS.items():
        if name in found and len(found[name]) != size:
            sentence = f"A {name} has {size} bytes, and the one in {field} has {len(found[name])}."
            raise ImpossibleDigest(sentence, field=field, algorithm=name)
    return dict(found)


def _limits(rules: UploadRules, *, is_sized: bool = True) -> str:
    return f"max-size={rules.max_bytes if is_sized else rules.unsized_max_bytes}"


def _flag(value: bool) -> str:
    return "?1" if value else "?0"
