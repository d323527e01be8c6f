"""Who stands in line to be let in, and for how long."""

import pytest
import trio
import trio.testing

from skygw.errors import LinkLost, RoutingUnavailable
from skygw.nodes.arrivals import RETRY_AFTER_S, ArrivalLine

Clock = trio.testing.MockClock


def is_here() -> bool:
    return True


def has_left() -> bool:
    return False


async def test_who_comes_to_an_empty_line_has_a_turn_at_once(autojump_clock: Clock) -> None:
    began = trio.current_time()
    await ArrivalLine().turn(is_here)
    assert trio.current_time() == began


async def test_who_has_left_meanwhile_has_no_turn_and_costs_nobody_else_theirs() -> None:
    line = ArrivalLine()
    with pytest.raises(LinkLost, match="left while it stood in line"):
        await line.turn(has_left)
    await line.turn(is_here)


async def test_who_waits_too_long_is_told_to_come_back(autojump_clock: Clock) -> None:
    line = ArrivalLine(wait_s=0.0)
    with pytest.raises(RoutingUnavailable, match="Too many") as refused:
        await line.turn(is_here)
    assert refused.value.retry_after_s == RETRY_AFTER_S
    later = ArrivalLine(wait_s=1.0)
    await later.turn(is_here)
