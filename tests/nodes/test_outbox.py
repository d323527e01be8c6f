"""What waits to be written: order, bounds, and what is certain about what was not sent."""

from collections import Counter
from contextlib import suppress

import pytest
import trio
import trio.testing

from skygw.nodes.outbox import (
    BATCH_BYTES,
    LANE_BYTES,
    PARCEL_OVERHEAD,
    Lane,
    Outbox,
    OutboxClosed,
    OutboxFull,
    ParcelState,
)
from skygw.protocol.limits import MAX_TEXT_BYTES


async def taken(outbox: Outbox) -> str | bytes | None:
    batch = await outbox.next(at_most=1)
    if not batch:
        return None
    (parcel,) = batch
    parcel.settle(ParcelState.WRITTEN)
    return parcel.message


async def test_the_most_urgent_lane_is_written_first_and_each_lane_in_order() -> None:
    outbox = Outbox()
    for lane, message in [
        (Lane.DATA, "d1"), (Lane.CONTROL, "c1"), (Lane.DATA, "d2"), (Lane.SAFING, "s1"), (Lane.CONTROL, "c2"),
    ]:  # fmt: skip
        outbox.put(lane, message)
    assert [await taken(outbox) for _ in range(5)] == ["s1", "c1", "c2", "d1", "d2"]


async def test_safing_put_while_data_waits_is_the_next_to_be_written() -> None:
    outbox = Outbox()
    outbox.put(Lane.DATA, "d1")
    outbox.put(Lane.DATA, "d2")
    assert await taken(outbox) == "d1"
    outbox.put(Lane.SAFING, "stop")
    assert await taken(outbox) == "stop"


@pytest.mark.parametrize("lane", list(Lane))
async def test_a_lane_takes_its_bytes_and_not_one_more(lane: Lane) -> None:
    outbox = Outbox()
    whole = LANE_BYTES[lane] - PARCEL_OVERHEAD
    outbox.check_room(lane, whole)
    with pytest.raises(OutboxFull):
        outbox.check_room(lane, whole + 1)
    outbox.put(lane, b"x" * whole)
    with pytest.raises(OutboxFull):
        outbox.put(lane, b"")
    assert outbox.queued_bytes(lane) == LANE_BYTES[lane]


async def test_there_is_room_for_sixty_stops_of_the_largest_size_and_thousands_of_the_usual() -> None:
    largest, usual = Outbox(), Outbox()
    for _ in range(63):
        largest.put(Lane.SAFING, "s" * MAX_TEXT_BYTES)
    for _ in range(6_000):
        usual.put(Lane.SAFING, "s" * 400)
    with pytest.raises(OutboxFull):
        largest.check_room(Lane.SAFING, MAX_TEXT_BYTES)
    usual.check_room(Lane.SAFING, 400)


async def test_a_message_counts_by_the_bytes_it_has_on_the_wire() -> None:
    outbox = Outbox()
    outbox.put(Lane.DATA, "€" * 100)
    assert outbox.queued_bytes(Lane.DATA) == 300 + PARCEL_OVERHEAD


async def test_a_full_data_lane_leaves_the_others_their_room() -> None:
    outbox = Outbox()
    outbox.put(Lane.DATA, b"x" * (LANE_BYTES[Lane.DATA] - PARCEL_OVERHEAD))
    outbox.put(Lane.SAFING, "stop")
    assert await taken(outbox) == "stop"


async def test_what_is_written_gives_its_room_back() -> None:
    outbox = Outbox()
    outbox.put(Lane.DATA, b"x" * (LANE_BYTES[Lane.DATA] - PARCEL_OVERHEAD))
    await taken(outbox)
    assert outbox.queued_bytes(Lane.DATA) == 0
    outbox.put(Lane.DATA, b"y")


async def test_what_is_withdrawn_before_it_was_begun_is_certainly_never_written() -> None:
    outbox = Outbox()
    first = outbox.put(Lane.DATA, "first")
    outbox.put(Lane.DATA, "second")
    assert first.withdraw()
    assert first.surely_not_sent
    assert await taken(outbox) == "second"
    assert first.state is ParcelState.WITHDRAWN


async def test_what_waits_is_written_together_up_to_a_bound_and_one_message_whatever_its_size() -> None:
    outbox = Outbox()
    large = b"x" * BATCH_BYTES
    messages: list[str | bytes] = ["a", "b", large, "c"]
    for message in messages:
        outbox.put(Lane.DATA, message)
    outbox.put(Lane.SAFING, "stop")
    batches = [[parcel.message for parcel in await outbox.next()] for _ in range(3)]
    assert batches == [["stop", "a", "b"], [large], ["c"]]


async def test_what_is_being_written_cannot_be_withdrawn() -> None:
    outbox = Outbox()
    outbox.put(Lane.DATA, "first")
    (parcel,) = await outbox.next()
    assert not parcel.withdraw()
    assert not parcel.surely_not_sent
    parcel.settle(ParcelState.DOUBTFUL)
    assert not parcel.surely_not_sent


async def test_closing_withdraws_data_and_still_hands_out_safing_and_control() -> None:
    outbox = Outbox()
    data = outbox.put(Lane.DATA, "data")
    outbox.put(Lane.CONTROL, "ack")
    outbox.put(Lane.SAFING, "stop")
    outbox.close()
    assert data.state is ParcelState.WITHDRAWN
    with pytest.raises(OutboxClosed):
        outbox.put(Lane.SAFING, "late")
    assert [await taken(outbox) for _ in range(3)] == ["stop", "ack", None]


async def test_abandoning_withdraws_everything_that_waits() -> None:
    outbox = Outbox()
    parcels = [outbox.put(lane, "x") for lane in Lane]
    outbox.abandon()
    assert all(parcel.surely_not_sent for parcel in parcels)
    assert [outbox.queued_bytes(lane) for lane in Lane] == [0, 0, 0, 0]
    assert await outbox.next() == []


async def test_a_cancelled_writer_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    with trio.move_on_after(1):
        await outbox.next()
    outbox.put(Lane.DATA, "kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.next()
    assert scope.cancelled_caught
    assert await taken(outbox) == "kept"


async def test_a_waiting_writer_is_woken_by_a_message_and_by_the_end(nursery: trio.Nursery) -> None:
    outbox = Outbox()
    got: list[str | bytes | None] = []

    async def write() -> None:
        while got[-1:] != [None]:
            got.append(await taken(outbox))

    nursery.start_soon(write)
    await trio.testing.wait_all_tasks_blocked()
    outbox.put(Lane.DATA, "one")
    await trio.testing.wait_all_tasks_blocked()
    assert got == ["one"]
    outbox.close()
    await trio.testing.wait_all_tasks_blocked()
    assert got == ["one", None]


async def test_settled_tells_what_became_of_a_message(nursery: trio.Nursery) -> None:
    outbox = Outbox()
    parcel = outbox.put(Lane.DATA, "one")
    told: list[ParcelState] = []
    parcel.on_settled = lambda it: told.append(it.state)
    await taken(outbox)
    assert await parcel.settled() is ParcelState.WRITTEN
    assert told == [ParcelState.WRITTEN]


# Callers.


async def test_callers_take_turns_and_each_is_written_in_its_own_order() -> None:
    outbox = Outbox()
    for message in ["a1", "a2", "a3", "b1", "c1", "b2"]:
        outbox.put(Lane.DATA, message, message[0])
    assert [await taken(outbox) for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_who_comes_waits_for_one_message_of_each_who_waits_already() -> None:
    outbox = Outbox()
    for number in range(1_000):
        for flooder in ("a", "b"):
            outbox.put(Lane.DATA, f"{flooder}{number}", flooder)
    assert [await taken(outbox) for _ in range(3)] == ["a0", "b0", "a1"]
    outbox.put(Lane.DATA, "mine", "newcomer")
    assert [await taken(outbox) for _ in range(3)] == ["b1", "a2", "mine"]


async def test_what_was_withdrawn_is_nobodys_turn() -> None:
    outbox = Outbox()
    withdrawn = [outbox.put(Lane.DATA, f"a{number}", "a") for number in range(3)]
    for message in ["a3", "b0", "b1"]:
        outbox.put(Lane.DATA, message, message[0])
    for parcel in withdrawn:
        parcel.withdraw()
    assert [await taken(outbox) for _ in range(3)] == ["a3", "b0", "b1"]
    assert outbox.queued_bytes(Lane.DATA) == 0


async def test_one_batch_holds_what_several_callers_wait_with() -> None:
    outbox = Outbox()
    for message in ["a1", "a2", "b1"]:
        outbox.put(Lane.DATA, message, message[0])
    assert [parcel.message for parcel in await outbox.next()] == ["a1", "b1", "a2"]


@pytest.mark.parametrize("lane", [Lane.SAFING, Lane.SAFETY, Lane.CONTROL])
async def test_in_the_other_lanes_nobody_takes_turns_and_nobody_has_a_share(lane: Lane) -> None:
    outbox = Outbox()
    for message in ["a1", "a2", "b1"]:
        outbox.put(lane, message, message[0])
    assert [await taken(outbox) for _ in range(3)] == ["a1", "a2", "b1"]
    half = b"x" * (LANE_BYTES[lane] // 2 - PARCEL_OVERHEAD)
    outbox.put(lane, half, "a")
    outbox.put(lane, half, "a")
    assert outbox.queued_bytes(lane) == LANE_BYTES[lane]


def flood(outbox: Outbox, caller: str, size: int = 1_000) -> int:
    """How many bytes of messages of this size are taken from one caller."""
    before = outbox.queued_bytes(Lane.DATA)
    try:
        while True:
            outbox.put(Lane.DATA, b"x" * (size - PARCEL_OVERHEAD), caller)
    except OutboxFull:
        return outbox.queued_bytes(Lane.DATA) - before


async def test_no_caller_fills_the_data_lane_and_who_comes_next_finds_room() -> None:
    outbox = Outbox()
    whole = LANE_BYTES[Lane.DATA]
    taken_by = [flood(outbox, caller) for caller in "abcd"]
    assert taken_by[0] // 1_000 == whole * 3 // 4 // 1_000
    assert taken_by == sorted(taken_by, reverse=True)
    with pytest.raises(OutboxFull) as full:
        outbox.put(Lane.DATA, b"x" * 1_000, "a")
    assert full.value.caller == "a"
    outbox.put(Lane.DATA, b"x" * 1_000, "newcomer")


async def test_who_has_more_than_its_share_gets_no_more_until_the_others_have_theirs() -> None:
    outbox = Outbox()
    flood(outbox, "a")
    for _ in range(20_000):
        await taken(outbox)
        for caller in "ab":
            with suppress(OutboxFull):
                outbox.put(Lane.DATA, b"x" * 1_000, caller)
    shares = Counter[str]()
    while outbox.queued_bytes(Lane.DATA):
        for parcel in await outbox.next():
            shares[parcel.caller] += parcel.cost
    assert shares["a"] == pytest.approx(shares["b"], rel=0.01)
    assert shares["a"] == pytest.approx(LANE_BYTES[Lane.DATA] * 3 / 7, rel=0.01)


async def test_the_share_of_a_caller_comes_back_with_what_is_written() -> None:
    outbox = Outbox()
    first = flood(outbox, "a")
    while outbox.queued_bytes(Lane.DATA):
        await outbox.next()
    assert flood(outbox, "a") == first


async def test_a_message_that_fits_is_taken_from_who_has_nothing_waiting_however_large() -> None:
    outbox = Outbox()
    flood(outbox, "a")
    outbox.put(Lane.DATA, b"x" * (LANE_BYTES[Lane.DATA] - outbox.queued_bytes(Lane.DATA) - PARCEL_OVERHEAD), "b")
    assert outbox.queued_bytes(Lane.DATA) == LANE_BYTES[Lane.DATA]
