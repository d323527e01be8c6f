"""How much of a node one caller may use: always something is left for the next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.errors import Busy
from skygw.nodes.calls import Call, CallTable
from skygw.nodes.shares import share_of


@pytest.mark.parametrize(("room", "share"), [(64, 48), (16, 12), (4, 3), (3, 2), (2, 1), (1, 1)])
def test_a_share_is_three_quarters_of_what_the_others_leave(room: int, share: int) -> None:
    assert share_of(room) == share


def flood(table: CallTable, caller: str) -> list[Call]:
    calls = []
    try:
        while True:
            calls.append(table.open(caller))
    except Busy:
        return calls


def test_a_flood_of_calls_leaves_places_and_who_floods_is_named() -> None:
    table = CallTable(at_most=64, credit=1)
    assert [len(flood(table, caller)) for caller in "abc"] == [48, 12, 3]
    with pytest.raises(Busy, match="a has 48 direct requests in flight") as busy:
        table.open("a")
    assert busy.value.details == {"usedUp": "calls", "service": "a"}
    table.open("d")
    with pytest.raises(Busy, match="64 is the limit") as busy:
        table.open("e")
    assert busy.value.details == {"usedUp": "calls"}


def test_places_that_are_given_back_go_to_who_has_fewer() -> None:
    table = CallTable(at_most=64, credit=1)
    held = {"a": flood(table, "a"), "b": flood(table, "b")}
    for _ in range(1_000):
        for caller in "ab":
            if held[caller]:
                table.close(held[caller].pop(0))
            held[caller] += flood(table, caller)
    assert {caller: len(calls) for caller, calls in held.items()} == {"a": 27, "b": 27}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=300), st.integers(1, 16))
def test_what_is_counted_of_a_caller_is_what_it_has_in_flight(steps: list[tuple[str, bool]], at_most: int) -> None:
    table = CallTable(at_most=at_most, credit=1)
    held: dict[str, list[Call]] = {caller: [] for caller in "abcd"}
    for caller, opens in steps:
        if not opens:
            if held[caller]:
                table.close(held[caller].pop())
            continue
        others = sum(map(len, held.values())) - len(held[caller])
        may = others + len(held[caller]) < at_most and len(held[caller]) < share_of(at_most - others)
        try:
            held[caller].append(table.open(caller))
            assert may
        except Busy:
            assert not may
    for call in [call for calls in held.values() for call in calls]:
        table.close(call)
    assert len(flood(table, "a")) == share_of(at_most)
