"""Brings what was kept to the hub: of one task in order, tasks beside each other, until the hub has or refuses it."""

import json
import logging
from collections.abc import Callable
from functools import partial
from uuid import UUID

import trio

from skygw.client.gate import Gate
from skygw.client.hub_http import HubHttp, Record, path_of
from skygw.client.retrying import Backoff, Verdict, judge
from skygw.client.work import Work
from skygw.client.work_items import AssetState, ItemKind, WorkItem
from skygw.client.work_queue import WorkQueue
from skygw.errors import BadResponse, GatewayError
from skygw.ids import TaskUid

log = logging.getLogger("skygw.client")

AT_ONCE = 4
"""Requests under way: enough that one slow answer holds up no other task, few enough for a thin line."""

MAX_LANES = 64
"""Tasks that are brought on beside each other; the others follow."""

Directed = Callable[[TaskUid, Record], None]
"""Told of the answer to each progress report."""


class Deliveries:
    """`run` until cancelled. What was under way then is sent again: the hub knows it by its uid."""

    def __init__(
        self, work: Work, hub: HubHttp, gate: Gate, *, directed: Directed, chance: Callable[[], float]
    ) -> None:
        self._work = work
        self._hub = hub
        self._gate = gate
        self._directed = directed
        self._chance = chance
        self._lanes: set[str] = set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._work.changed
                for lane in await self._work.ask(WorkQueue.lanes):
                    if lane not in self._lanes and len(self._lanes) < MAX_LANES:
                        self._lanes.add(lane)
                        nursery.start_soon(self._empty, lane)
                await changed.wait()

    async def _empty(self, lane: str) -> None:
        """One after the other, until there is nothing more."""
        backoff = Backoff(self._chance)
        bare = 0
        failing_since: float | None = None
        try:
            while (item := await self._work.ask(lambda queue: queue.first(lane))) is not None:
                item = await self._filled_in(item)
                try:
                    async with self._gate.place():
                        await self._deliver(item)
                        self._gate.came_through()
                except GatewayError as error:
                    verdict = judge(error, bare_before=bare)
                    failing_since = failing_since or trio.current_time()
                    bare = bare + 1 if error.details.get("bare") else 0
                    if verdict is Verdict.NEVER:
                        await self._set_aside(item, error)
                        backoff.succeeded()
                        bare, failing_since = 0, None
                        continue
                    wait_s = backoff.after(error)
                    log.info("not delivered, again in %.1f s: %s", wait_s, error, extra=_about(item))
                    # If others came through meanwhile it is about this one, whatever it looks like.
                    if verdict is Verdict.ALL and self._gate.came_through_at < failing_since:
                        self._gate.shut(wait_s)
                    else:
                        await trio.sleep(wait_s)
                else:
                    backoff.succeeded()
                    bare, failing_since = 0, None
        finally:
            self._lanes.discard(lane)

    async def _filled_in(self, item: WorkItem) -> WorkItem:
        """With the hub's uids of the files it names; waits for those that are still to be declared."""
        while True:
            changed = self._work.changed
            filled = await self._work.note(lambda queue: queue.fill_in(item)) if item.awaits else item
            if filled is not None:
                return filled
            await changed.wait()

    async def _deliver(self, item: WorkItem) -> None:
        if item.kind is ItemKind.DECLARE:
            await self._declare(item)
            return
        answer = await self._hub.ask("POST", f"me/tasks/{item.task_uid}/{item.kind}", body=item.body)
        if item.kind is ItemKind.PROGRESS and item.task_uid is not None:
            self._directed(item.task_uid, answer)
        await self._work.note(lambda queue: queue.delivered(item))

    async def _declare(self, item: WorkItem) -> None:
        answer = await self._hub.ask("POST", "me/assets", body=item.body)
        hub_uid, url = _declared(answer)
        state = AssetState.UPLOADED if url is None else AssetState.UPLOADING
        if url is None and is_remote(item.body):
            state = AssetState.REMOTE
        noted = partial(WorkQueue.declared, item=item, hub_uid=hub_uid, state=state, upload_url=url)
        await self._work.note(noted)

    async def _set_aside(self, item: WorkItem, error: GatewayError) -> None:
        log.warning("the hub refuses a %s for ever: %s", item.kind.value, error, extra=_about(item))
        await self._work.note(lambda queue: queue.set_aside(item, reason_of(error)))


def is_remote(body: str) -> bool:
    return json.loads(body).get("isRemote") is True


def reason_of(error: GatewayError) -> str:
    """In a sentence, with the hub's word for it."""
    code = getattr(error, "code", None) or error.reason
    return f"{code}: {error}"


def _declared(answer: Record) -> tuple[UUID, str | None]:
    """The asset's uid at the hub, and where its bytes go, if it wants any."""
    try:
        hub_uid = UUID(answer["asset"]["uid"])
        upload = answer.get("upload")
        return hub_uid, None if upload is None else path_of(upload["url"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadResponse(f"The gateway's answer to a declaration is none: {error!r}.") from None


def _about(item: WorkItem) -> dict[str, str]:
    return {"uid": str(item.uid), "what": item.kind.value, "task_uid": str(item.task_uid)}
