"""A device part that travels between two places and can be read and stopped anywhere on the way."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from skygw.ids import CommandId
from skygw.sim.devices.device import Device, DeviceFault, Work
from skygw.sim.journal import Action, Order

P = TypeVar("P")


@dataclass(frozen=True)
class Journey(Generic[P]):
    """One movement; times are the clock's elapsed simulated seconds."""

    order: Order
    origin: P
    goal: P
    started_at: float
    duration_s: float
    started: Action
    reached: Action
    details: dict[str, Any]
    on_arrival: Callable[[], None] | None
    stands: tuple[float, Order] | None = None
    """When a stop that was too late takes effect, and on whose account."""

    @property
    def arrives_at(self) -> float:
        return self.started_at + self.duration_s


class Mover(Device, Generic[P]):
    """A device whose place is worked out from the time when somebody looks: no background task."""

    stopped: Action
    """What a stop on the way is called in the journal."""

    _place: P
    _journey: Journey[P] | None = None
    _once_more: Journey[P] | None = None
    """A journey that the hardware will make by itself."""
    _departed: tuple[CommandId | None, dict[str, Any] | None] | None = None
    """The last command that made it travel, and what its driver said before."""

    @property
    def place(self) -> P:
        """Where the moving part truly is."""
        self._catch_up()
        journey = self._journey
        if journey is None:
            return self._place
        return self._place_at(journey, self._clock.elapsed())

    @property
    def is_moving(self) -> bool:
        """Whether it truly moves."""
        self._catch_up()
        return self._journey is not None

    @property
    def fraction_done(self) -> float | None:
        self._catch_up()
        if self._journey is None:
            return None
        return min(1.0, (self._clock.elapsed() - self._journey.started_at) / self._journey.duration_s)

    @property
    def seconds_left(self) -> float | None:
        self._catch_up()
        if self._journey is None:
            return None
        return self._journey.started_at + self._journey.duration_s - self._clock.elapsed()

    @abstractmethod
    def _between(self, origin: P, goal: P, fraction: float) -> P: ...

    @abstractmethod
    def _describe(self, place: P) -> dict[str, Any]:
        """A place as it stands in the journal."""

    async def _travel(
        self,
        work: Work,
        goal: P,
        *,
        duration_s: float,
        started: Action,
        reached: Action,
        on_arrival: Callable[[], None] | None = None,
        **details: Any,
    ) -> None:
        """Move to `goal` within `duration_s` simulated seconds; see `Device` for what it raises."""
        if self._departed is None or self._departed[0] != work.order.command_id:
            self._departed = (work.order.command_id, self._said_place())
        await self._hang_if_stuck(work)
        origin = self.place
        duration_s *= self.faults.slow
        journey = Journey(
            work.order, origin, goal, self._clock.elapsed(), duration_s, started, reached, details, on_arrival
        )
        self._place, self._journey, self._once_more = origin, journey, None
        self._record(
            work.order,
            started,
            origin=self._describe(origin),
            goal=self._describe(goal),
            expected_s=duration_s,
            **details,
        )
        await self._pass_time(work, duration_s)
        if self._journey is journey:
            self._arrive(journey)
        await self._hang_if_silent(work)

    def has_shown_life(self, command_id: CommandId | None, said: dict[str, Any]) -> bool:
        """A driver that says the same place as before its device travelled has not seen it travel."""
        if self._departed is None or self._departed[0] != command_id:
            return True
        before = self._departed[1]
        return before is not None and any(said[name] != before[name] for name in before)

    def _said_place(self) -> dict[str, Any] | None:
        """What the driver measures; None if it cannot be read."""
        try:
            said = self.snapshot()
        except DeviceFault:
            return None
        return {name: said[name] for name in self.still_fields if name != "state"}

    def _halt(self, order: Order) -> None:
        self._catch_up()
        now = self._clock.elapsed()
        self._once_more = None
        if self._journey is None:
            self._record(order, Action.STOP_RECEIVED, place=self._describe(self._place))
        elif self.faults.late_stop_s:
            stands = self._journey.stands or (now + self.faults.late_stop_s, order)
            self._journey = replace(self._journey, stands=stands)
        else:
            self._stand(self._journey, now, order)

    def _catch_up(self) -> None:
        """Book what the hardware did and nobody waited for: it came late to rest, arrived, or went on by itself."""
        now = self._clock.elapsed()
        if self._once_more is not None and now >= self._once_more.started_at:
            self._journey, self._once_more = self._once_more, None
            self._record(self._journey.order, self._journey.started, origin=self._describe(self._journey.origin))
        journey = self._journey
        if journey is None:
            return
        if journey.stands is not None and journey.stands[0] < journey.arrives_at:
            if now >= journey.stands[0]:
                self._stand(journey, *journey.stands)
        elif now >= journey.arrives_at:
            self._arrive(journey)

    def _stand(self, journey: Journey[P], at: float, order: Order) -> None:
        place = self._place_at(journey, at)
        self._place, self._journey = place, None
        self._record(order, self.stopped, place=self._describe(place))
        if self.faults.moves_again_after_s is not None:
            self._once_more = replace(
                journey,
                order=Order(cause="by itself"),
                origin=place,
                started_at=at + self.faults.moves_again_after_s,
                duration_s=journey.arrives_at - at,
                stands=None,
            )

    def _place_at(self, journey: Journey[P], at: float) -> P:
        return self._between(journey.origin, journey.goal, (at - journey.started_at) / journey.duration_s)

    def _arrive(self, journey: Journey[P]) -> None:
        self._place, self._journey = journey.goal, None
        self._record(journey.order, journey.reached, place=self._describe(journey.goal), **journey.details)
        if journey.on_arrival is not None:
            journey.on_arrival()
