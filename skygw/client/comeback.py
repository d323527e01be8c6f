"""When to connect again, from how the last connection ended: pure, so that fifteen minutes are tested in none."""

from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from skygw.client.link import LinkEnded
from skygw.protocol.close_codes import CloseCode, comeback_delay, comes_back_late

STEADY_S = 10.0
"""A session that lasted this long counts as a success: the back-off starts anew."""

MAX_ASKED_S = 15 * 60.0
"""No gateway can send a node away for longer."""

PASSING_REFUSALS = 8
"""So many in a row may pass by themselves: keys that are being changed, a proxy that is being set up. They take about
half a minute, as long as a gateway may wait before it fetches new keys."""

_LATE_AT_ONCE = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.UPGRADE_REQUIRED})
_LATE_IN_THE_END = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND})


class Comeback(NamedTuple):
    """What to do about an end: wait `in_s` seconds; `is_late` asks for a person's attention meanwhile."""

    in_s: float
    is_late: bool


class Comebacks:
    """One for the life of the program. `chance` is uniform in [0, 1).

    With `one_token` each connect brings the same token: one that was refused is refused again, and a person is needed.
    """

    def __init__(self, chance: Callable[[], float], *, one_token: bool = False) -> None:
        self._chance = chance
        self._late_at_once = _LATE_AT_ONCE | {HTTPStatus.UNAUTHORIZED} if one_token else _LATE_AT_ONCE
        self._attempt = 0
        self._refusals = 0
        self._token_refused = False

    def after(self, end: LinkEnded, *, lasted_s: float) -> Comeback:
        """`lasted_s` counts from the welcome, 0 when there was none."""
        if lasted_s >= STEADY_S:
            self._attempt = 0
        self._refusals = self._refusals + 1 if end.status in _LATE_IN_THE_END else 0
        first_refusal = end.status == HTTPStatus.UNAUTHORIZED and not self._token_refused
        self._token_refused = end.status == HTTPStatus.UNAUTHORIZED
        if first_refusal and end.status not in self._late_at_once:
            return Comeback(0.0, is_late=False)  # the next connect brings a fresh token
        code = end.code
        if end.status is not None:
            refused = end.status in self._late_at_once or self._refusals > PASSING_REFUSALS
            code = CloseCode.FORBIDDEN if refused else None
        delay = comeback_delay(
            code=code,
            attempt=self._attempt,
            chance=self._chance(),
            at_least_s=min(end.retry_after_s, MAX_ASKED_S),
        )
        self._attempt += 1
        return Comeback(delay, is_late=comes_back_late(code))
