"""A simulated weather sensor: its values wander by a seeded random walk, and a scenario can make it rain."""

from math import inf
from random import Random
from typing import Any, ClassVar

from skygw.ids import DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Device
from skygw.sim.journal import Action, DeviceJournal, Order

STEP_S = 60.0
"""Simulated seconds between two steps of the walk."""

_WALKS = {
    # name: (at the beginning, lowest, highest, widest step)
    "temperature_c": (8.0, -25.0, 35.0, 0.2),
    "humidity_percent": (45.0, 5.0, 80.0, 0.8),
    "wind_speed_m_s": (3.0, 0.0, 12.0, 0.4),
    "cloud_cover_percent": (10.0, 0.0, 60.0, 1.5),
    "pressure_hpa": (1013.0, 985.0, 1035.0, 0.3),
}


class WeatherSensor(Device):
    """Nothing here moves: a stop is noted and changes nothing. Rain is unsafe; the walk alone never is."""

    device_type: ClassVar[str] = "weather_sensor"
    still_fields: ClassVar[tuple[str, ...]] = ("state",)

    def __init__(self, *, uid: DeviceUid, name: str, clock: SimClock, journal: DeviceJournal, chance: Random) -> None:
        super().__init__(uid=uid, name=name, clock=clock, journal=journal, chance=chance)
        self._values = {
            name: first + chance.uniform(-widest, widest) * 5
            for name, (first, _lowest, _highest, widest) in _WALKS.items()
        }
        self._steps_taken = 0
        self._raining = False
        self._dry_since = -inf

    @property
    def is_raining(self) -> bool:
        """Whether it truly rains."""
        return self._raining

    @property
    def dry_for_s(self) -> float:
        """Simulated seconds since the last rain ended."""
        return 0.0 if self._raining else self._clock.elapsed() - self._dry_since

    def begin_rain(self, cause: str = "scenario") -> None:
        """From now on it rains."""
        self._raining = True
        self._record(Order(cause=cause), Action.RAIN_BEGAN)

    def end_rain(self, cause: str = "scenario") -> None:
        """The sky clears."""
        self._raining = False
        self._dry_since = self._clock.elapsed()
        self._record(Order(cause=cause), Action.RAIN_ENDED)

    def _halt(self, order: Order) -> None:
        self._record(order, Action.STOP_RECEIVED)

    def _state(self) -> dict[str, Any]:
        self._walk()
        return {
            "state": "unsafe" if self._raining else "safe",
            "is_raining": self._raining,
            **{name: round(value, 2) for name, value in self._values.items()},
        }

    def _walk(self) -> None:
        due = int(self._clock.elapsed() / STEP_S)
        for _step in range(due - self._steps_taken):
            for name, (_first, lowest, highest, widest) in _WALKS.items():
                wandered = self._values[name] + self._chance.uniform(-widest, widest)
                self._values[name] = min(highest, max(lowest, wandered))
        self._steps_taken = max(due, self._steps_taken)
