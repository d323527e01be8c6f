"""A site on the jumping clock, and the questions that tests ask its journal."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from skygw.ids import CommandId
from skygw.sim.blueprint import draw_site
from skygw.sim.clock import SimClock
from skygw.sim.installation import Site
from skygw.sim.journal import Action, MemoryJournal
from tests.sim.remembered_frames import RememberedFrames

START = datetime(2026, 6, 15, 4, 0, tzinfo=UTC)

CommandIds = Callable[[int], CommandId]
Actions = Callable[[], list[Action]]


@pytest.fixture
def command_id() -> CommandIds:
    """The n-th command id of a test."""
    return lambda number: CommandId(UUID(int=number))


@pytest.fixture
async def sim_clock() -> SimClock:
    """On the jumping clock only in a test that names `autojump_clock` itself: pytest-trio looks nowhere else."""
    return SimClock(start=START)


@pytest.fixture
def frames() -> RememberedFrames:
    return RememberedFrames()


@pytest.fixture
async def site(sim_clock: SimClock, frames: RememberedFrames) -> Site:
    """One telescope under its own roof."""
    blueprint = draw_site("tests", 1)
    return Site(blueprint, clock=sim_clock, journal=MemoryJournal(sim_clock), recorder=frames)


@pytest.fixture
async def shared_site(sim_clock: SimClock, frames: RememberedFrames) -> Site:
    """Three telescopes under one roof."""
    blueprint = draw_site("tests", 2, telescopes=3)
    return Site(blueprint, clock=sim_clock, journal=MemoryJournal(sim_clock), recorder=frames)


@pytest.fixture
def actions(site: Site) -> Actions:
    """What the site did so far."""
    return lambda: [entry.action for entry in site.journal.entries()]
