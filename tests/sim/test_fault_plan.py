"""The troubles of a line come at times its seed decides, about as often as was asked."""

from itertools import islice, takewhile

from skygw.sim.fault_plan import Fault, Planned, plan
from skygw.sim.line import Troubles

TROUBLES = Troubles(stall_every_s=60, stall_s=2, cut_every_s=600, reset_every_s=600, half_open_every_s=600)
LONG_S = 100_000.0


def until(end_s: float, troubles: Troubles, *seed: object) -> list[Planned]:
    return list(takewhile(lambda planned: planned.at_s < end_s, plan(troubles, *seed)))


def test_the_same_seed_plans_the_same_troubles() -> None:
    first = list(islice(plan(TROUBLES, "a"), 100))
    assert first == list(islice(plan(TROUBLES, "a"), 100))
    assert first != list(islice(plan(TROUBLES, "b"), 100))


def test_troubles_come_in_order_and_about_as_often_as_was_asked() -> None:
    planned = until(LONG_S, TROUBLES, "seed")
    counts = {fault: sum(one.fault is fault for one in planned) for fault in Fault}
    stalled_s = sum(one.for_s for one in planned if one.fault is Fault.STALL)
    assert [one.at_s for one in planned] == sorted(one.at_s for one in planned)
    assert 1_200 < counts[Fault.STALL] < 2_200
    assert 1.5 < stalled_s / counts[Fault.STALL] < 2.5
    assert all(100 < counts[fault] < 250 for fault in (Fault.CUT, Fault.RESET, Fault.HALF_OPEN))


def test_one_kind_is_not_disturbed_by_another() -> None:
    alone = until(LONG_S, Troubles(cut_every_s=600), "seed")
    assert alone == [one for one in until(LONG_S, TROUBLES, "seed") if one.fault is Fault.CUT]


def test_a_line_without_troubles_has_none() -> None:
    assert list(plan(Troubles(), "seed")) == []
