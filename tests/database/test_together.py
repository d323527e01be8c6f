"""Questions that come at the same time are one statement, and each has its own answer."""

from collections.abc import Mapping, Sequence
from functools import partial

import pytest
import trio
import trio.testing

from skygw.database.together import AT_MOST, SPACING_S, Together
from skygw.errors import RoutingUnavailable, StoreFailed

Clock = trio.testing.MockClock


class Asked:
    """Doubles numbers, a statement at a time: 13 is refused, 7 is left out, and nobody is there while `away`."""

    def __init__(self) -> None:
        self.statements: list[list[int]] = []
        self.began_at: list[float] = []
        self.alone: list[int] = []
        self.away = False
        self.takes_s = 0.1
        self._together = Together[int, int, int](self._double)

    async def __call__(self, number: int) -> int:
        return await self._together.ask(number, number, partial(self._double_one, number))

    async def _double(self, numbers: Sequence[int]) -> Mapping[int, int]:
        self.statements.append(list(numbers))
        self.began_at.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.away:
            raise RoutingUnavailable("the database is away")
        if 13 in numbers:
            raise StoreFailed("13 is refused")
        return {number: 2 * number for number in numbers if number != 7}

    async def _double_one(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        self.alone.append(number)
        if number == 13:
            raise StoreFailed("13 is refused")
        return 2 * number


class Askers:
    """Each number is asked by a task of its own, in order."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.answers: dict[int, int | Exception] = {}
        self.scopes: dict[int, trio.CancelScope] = {}

    async def ask(self, nursery: trio.Nursery, *numbers: int) -> None:
        for number in numbers:
            nursery.start_soon(self._one, number)
            await trio.testing.wait_all_tasks_blocked()

    async def _one(self, number: int) -> None:
        with trio.CancelScope() as self.scopes[number]:
            try:
                self.answers[number] = await self.asked(number)
            except RoutingUnavailable as error:
                self.answers[number] = error


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def test_whoever_asks_alone_is_answered_at_once(asked: Asked, autojump_clock: Clock) -> None:
    began = trio.current_time()
    assert await asked(4) == 8
    assert (asked.statements, asked.began_at) == ([[4]], [began])


async def test_those_who_ask_while_one_is_asked_are_the_next_statement_in_order(
    asked: Asked, autojump_clock: Clock
) -> None:
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, 1, 5, 3, 4)
    assert asked.statements == [[1], [5, 3, 4]]
    assert askers.answers == {1: 2, 5: 10, 3: 6, 4: 8}


async def test_a_storm_is_gathered_between_two_statements(asked: Asked, autojump_clock: Clock) -> None:
    asked.takes_s = 0.0
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(askers._one, 1)
        await trio.sleep(SPACING_S / 4)
        nursery.start_soon(askers._one, 2)
        await trio.sleep(SPACING_S / 4)
        nursery.start_soon(askers._one, 3)
    assert asked.statements == [[1], [2, 3]]
    assert asked.began_at[1] - asked.began_at[0] == pytest.approx(SPACING_S)


async def test_no_statement_has_more_than_its_limit(asked: Asked, autojump_clock: Clock) -> None:
    askers = Askers(asked)
    numbers = [100 + number for number in range(AT_MOST + 6)]
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, *numbers)
    assert [len(statement) for statement in asked.statements] == [1, AT_MOST, 5]
    assert askers.answers == {number: 2 * number for number in numbers}


async def test_two_questions_with_one_key_never_share_a_statement(asked: Asked, autojump_clock: Clock) -> None:
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await asked(5))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert asked.statements == [[5], [5], [5]]
    assert answers == [10, 10, 10]


async def test_whoever_is_left_out_asks_alone(asked: Asked, autojump_clock: Clock) -> None:
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, 1, 7, 8)
    assert (asked.statements, asked.alone) == ([[1], [7, 8]], [7])
    assert askers.answers == {1: 2, 7: 14, 8: 16}


async def test_a_question_that_is_refused_fails_nobody_elses(asked: Asked, autojump_clock: Clock) -> None:
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, 1, 12, 13, 14)
    refused = askers.answers.pop(13)
    assert isinstance(refused, StoreFailed)
    assert askers.answers == {1: 2, 12: 24, 14: 28}


async def test_an_absent_database_is_found_out_once_for_all_who_wait(asked: Asked, autojump_clock: Clock) -> None:
    asked.away = True
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, 1, 2, 3)
    assert asked.statements == [[1]]
    assert [type(answer) for answer in askers.answers.values()] == [RoutingUnavailable] * 3
    assert len({id(answer) for answer in askers.answers.values()}) == 3


async def test_whoever_leaves_while_waiting_is_not_asked_for(asked: Asked, autojump_clock: Clock) -> None:
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, 1, 2, 3)
        askers.scopes[2].cancel()
    assert asked.statements == [[1], [3]]
    assert askers.answers == {1: 2, 3: 6}


async def test_when_the_one_who_asks_leaves_another_asks_for_all_again(asked: Asked, autojump_clock: Clock) -> None:
    askers = Askers(asked)
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, 1, 2, 3)
        await trio.sleep(0.15)
        assert asked.statements == [[1], [2, 3]]
        askers.scopes[2].cancel()
    assert asked.statements == [[1], [2, 3], [3]]
    assert askers.answers == {1: 2, 3: 6}


async def test_nobody_is_forgotten_when_those_who_wait_leave_at_any_moment(asked: Asked, autojump_clock: Clock) -> None:
    askers = Askers(asked)
    leaving = [number for number in range(100, 160) if number % 3 == 0]
    async with trio.open_nursery() as nursery:
        await askers.ask(nursery, *range(100, 160))
        for number in leaving:
            askers.scopes[number].cancel()
            await trio.sleep(0.01)
    staying = [number for number in range(100, 160) if number not in leaving]
    assert {number: askers.answers[number] for number in staying} == {number: 2 * number for number in staying}
    assert await asked(1) == 2
