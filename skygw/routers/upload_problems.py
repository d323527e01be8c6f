"""What a refusal looks like at the door of uploads: `application/problem+json` (RFC 9457), with our members beside."""

import json
import math
from base64 import b64encode
from typing import Any, Final

from skygw.errors import GatewayError, Invalid, Retry, TooLarge, Unauthenticated
from skygw.observing.upload_errors import (
    AlreadyComplete,
    DigestMismatch,
    LengthMismatch,
    OffsetMismatch,
    UploadFailed,
)
from skygw.routers.problems import RETRY_AFTER_UNLESS_TOLD_S, status_of
from skygw.routers.upload_dialects import (
    Headers,
    ImpossibleDigest,
    UnsupportedDigest,
    UnsupportedType,
    UnsupportedVersion,
)

PROBLEM_TYPE: Final = "application/problem+json"
_REGISTERED: Final = "https://iana.org/assignments/http-problem-types#"

# What stands in a header is refused with 400, as both dialects say, where a body elsewhere would be 422.
STATUS: dict[type[GatewayError], int] = {
    OffsetMismatch: 409,
    LengthMismatch: 400,
    AlreadyComplete: 400,
    UploadFailed: 410,
    DigestMismatch: 400,
    UnsupportedDigest: 400,
    ImpossibleDigest: 400,
    UnsupportedType: 415,
    UnsupportedVersion: 400,
    TooLarge: 413,
    Invalid: 400,
}

KINDS: dict[type[GatewayError], tuple[str, str]] = {
    OffsetMismatch: ("mismatching-upload-offset", "Mismatching Upload Offset"),
    LengthMismatch: ("inconsistent-upload-length", "Inconsistent Upload Length Values"),
    AlreadyComplete: ("completed-upload", "Upload Is Completed"),
    DigestMismatch: ("digest-mismatching-values", "Mismatching Digest Values"),
    UnsupportedDigest: ("digest-unsupported-algorithms", "Unsupported Hashing Algorithms"),
    ImpossibleDigest: ("digest-invalid-values", "Invalid Digest Values"),
}
"""Registered, or to be, by the texts on resumable uploads and on digest fields; everything else is `about:blank`."""


def upload_status(error: GatewayError) -> int:
    """The nearest listed ancestor decides, here and then for every door."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return status_of(error)


def upload_problem(error: GatewayError, status: int) -> tuple[Headers, bytes]:
    """Headers and body of the answer."""
    kind, title = next(
        ((f"{_REGISTERED}{name}", title) for of, (name, title) in KINDS.items() if isinstance(error, of)),
        ("about:blank", error.reason.replace("_", " ").capitalize()),
    )
    body = {
        "type": kind,
        "title": title,
        "status": status,
        "detail": error.message,
        "code": error.reason,
        "outcome": error.outcome.value,
        "retry": error.retry.value,
        "hop": error.hop.value,
        "reached": error.reached and error.reached.value,
        "requestId": None,
        **_members(error),
    }
    if error.details:
        body["details"] = error.details
    headers = [("content-type", PROBLEM_TYPE)]
    if error.retry is Retry.AFTER or error.retry_after_s is not None:
        wait_s = RETRY_AFTER_UNLESS_TOLD_S if error.retry_after_s is None else error.retry_after_s
        headers.append(("retry-after", str(max(1, math.ceil(wait_s)))))
    if isinstance(error, Unauthenticated):
        headers.append(("www-authenticate", 'Bearer realm="skygw"'))
    return headers, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _members(error: GatewayError) -> dict[str, Any]:
    """What the registered types bring along."""
    match error:
        case OffsetMismatch():
            return {"expected-offset": error.expected, "provided-offset": error.provided}
        case DigestMismatch(digest=digest):
            provided = f":{b64encode(digest.value).decode()}:"
            found = [{"algorithm": digest.label, "provided-digest": provided, "header": digest.field}]
            return {"mismatching-digests": found}
        case UnsupportedDigest():
            found = [{"algorithm": name, "header": error.field} for name in error.algorithms]
            return {"unsupported-algorithms": found}
        case ImpossibleDigest():
            found = [{"algorithm": error.algorithm, "header": error.field, "reason": error.message}]
            return {"invalid-digests": found}
    return {}
