"""What waits to be written to one socket of a service: who has something to say takes turns, and is asked only when
there is room.
"""

import heapq
from collections import deque
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Protocol, cast

import trio

from skygw.errors import Busy, Invalid
from skygw.telemetry.dialects import Dialect
from skygw.telemetry.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SUBSCRIPTIONS = 256
"""Of one socket. A retained one costs a reference per untold resource, a logged one `MAX_WAITING_BYTES` at most."""

BATCH_CHARACTERS = 16 * 1024
"""About what is written at once: a slow socket holds no more than this of the past."""

IN_A_ROW = 32
"""Messages of one subscription before it is the next one's turn."""

MAX_ANSWER_CHARACTERS = 256 * 1024
"""Of answers to a peer that asks and does not read."""

FEW_ANSWER_CHARACTERS = MAX_ANSWER_CHARACTERS // 4
"""With more waiting, nothing more is read: one message, of 256 frames at most, still has its answers."""


class Speaker(Protocol):
    """Something that has messages to say, a `Subscription` for one."""

    @property
    def effort(self) -> int:
        """What the last message has cost to make, in characters of messages that are only written."""
        ...

    @property
    def is_over(self) -> bool:
        """What was taken last were its last words."""
        ...

    def take(self, now: float) -> str | bytes | None:
        """The next message at this time, on trio's clock, or nothing for now. Never waits."""
        ...

    def told(self, count: int) -> None:
        """So many of its messages go out together."""
        ...


class AnswersPileUp(Exception):
    """The peer goes on asking and does not read what it is answered."""


class SubscriberOutlet:
    """One per socket: `next` is for its writer; everything else never waits."""

    def __init__(self, dialect: Dialect, *, owner: str, max_subscriptions: int = MAX_SUBSCRIPTIONS) -> None:
        self.dialect = dialect
        self.owner = owner
        """Who reads here, for the log."""
        self.replays = trio.Semaphore(1)
        """So that a socket that resumes hundreds of subscriptions does not keep another from resuming one."""
        self._max_subscriptions = max_subscriptions
        self._subscriptions: dict[str, Subscription] = {}
        self._answers: deque[str] = deque()
        self._answers_size = 0
        self._urgent: dict[Speaker, None] = {}
        self._ready: dict[Speaker, None] = {}
        self.unsaid: Callable[[int], str] | None = None
        """Makes the word that so many answers were not said. With it too many of them are no fault, and are counted."""
        self._not_said = 0
        self._timers: list[tuple[float, int, Subscription]] = []
        self._tie = count()
        self._wake = trio.Event()
        self._answers_taken = trio.Event()

    def __len__(self) -> int:
        return len(self._subscriptions)

    def check_room(self, subscription_id: str) -> None:
        """Raises `Invalid` for an id that is in use, `Busy` when there are enough."""
        if subscription_id in self._subscriptions:
            raise Invalid(f"The subscription id {subscription_id!r} is in use on this socket.")
        if len(self._subscriptions) >= self._max_subscriptions:
            raise Busy(
                f"This socket has {len(self._subscriptions)} subscriptions, and {self._max_subscriptions} is the "
                "limit: filters take lists.",
                retry_after_s=1.0,
            )

    def add(self, subscription: Subscription) -> None:
        self._subscriptions[subscription.id] = subscription

    def find(self, subscription_id: str) -> Subscription | None:
        return self._subscriptions.get(subscription_id)

    def remove(self, subscription_id: str) -> bool:
        """Ends a subscription as its owner asked. Whether there was one."""
        subscription = self._subscriptions.pop(subscription_id, None)
        if subscription is None:
            return False
        subscription.drop()
        self._ready.pop(subscription, None)
        # A timer may be days ahead, and would keep all of the subscription until then.
        self._timers = [timer for timer in self._timers if timer[2] is not subscription]
        heapq.heapify(self._timers)
        return True

    def close(self) -> None:
        """The subscriber has left."""
        for subscription in self._subscriptions.values():
            subscription.drop()
        self._subscriptions.clear()
        self._urgent.clear()
        self._ready.clear()

    def say(self, answer: str) -> None:
        """Before everything else that waits. Raises `AnswersPileUp`, or with `unsaid` leaves it out and counts it."""
        if self._answers_size > MAX_ANSWER_CHARACTERS:
            if self.unsaid is not None:
                self._not_said += 1
                return
            raise AnswersPileUp(f"{self._answers_size} characters of answers wait to be read")
        self._answers.append(answer)
        self._answers_size += len(answer)
        self._wake.set()

    async def room_for_answers(self) -> None:
        """Waits while many answers do, for the writer: whoever asks faster than it reads is listened to no faster.
        Not a checkpoint when there is room.
        """
        while self._answers_size > FEW_ANSWER_CHARACTERS:
            self._answers_taken = trio.Event()
            await self._answers_taken.wait()

    def ready(self, speaker: Speaker, *, urgent: bool = False) -> None:
        """It has something to say now. What is urgent is asked first, one after the other as the rest is."""
        waiting = self._urgent if urgent else self._ready
        if speaker not in waiting:
            waiting[speaker] = None
            self._wake.set()

    def later(self, subscription: Subscription, at: float) -> None:
        heapq.heappush(self._timers, (at, next(self._tie), subscription))
        self._wake.set()

    async def next(self, *, at_most: int = BATCH_CHARACTERS) -> list[str | bytes]:
        """What to write now: at least one message, and about as much as `at_most` characters. Cancelling loses nothing.

        Lets others run only while nothing waits: the write that follows does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            now = trio.current_time()
            self._look_at_the_clock(now)
            batch = self._take(at_most, now)
            if batch:
                return batch
            self._wake = trio.Event()
            with trio.move_on_at(self._timers[0][0] if self._timers else inf):
                await self._wake.wait()

    async def next_texts(self, *, at_most: int = BATCH_CHARACTERS) -> list[str]:
        """The same where only subscriptions speak, which speak text."""
        return cast("list[str]", await self.next(at_most=at_most))

    def _look_at_the_clock(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, _, subscription = heapq.heappop(self._timers)
            if subscription.on_time(at):
                self.ready(subscription)

    def _take(self, at_most: int, now: float) -> list[str | bytes]:
        batch: list[str | bytes] = [*self._answers]
        size = self._answers_size
        if self._not_said and self.unsaid is not None:
            batch.append(self.unsaid(self._not_said))
            self._not_said = 0
        self._answers.clear()
        self._answers_size = 0
        self._answers_taken.set()
        for waiting in (self._urgent, self._ready):
            while waiting and size < at_most:
                size += self._let_speak(waiting, batch, at_most - size, now)
        return batch

    def _let_speak(self, waiting: dict[Speaker, None], batch: list[str | bytes], at_most: int, now: float) -> int:
        """The turn of the first that waits. Returns what it said, in characters."""
        speaker = next(iter(waiting))
        del waiting[speaker]
        taken, size = len(batch), 0
        for _ in range(IN_A_ROW):
            message = speaker.take(now)
            if message is not None:
                batch.append(message)
                size += max(len(message), speaker.effort)
            if speaker.is_over:  # these were its last words
                if isinstance(speaker, Subscription) and self._subscriptions.get(speaker.id) is speaker:
                    del self._subscriptions[speaker.id]
                break
            if message is None:
                break
            if size >= at_most:
                waiting[speaker] = None
                break
        else:
            waiting[speaker] = None
        speaker.told(len(batch) - taken)
        return size
