"""A simulated mount: it slews along the shortest arc at a fixed rate, tracks, parks, and stops anywhere."""

from dataclasses import replace
from math import cos, radians
from random import Random
from typing import Any, ClassVar, Literal

from skygw.ids import DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.coordinates import (
    Direction,
    Equatorial,
    Horizontal,
    Place,
    along_arc,
    direction_of,
    equatorial_at,
    equatorial_of,
    horizontal_of,
    separation_deg,
)
from skygw.sim.devices.device import Refused, Work
from skygw.sim.devices.mover import Mover
from skygw.sim.journal import Action, DeviceJournal, Order
from skygw.sim.offset_pattern import DaisyPattern, RasterPattern

OffsetAxis = Literal["ra", "dec", "alt", "az"]

PARK_POSITION = Horizontal(alt_deg=20.0, az_deg=0.0)


class Mount(Mover[Direction]):
    """Begins parked. Nothing moves it while parked but `unpark`; `park` is allowed from anywhere."""

    device_type: ClassVar[str] = "mount"
    still_fields: ClassVar[tuple[str, ...]] = ("state", "ra_deg", "dec_deg")
    resting_states: ClassVar[frozenset[str]] = frozenset({"stopped", "parked"})
    stopped = Action.SLEW_STOPPED

    def __init__(
        self,
        *,
        uid: DeviceUid,
        name: str,
        clock: SimClock,
        journal: DeviceJournal,
        chance: Random,
        place: Place,
        slew_rate_deg_s: float = 4.0,
        settle_s: float = 1.0,
        lowest_alt_deg: float = 15.0,
        park_position: Horizontal = PARK_POSITION,
    ) -> None:
        super().__init__(uid=uid, name=name, clock=clock, journal=journal, chance=chance)
        self._site = place
        self._slew_rate_deg_s = slew_rate_deg_s
        self._settle_s = settle_s
        self._lowest_alt_deg = lowest_alt_deg
        self._park_direction = direction_of(equatorial_at(park_position, place))
        self._place = self._park_direction
        self._parked = True
        self._tracking = False

    @property
    def is_parked(self) -> bool:
        """Whether it truly stands in its park position with the brakes on."""
        self._catch_up()
        return self._parked

    @property
    def position(self) -> Equatorial:
        """Where the telescope truly points."""
        return equatorial_of(self.place)

    async def point(self, order: Order, target: Equatorial | Horizontal) -> None:
        """Slew to the target and stand there."""
        with self._working(order) as work:
            await self._slew(work, self._reachable(target))

    async def track(
        self,
        order: Order,
        target: Equatorial | Horizontal,
        pattern: RasterPattern | DaisyPattern | None = None,
    ) -> None:
        """Slew to the target and follow it; walk the pattern, if any, around it and go on tracking."""
        goal = self._reachable(target)
        centre = equatorial_of(goal)
        steps = [
            self._reachable(_shifted(centre, east, north))
            for east, north in (pattern.offsets_arcsec() if pattern else [])
        ]
        with self._working(order) as work:
            await self._slew(work, goal)
            self._tracking = True
            self._record(order, Action.TRACKING_STARTED, place=self._describe(goal))
            if pattern is None:
                return
            for number, step in enumerate(steps):
                await self._offset(work, step, step=number)
                await self._pass_time(work, pattern.dwell_s)
            await self._offset(work, goal, step=len(steps))

    async def offset_relative(self, order: Order, *, delta_arcsec: float, axis: OffsetAxis) -> None:
        """Move by an angle on the sky along one axis from where it points now; tracking goes on after."""
        here = self.position
        if axis == "ra":
            goal = self._reachable(_shifted(here, delta_arcsec, 0.0))
        elif axis == "dec":
            goal = self._reachable(_shifted(here, 0.0, delta_arcsec))
        else:
            stands = horizontal_of(here, self._site)
            delta_deg = delta_arcsec / 3600
            if axis == "alt":
                stands = replace(stands, alt_deg=min(90.0, stands.alt_deg + delta_deg))
            else:
                stands = replace(stands, az_deg=stands.az_deg + delta_deg / max(1e-6, cos(radians(stands.alt_deg))))
            goal = self._reachable(stands)
        with self._working(order) as work:
            self._refuse_if_parked()
            await self._offset(work, goal)

    async def park(self, order: Order) -> None:
        """Slew to the park position and put the brakes on; nothing to do if parked."""
        with self._working(order) as work:
            if self.is_parked:
                await self._hang_if_stuck(work)
                return
            self._tracking = False
            await self._travel(
                work,
                self._park_direction,
                duration_s=self._slew_time_s(self._park_direction),
                started=Action.PARK_STARTED,
                reached=Action.PARK_REACHED,
                on_arrival=self._put_brakes_on,
            )

    async def unpark(self, order: Order) -> None:
        """Let the brakes go; nothing to do if not parked."""
        with self._working(order) as work:
            if not self.is_parked:
                return
            await self._hang_if_stuck(work)
            self._record(order, Action.UNPARK_STARTED)
            await self._pass_time(work, self._settle_s * self.faults.slow)
            self._parked = False
            self._record(order, Action.UNPARKED)
            await self._hang_if_silent(work)

    async def _slew(self, work: Work, goal: Direction) -> None:
        self._refuse_if_parked()
        self._tracking = False
        await self._travel(
            work,
            goal,
            duration_s=self._slew_time_s(goal),
            started=Action.SLEW_STARTED,
            reached=Action.SLEW_REACHED,
        )

    async def _offset(self, work: Work, goal: Direction, **details: Any) -> None:
        await self._travel(
            work,
            goal,
            duration_s=separation_deg(self.place, goal) / self._slew_rate_deg_s,
            started=Action.OFFSET_STARTED,
            reached=Action.OFFSET_REACHED,
            **details,
        )

    def _halt(self, order: Order) -> None:
        if self._tracking:
            self._tracking = False
            self._record(order, Action.TRACKING_STOPPED, place=self._describe(self.place))
            if not self.is_moving:
                return
        super()._halt(order)

    def _refuse_if_parked(self) -> None:
        if self.is_parked:
            raise Refused(f"{self.name} is parked; unpark it first.", code="conflict", reason="parked")

    def _reachable(self, target: Equatorial | Horizontal) -> Direction:
        """The direction of a target. Raises `Refused` below the mount's limit."""
        stands = target if isinstance(target, Horizontal) else horizontal_of(target, self._site)
        if stands.alt_deg < self._lowest_alt_deg:
            raise Refused(
                f"The target stands at altitude {stands.alt_deg:.1f}°, and {self.name} goes down to "
                f"{self._lowest_alt_deg:.1f}° only.",
                code="invalid",
                reason="below_horizon_limit",
            )
        return direction_of(equatorial_at(target, self._site) if isinstance(target, Horizontal) else target)

    def _slew_time_s(self, goal: Direction) -> float:
        return separation_deg(self.place, goal) / self._slew_rate_deg_s + self._settle_s

    def _put_brakes_on(self) -> None:
        self._parked = True

    def _between(self, origin: Direction, goal: Direction, fraction: float) -> Direction:
        return along_arc(origin, goal, fraction)

    def _describe(self, place: Direction) -> dict[str, Any]:
        position = equatorial_of(place)
        return {"ra_deg": position.ra_deg, "dec_deg": position.dec_deg}

    def _state(self) -> dict[str, Any]:
        position = self.position
        stands = horizontal_of(position, self._site)
        moving = self.is_moving
        return {
            "state": self._state_name(moving=moving),
            "ra_deg": position.ra_deg,
            "dec_deg": position.dec_deg,
            "alt_deg": stands.alt_deg,
            "az_deg": stands.az_deg,
            "is_parked": self.is_parked,
            "is_slewing": moving,
            "is_tracking": self._tracking,
        }

    def _state_name(self, *, moving: bool) -> str:
        if moving:
            parking = self._journey is not None and self._journey.reached is Action.PARK_REACHED
            return "parking" if parking else "slewing"
        if self._parked:
            return "parked"
        return "tracking" if self._tracking else "stopped"


def _shifted(centre: Equatorial, east_arcsec: float, north_arcsec: float) -> Equatorial:
    """A position moved by small angles on the sky; it stays short of the poles, where ra means nothing."""
    dec_deg = max(-89.999, min(89.999, centre.dec_deg + north_arcsec / 3600))
    return Equatorial((centre.ra_deg + east_arcsec / 3600 / cos(radians(dec_deg))) % 360.0, dec_deg)
