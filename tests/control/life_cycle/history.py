"""A history: what callers want, in which order things are done and go wrong; drawn from a seed, and made shorter."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Any
from uuid import UUID

from skygw.ids import CommandId
from skygw.protocol.gateway_frames import CancelMode, OnExpiry
from skygw.protocol.safing import is_safing
from tests.control.life_cycle.places import CAMERA, MOUNT, OTHER_TELESCOPE, ROOF, TELESCOPE

LATENCIES_S = (0.0, 0.0, 0.02, 0.2)
GAPS_S = (0.0, 0.0, 0.0, 0.01, 0.05, 0.3, 1.0, 3.0)
LONG_GAPS_S = (10.0, 30.0)
TAKES_S = (0.0, 0.05, 0.5, 3.0, 12.0)
TIMEOUTS_S = (0.3, 2.0, 15.0, 60.0)


@dataclass(frozen=True)
class OrderPlan:
    """One command, as often as it is sent."""

    command_id: CommandId
    target: UUID
    by_telescope: bool
    body: dict[str, Any]
    timeout_s: float

    @property
    def is_safing(self) -> bool:
        return is_safing(self.body["command_type"])


@dataclass(frozen=True)
class LeasePlan:
    """One lease that somebody may ask for."""

    caller: int
    target: UUID
    is_telescope: bool
    duration_s: float
    on_expiry: OnExpiry
    deadman_s: float | None


def stop_of(order: OrderPlan) -> OrderPlan:
    """The stop that belongs to an order; one for each."""
    family = order.body["command_type"].partition(".")[0]
    kind = "telescope.safe_shutdown" if family == "telescope" else f"{family}.stop"
    return replace(
        order, command_id=CommandId(UUID(int=order.command_id.int ^ 1)), body={"command_type": kind}, timeout_s=60.0
    )


class Do(StrEnum):
    """Everything that can happen in a history."""

    SUBMIT = "submit"
    REUSE = "reuse"
    STOP = "stop"
    """A stop of whatever the order's device is, under an id of its own."""
    CANCEL = "cancel"
    LOOK = "look"
    ACQUIRE = "acquire"
    RENEW = "renew"
    RELEASE = "release"
    BREAK = "break"
    CUT = "cut"
    SILENCE = "silence"
    HOLD = "hold"
    STICK = "stick"
    STRAY = "stray"
    NODE_ENDS = "node_ends"
    NODE_DIES = "node_dies"
    NODE_STARTS = "node_starts"
    SLOW_DISK = "slow_disk"
    GATEWAY_ENDS = "gateway_ends"
    GATEWAY_DIES = "gateway_dies"
    GATEWAY_STARTS = "gateway_starts"
    DATABASE_AWAY = "database_away"
    DATABASE_BACK = "database_back"
    DATABASE_SLOW = "database_slow"
    ANSWERS_LOST = "answers_lost"
    BACK_UP = "back_up"
    RESTORE = "restore"


@dataclass(frozen=True)
class Step:
    """What happens `after_s` the step before. `number` is the order or the lease it is about; `node` 0 has the
    telescope, 1 the roof.
    """

    after_s: float
    do: Do
    number: int = 0
    caller: int = 0
    lease: int | None = None
    node: int = 0
    for_s: float = 0.0
    mode: CancelMode = CancelMode.GRACEFUL
    flag: bool = False


@dataclass(frozen=True)
class History:
    """`seed` draws what is not planned: the order of tasks, jitter, ids."""

    seed: int
    orders: tuple[OrderPlan, ...]
    leases: tuple[LeasePlan, ...]
    steps: tuple[Step, ...]
    latency_s: float
    brake_s: float
    obeys: bool


WEIGHTS: dict[Do, int] = {
    Do.SUBMIT: 30,
    Do.REUSE: 2,
    Do.STOP: 3,
    Do.CANCEL: 12,
    Do.LOOK: 5,
    Do.ACQUIRE: 6,
    Do.RENEW: 2,
    Do.RELEASE: 2,
    Do.BREAK: 3,
    Do.CUT: 6,
    Do.SILENCE: 2,
    Do.HOLD: 5,
    Do.STICK: 3,
    Do.STRAY: 3,
    Do.NODE_ENDS: 2,
    Do.NODE_DIES: 4,
    Do.NODE_STARTS: 2,
    Do.SLOW_DISK: 4,
    Do.GATEWAY_ENDS: 2,
    Do.GATEWAY_DIES: 4,
    Do.GATEWAY_STARTS: 2,
    Do.DATABASE_AWAY: 4,
    Do.DATABASE_BACK: 2,
    Do.DATABASE_SLOW: 3,
    Do.ANSWERS_LOST: 1,
    Do.BACK_UP: 2,
    Do.RESTORE: 2,
}

MENDED_BY = {
    Do.NODE_ENDS: Do.NODE_STARTS,
    Do.NODE_DIES: Do.NODE_STARTS,
    Do.GATEWAY_ENDS: Do.GATEWAY_STARTS,
    Do.GATEWAY_DIES: Do.GATEWAY_STARTS,
    Do.RESTORE: Do.GATEWAY_STARTS,
    Do.DATABASE_AWAY: Do.DATABASE_BACK,
}
"""What usually comes soon after."""

SCENES: tuple[tuple[tuple[float, Do, float], ...], ...] = (
    ((0.0, Do.STICK, 4.0), (0.0, Do.SUBMIT, 0.0), (0.1, Do.BREAK, 0.0)),
    ((0.0, Do.SLOW_DISK, 4.0), (0.0, Do.SUBMIT, 0.0), (0.1, Do.BREAK, 0.0)),
    ((0.0, Do.SLOW_DISK, 4.0), (0.0, Do.SUBMIT, 0.0), (0.1, Do.STOP, 0.0)),
    ((0.0, Do.HOLD, 4.0), (0.0, Do.SUBMIT, 0.0), (5.0, Do.LOOK, 0.0)),
    ((0.0, Do.STICK, 28.0), (0.0, Do.SUBMIT, 0.0), (0.1, Do.CUT, 0.0)),
    ((0.0, Do.SUBMIT, 0.0), (0.1, Do.STRAY, 0.0)),
    ((0.5, Do.SUBMIT, 0.0), (0.3, Do.CANCEL, 0.0)),
    (
        (0.0, Do.BACK_UP, 0.0),
        (0.0, Do.SUBMIT, 0.0),
        (3.0, Do.RESTORE, 0.0),
        (0.1, Do.GATEWAY_STARTS, 0.0),
        (4.0, Do.SUBMIT, 0.0),
    ),
)
"""What seldom comes together by itself: (after how long, what, for how long), all about one command."""


def draw(seed: int) -> History:
    """The history of a seed."""
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    leases = tuple(_lease(chance, number) for number in range(chance.randint(2, 4)))
    theme = chance.choice((MOUNT, MOUNT, CAMERA, ROOF))
    orders = tuple(_order(chance, theme) for _ in range(chance.randint(2, 6)))
    steps = [Step(0.0, Do.ACQUIRE, number=number) for number in range(2)]
    if chance.random() < 0.2:
        steps.append(Step(0.5, Do.SLOW_DISK, node=int(theme == ROOF), for_s=chance.choice((0.05, 0.5, 4.0))))
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    steps.append(Step(0.5, Do.LOOK))
    for _ in range(chance.randint(6, 20)):
        step = _step(chance, chance.choices(kinds, weights)[0], orders, leases)
        if chance.random() < 0.1:
            step = replace(step, number=step.number % len(orders))
            steps += [
                replace(step, after_s=after_s, do=do, for_s=for_s) for after_s, do, for_s in chance.choice(SCENES)
            ]
            continue
        steps.append(step)
        if step.do in MENDED_BY and chance.random() < 0.8:
            steps.append(replace(step, after_s=chance.choice((0.0, 0.3, 3.0, 12.0)), do=MENDED_BY[step.do]))
    return History(
        seed=seed,
        orders=orders,
        leases=leases,
        steps=tuple(steps),
        latency_s=chance.choice(LATENCIES_S),
        brake_s=chance.choice((0.0, 0.1, 0.8)),
        obeys=chance.random() < 0.9,
    )


def _lease(chance: Random, number: int) -> LeasePlan:
    """The first two are those that most commands need."""
    target = chance.choice((TELESCOPE, ROOF, OTHER_TELESCOPE)) if number > 1 else (TELESCOPE, ROOF)[number]
    return LeasePlan(
        caller=0 if number < 2 else chance.randrange(3),
        target=target,
        is_telescope=target != ROOF,
        duration_s=chance.choice((2.0, 20.0, 300.0)) if number > 1 else chance.choice((20.0, 300.0, 300.0)),
        on_expiry=chance.choice(list(OnExpiry)),
        deadman_s=chance.choice((None, None, 5.0)),
    )


_MOVES = (("mount.point", MOUNT), ("mount.point", MOUNT), ("camera.expose", CAMERA), ("enclosure.open", ROOF))
_STOPS = (("mount.stop", MOUNT), ("camera.stop", CAMERA), ("enclosure.stop", ROOF), ("telescope.safe_shutdown", MOUNT))


def _order(chance: Random, theme: UUID) -> OrderPlan:
    """Most are about one device, so that they meet."""
    is_stop = chance.random() < 0.25
    kind, device = chance.choice(_STOPS if is_stop else _MOVES)
    while device != theme and chance.random() < 0.6:
        kind, device = chance.choice(_STOPS if is_stop else _MOVES)
    by_telescope = kind.startswith("telescope.") or (device != ROOF and chance.random() < 0.5)
    return OrderPlan(
        command_id=CommandId(UUID(int=chance.getrandbits(128))),
        target=TELESCOPE if by_telescope else device,
        by_telescope=by_telescope,
        body={"command_type": kind}
        if is_stop
        else {"command_type": kind, "takes_s": chance.choice(TAKES_S), "stubborn": chance.random() < 0.2},
        timeout_s=chance.choice(TIMEOUTS_S),
    )


def _step(chance: Random, do: Do, orders: tuple[OrderPlan, ...], leases: tuple[LeasePlan, ...]) -> Step:
    after_s = chance.choice(LONG_GAPS_S) if chance.random() < 0.06 else chance.choice(GAPS_S)
    number = chance.randrange(len(orders))
    lease: int | None = 1 if orders[number].target == ROOF else 0
    if chance.random() < 0.25:
        lease = chance.choice((None, *range(len(leases))))
    caller = 0 if lease is None else leases[lease].caller
    is_about_roof = orders[number].target == ROOF
    if do in (Do.ACQUIRE, Do.RENEW, Do.RELEASE, Do.BREAK):
        number = chance.randrange(len(leases))
    return Step(
        after_s=after_s,
        do=do,
        number=number,
        caller=caller if chance.random() < 0.85 else chance.randrange(3),
        lease=lease,
        node=int(is_about_roof != (chance.random() < 0.2)),
        for_s=chance.choice((0.05, 0.5, 4.0, 12.0, 28.0)),
        mode=chance.choice(list(CancelMode)),
        flag=chance.random() < 0.5,
    )


def shortened(history: History, fails: Callable[[History], bool]) -> History:
    """The same failure in fewer steps: those are left out, many and then one at a time, that it does not need."""
    while True:
        for shorter in _shorter(history):
            if fails(shorter):
                history = shorter
                break
        else:
            return history


def _shorter(history: History) -> Iterator[History]:
    steps = history.steps
    size = len(steps) // 2
    while size:
        for first in range(0, len(steps), size):
            left = steps[:first] + steps[first + size :]
            yield replace(history, steps=left)
        size //= 2
