"""The policy of a node whose weather another installation measures: by what it was told, and how old that is."""

from collections.abc import Awaitable, Callable
from math import inf
from uuid import UUID

import trio

from skygw.client.following import Following
from skygw.sim.installation import WEATHER_UNKNOWN, WEATHER_UNSAFE

LOOK_S = 0.5
"""Real seconds between two looks without news: that a value grows old is no news."""


class WeatherWatch:
    """Shuts when the weather is unsafe, or was not heard of for `max_age_s` on this node's own clock, whoever is to
    blame: the sensor, its node, the gateway or a link. Shorter silences shut nothing.
    """

    def __init__(
        self,
        following: Following,
        sensor_uid: UUID,
        *,
        max_age_s: float,
        is_shut: Callable[[], bool],
        shut: Callable[[str], Awaitable[None]],
    ) -> None:
        """`shut` is told why; it must raise nothing, and is called again while `is_shut` says no."""
        self._following = following
        self._sensor_uid = sensor_uid
        self._max_age_s = max_age_s
        self._is_shut = is_shut
        self._shut = shut

    def why_shut(self) -> str | None:
        """Why nothing may be open now, in one word."""
        weather = self._following.fresh_or_none(self._sensor_uid, max_age_s=self._max_age_s)
        if weather is None:
            return WEATHER_UNKNOWN
        return None if weather.data.get("state") == "safe" else WEATHER_UNSAFE

    async def run(self) -> None:
        """Never returns. Who has just started has missed nothing yet: a roof that is open then is given `max_age_s`."""
        patient_until = trio.current_time() + self._max_age_s
        while True:
            seen = self._following.news
            why = self.why_shut()
            if why != WEATHER_UNKNOWN:
                patient_until = -inf  # from now on the age of what was heard decides
            patient = trio.current_time() < patient_until
            if why is not None and not patient and not self._is_shut():
                await self._shut(why)
            with trio.move_on_after(LOOK_S):
                await self._following.changed(seen)
