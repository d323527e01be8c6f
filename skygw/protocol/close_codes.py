"""Why a node socket ends, and when the node comes back: no code means never (contract §5)."""

from enum import IntEnum


class CloseCode(IntEnum):
    """4000–4499: come back now, with a jittered back-off. 4500–4999: come back late, and show why on site."""

    NORMAL = 1000
    GOING_AWAY = 1001
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    DRAINING = 4001
    SILENT = 4002
    SLOW_CONSUMER = 4003
    TOKEN_EXPIRED = 4004
    RATE_LIMITED = 4005
    PROTOCOL_VIOLATION = 4500
    SUPERSEDED = 4501
    REVOKED = 4502
    VERSION_UNSUPPORTED = 4503
    FORBIDDEN = 4504
    DUPLICATE_INSTANCE = 4505


FIRST_LATE_CODE = 4500
LAST_LATE_CODE = 4999
RULE_BROKEN_CODES = frozenset({1002, 1003, 1007, 1009})
"""RFC 6455's own words for a peer that broke a rule. Said to a node, the fault is its own and will be made again."""

MAX_REASON_BYTES = 123
"""RFC 6455 §5.5: a control frame carries 125 bytes, two of them the code."""

SOON_FIRST_S = 0.5
SOON_CAP_S = 30.0
LATE_FROM_S = 5 * 60.0
LATE_TO_S = 15 * 60.0


def comes_back_late(code: int | None) -> bool:
    """Whether this close asks for a person's attention before another try is useful."""
    return code is not None and (FIRST_LATE_CODE <= code <= LAST_LATE_CODE or code in RULE_BROKEN_CODES)


def comeback_delay(*, code: int | None, attempt: int, chance: float, at_least_s: float = 0.0) -> float:
    """Seconds to wait before connecting again.

    `attempt` counts from 0 since the last welcome; `chance` is uniform in [0, 1). Soon: capped exponential back-off
    with full jitter. Late: uniform in 5–15 min. `at_least_s` is what the gateway asked for;
    more than 15 min is not granted, for a slip there must not keep a site away.
    """
    asked_s = min(max(at_least_s, 0.0), LATE_TO_S)
    if comes_back_late(code):
        return max(asked_s, LATE_FROM_S + chance * (LATE_TO_S - LATE_FROM_S))
    ceiling = min(SOON_CAP_S, SOON_FIRST_S * 2.0 ** min(attempt, 16))
    return asked_s + chance * ceiling


def fitted_reason(reason: str) -> str:
    """`reason` cut to what a close frame can carry, never inside a character."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
