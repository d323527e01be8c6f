"""When to connect again, from how the last connection ended: pure, so that fifteen minutes are tested in none."""

from collections.abc import Callable
from http import HTTPStatus

from skygw.client.link import LinkEnded
from skygw.protocol.close_codes import CloseCode, comeback_delay

STEADY_S = 10.0
"""A session that lasted this long counts as a success: the back-off starts anew."""

MAX_ASKED_S = 15 * 60.0
"""No gateway can send a node away for longer."""

_LATE_STATUS: dict[int, CloseCode] = {
    HTTPStatus.FORBIDDEN: CloseCode.FORBIDDEN,
    HTTPStatus.UPGRADE_REQUIRED: CloseCode.VERSION_UNSUPPORTED,
}


class Comeback:
    """`chance` is uniform in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._attempt = 0
        self._token_refused = False

    def delay(self, end: LinkEnded, *, lasted_s: float) -> float:
        """Seconds to wait. `lasted_s` counts from the welcome, 0 when there was none."""
        if lasted_s >= STEADY_S:
            self._attempt = 0
        first_refusal = end.status == HTTPStatus.UNAUTHORIZED and not self._token_refused
        self._token_refused = end.status == HTTPStatus.UNAUTHORIZED
        if first_refusal:
            return 0.0  # the next connect brings a fresh token
        code = end.code if end.status is None else _LATE_STATUS.get(end.status)
        delay = comeback_delay(
            code=code,
            attempt=self._attempt,
            chance=self._chance(),
            at_least_s=min(end.retry_after_s, MAX_ASKED_S),
        )
        self._attempt += 1
        return delay
