"""A simulated focuser: a drawtube that moves in steps."""

from random import Random
from typing import Any, ClassVar

from skygw.ids import DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Refused
from skygw.sim.devices.mover import Mover
from skygw.sim.journal import Action, DeviceJournal, Order


class Focuser(Mover[float]):
    """Begins in the middle of its travel."""

    device_type: ClassVar[str] = "focuser"
    still_fields: ClassVar[tuple[str, ...]] = ("state", "position")
    stopped = Action.FOCUSER_STOPPED

    def __init__(
        self,
        *,
        uid: DeviceUid,
        name: str,
        clock: SimClock,
        journal: DeviceJournal,
        chance: Random,
        steps: int = 20_000,
        steps_per_s: float = 500.0,
    ) -> None:
        super().__init__(uid=uid, name=name, clock=clock, journal=journal, chance=chance)
        self.steps = steps
        self._steps_per_s = steps_per_s
        self._place = float(steps // 2)

    async def move(self, order: Order, position: int) -> None:
        """Move to an absolute step."""
        if not 0 <= position <= self.steps:
            raise Refused(
                f"{self.name} has the steps 0 to {self.steps}, not {position}.",
                code="invalid",
                reason="out_of_range",
            )
        with self._working(order) as work:
            await self._travel(
                work,
                float(position),
                duration_s=abs(position - self.place) / self._steps_per_s,
                started=Action.FOCUSER_MOVING,
                reached=Action.FOCUSER_REACHED,
            )

    def _between(self, origin: float, goal: float, fraction: float) -> float:
        return origin + (goal - origin) * fraction

    def _describe(self, place: float) -> dict[str, Any]:
        return {"position": round(place)}

    def _state(self) -> dict[str, Any]:
        return {"state": "moving" if self.is_moving else "stopped", "position": round(self.place)}
