"""Subscribers are told everything once and in order, or told what they were not, whatever breaks (contract §6).

`nox -s telemetry` breaks a hundred lines instead of a dozen. `SKYGW_TEST_SEED` draws other troubles, and the same ones
again.
"""

import os
import sys
from pathlib import Path

import pytest

from skygw.sim.seeds import chance_of
from tests.fleet.telemetry import verdicts
from tests.fleet.telemetry.chaos import Size, draw_plan, make_trouble
from tests.fleet.telemetry.world import open_world

SEED = os.environ.get("SKYGW_TEST_SEED", "1")
IS_LONG = os.environ.get("SKYGW_TEST_TELEMETRY") == "long"
NODES = 12 if IS_LONG else 5
SIZE = (
    Size(
        disconnects=100,
        half_open_nodes=8,
        half_open_subscribers=4,
        kills=4,
        ends=4,
        database_kills=5,
        program_restarts=10,
        floods=8,
        every_s=(0.2, 0.8),
    )
    if IS_LONG
    else Size(
        disconnects=12,
        half_open_nodes=1,
        half_open_subscribers=0,
        kills=1,
        ends=1,
        database_kills=1,
        program_restarts=1,
        floods=1,
        every_s=(0.1, 0.4),
    )
)
SETTLED_WITHIN_S = 120.0 if IS_LONG else 40.0


@pytest.mark.timeout(900 if IS_LONG else 120)
async def test_nothing_is_lost_in_silence_whatever_breaks(tmp_path: Path) -> None:
    sys.stdout.write(f"SKYGW_TEST_SEED={SEED}\n")
    async with open_world(tmp_path, SEED, nodes=NODES) as world:
        plan = draw_plan(chance_of(SEED, "plan"), SIZE, nodes=len(world.publishers), subscribers=len(world.subscribers))
        sys.stdout.writelines(f"{number} {act}\n" for number, act in enumerate(plan))
        await make_trouble(plan, world.hub, world.publishers, world.subscribers)
        unsettled = await world.settle(SETTLED_WITHIN_S)
        kept = {node.install_id: await world.kept(node) for node in world.journal}
        kept_twice = await world.kept_twice()
        outboxes = await world.outboxes()
        views = {node.install_id: await world.node_view(node) for node in world.journal}
        newcomers = [await world.newcomer(stream, 20.0) for stream in ("device_snapshot", "telescope_snapshot")]
    stories = world.stories
    retained = [story for story in stories if not story.is_logged]
    logged = [story for story in stories if story.is_logged]
    for story in stories:
        sys.stdout.write(
            f"{story.name}: {len(story.sittings)} sittings, {sum(len(s.messages) for s in story.sittings)}\n"
        )

    assert [word for story in stories for word in verdicts.strange_words(story)] == []
    assert [trouble for each in world.subscribers for trouble in each.troubles] == []
    assert verdicts.refused(world.journal) == []

    # Order, and how each message follows the one before.
    assert [link for story in stories for link in verdicts.broken_chains(story)] == []
    assert [position for story in stories for position in verdicts.positions_not_in_order(story)] == []

    # What was told is what was said, by those who were asked for.
    assert [changed for story in stories for changed in verdicts.changed_bytes(story)] == []
    assert [other for story in stories for other in verdicts.not_asked_for(story)] == []

    # Logs: everything, once and in order; holes where a node declared one.
    assert [lost for story in logged for lost in verdicts.lines_lost_or_repeated(story)] == []
    assert [hole for story in logged for hole in verdicts.holes_not_told(story)] == []
    assert [gap for story in logged for gap in verdicts.gaps_nobody_declared(story)] == []

    # Snapshots: the latest in the end, and no hole that was not told.
    assert [hole for story in retained for hole in verdicts.silent_holes(story)] == []
    assert [hole for story in retained for hole in verdicts.miscounted_holes(story)] == []
    assert [step for story in retained for step in verdicts.went_back(story)] == []
    assert [run for story in retained for run in verdicts.restarts_not_told(story)] == []
    assert [old for story in (*retained, *newcomers) for old in verdicts.not_the_latest(story)] == []
    assert [changed for story in newcomers for changed in verdicts.changed_bytes(story)] == []
    assert [stream for view in views.values() for stream in view["streams"] if stream["stale"] is not None] == []

    # Who is here is said to be, and no session comes back that was over.
    assert world.presence.absent() == []
    assert world.presence.returns == []

    # What was acknowledged is kept, once.
    assert unsettled == []
    assert [lost for node in world.journal for lost in verdicts.log_differs(node, kept[node.install_id])] == []
    assert kept_twice == []
    assert outboxes == (NODES, NODES)
    assert world.left_in_outboxes() == []
    assert world.hub.complaints == []
