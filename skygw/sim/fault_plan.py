"""When a line has its troubles, drawn from its seed: the same seed gives the same troubles at the same times."""

from collections.abc import Iterator
from enum import StrEnum
from heapq import merge
from math import inf
from typing import NamedTuple

from skygw.sim.line import Troubles
from skygw.sim.seeds import chance_of


class Fault(StrEnum):
    STALL = "stall"
    CUT = "cut"
    RESET = "reset"
    HALF_OPEN = "half_open"


class Planned(NamedTuple):
    """`at_s` counts from the line's start; `for_s` is how long a stall is."""

    at_s: float
    fault: Fault
    for_s: float = 0.0


def plan(troubles: Troubles, *seed: object) -> Iterator[Planned]:
    """All of them in order; endless unless there are none."""
    return merge(
        *(
            _of_one_kind(fault, every_s, troubles.stall_s if fault is Fault.STALL else 0.0, seed)
            for fault, every_s in (
                (Fault.STALL, troubles.stall_every_s),
                (Fault.CUT, troubles.cut_every_s),
                (Fault.RESET, troubles.reset_every_s),
                (Fault.HALF_OPEN, troubles.half_open_every_s),
            )
            if every_s < inf
        )
    )


def _of_one_kind(fault: Fault, every_s: float, mean_for_s: float, seed: tuple[object, ...]) -> Iterator[Planned]:
    chance = chance_of(*seed, "plan", fault)
    at_s = 0.0
    while True:
        at_s += chance.expovariate(1 / every_s)
        yield Planned(at_s, fault, chance.expovariate(1 / mean_for_s) if mean_for_s else 0.0)
