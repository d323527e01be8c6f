"""Whatever goes wrong in the life of commands, nothing is done twice, late or by two, and nothing said is untrue.

`SKYGW_TEST_HISTORIES` is how many histories are played (`nox -s lifecycle`: 10,000), `SKYGW_TEST_SEED` the first seed.
"""

import os
from collections import Counter
from itertools import count

from tests.control.life_cycle.history import History, draw, shortened
from tests.control.life_cycle.story import Claim, Refusal, Story
from tests.control.life_cycle.telling import told
from tests.control.life_cycle.verdicts import wrong_with
from tests.control.life_cycle.world import play

HISTORIES = int(os.environ.get("SKYGW_TEST_HISTORIES", "150"))
FIRST_SEED = int(os.environ.get("SKYGW_TEST_SEED", "1"))
LEAST = 150
"""So many histories have a little of everything."""


def broken(history: History) -> bool:
    return bool(wrong_with(play(history)))


def explained(history: History) -> str:
    """The shortest history in which the same law, or another one, is broken."""
    short = shortened(history, broken)
    story = play(short)
    return "\n".join([*wrong_with(story), told(short, story)])


def test_no_history_breaks_a_law() -> None:
    met: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        history = draw(seed)
        story = play(history)
        wrong = wrong_with(story)
        assert not wrong, explained(history)
        met.update(what_was_met(story))
    print(dict(met))  # noqa: T201 - the long version shows what it met
    if HISTORIES >= LEAST:
        missing = EVERYTHING - set(met)
        assert not missing, f"no history met {missing}"


def what_was_met(story: Story) -> Counter[str]:
    """What makes a run of histories worth its time."""
    met = Counter(f"ended {row.state.value}" for row in story.rows)
    for asked in story.submissions:
        if isinstance(asked.answer, Refusal):
            met[f"refused {asked.answer.reason}"] += 1
        elif isinstance(asked.answer, Claim):
            met["duplicate" if asked.is_duplicate else "taken"] += 1
        else:
            met["no answer"] += 1
    for claim in story.claims:
        if claim.receipt is not None:
            met[f"receipt {claim.receipt}"] += 1
    met["moved"] = len(story.motions)
    met["stopped midway"] = sum(motion.was_stopped for motion in story.motions)
    met["link"] = len(story.lines)
    met["node died"] = len(story.node_deaths)
    met["gateway died"] = len(story.gateway_deaths)
    met["restored"] = len(story.restored_at)
    return +met


EVERYTHING = {
    *("moved", "stopped midway", "link", "node died", "gateway died", "restored", "taken", "duplicate", "no answer"),
    *("ended completed", "ended failed", "ended rejected", "ended canceled", "ended unknown"),
    *("refused id_reused", "refused lease_required", "refused lease_held", "refused node_offline"),
    *("refused routing_unavailable", "receipt interrupted", "receipt canceled_before_start", "receipt already_ended"),
}


def test_the_same_seed_is_the_same_history() -> None:
    """A number that fails is a number that can be looked at."""
    for seed in range(FIRST_SEED, FIRST_SEED + 5):
        first, second = (told(draw(seed), play(draw(seed))) for _ in range(2))
        assert first == second


def test_a_history_is_made_as_short_as_its_failure() -> None:
    history = next(draw(seed) for seed in count(FIRST_SEED) if len(draw(seed).steps) > 8)
    wanted = history.steps[5]
    short = shortened(history, lambda one: wanted in one.steps)
    assert short.steps == (wanted,)
