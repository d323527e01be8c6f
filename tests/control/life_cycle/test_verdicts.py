"""The judge sees each thing that may not be: it is shown stories that are wrong, and one that is right."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from uuid import UUID

import pytest

from skygw.control.ledger import CommandState
from skygw.errors import Outcome
from skygw.ids import CommandId
from tests.control.life_cycle.places import MOUNT, NAMES, ROOF, TELESCOPE, TELESCOPE_NODE
from tests.control.life_cycle.story import (
    Call,
    Claim,
    FenceHeard,
    Grant,
    Heard,
    Line,
    Motion,
    Refusal,
    Returned,
    Row,
    Stopping,
    Story,
    Submission,
)
from tests.control.life_cycle.verdicts import wrong_with

S = CommandState
SLEW, STOP, OTHER = (CommandId(UUID(int=number)) for number in (101, 102, 103))
NODE = NAMES[TELESCOPE_NODE]
STEPS = (S.RECEIVED, S.WRITTEN, S.ACCEPTED, S.RUNNING)


def a_story() -> Story:
    """A slew from 2 to 5 under the fence 3, and a stop at 9 when nothing moves. All is as it should be."""
    return Story(
        motions=[Motion(MOUNT, SLEW, 2.0, 5.0)],
        stoppings=[Stopping(MOUNT, STOP, 9.0)],
        calls=[Call(SLEW, NODE, 2.0), Call(STOP, NODE, 9.0)],
        returned=[Returned(SLEW, "completed", 5.0), Returned(STOP, "completed", 9.0)],
        heard=[Heard(SLEW, NODE, 2.0, 1, 0.1, TELESCOPE, 3), Heard(STOP, NODE, 9.0, 2, 0.1, None, None)],
        fences=[FenceHeard(NODE, TELESCOPE, 3, 1.0)],
        put={(NODE, SLEW): [(1.9, 1)], (NODE, STOP): [(8.9, 2)]},
        submissions=[
            Submission(SLEW, "mount.point", MOUNT, 1.5, 10.0, 0, False, 1.6, Claim(SLEW, 1.6, S.RECEIVED)),
            Submission(STOP, "mount.stop", MOUNT, 8.5, 10.0, None, False, 8.6, Claim(STOP, 8.6, S.RECEIVED)),
        ],
        claims=[
            Claim(SLEW, 1.6, S.RECEIVED),
            Claim(SLEW, 1.95, S.WRITTEN),
            Claim(SLEW, 3.0, S.RUNNING),
            Claim(SLEW, 6.0, S.COMPLETED),
            Claim(STOP, 9.5, S.COMPLETED),
        ],
        grants=[Grant(0, TELESCOPE, 3, 0.5, 300.0)],
        lines=[Line(NODE, 0.0)],
        rows=[
            Row(SLEW, S.COMPLETED, (*STEPS, S.COMPLETED), None, True, None, NODE),
            Row(STOP, S.COMPLETED, (*STEPS, S.COMPLETED), None, True, None, NODE),
        ],
        outcomes={(NODE, SLEW): "completed", (NODE, STOP): "completed"},
    )


def test_what_is_as_it_should_be_is_found_so() -> None:
    assert wrong_with(a_story()) == []


def moved_twice(story: Story) -> None:
    story.motions.append(Motion(MOUNT, SLEW, 6.0, 7.0))


def handled_twice(story: Story) -> None:
    story.calls.append(Call(SLEW, NODE, 6.0))


def under_a_stale_fence(story: Story) -> None:
    story.fences.append(FenceHeard(NODE, TELESCOPE, 4, 1.9))


def without_a_lease(story: Story) -> None:
    story.grants.clear()


def under_a_lease_that_was_given_up(story: Story) -> None:
    story.grants[0].given_up_at = 1.0


def under_a_lease_of_something_else(story: Story) -> None:
    story.grants[0].uid = ROOF


def too_late(story: Story) -> None:
    story.submissions[0].timeout_s = 0.2


def two_at_once(story: Story) -> None:
    story.motions.append(Motion(MOUNT, OTHER, 4.0, 6.0))


def an_older_holder_after_a_newer_one(story: Story) -> None:
    story.motions.append(Motion(MOUNT, OTHER, 6.0, 7.0))
    story.heard.append(Heard(OTHER, NODE, 6.0, 3, 0.1, TELESCOPE, 2))


def a_stop_that_did_not_arrive(story: Story) -> None:
    story.stoppings.clear()


def begun_behind_a_stop(story: Story) -> None:
    story.stoppings[0] = Stopping(MOUNT, STOP, 1.95)
    story.heard[1] = replace(story.heard[1], at=1.95)


def said_to_be_written_before_it_was(story: Story) -> None:
    story.put[NODE, SLEW] = [(1.99, 1)]


def said_to_run_before_its_node_knew(story: Story) -> None:
    story.claims[2] = Claim(SLEW, 1.96, S.RUNNING)


def said_to_be_done_before_it_was(story: Story) -> None:
    story.claims[3] = Claim(SLEW, 4.0, S.COMPLETED)


def said_to_be_done_and_stopped(story: Story) -> None:
    story.motions[0].was_stopped = True


def a_stop_said_to_be_done_that_did_nothing(story: Story) -> None:
    story.stoppings.clear()
    story.lines[0].troubled_at = 0.0


def said_to_be_rejected(story: Story) -> None:
    story.claims.append(Claim(SLEW, 1.7, S.REJECTED))


def said_to_have_failed(story: Story) -> None:
    story.claims[3] = Claim(SLEW, 6.0, S.FAILED)


def said_to_be_canceled_before_it_began(story: Story) -> None:
    story.claims[3] = Claim(SLEW, 6.0, S.CANCELED, "before_start")


def said_to_be_interrupted_and_moving(story: Story) -> None:
    story.claims[3] = Claim(SLEW, 4.0, S.CANCELED, "interrupted", read_back=True)


def said_to_have_expired(story: Story) -> None:
    story.claims.append(Claim(SLEW, 2.5, S.EXPIRED))


def a_receipt_that_nothing_had_begun(story: Story) -> None:
    story.claims.append(Claim(SLEW, 1.8, S.UNKNOWN, receipt="canceled_before_start"))


def a_receipt_without_a_proof(story: Story) -> None:
    story.claims.append(Claim(SLEW, 6.5, S.COMPLETED, receipt="interrupted"))


def a_receipt_that_it_had_finished(story: Story) -> None:
    story.claims[3] = Claim(SLEW, 4.0, S.COMPLETED, receipt="finished_anyway")


def told_everybody_that_it_was_not_sent(story: Story) -> None:
    story.submissions[0].answer = Refusal("busy", Outcome.NOT_SENT)


def an_end_that_was_left(story: Story) -> None:
    story.claims.append(Claim(SLEW, 7.0, S.UNKNOWN))


def a_step_behind_the_end(story: Story) -> None:
    story.rows[0] = replace(story.rows[0], steps=(*STEPS, S.FAILED, S.COMPLETED))


def a_row_that_is_not_at_its_last_step(story: Story) -> None:
    story.rows[0] = replace(story.rows[0], steps=STEPS)


def unknown_when_the_node_knows(story: Story) -> None:
    story.rows[0] = replace(story.rows[0], state=S.UNKNOWN, steps=(*STEPS, S.UNKNOWN), detail="the link was lost")
    del story.claims[3]


def unknown_for_no_reason(story: Story) -> None:
    unknown_when_the_node_knows(story)
    story.rows[0] = replace(story.rows[0], detail=None)
    story.outcomes.clear()


def under_way_for_ever(story: Story) -> None:
    story.rows[0] = replace(story.rows[0], state=S.RUNNING, steps=STEPS)
    del story.claims[3]
    story.outcomes.clear()


def another_end_than_the_nodes(story: Story) -> None:
    story.outcomes[NODE, SLEW] = "failed"


def nothing_in_the_ledger(story: Story) -> None:
    del story.rows[0]


FORGERIES: dict[Callable[[Story], None], str] = {
    moved_twice: "moved something 2 times",
    handled_twice: "given to a handler 2 times",
    under_a_stale_fence: "had heard of 4",
    without_a_lease: "for nobody who had its lease",
    under_a_lease_that_was_given_up: "for nobody who had its lease",
    under_a_lease_of_something_else: "for nobody who had its lease",
    too_late: "its time was over at 1.900",
    two_at_once: "at once",
    an_older_holder_after_a_newer_one: "under the fence 3 and after that under 2",
    a_stop_that_did_not_arrive: "did not reach the mount",
    begun_behind_a_stop: "began behind the stop",
    said_to_be_written_before_it_was: "nothing had been written",
    said_to_run_before_its_node_knew: "its node had not heard of it",
    said_to_be_done_before_it_was: "had not arrived",
    said_to_be_done_and_stopped: "had not arrived",
    a_stop_said_to_be_done_that_did_nothing: "it had stopped nothing",
    said_to_be_rejected: "rejected at 1.700, and it moved something",
    said_to_have_failed: "its handler had found it completed",
    said_to_be_canceled_before_it_began: "before_start, and it moved something",
    said_to_be_interrupted_and_moving: "interrupted, and what it moved did not stand",
    said_to_have_expired: "and it had moved something",
    a_receipt_that_nothing_had_begun: "the receipt canceled_before_start at 1.800, and it moved something",
    a_receipt_without_a_proof: "without a proof",
    a_receipt_that_it_had_finished: "and it had not finished",
    told_everybody_that_it_was_not_sent: "everybody was told that it was not sent",
    an_end_that_was_left: "was completed at 6.000, and unknown at 7.000",
    a_step_behind_the_end: "left its end: it was failed, and then completed",
    a_row_that_is_not_at_its_last_step: "its last step was running",
    unknown_when_the_node_knows: "is unknown, and its node knows that it is completed",
    unknown_for_no_reason: "is unknown for no reason",
    under_way_for_ever: "is running when all is quiet",
    another_end_than_the_nodes: "is completed, and its node says that it is failed",
    nothing_in_the_ledger: "the ledger does not know it",
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_what_may_not_be_is_seen(forge: Callable[[Story], None]) -> None:
    story = a_story()
    forge(story)
    assert [wrong for wrong in wrong_with(story) if FORGERIES[forge] in wrong]


def test_what_a_fault_excuses_is_not_held_against_anybody() -> None:
    """A link that was cut loses a stop, a program that was killed does not know what it did, and a backup forgets."""
    lost = a_story()
    lost.stoppings.clear()
    lost.claims.pop()
    lost.rows.pop()
    lost.lines[0].troubled_at = 8.7
    died = a_story()
    died.node_deaths.append((NODE, 5.5))
    said_to_have_failed(died)
    died.rows[0] = replace(died.rows[0], state=S.FAILED, steps=(*STEPS, S.FAILED))
    died.outcomes[NODE, SLEW] = "failed"
    restored = a_story()
    restored.restored_at.append(6.5)
    an_end_that_was_left(restored)
    nothing_in_the_ledger(restored)
    later = a_story()
    later.claims.insert(0, Claim(SLEW, 1.0, S.CANCELED, receipt="canceled_before_start", is_of_no_record=True))
    assert [wrong_with(story) for story in (lost, died, restored, later)] == [[], [], [], []]
    assert died.lines[0].troubled_at == inf
