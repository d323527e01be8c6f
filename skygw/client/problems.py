"""From the gateway's HTTP answers back to the types of `errors.py`, so that a caller handles one set of errors."""

import json
from typing import Any

from skygw import errors
from skygw.errors import GatewayError, Hop, Invalid, NodeRefused, Outcome, Reached, Retry

MAX_PROBLEM_BYTES = 1024 * 1024


class OtherRefusal(GatewayError):
    """A reason this version of the client has no type for; `code` is the gateway's word."""

    reason = "other"

    def __init__(self, message: str, *, code: str, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.code = code


TYPES: dict[str, type[GatewayError]] = {
    kind.reason: kind
    for kind in (
        errors.Invalid,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.NodeOffline,
        errors.Busy,
        errors.IdReused,
        errors.LeaseRequired,
        errors.LeaseHeld,
        errors.LeaseExpired,
        errors.StaleFence,
        errors.IllegalTransition,
        errors.AssetsIncomplete,
        errors.NodeRefused,
        errors.NodeFailed,
        errors.RateLimited,
        errors.QuotaExceeded,
        errors.StorageFull,
        errors.StaleEpoch,
        errors.BadResponse,
        errors.Internal,
        errors.DeadlineExceeded,
        errors.LinkLost,
        errors.Draining,
        errors.RoutingUnavailable,
    )
}

_BARE = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    413: "invalid",
    422: "invalid",
    429: "rate_limited",
}


def rebuilt(status: int, headers: dict[str, str], content: bytes) -> GatewayError:
    """The error an answer of 400 or more stands for. `headers` have lower-case names.

    `details` holds what the type has no place for: `requestId`, `httpStatus`, the gateway's `retry`, the node's words;
    and `bare` where no reason was given, as by something that stands before the gateway.
    """
    retry_after = headers.get("retry-after", "")
    body = _body(content)
    error = error_of(
        {**body, "code": _text(body.get("code")) or _BARE.get(status, "other")},
        status=status,
        retry_after_s=float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None,
    )
    if _text(body.get("code")) is None:
        error.details["bare"] = True
    if status >= 500 and not body:
        # A proxy's answer: nobody has said what became of the request.
        error.outcome = Outcome.UNKNOWN
    return error


def error_of(body: dict[str, Any], *, status: int | None = None, retry_after_s: float | None = None) -> GatewayError:
    """The error a problem stands for, be it an answer or one of several in it."""
    code = _text(body.get("code")) or "other"
    detail = body.get("detail")
    fields = detail if isinstance(detail, list) else None
    message = _text(detail) or (f"The gateway answered HTTP {status}." if status else f"It would be refused: {code}.")
    if fields:
        first = fields[0] if isinstance(fields[0], dict) else {}
        message = f"{'.'.join(map(str, first.get('loc') or []))}: {first.get('msg', 'invalid')}"
    given = body.get("details")
    details: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    if status is not None:
        details["httpStatus"] = status
    for key in ("requestId", "retry"):
        if body.get(key) is not None:
            details[key] = body[key]
    known: dict[str, Any] = {
        "outcome": _member(Outcome, body.get("outcome")),
        "reached": _member(Reached, body.get("reached")),
        "hop": _member(Hop, body.get("hop")) or Hop.GATEWAY,
        "retry_after_s": retry_after_s,
        "details": details,
    }
    kind = TYPES.get(code)
    if kind is None:
        return OtherRefusal(message, code=code, **known)
    if issubclass(kind, Invalid):
        return kind(message, fields=fields, **known)
    if issubclass(kind, NodeRefused):
        node = details.get("node")
        said = node.get("code") if isinstance(node, dict) else None
        return kind(message, node_code=_text(said) or "unknown", **known)
    return kind(message, **known)


def retry_of(error: GatewayError) -> Retry:
    """What to do next: the gateway's own advice where it gave one."""
    return _member(Retry, error.details.get("retry")) or error.retry


def _body(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content[:MAX_PROBLEM_BYTES])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _member(enum: Any, value: object) -> Any:
    return enum(value) if isinstance(value, str) and value in set(enum) else None
