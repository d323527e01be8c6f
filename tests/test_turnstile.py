"""One at a time passes, in the order they came, and the rest of the program runs in between."""

from itertools import pairwise

import trio
import trio.testing

from skygw.turnstile import Turnstile


async def passing(turnstile: Turnstile, count: int) -> tuple[list[int], list[int]]:
    """In what order so many passed that came in the order of their numbers, and at which turn of the loop."""
    order: list[int] = []
    turns: list[int] = []
    turn = came = 0

    async def come(number: int) -> None:
        nonlocal came
        came += 1
        await turnstile.passed()
        order.append(number)
        turns.append(turn)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(come, number)
            while came <= number:
                await trio.lowlevel.checkpoint()
        while len(order) < count:
            await trio.lowlevel.checkpoint()
            turn += 1
    return order, turns


async def test_they_pass_in_the_order_they_came() -> None:
    order, _ = await passing(Turnstile(pause_turns=1_000), 5)
    assert order == [0, 1, 2, 3, 4]


async def test_others_have_their_turns_between_two_that_pass() -> None:
    _, turns = await passing(Turnstile(pause_turns=10), 5)
    assert all(after - before >= 10 for before, after in pairwise(turns))


async def test_whoever_leaves_the_line_keeps_nobody_waiting() -> None:
    turnstile = Turnstile(pause_turns=1_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turnstile.passed)
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as leaving:
            leaving.start_soon(turnstile.passed)
            while not turnstile.waiting:
                await trio.lowlevel.checkpoint()
            leaving.cancel_scope.cancel()
        assert turnstile.waiting == 0
        await turnstile.passed()
