"""A device part that travels between two places and can be read and stopped anywhere on the way."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from skygw.sim.devices.device import Device, Work
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
    reached: Action
    details: dict[str, Any]
    on_arrival: Callable[[], None] | None


class Mover(Device, Generic[P]):
    """A device whose place is worked out from the time when somebody looks: no background task."""

    stopped: Action
    """What a stop on the way is called in the journal."""

    _place: P
    _journey: Journey[P] | None = None

    @property
    def place(self) -> P:
        """Where the moving part truly is."""
        self._catch_up()
        journey = self._journey
        if journey is None:
            return self._place
        passed = self._clock.elapsed() - journey.started_at
        return self._between(journey.origin, journey.goal, passed / journey.duration_s)

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
        await self._hang_if_stuck(work)
        origin = self.place
        duration_s *= self.faults.slow
        journey = Journey(work.order, origin, goal, self._clock.elapsed(), duration_s, reached, details, on_arrival)
        self._place, self._journey = origin, journey
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

    def _halt(self, order: Order) -> None:
        place = self.place
        journey, self._journey = self._journey, None
        self._place = place
        self._record(order, Action.STOP_RECEIVED if journey is None else self.stopped, place=self._describe(place))

    def _catch_up(self) -> None:
        """Book the arrival of a movement that nobody waits for any more (its stop was ignored)."""
        journey = self._journey
        if journey is not None and self._clock.elapsed() >= journey.started_at + journey.duration_s:
            self._arrive(journey)

    def _arrive(self, journey: Journey[P]) -> None:
        self._place, self._journey = journey.goal, None
        self._record(journey.order, journey.reached, place=self._describe(journey.goal), **journey.details)
        if journey.on_arrival is not None:
            journey.on_arrival()
