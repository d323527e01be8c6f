"""What goes wrong, drawn from a seed: the same one draws the same troubles in the same order for the same parties."""

import signal
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

import trio

from skygw.sim.fault_proxy import FaultProxy
from tests.fleet.telemetry.hub import Hub
from tests.fleet.telemetry.publisher import Publisher
from tests.fleet.telemetry.subscriber import Subscriber

STALL_S = 1.5
FLOODING = 2
"""Nodes that flood at once: what they say is more than a subscriber may leave unread."""


class Trouble(StrEnum):
    CUT = "cut"
    RESET = "reset"
    STALL = "stall"
    HALF_OPEN = "half_open"
    """It stays, and nothing comes through any more."""
    PROGRAM_RESTARTS = "program_restarts"
    FLOOD = "flood"
    GATEWAY_KILLED = "gateway_killed"
    GATEWAY_TOLD_TO_END = "gateway_told_to_end"
    DATABASE_KILLED = "database_killed"


class Act(NamedTuple):
    """`whom` counts nodes first, then subscribers; it means nothing for the gateway and the database."""

    after_s: float
    trouble: Trouble
    whom: int


LINES = (*[Trouble.CUT] * 4, *[Trouble.RESET] * 3, Trouble.STALL)


class Size(NamedTuple):
    """How much goes wrong."""

    disconnects: int
    half_open_nodes: int
    half_open_subscribers: int
    """It takes one of them half a minute to notice."""
    kills: int
    ends: int
    database_kills: int
    program_restarts: int
    floods: int
    every_s: tuple[float, float]


def draw_plan(chance: Random, size: Size, *, nodes: int, subscribers: int) -> list[Act]:
    troubles = [
        *[(chance.choice(LINES), chance.randrange(nodes + subscribers)) for _ in range(size.disconnects)],
        *[(Trouble.HALF_OPEN, chance.randrange(nodes)) for _ in range(size.half_open_nodes)],
        *[(Trouble.HALF_OPEN, nodes + chance.randrange(subscribers)) for _ in range(size.half_open_subscribers)],
        *[(Trouble.GATEWAY_KILLED, 0)] * size.kills,
        *[(Trouble.GATEWAY_TOLD_TO_END, 0)] * size.ends,
        *[(Trouble.DATABASE_KILLED, 0)] * size.database_kills,
        *[(Trouble.PROGRAM_RESTARTS, chance.randrange(nodes)) for _ in range(size.program_restarts)],
        *[(Trouble.FLOOD, chance.randrange(nodes)) for _ in range(size.floods)],
    ]
    chance.shuffle(troubles)
    return [Act(chance.uniform(*size.every_s), trouble, whom) for trouble, whom in troubles]


async def make_trouble(
    plan: Sequence[Act], hub: Hub, publishers: Sequence[Publisher], subscribers: Sequence[Subscriber]
) -> None:
    lines = [*[each.line for each in publishers], *[each.line for each in subscribers]]
    for act in plan:
        await trio.sleep(act.after_s)

        match act.trouble:
            case Trouble.GATEWAY_KILLED:
                await hub.restart(signal.SIGKILL)
            case Trouble.GATEWAY_TOLD_TO_END:
                await hub.restart(signal.SIGTERM)
            case Trouble.DATABASE_KILLED:
                hub.kill_database()
            case Trouble.PROGRAM_RESTARTS:
                publishers[act.whom].restart()
            case Trouble.FLOOD:
                for turn in range(FLOODING):
                    publishers[(act.whom + turn) % len(publishers)].flood()
            case _:
                _break(lines[act.whom], act.trouble)


def _break(line: FaultProxy, trouble: Trouble) -> None:
    match trouble:
        case Trouble.CUT:
            line.cut()
        case Trouble.RESET:
            line.reset()
        case Trouble.STALL:
            line.stall(STALL_S)
        case Trouble.HALF_OPEN:
            line.half_open()
