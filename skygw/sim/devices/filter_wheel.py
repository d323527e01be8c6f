"""A simulated filter wheel: it turns from slot to slot and may be stopped between two."""

from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from skygw.ids import DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Refused
from skygw.sim.devices.mover import Mover
from skygw.sim.journal import Action, DeviceJournal, Order


@dataclass(frozen=True)
class Filter:
    """A filter and the id the hub knows it by."""

    filter_id: int
    name: str


class FilterWheel(Mover[float]):
    """Begins with slot 0 in the light. A slot takes a simulated second; the wheel turns either way round."""

    device_type: ClassVar[str] = "filter_wheel"
    still_fields: ClassVar[tuple[str, ...]] = ("state", "position")
    stopped = Action.FILTER_WHEEL_STOPPED

    def __init__(
        self,
        *,
        uid: DeviceUid,
        name: str,
        clock: SimClock,
        journal: DeviceJournal,
        chance: Random,
        filters: tuple[Filter, ...],
        slots_per_s: float = 1.0,
    ) -> None:
        super().__init__(uid=uid, name=name, clock=clock, journal=journal, chance=chance)
        self.filters = filters
        self._slots_per_s = slots_per_s
        self._place = 0.0

    @property
    def filter(self) -> Filter | None:
        """The filter that is truly in the light; None while the wheel stands or turns between two slots."""
        place = self.place % len(self.filters)
        # A hair below the first slot is five, by the rounding of a remainder.
        slot = int(place) % len(self.filters)
        return self.filters[slot] if not self.is_moving and place == int(place) else None

    def is_at_rest(self, said: dict[str, Any]) -> bool:
        """Between two slots it has no position to read: what it says then is its driver's word, and no measurement."""
        return super().is_at_rest(said) and said["position"] is not None

    def slot_of(self, filter_id: int) -> int:
        """The slot of a filter. Raises `Refused` if the wheel does not hold it."""
        for slot, held in enumerate(self.filters):
            if held.filter_id == filter_id:
                return slot
        raise Refused(f"{self.name} does not hold filter {filter_id}.", code="not_found", reason="filter_not_found")

    async def turn_to(self, order: Order, slot: int) -> None:
        """Put a slot into the light by the shorter way round; nothing moves if it is there."""
        slots = len(self.filters)
        if not 0 <= slot < slots:
            raise Refused(
                f"{self.name} has the slots 0 to {slots - 1}, not {slot}.",
                code="invalid",
                reason="out_of_range",
            )
        with self._working(order) as work:
            here = self.place
            way = (slot - here + slots / 2) % slots - slots / 2
            if way == 0:
                await self._hang_if_stuck(work)
                return
            await self._travel(
                work,
                here + way,
                duration_s=abs(way) / self._slots_per_s,
                started=Action.FILTER_WHEEL_MOVING,
                reached=Action.FILTER_WHEEL_REACHED,
            )

    def _between(self, origin: float, goal: float, fraction: float) -> float:
        return origin + (goal - origin) * fraction

    def _describe(self, place: float) -> dict[str, Any]:
        return {"position": place % len(self.filters)}

    def _state(self) -> dict[str, Any]:
        held = self.filter
        return {
            "state": "moving" if self.is_moving else "stopped",
            "position": None if held is None else self.filters.index(held),
            "filter_id": None if held is None else held.filter_id,
            "filter_name": None if held is None else held.name,
        }
