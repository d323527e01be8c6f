"""What to do about a failure: pure, so that a night of refusals is tested in none."""

from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

from skygw.client.problems import retry_of
from skygw.errors import GatewayError, Retry

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
MAX_ASKED_S: Final = 15 * 60.0
"""No gateway can make a node wait for longer."""

BARE_REFUSALS: Final = 8
"""A refusal without a reason is a proxy's, or that of a gateway which does not know the route yet: so many in a row,
some four minutes, may pass by themselves."""

_ABOUT_ALL = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.UNAUTHORIZED})
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})


class Verdict(Enum):
    """What a failure is about, and whether the same request makes sense again."""

    ALL = auto()
    """Nothing would come through now: the hub is away, or takes nothing of this installation's."""
    THIS = auto()
    """This request may be taken later; others may be taken now."""
    NEVER = auto()


def judge(error: GatewayError, *, bare_before: int = 0) -> Verdict:
    """`bare_before` is how many refusals without a reason this request has had in a row."""
    status = error.details.get("httpStatus")
    bare = bool(error.details.get("bare"))
    if status is None or status in _ABOUT_ALL or (status == HTTPStatus.FORBIDDEN and not bare):
        return Verdict.ALL
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        return Verdict.THIS
    if bare:
        return Verdict.NEVER if bare_before >= BARE_REFUSALS else Verdict.THIS
    return Verdict.THIS if retry_of(error) in (Retry.NOW, Retry.AFTER) else Verdict.NEVER


class Backoff:
    """Grows with each failure in a row, with jitter over all of it: a fleet that lost the hub does not come back in
    step. `chance` is uniform in [0, 1).
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.failures = 0

    def after(self, error: GatewayError) -> float:
        """How many seconds to wait now; never less than the hub asked for."""
        most_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self.failures, 16))
        self.failures += 1
        asked_s = min(error.retry_after_s or 0.0, MAX_ASKED_S)
        return asked_s + most_s * (0.1 + 0.9 * self._chance())

    def succeeded(self) -> None:
        self.failures = 0
