"""What the hub wants of the tasks that run here: its word reaches whoever runs them, and never waits in the reader."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from skygw.ids import TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import EventTaskChanged, EventTasksAvailable, TaskDirective

log = logging.getLogger("skygw.client")

MAX_WAITING = 256
"""More than the tasks a telescope has at hand; 200 bytes each."""


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """A word of the hub's about a task. It may come twice; of a task that does not run it means nothing."""

    task_uid: TaskUid
    telescope_uid: TelescopeUid | None
    directive: TaskDirective
    reason: str | None


TaskHandler = Callable[[TaskChanged], Awaitable[None]]
OfferHandler = Callable[[], Awaitable[None]]
"""Called when there are tasks to claim."""


class TaskNews:
    """The newest word about each task, and whether there are tasks to claim. Belongs to the client and outlives its
    links; only `run` waits.
    """

    def __init__(self, handler: TaskHandler | None, offered: OfferHandler | None = None) -> None:
        self._handler = handler
        self._offered = offered
        self._offer = trio.Event()
        self._waiting: dict[TaskUid, TaskChanged] = {}
        self._at_work: set[TaskUid] = set()
        self._more = trio.Event()

    def take(self, frame: EventTaskChanged) -> None:
        self.tell(TaskChanged(frame.task_uid, frame.telescope_uid, frame.directive, frame.reason))

    def tell(self, said: TaskChanged) -> None:
        """Also from elsewhere than the socket: the answer to a progress report says the same."""
        if len(self._waiting) >= MAX_WAITING:
            log.warning("too much is said of tasks; passed over: %s of %s", said.directive, said.task_uid)
            return
        self._waiting[said.task_uid] = said
        self._more.set()

    def take_offer(self, frame: EventTasksAvailable) -> None:
        log.info("there are %d more tasks to claim at the telescope %s", len(frame.task_uids), frame.telescope_uid)
        self._offer.set()

    async def run(self) -> None:
        """Calls the handlers, for each task once at a time, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_offers)
            while True:
                await self._more.wait()
                self._more = trio.Event()
                for uid in [uid for uid in self._waiting if uid not in self._at_work]:
                    self._at_work.add(uid)
                    nursery.start_soon(self._tell, self._waiting.pop(uid))

    async def _run_offers(self) -> None:
        """What is offered while the handler claims is worth another call."""
        while True:
            await self._offer.wait()
            self._offer = trio.Event()
            try:
                if self._offered is not None:
                    await self._offered()
            except Exception:  # the handler is not ours: it ends this attempt and nothing else
                log.exception("claiming what the hub offers failed")

    async def _tell(self, said: TaskChanged) -> None:
        log.info("the hub says of the task %s: %s (%s)", said.task_uid, said.directive.value, said.reason)
        try:
            if self._handler is not None:
                await self._handler(said)
        except Exception:  # the handler is not ours: it ends this attempt and nothing else
            log.exception("following what the hub says of a task failed")
        finally:
            self._at_work.discard(said.task_uid)
            self._more.set()


def tell_directive(news: TaskNews, task_uid: TaskUid, answer: Mapping[str, Any]) -> None:
    """What the hub's answer to a progress report wants of the task; that it goes on is no news."""
    said = answer.get("directive")
    if said == TaskDirective.CONTINUE:
        return
    if said not in set(TaskDirective):
        log.warning("the hub directs something unknown: %r", said, extra={"task_uid": str(task_uid)})
        return
    reason = answer.get("reason")
    news.tell(TaskChanged(task_uid, None, TaskDirective(said), reason if isinstance(reason, str) else None))
