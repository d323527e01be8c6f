"""What all simulated devices share: one piece of work at a time, a stop that gets through at once, faults."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import trio

from skygw.ids import CommandId, DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.faults import Faults, Stall
from skygw.sim.journal import Action, DeviceJournal, Order

LATE_MOVES_S = 1.0
"""What is known of the drivers of a site that was given no other ones."""


class DeviceFault(Exception):
    """The hardware or its driver failed; something may have moved before."""


class Refused(Exception):
    """The device did nothing. `code` is the node's word, `reason` the finer one."""

    def __init__(self, message: str, *, code: str, reason: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details: dict[str, Any] = details


class Preempted(Exception):
    """A stop ended this work before it was done."""

    def __init__(self, message: str, *, by: Order) -> None:
        super().__init__(message)
        self.by = by


class Work:
    """One action under way in the task that called it; others may only interrupt it."""

    def __init__(self, order: Order, *, fails_with: str | None, fails_at: float) -> None:
        self.order = order
        self.fails_with = fails_with
        self.fails_at = fails_at
        self._stopped_by: Order | None = None
        self._interrupted = trio.Event()

    def interrupt(self, by: Order) -> None:
        """Wake whoever waits in `until`; synchronous, and the first one is the one that counts."""
        if self._stopped_by is None:
            self._stopped_by = by
            self._interrupted.set()

    async def until(self, trio_seconds: float) -> None:
        """Wait, for ever if infinite. Raises `Preempted` as soon as a stop comes."""
        with trio.move_on_after(trio_seconds):
            await self._interrupted.wait()
        if self._stopped_by is not None:
            by = self._stopped_by.command_id or self._stopped_by.cause
            raise Preempted(f"Stopped by {by}.", by=self._stopped_by)


@dataclass(frozen=True)
class _Answer:
    """What a driver repeats until then, on the clock's elapsed simulated seconds."""

    state: dict[str, Any]
    valid_until: float


class Device(ABC):
    """A device of a site. All methods belong to the one trio thread.

    Actions are async and take an `Order`; they raise `Refused` (nothing happened), `DeviceFault`, or
    `Preempted`. Cancelling an action stops the hardware where it is and writes that down. `stop` is
    synchronous: when it returns the hardware stands and the device is free for the next action. It raises `DeviceFault`
    where the driver does, and then the action goes on.
    """

    device_type: ClassVar[str]
    still_fields: ClassVar[tuple[str, ...]]
    """The snapshot fields that must not change between two readings of a device at rest."""
    resting_states: ClassVar[frozenset[str]] = frozenset({"stopped"})
    """What a device at rest says of its state."""

    def __init__(self, *, uid: DeviceUid, name: str, clock: SimClock, journal: DeviceJournal, chance: Random) -> None:
        self.uid = uid
        self.name = name
        self.faults = Faults()
        self.late_moves_s = LATE_MOVES_S
        """What the site knows of its driver: how long after it stood it may move once more, and how old its readings
        may be, in simulated seconds. Infinite: nobody knows, and no reading proves that it stands.
        """
        self._clock = clock
        self._journal = journal
        self._chance = chance
        self._work: Work | None = None
        self._answer: _Answer | None = None

    def snapshot(self) -> dict[str, Any]:
        """What the driver says now: the truth under `faults.lies`. Raises `DeviceFault` if unreadable."""
        if self.faults.unreadable:
            raise DeviceFault(f"{self.name} does not answer when asked for its state.")
        return {**self.truth(), **self._driver_says(), **self.faults.lies}

    def truth(self) -> dict[str, Any]:
        """What is so, whatever the driver says; for judges."""
        return {
            "uid": str(self.uid),
            "device_type": self.device_type,
            "name": self.name,
            "busy_with": self.holder,
            **self._state(),
        }

    @property
    def holder(self) -> str | None:
        """The command id, or the cause on site, of the action under way."""
        if self._work is None:
            return None
        return str(self._work.order.command_id or self._work.order.cause)

    @property
    def fraction_done(self) -> float | None:
        """How far the action under way is, 0 to 1; None if nobody can say."""
        return None

    def is_at_rest(self, said: dict[str, Any]) -> bool:
        """Whether a device that says this, and goes on saying it, is one that stands."""
        return said["state"] in self.resting_states

    def has_shown_life(self, command_id: CommandId | None, said: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether its driver was seen to notice what this command made it do."""
        return True

    @property
    def seconds_left(self) -> float | None:
        """Simulated seconds that the action under way will still take; None if nobody can say."""
        return None

    def stop(self, order: Order) -> None:
        """Stop whatever moves, now; not an error if nothing does. Raises `DeviceFault`."""
        if self.faults.frozen_by_stop:
            self._answer = _Answer(self._state(), valid_until=math.inf)
        if self.faults.fails_on_stop is not None:
            self._record(order, Action.STOP_IGNORED, message=self.faults.fails_on_stop)
            raise DeviceFault(self.faults.fails_on_stop)
        if self.faults.deaf_to_stop:
            self._record(order, Action.STOP_IGNORED)
        else:
            self._halt(order)
        if self._work is not None:
            self._work.interrupt(order)
            self._work = None

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """The true state fields of this kind of device."""

    @abstractmethod
    def _halt(self, order: Order) -> None:
        """Freeze the hardware where it is and journal that (`STOP_RECEIVED` if it stood already)."""

    @contextmanager
    def _working(self, order: Order) -> Iterator[Work]:
        """Hold the device for one action. Raises `Refused` if another holds it."""
        if self._work is not None:
            raise Refused(
                f"{self.name} is busy with {self.holder}.",
                code="conflict",
                reason="device_busy",
                command_id=self.holder,
            )
        if self.faults.frozen_by_stop:
            self._answer = None
        work = self._work = self._new_work(order)
        try:
            yield work
        except trio.Cancelled:
            self._abandon(work, Order(order.command_id, cause="canceled"))
            raise
        except DeviceFault as fault:
            self._record(order, Action.FAULT, message=str(fault))
            self._abandon(work, Order(order.command_id, cause="fault"))
            raise
        finally:
            if self._work is work:
                self._work = None

    def _abandon(self, work: Work, order: Order) -> None:
        if self._work is work:
            with suppress(DeviceFault):  # which is in the journal; whether it stands is for a proof to show
                self.stop(order)

    def _new_work(self, order: Order) -> Work:
        if self.faults.fail is not None:
            return Work(order, fails_with=self.faults.fail, fails_at=0.5)
        if self.faults.fail_probability and self._chance.random() < self.faults.fail_probability:
            return Work(order, fails_with=f"{self.name} lost its drive signal.", fails_at=self._chance.random())
        return Work(order, fails_with=None, fails_at=1.0)

    async def _hang_if_stuck(self, work: Work) -> None:
        """Call before anything moves."""
        if self.faults.stall is Stall.STUCK:
            await work.until(float("inf"))

    async def _hang_if_silent(self, work: Work) -> None:
        """Call when everything has moved."""
        if self.faults.stall is Stall.SILENT:
            await work.until(float("inf"))

    async def _pass_time(self, work: Work, simulated_s: float) -> None:
        """Let the action take its time; raises `Preempted`, or `DeviceFault` on the way if it is to fail."""
        if work.fails_with is not None:
            await work.until(self._clock.trio_seconds(simulated_s * work.fails_at))
            raise DeviceFault(work.fails_with)
        await work.until(self._clock.trio_seconds(simulated_s))

    def _driver_says(self) -> dict[str, Any]:
        """The state as the driver knows it, which may be an old one."""
        now = self._clock.elapsed()
        if not (self.faults.asks_every_s or self.faults.frozen_by_stop):
            self._answer = None
        elif self._answer is not None and now < self._answer.valid_until:
            return self._answer.state
        elif self.faults.asks_every_s:
            self._answer = _Answer(self._state(), now + self.faults.asks_every_s)
            return self._answer.state
        return self._state()

    def _record(self, order: Order, action: Action, **details: Any) -> int:
        return self._journal.record(self.uid, action, order, details).number


def stop_each(devices: Iterable[Device], order: Order) -> None:
    """Stop all of them, also those behind one that fails. Raises the first `DeviceFault` when all were told."""
    faults: list[DeviceFault] = []
    for device in devices:
        try:
            device.stop(order)
        except DeviceFault as fault:
            faults.append(fault)
    if faults:
        raise faults[0]
