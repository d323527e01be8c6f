"""What goes wrong between callers and telescopes, drawn from a seed: the same one draws the same troubles in order."""

import signal
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

import trio

from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.line import Way
from tests.fleet.commands.world import World

SHORT_HOLD_S = (0.5, 2.5)
"""Less than a session may be silent: what is held then comes late, on the same link."""
LONG_HOLD_S = (7.0, 9.0)
"""More: the hub gives the session up, and its frames come all the same."""


class Trouble(StrEnum):
    CUT = "cut"
    RESET = "reset"
    HOLD = "hold"
    HOLD_DOWN = "hold_down"
    """Only what the hub says is held."""
    LONG_HOLD = "long_hold"
    HALF_OPEN = "half_open"
    """It stays, and nothing comes through any more."""
    SITE_KILLED = "site_killed"
    GATEWAY_KILLED = "gateway_killed"
    DATABASE_KILLED = "database_killed"


class Act(NamedTuple):
    """`site` means nothing for the gateway and the database."""

    after_s: float
    trouble: Trouble
    site: int


LINES = (*[Trouble.CUT] * 3, *[Trouble.RESET] * 2, *[Trouble.HOLD] * 2, *[Trouble.HOLD_DOWN] * 3)


class Size(NamedTuple):
    """How much goes wrong."""

    lines: int
    long_holds: int
    half_opens: int
    site_kills: int
    gateway_kills: int
    database_kills: int
    every_s: tuple[float, float]


def draw_plan(chance: Random, size: Size, *, sites: int) -> list[Act]:
    troubles = [
        *[chance.choice(LINES) for _ in range(size.lines)],
        *[Trouble.LONG_HOLD] * size.long_holds,
        *[Trouble.HALF_OPEN] * size.half_opens,
        *[Trouble.SITE_KILLED] * size.site_kills,
        *[Trouble.GATEWAY_KILLED] * size.gateway_kills,
        *[Trouble.DATABASE_KILLED] * size.database_kills,
    ]
    chance.shuffle(troubles)
    return [Act(chance.uniform(*size.every_s), trouble, chance.randrange(sites)) for trouble in troubles]


async def make_trouble(plan: Sequence[Act], world: World, chance: Random) -> None:
    """Returns when all has been done and every line carries again."""
    async with trio.open_nursery() as nursery:
        for act in plan:
            await trio.sleep(act.after_s)
            everybodys = act.trouble in (Trouble.GATEWAY_KILLED, Trouble.DATABASE_KILLED)
            world.story.trouble(act.trouble.value, None if everybodys else act.site)
            site = world.sites[act.site]
            match act.trouble:
                case Trouble.GATEWAY_KILLED:
                    await world.hub.restart(signal.SIGKILL)
                    world.story.trouble("gateway_is_back", None)
                case Trouble.DATABASE_KILLED:
                    world.hub.kill_database()
                case Trouble.SITE_KILLED:
                    site.kill()
                case Trouble.CUT:
                    site.line.cut()
                case Trouble.RESET:
                    site.line.reset()
                case Trouble.HALF_OPEN:
                    site.line.half_open()
                case Trouble.HOLD:
                    nursery.start_soon(_hold, site.line, chance.uniform(*SHORT_HOLD_S))
                case Trouble.HOLD_DOWN:
                    nursery.start_soon(_hold, site.line, chance.uniform(*SHORT_HOLD_S), Way.DOWN)
                case Trouble.LONG_HOLD:
                    nursery.start_soon(_hold, site.line, chance.uniform(*LONG_HOLD_S))


async def _hold(line: FaultProxy, seconds: float, *ways: Way) -> None:
    line.hold(*ways)
    await trio.sleep(seconds)
    line.release(*ways)
