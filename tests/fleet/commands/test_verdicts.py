"""The judge finds what is wrong with a story, and nothing in one that is right."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from skygw.sim.journal import Action, Entry
from tests.fleet.commands import verdicts
from tests.fleet.commands.story import Ask, Fence, Story, Trouble

MOUNT, TELESCOPE = "mount", "telescope"
BEGAN = datetime(2026, 6, 15, tzinfo=UTC)
SLEW = {"command_type": "mount.point"}
STOP = {"command_type": "mount.stop"}


class Case:
    """A journal and a story that grow line by line; a second passes with each line."""

    def __init__(self) -> None:
        self.story = Story(site_of={MOUNT: 0})
        self.journal: list[Entry] = []

    @property
    def journals(self) -> list[list[Entry]]:
        return [self.journal]

    @property
    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=len(self.journal))

    def asked(self, command_id: str, command: dict[str, Any] = SLEW, *, fence: int = 1, for_s: float = 10.0) -> Ask:
        ask = Ask(command_id, MOUNT, command, None if command is STOP else Fence(TELESCOPE, fence))
        ask.deadline_at = self.now + timedelta(seconds=for_s)
        return self.story.ask(ask)

    def line(self, action: Action, command_id: str | None, cause: str | None = None) -> None:
        at = self.now.isoformat()
        number = len(self.journal) + 1
        self.journal.append(Entry(number, at, float(number), at, MOUNT, action, command_id, cause))

    def idle(self, seconds: int) -> None:
        for _ in range(seconds):
            self.line(Action.STOP_RECEIVED, None, "nothing")

    def trouble(self) -> None:
        self.story.troubles.append(Trouble(datetime.now(UTC), "cut", 0))

    def guilty(self) -> list[str]:
        """The verdicts that find something."""
        story, journals = self.story, self.journals
        found = {
            "acted_twice": verdicts.acted_twice(journals),
            "stale_fences": verdicts.stale_fences(story, journals),
            "begun_late": verdicts.begun_late(story, journals),
            "two_movers": verdicts.two_movers(journals),
            "unknown_movers": verdicts.unknown_movers(story, journals),
            "claims": verdicts.claims_beyond_the_journal(story, journals),
            "lost_stops": verdicts.stops_that_were_lost(story, journals),
            "without_an_end": verdicts.without_an_end(story),
        }
        return [name for name, sentences in found.items() if sentences]


@pytest.fixture
def case() -> Case:
    return Case()


def slews(case: Case, command_id: str = "a") -> None:
    case.line(Action.SLEW_STARTED, command_id)
    case.line(Action.SLEW_REACHED, command_id)


def told(ask: Ask, state: str, **more: Any) -> None:
    ask.told("post", 202, {"state": state, **more})
    ask.told("get", 200, {"state": state, **more})


def test_what_was_done_once_and_told_so_is_right(case: Case) -> None:
    told(case.asked("a"), "completed")
    slews(case)
    stop = case.asked("b", STOP)
    case.line(Action.STOP_RECEIVED, "b")
    told(stop, "completed")
    assert case.guilty() == []


def test_two_effects_of_one_id_are_found(case: Case) -> None:
    told(case.asked("a"), "completed")
    slews(case)
    slews(case)
    assert case.guilty() == ["acted_twice"]


def test_what_begins_under_an_old_fence_after_a_newer_one_is_found(case: Case) -> None:
    told(case.asked("a", fence=2), "completed")
    told(case.asked("b", fence=1), "completed")
    slews(case, "a")
    slews(case, "b")
    assert case.guilty() == ["stale_fences"]


def test_what_begins_after_its_deadline_is_found(case: Case) -> None:
    told(case.asked("a", for_s=2), "completed")
    case.idle(5)
    slews(case)
    assert case.guilty() == ["begun_late"]


def test_two_that_move_one_device_are_found(case: Case) -> None:
    told(case.asked("a"), "completed")
    told(case.asked("b"), "completed")
    case.line(Action.SLEW_STARTED, "a")
    slews(case, "b")
    case.line(Action.SLEW_REACHED, "a")
    assert case.guilty() == ["two_movers"]


def test_a_program_that_ends_takes_its_movement_with_it(case: Case) -> None:
    told(case.asked("a"), "failed")
    told(case.asked("b"), "completed")
    case.line(Action.SLEW_STARTED, "a")
    case.line(Action.JOURNAL_REOPENED, None, "restart")
    slews(case, "b")
    assert case.guilty() == []


def test_what_nobody_asked_for_is_found(case: Case) -> None:
    slews(case)
    assert case.guilty() == ["unknown_movers"]


@pytest.mark.parametrize("more", [{"state": "rejected"}, {"state": "canceled", "canceled": "before_start"}])
def test_what_is_said_not_to_have_begun_and_did_is_found(case: Case, more: dict[str, Any]) -> None:
    told(case.asked("a"), **more)
    slews(case)
    assert case.guilty() == ["claims"]


def test_what_was_refused_every_time_and_moved_is_found(case: Case) -> None:
    ask = case.asked("a")
    ask.told("post", 503, {"outcome": "not_sent", "code": "node_offline"})
    ask.told("get", 404, {})
    slews(case)
    assert case.guilty() == ["claims"]


def test_what_got_no_answer_may_have_moved(case: Case) -> None:
    ask = case.asked("a")
    ask.told("post", None, {})
    ask.told("post", 503, {"outcome": "not_sent", "code": "node_offline"})
    told(ask, "completed")
    slews(case)
    assert case.guilty() == []


def test_what_is_said_to_be_done_and_was_not_is_found(case: Case) -> None:
    told(case.asked("a"), "completed")
    case.line(Action.SLEW_STARTED, "a")
    assert case.guilty() == ["claims"]


def test_a_receipt_that_says_more_than_happened_is_found(case: Case) -> None:
    ask = case.asked("a")
    ask.told("cancel", 200, {"receipt": "canceled_before_start"})
    told(ask, "completed")
    slews(case)
    assert case.guilty() == ["claims"]


def test_an_interruption_of_what_goes_on_is_found(case: Case) -> None:
    told(case.asked("a"), "canceled", canceled="interrupted")
    case.line(Action.SLEW_STARTED, "a")
    assert case.guilty() == ["claims"]


def test_an_interruption_by_somebody_elses_stop_is_one(case: Case) -> None:
    told(case.asked("a"), "canceled", canceled="interrupted")
    told(case.asked("b", STOP), "completed")
    case.line(Action.SLEW_STARTED, "a")
    case.line(Action.SLEW_STOPPED, "b")
    assert case.guilty() == []


def test_an_end_that_is_taken_back_is_found(case: Case) -> None:
    ask = case.asked("a")
    ask.told("post", 200, {"state": "failed"})
    told(ask, "canceled", canceled="before_start")
    assert case.guilty() == ["claims"]


def test_a_stop_that_was_sent_and_never_came_is_found_unless_there_was_no_link(case: Case) -> None:
    told(case.asked("b", STOP), "written")
    assert case.guilty() == ["lost_stops", "without_an_end"]
    case.trouble()
    assert case.guilty() == ["without_an_end"]


@pytest.mark.parametrize(("state", "is_right"), [("unknown", True), ("running", False), ("written", False)])
def test_only_what_trouble_made_unknown_may_stay_without_an_end(case: Case, state: str, is_right: bool) -> None:
    told(case.asked("a"), state)
    assert case.guilty() == ["without_an_end"]
    case.trouble()
    assert case.guilty() == ([] if is_right else ["without_an_end"])


def test_what_was_taken_and_is_not_known_any_more_is_found(case: Case) -> None:
    ask = case.asked("a")
    ask.told("post", 202, {"state": "received"})
    ask.told("get", 404, {})
    assert case.guilty() == ["without_an_end"]


def test_what_was_taken_back_without_a_ledger_may_be_forgotten_and_may_not_move(case: Case) -> None:
    ask = case.asked("a")
    ask.told("post", 200, {"state": "canceled", "canceled": "before_start"})
    ask.told("get", 404, {})
    assert case.guilty() == ["claims", "without_an_end"]
    case.story.troubles.append(Trouble(datetime.now(UTC), "database_killed", None))
    assert case.guilty() == []
    slews(case)
    assert case.guilty() == ["claims"]
