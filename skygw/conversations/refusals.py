"""The one table that turns errors into what a hub service is told on its socket (contract §3)."""

from typing import Any

from pydantic.alias_generators import to_snake

from skygw.errors import (
    AssetsIncomplete,
    Busy,
    ConfigurationChanged,
    DeviceBusy,
    Forbidden,
    GatewayError,
    IdReused,
    IllegalTransition,
    InterlockActive,
    Invalid,
    LeaseExpired,
    LeaseHeld,
    LeaseRequired,
    LocalControl,
    NodeOffline,
    NodeRefused,
    NotFound,
    QuotaExceeded,
    RateLimited,
    StaleEpoch,
    StaleFence,
    StorageFull,
    TaskActive,
    Unauthenticated,
)
from skygw.protocol.codec import BadFrame
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import Error, ErrorCode

CODES: dict[type[GatewayError], ErrorCode] = {
    Invalid: ErrorCode.INVALID,
    Unauthenticated: ErrorCode.FORBIDDEN,
    Forbidden: ErrorCode.FORBIDDEN,
    NotFound: ErrorCode.NOT_FOUND,
    NodeOffline: ErrorCode.CONFLICT,
    Busy: ErrorCode.CONFLICT,
    DeviceBusy: ErrorCode.CONFLICT,
    IdReused: ErrorCode.CONFLICT,
    LeaseRequired: ErrorCode.CONFLICT,
    LeaseHeld: ErrorCode.CONFLICT,
    LeaseExpired: ErrorCode.CONFLICT,
    StaleFence: ErrorCode.CONFLICT,
    LocalControl: ErrorCode.CONFLICT,
    InterlockActive: ErrorCode.CONFLICT,
    TaskActive: ErrorCode.CONFLICT,
    ConfigurationChanged: ErrorCode.CONFLICT,
    IllegalTransition: ErrorCode.CONFLICT,
    AssetsIncomplete: ErrorCode.CONFLICT,
    RateLimited: ErrorCode.CONFLICT,
    QuotaExceeded: ErrorCode.CONFLICT,
    StorageFull: ErrorCode.CONFLICT,
    StaleEpoch: ErrorCode.CONFLICT,
}
"""Everything else is `internal`, but for what a node refuses: that is as the node says."""

MAX_FIELDS = 20
"""Of what is wrong with a frame so much is listed."""

MAX_MESSAGE = 2_000
MAX_ID = 250
"""What a frame may carry of both (`Message`, `ShortText`)."""


def code_of(error: GatewayError) -> ErrorCode:
    """The nearest listed ancestor of the error's type decides."""
    if isinstance(error, NodeRefused):
        return ErrorCode(error.node_code) if error.node_code in list(ErrorCode) else ErrorCode.CONFLICT
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), ErrorCode.INTERNAL)


def details_of(error: GatewayError) -> dict[str, Any]:
    """What every refusal says beside its code, and what the error brings of its own, in snake_case; what a node said
    stays as it said it.
    """
    details: dict[str, Any] = {
        "reason": error.reason,
        "outcome": error.outcome.value,
        "retry": error.retry.value,
        "hop": error.hop.value,
    }
    if error.reached is not None:
        details["reached"] = error.reached.value
    if error.retry_after_s is not None:
        details["retry_after_s"] = error.retry_after_s
    if isinstance(error, Invalid) and error.fields:
        details["fields"] = error.fields[:MAX_FIELDS]
    return details | {to_snake(name): value for name, value in error.details.items()}


def refusal(error: GatewayError, about: str | None) -> Error:
    """`about` is the `command_id`, `subscription_id` or `id` of what is refused."""
    return Error(
        code=code_of(error),
        message=error.message[:MAX_MESSAGE],
        id=None if about is None else about[:MAX_ID],
        details=Opaque.of(details_of(error)),
    )


def refusal_of_frame(bad: BadFrame) -> Error:
    """Of a well-framed message that is no frame."""
    return refusal(Invalid(bad.message), bad.id)
