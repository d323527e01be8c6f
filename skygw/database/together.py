"""Questions that come while one is being asked are asked together: a fleet that connects at once is few statements."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import copy
from math import inf
from typing import Generic, TypeVar

import trio

from skygw.errors import GatewayError, StoreFailed

AT_MOST = 16
"""Questions in one statement: more would save little, and those who are answered together go on in any order."""

SPACING_S = 0.03
"""From the beginning of one statement to that of the next: in a storm, questions are gathered for that long. The first
one after a pause is asked at once.
"""

KeyT = TypeVar("KeyT")
QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")


class _Waiting(Generic[KeyT, QuestionT, AnswerT]):
    """One who asked. `turn` is set when there is an answer, an error, or the lead to take."""

    def __init__(self, key: KeyT, question: QuestionT) -> None:
        self.key = key
        self.question = question
        self.turn = trio.Event()
        self.leads = False
        self.answer: tuple[AnswerT] | None = None
        self.error: GatewayError | None = None


class Together(Generic[KeyT, QuestionT, AnswerT]):
    """Asks one statement at a time; whoever waits meanwhile is in the next one, in order, `at_most` at once.

    There is no task behind it: of those who wait, the first leads, and asks for all. When nobody else asks, a question
    goes out at once and alone. Two questions with one key never share a statement.
    """

    def __init__(
        self,
        ask_all: Callable[[Sequence[QuestionT]], Awaitable[Mapping[KeyT, AnswerT]]],
        *,
        at_most: int = AT_MOST,
        spacing_s: float = SPACING_S,
    ) -> None:
        """`ask_all` is the statement for several. It may leave a key out: that one is asked again, alone."""
        self._ask_all = ask_all
        self._at_most = at_most
        self._spacing_s = spacing_s
        self._waiting: OrderedDict[int, _Waiting[KeyT, QuestionT, AnswerT]] = OrderedDict()
        self._led = False
        self._asked_at = -inf

    async def ask(self, key: KeyT, question: QuestionT, alone: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """The answer to this question. `alone` asks it by itself, where it must not wait for others or they for it.

        Raises what the statement raises: an absent database is everybody's, while a refusal (`StoreFailed`) is only
        that of whom it is meant for. Cancelling leaves the others their answers; whoever led leaves the lead to the
        next, who asks for all again, so that a question may be asked more than once.
        """
        mine = _Waiting[KeyT, QuestionT, AnswerT](key, question)
        self._waiting[id(mine)] = mine
        try:
            if self._led:
                await mine.turn.wait()
            else:
                self._led = mine.leads = True
            if mine.leads:
                await self._lead(mine)
        finally:
            self._waiting.pop(id(mine), None)
            if mine.leads:
                self._hand_on()
        if mine.error is not None:
            raise mine.error
        if mine.answer is not None:
            return mine.answer[0]
        return await alone()

    async def _lead(self, mine: _Waiting[KeyT, QuestionT, AnswerT]) -> None:
        """One statement for those who wait when it begins; they are in line until they have their answer."""
        if trio.current_time() < self._asked_at + self._spacing_s:
            await trio.sleep_until(self._asked_at + self._spacing_s)
        self._asked_at = trio.current_time()
        batch = {mine.key: mine}
        for each in self._waiting.values():
            if len(batch) == self._at_most:
                break
            batch.setdefault(each.key, each)
        try:
            answers = await self._ask_all([each.question for each in batch.values()])
        except StoreFailed as error:
            if len(batch) == 1:
                mine.error = error
            self._tell(batch.values())  # one of several is refused, and each finds out alone whether it is the one
        except GatewayError as error:
            for each in self._waiting.values():
                each.error = copy(error)
            self._tell(list(self._waiting.values()))  # nobody in line need find out by himself
        else:
            for key, each in batch.items():
                if key in answers:
                    each.answer = (answers[key],)
            self._tell(batch.values())

    def _tell(self, those: Iterable[_Waiting[KeyT, QuestionT, AnswerT]]) -> None:
        for each in those:
            self._waiting.pop(id(each), None)
            each.turn.set()

    def _hand_on(self) -> None:
        self._led = False
        for following in self._waiting.values():
            self._led = following.leads = True
            following.turn.set()
            return
