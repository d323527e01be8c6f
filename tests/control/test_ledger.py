"""The guarded table of command states."""

from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.control.ledger import ENDS, OUTCOMES, CommandState, command_identity, may_move
from skygw.errors import Outcome

S = CommandState
LADDER = [S.RECEIVED, S.WRITTEN, S.ACCEPTED, S.RUNNING]
SAID_BY_NODE = [S.COMPLETED, S.FAILED, S.REJECTED, S.CANCELED]


def allowed() -> set[tuple[CommandState, CommandState]]:
    """The whole table, written out as its sentences say."""
    moves = {(low, high) for at, low in enumerate(LADDER) for high in LADDER[at + 1 :]}
    moves |= {(before, end) for before in [*LADDER, S.UNKNOWN] for end in SAID_BY_NODE}
    moves |= {(before, S.UNKNOWN) for before in LADDER}
    moves |= {(S.UNKNOWN, S.ACCEPTED), (S.UNKNOWN, S.RUNNING)}
    moves.add((S.RECEIVED, S.EXPIRED))
    return moves


@pytest.mark.parametrize(("before", "after"), list(product(S, S)))
def test_a_state_moves_exactly_as_the_table_says(before: CommandState, after: CommandState) -> None:
    assert may_move(before, after) is ((before, after) in allowed())


@given(st.lists(st.sampled_from(S), max_size=40))
def test_whatever_is_said_in_whatever_order_an_end_stays_and_nothing_falls_below_what_is_known(
    said: list[CommandState],
) -> None:
    state, highest = S.RECEIVED, 0
    for word in said:
        before = state
        if may_move(state, word):
            state = word
        if before in ENDS:
            assert state is before
        if before is not S.RECEIVED:
            assert state not in (S.RECEIVED, S.EXPIRED) or before is S.EXPIRED
        if state is S.UNKNOWN:
            highest = LADDER.index(S.WRITTEN)  # of what is unknown only so much is certain
        if state in LADDER:
            assert LADDER.index(state) >= highest
            highest = LADDER.index(state)


def test_every_state_has_an_outcome_and_only_what_was_never_written_was_not_sent() -> None:
    assert set(OUTCOMES) == set(S)
    assert [state for state, outcome in OUTCOMES.items() if outcome is Outcome.NOT_SENT] == [S.EXPIRED]


def test_the_identity_of_a_command_is_its_target_and_its_bytes() -> None:
    one, other = UUID(int=1), UUID(int=2)
    same = command_identity(one, None, '{"a":1}')
    assert same == command_identity(one, None, '{"a":1}')
    assert len({same, command_identity(other, None, '{"a":1}'), command_identity(None, one, '{"a":1}'),
                command_identity(one, None, '{"a": 1}')}) == 4  # fmt: skip
