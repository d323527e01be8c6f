"""tus 1.0.0 (https://tus.io/protocols/resumable-upload): core, creation, creation-with-upload, checksum, expiration,
termination.
"""

import re
from base64 import b64decode
from binascii import Error as BinasciiError
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from skygw.errors import GatewayError, Invalid
from skygw.observing.upload_errors import Digest, DigestMismatch, LengthMismatch
from skygw.observing.upload_store import Upload, UploadState
from skygw.observing.uploads import Append, UploadRules, Wanted
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

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,checksum,expiration,termination"
BODY_TYPE: Final = "application/offset+octet-stream"
CHECKSUMS: Final = {"sha1": 20, "sha256": 32}
"""With how many bytes a digest has."""
CHECKSUM_MISMATCH: Final = 460
"""Not a registered status; tus's own."""

MAX_METADATA_CHARS: Final = 4_096
"""It is kept, and told again."""
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_METADATA: Final = re.compile(r"[!-+\--~]+(?: [A-Za-z0-9+/]*={0,2})?")
_METHOD: Final = re.compile(r"[A-Z]{1,10}")


class Tus:
    """`Dialect` for requests with `Tus-Resumable`."""

    def check(self, asked: Asked) -> None:
        if asked.one("Tus-Resumable") != VERSION:
            raise UnsupportedVersion(f"Of tus the version {VERSION} is spoken here.")

    def method(self, asked: Asked, method: str) -> str:
        """`X-HTTP-Method-Override` comes before the method itself."""
        instead = asked.one("X-HTTP-Method-Override")
        if instead is None:
            return method
        if _METHOD.fullmatch(instead) is None:
            raise Invalid("X-HTTP-Method-Override must be the name of a method.")
        return instead

    def creation(self, asked: Asked) -> Creation:
        if asked.one("Upload-Concat") is not None:
            raise Invalid("Uploads cannot be put together here: concatenation is not among Tus-Extension.")
        if asked.one("Upload-Defer-Length") is not None:
            raise Invalid("The length cannot be deferred: creation-defer-length is not among Tus-Extension.")
        size = _number(asked, "Upload-Length")
        metadata = _metadata(asked)
        first = None
        if asked.body_length != 0:
            first = Append(0, asked.body_length, digests=_checksum(asked))
            _check_type(asked)
        elif size == 0:
            first = Append(0, 0)  # there is nothing to wait for
        return Creation(Wanted(size=size, metadata=metadata), first)

    def append(self, asked: Asked) -> Append:
        _check_type(asked)
        return Append(_number(asked, "Upload-Offset"), asked.body_length, digests=_checksum(asked))

    def created(self, upload: Upload, rules: UploadRules, *, first: Append | None) -> tuple[int, Headers]:  # noqa: ARG002
        headers = [("location", upload_url(upload)), *_expires(upload)]
        if first is not None:
            headers.append(("upload-offset", str(upload.offset)))
        return 201, headers

    def appended(self, upload: Upload, rules: UploadRules) -> tuple[int, Headers]:  # noqa: ARG002
        return 204, [("upload-offset", str(upload.offset)), *_expires(upload)]

    def seen(self, upload: Upload, rules: UploadRules) -> tuple[int, Headers]:  # noqa: ARG002
        headers = [("upload-offset", str(upload.offset)), ("cache-control", "no-store"), *_expires(upload)]
        if upload.size is None:
            headers.append(("upload-defer-length", "1"))
        else:
            headers.append(("upload-length", str(upload.size)))
        if upload.metadata is not None:
            headers.append(("upload-metadata", upload.metadata))
        return 200, headers

    def always(self) -> Headers:
        return [("tus-resumable", VERSION)]

    def status_of(self, error: GatewayError) -> int | None:
        match error:
            case UnsupportedVersion():
                return 412
            case LengthMismatch():
                return 413
            case DigestMismatch(is_of_whole=False):
                return CHECKSUM_MISMATCH
        return None

    def refused(self, error: GatewayError, rules: UploadRules) -> Headers:
        match error:
            case UnsupportedVersion():
                return [("tus-version", VERSION)]
            case UnsupportedDigest():
                return [("tus-checksum-algorithm", ",".join(CHECKSUMS))]
        return [("tus-max-size", str(rules.max_bytes))] if isinstance(error, LengthMismatch) else []


def capabilities(rules: UploadRules) -> Headers:
    """What `OPTIONS` says."""
    return [
        ("tus-version", VERSION),
        ("tus-extension", EXTENSIONS),
        ("tus-max-size", str(rules.max_bytes)),
        ("tus-checksum-algorithm", ",".join(CHECKSUMS)),
    ]


def _number(asked: Asked, name: str) -> int:
    text = asked.one(name)
    if text is None:
        raise Invalid(f"The header {name} is missing.")
    if _NUMBER.fullmatch(text) is None:
        raise Invalid(f"{name} must be a whole number of at most 15 digits.")
    return int(text)


def _check_type(asked: Asked) -> None:
    if asked.content_type != BODY_TYPE:
        raise UnsupportedType(f"The body of an upload has the Content-Type {BODY_TYPE}.")


def _checksum(asked: Asked) -> tuple[Digest, ...]:
    text = asked.one("Upload-Checksum")
    if text is None:
        return ()
    algorithm, _, value = text.partition(" ")
    if algorithm not in CHECKSUMS:
        named = ", ".join(CHECKSUMS)
        sentence = f"Of Upload-Checksum these algorithms can be checked: {named}."
        raise UnsupportedDigest(sentence, field="Upload-Checksum", algorithms=[algorithm[:32]])
    try:
        digest = b64decode(value, validate=True)
    except (BinasciiError, ValueError):
        digest = b""
    if len(digest) != CHECKSUMS[algorithm]:
        sentence = f"Upload-Checksum must have the {CHECKSUMS[algorithm]} bytes of a {algorithm} in base64."
        raise ImpossibleDigest(sentence, field="Upload-Checksum", algorithm=algorithm)
    return (Digest(algorithm, digest, algorithm, "Upload-Checksum"),)


def _metadata(asked: Asked) -> str | None:
    """As it was written; kept only if all of it is well-formed, because it is sent in a header again."""
    text = asked.one("Upload-Metadata")
    if not text:
        return None
    pairs = [pair.strip(" ") for pair in text.split(",")]
    keys = [pair.partition(" ")[0] for pair in pairs]
    try:
        for pair in pairs:
            if _METADATA.fullmatch(pair) is None:
                raise Invalid("Upload-Metadata must be keys, each with a space and a value in base64, between commas.")
            b64decode(pair.partition(" ")[2], validate=True)
    except BinasciiError:
        raise Invalid("A value in Upload-Metadata is not base64.") from None
    if len(set(keys)) < len(keys):
        raise Invalid("A key stands more than once in Upload-Metadata.")
    if len(text) > MAX_METADATA_CHARS:
        raise Invalid(f"Upload-Metadata has {MAX_METADATA_CHARS} characters at most.")
    return text


def _expires(upload: Upload) -> Headers:
    return [] if upload.state is UploadState.COMPLETE else [("upload-expires", _http_date(upload.expires_at))]


def _http_date(moment: datetime) -> str:
    """RFC 9110 §5.6.7."""
    return format_datetime(moment, usegmt=True)
