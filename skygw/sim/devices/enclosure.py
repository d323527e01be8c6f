"""A simulated roof over telescopes: it takes its time and does not close over a mount that is not parked."""

from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

from skygw.ids import DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Refused
from skygw.sim.devices.mount import Mount
from skygw.sim.devices.mover import Mover
from skygw.sim.journal import Action, DeviceJournal, Order


class Enclosure(Mover[float]):
    """Begins closed. Its place is how far it is open, 0 to 1.

    The interlock believes what the mounts say of themselves; the roof does not: closed over a mount that
    lied about being parked, it strikes it, and the journal says so.
    """

    device_type: ClassVar[str] = "enclosure"
    still_fields: ClassVar[tuple[str, ...]] = ("state", "opening")
    resting_states: ClassVar[frozenset[str]] = frozenset({"stopped", "open", "closed"})
    stopped = Action.ROOF_STOPPED

    def __init__(
        self,
        *,
        uid: DeviceUid,
        name: str,
        clock: SimClock,
        journal: DeviceJournal,
        chance: Random,
        mounts: Sequence[Mount],
        travel_s: float = 30.0,
    ) -> None:
        super().__init__(uid=uid, name=name, clock=clock, journal=journal, chance=chance)
        self._mounts = tuple(mounts)
        self._travel_s = travel_s
        self._place = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether it is truly closed."""
        return self.place == 0.0

    def unparked(self) -> list[Mount]:
        """The mounts under this roof that do not say they are parked, or say nothing at all."""
        return [mount for mount in self._mounts if mount.faults.unreadable or not mount.snapshot()["is_parked"]]

    async def open(self, order: Order) -> None:
        """Open all the way; nothing moves if it is open."""
        await self._move(order, 1.0, Action.ROOF_OPENED)

    async def close(self, order: Order) -> None:
        """Close all the way; nothing moves if it is closed. `Refused` over a mount that is not parked."""
        in_the_way = self.unparked()
        if in_the_way:
            raise Refused(
                f"{self.name} does not close over a mount that is not parked: "
                f"{', '.join(mount.name for mount in in_the_way)}.",
                code="conflict",
                reason="interlock_active",
                device_uids=[str(mount.uid) for mount in in_the_way],
            )
        await self._move(order, 0.0, Action.ROOF_CLOSED)

    async def _move(self, order: Order, goal: float, reached: Action) -> None:
        with self._working(order) as work:
            way = abs(goal - self.place)
            if way == 0:
                await self._hang_if_stuck(work)
                return
            await self._travel(
                work,
                goal,
                duration_s=way * self._travel_s,
                started=Action.ROOF_MOVING,
                reached=reached,
                on_arrival=lambda: self._strike(order) if reached is Action.ROOF_CLOSED else None,
            )

    def _strike(self, order: Order) -> None:
        for mount in self._mounts:
            if not mount.is_parked:
                self._record(order, Action.ROOF_STRUCK_MOUNT, mount_uid=str(mount.uid))

    def _between(self, origin: float, goal: float, fraction: float) -> float:
        return origin + (goal - origin) * fraction

    def _describe(self, place: float) -> dict[str, Any]:
        return {"opening": place}

    def _state(self) -> dict[str, Any]:
        opening = self.place
        return {
            "state": self._state_name(opening),
            "opening": opening,
            "is_open": opening == 1.0,
            "is_closed": self.is_closed,
        }

    def _state_name(self, opening: float) -> str:
        if self._journey is not None:
            return "opening" if self._journey.goal == 1.0 else "closing"
        return {0.0: "closed", 1.0: "open"}.get(opening, "stopped")
