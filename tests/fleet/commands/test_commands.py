"""Commands on real sockets with everything killed in between, judged by the device journals (contract §0, §5, §6).

`nox -s commands` goes on for minutes. `SKYGW_TEST_SEED` draws other troubles, and the same ones again.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from skygw.sim.journal import done_twice
from skygw.sim.seeds import chance_of
from tests.fleet.commands import verdicts
from tests.fleet.commands.callers import Caller, places_of
from tests.fleet.commands.chaos import Size, draw_plan, make_trouble
from tests.fleet.commands.world import open_world

SEED = os.environ.get("SKYGW_TEST_SEED", "1")
IS_LONG = os.environ.get("SKYGW_TEST_COMMANDS") == "long"
SITES = 4 if IS_LONG else 2
SERVICES = ("anna", "bert", "cleo")
CALLERS = 2
"""Of each service: they share its name, and not its secrets."""
SIZE = (
    Size(
        lines=80,
        long_holds=6,
        half_opens=6,
        site_kills=12,
        gateway_kills=6,
        database_kills=6,
        every_s=(0.3, 1.5),
    )
    if IS_LONG
    else Size(
        lines=6,
        long_holds=0,
        half_opens=0,
        site_kills=1,
        gateway_kills=1,
        database_kills=1,
        every_s=(0.4, 1.0),
    )
)
SETTLED_WITHIN_S = 30.0
UNKNOWN_FOR_S = 20.0 if IS_LONG else 4.0
"""What is unknown for so long after everybody is back stays so: its node was killed before it wrote it down."""


@pytest.mark.timeout(900 if IS_LONG else 120)
async def test_no_answer_says_more_than_the_device_journals_whatever_is_killed(tmp_path: Path) -> None:
    sys.stdout.write(f"SKYGW_TEST_SEED={SEED}\n")
    async with open_world(tmp_path, SEED, sites=SITES) as world:
        story = world.story
        callers = [
            Caller(name, world.hub, story, chance=chance_of(SEED, name, turn))
            for name in SERVICES
            for turn in range(CALLERS)
        ]
        places = [place for site in world.sites for place in places_of(site.spec.blueprint)]
        plan = draw_plan(chance_of(SEED, "plan"), SIZE, sites=SITES)
        sys.stdout.writelines(f"{number} {act}\n" for number, act in enumerate(plan))
        async with trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(caller.run, places)
            await make_trouble(plan, world, chance_of(SEED, "trouble"))
            for caller in callers:
                caller.is_over = True
        away = await world.are_connected(SETTLED_WITHIN_S)
        await callers[0].look_until_settled(
            list(story.asks.values()), within_s=SETTLED_WITHIN_S, unknown_for_s=UNKNOWN_FOR_S
        )
        journals = world.journals
    moved = {line.command_id for journal in journals for line in journal if line.command_id in story.asks}
    refusals = Counter(str(answer.body.get("code")) for ask in story.asks.values() for answer in ask.answers)
    states = Counter(str(ask.final.get("state")) for ask in story.asks.values())
    sys.stdout.write(f"{len(story.asks)} commands, {len(moved)} reached devices, {story.leases} leases, ")
    sys.stdout.write(f"{story.broken} broken; {dict(states)}; {dict(refusals)}\n")

    found = {
        # Never two effects for one id, never two movers, never anything nobody asked for.
        "acted twice": verdicts.acted_twice(journals),
        "two movers": verdicts.two_movers(journals),
        "nobody's": verdicts.unknown_movers(story, journals),
        # Never under a stale fence, never late.
        "stale": verdicts.stale_fences(story, journals),
        "late": verdicts.begun_late(story, journals),
        # What callers were told is so.
        "beyond": verdicts.claims_beyond_the_journal(story, journals),
        "stops": verdicts.stops_that_were_lost(story, journals),
        "no end": verdicts.without_an_end(story),
    }
    for name, sentences in found.items():
        sys.stdout.writelines(f"{name}: {sentence}\n" for sentence in sentences)
    accused = [ask for ask in story.asks.values() if ask.command_id in str(found)]
    sys.stdout.writelines(f"{ask.command_id}: {ask.told_so_far}\n" for ask in accused)

    assert away == []
    assert [twice for journal in journals for twice in done_twice(journal)] == []
    assert {name: sentences for name, sentences in found.items() if sentences} == {}
    assert world.hub.complaints == []
    # And something happened.
    assert len(moved) > len(story.asks) / 20
