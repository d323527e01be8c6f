"""The one table that turns errors into HTTP answers (contract §3)."""

import json
import math
from typing import Any

from skygw.errors import (
    AssetsIncomplete,
    BadResponse,
    Busy,
    ConfigurationChanged,
    DeadlineExceeded,
    DeviceBusy,
    Draining,
    Forbidden,
    GatewayError,
    IdReused,
    IllegalTransition,
    InterlockActive,
    Internal,
    Invalid,
    LeaseExpired,
    LeaseHeld,
    LeaseRequired,
    LinkLost,
    LocalControl,
    NodeFailed,
    NodeOffline,
    NodeRefused,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Retry,
    RoutingUnavailable,
    StaleEpoch,
    StaleFence,
    StorageFull,
    StoreFailed,
    TaskActive,
    TooLarge,
    Unauthenticated,
)
from skygw.protocol.node_frames import ErrorCode

JSON_TYPE = "application/json"

RETRY_AFTER_UNLESS_TOLD_S = 2.0
"""`retry: after` always comes with a number."""

STATUS: dict[type[GatewayError], int] = {
    Invalid: 422,
    TooLarge: 413,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    NodeOffline: 503,
    Busy: 429,
    DeviceBusy: 409,
    IdReused: 409,
    LeaseRequired: 409,
    LeaseHeld: 409,
    LeaseExpired: 409,
    StaleFence: 409,
    LocalControl: 409,
    InterlockActive: 409,
    TaskActive: 409,
    ConfigurationChanged: 409,
    IllegalTransition: 409,
    AssetsIncomplete: 409,
    NodeRefused: 409,
    NodeFailed: 502,
    RateLimited: 429,
    QuotaExceeded: 413,
    StorageFull: 507,
    StaleEpoch: 409,
    BadResponse: 502,
    Internal: 500,
    DeadlineExceeded: 504,
    LinkLost: 502,
    Draining: 503,
    RoutingUnavailable: 503,
    StoreFailed: 500,
}

_AS_THE_NODE_SAYS = {ErrorCode.NOT_FOUND: 404, ErrorCode.INVALID: 422}


def status_of(error: GatewayError) -> int:
    """The HTTP status; the nearest listed ancestor of the error's type decides."""
    if isinstance(error, NodeRefused):
        known = {code.value: status for code, status in _AS_THE_NODE_SAYS.items()}
        return known.get(error.node_code, STATUS[NodeRefused])
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem_body(error: GatewayError, request_id: str | None) -> dict[str, Any]:
    """The members every error has; `details` where the error brings its own. A 422 has a list of fields as `detail`,
    each `{type, loc, msg}`: what was sent is not echoed, because it may hold a secret.
    """
    detail: Any = error.message
    if status_of(error) == 422:
        fields = error.fields if isinstance(error, Invalid) else []
        detail = fields or [{"type": error.reason, "loc": [], "msg": error.message}]
    body = {
        "detail": detail,
        "code": error.reason,
        "outcome": error.outcome.value,
        "retry": error.retry.value,
        "hop": error.hop.value,
        "reached": error.reached and error.reached.value,
        "requestId": request_id,
    }
    if error.details:
        body["details"] = error.details
    return body


def problem(error: GatewayError, request_id: str | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of the answer."""
    headers = [("content-type", JSON_TYPE)]
    if error.retry is Retry.AFTER or error.retry_after_s is not None:
        wait_s = RETRY_AFTER_UNLESS_TOLD_S if error.retry_after_s is None else error.retry_after_s
        headers.append(("retry-after", str(max(1, math.ceil(wait_s)))))
    if isinstance(error, Unauthenticated):
        headers.append(("www-authenticate", 'Bearer realm="skygw"'))
    body = json.dumps(problem_body(error, request_id), ensure_ascii=False, separators=(",", ":")).encode()
    return status_of(error), headers, body
