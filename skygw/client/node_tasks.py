"""Observation tasks as a node sees them: what is asked of the hub now, and what is kept until the hub has it."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from skygw.client.hub_http import HubHttp, Record
from skygw.client.internal_api import given
from skygw.client.work import Work
from skygw.client.work_items import ItemKind
from skygw.client.work_queue import WorkQueue
from skygw.errors import BadResponse, LinkLost
from skygw.ids import TaskUid

CLAIM_TRIES = 3


class NodeTasks:
    """`progress`, `results` and `complete` return when they are on this disk; the hub gets them in this order, once it
    is there. The others ask the hub, and raise `GatewayError`. Durable ones raise `sqlite3.Error`, `Invalid` and
    `IdReused`.
    """

    def __init__(self, work: Work, hub: HubHttp) -> None:
        self._work = work
        self._hub = hub

    async def list(self, **filters: Any) -> Record:
        """A page of this installation's tasks. Filters in the hub's words: `status="pending"`, `orderBy=…`."""
        params = {key: _said(value) for key, value in filters.items() if value is not None}
        return await self._hub.ask("GET", "me/tasks", params=params)

    async def get(self, task: UUID | int) -> Record:
        """One task, by uid or by its integer."""
        return await self._hub.ask("GET", f"me/tasks/{task}")

    async def claim(self, *, at_most: int = 1, claim_uid: UUID | None = None) -> Sequence[Record]:
        """Tasks that are this node's to do now, none if there are none. Asked again with the same `claim_uid` the hub
        gives the same; an answer that is lost is asked for again here, a few times.
        """
        body = json.dumps({"claimUid": str(claim_uid or uuid4()), "max": at_most})
        tries = 1
        while True:
            try:
                answer = await self._hub.ask("POST", "me/tasks/claim", body=body)
            except LinkLost:
                if tries == CLAIM_TRIES:
                    raise
                tries += 1
            else:
                return _tasks_in(answer)

    async def release(self, task: TaskUid) -> Record:
        """Gives a claimed task back."""
        return await self._hub.ask("POST", f"me/tasks/{task}/release", body="{}")

    async def progress(
        self,
        task: TaskUid,
        *,
        phase: str,
        progress: float,
        message: str | None = None,
        accumulated_exposure_time: float | None = None,
        observatory_acquired_frames: int | None = None,
        estimated_end_time: datetime | None = None,
        reported_at: datetime | None = None,
        report_uid: UUID | None = None,
    ) -> UUID | None:
        """How far it is, 0 to 1. What the hub directs in its answer comes to `on_task_changed`. `None`: the disk is
        nearly full, and it was left out.
        """
        uid = report_uid or uuid4()
        body = given(
            reportUid=str(uid),
            phase=phase,
            progress=progress,
            message=message,
            accumulatedExposureTime=accumulated_exposure_time,
            observatoryAcquiredFrames=observatory_acquired_frames,
            estimatedEndTime=_time(estimated_end_time),
            reportedAt=_time(reported_at or datetime.now(UTC)),
        )
        return uid if await self._keep(ItemKind.PROGRESS, task, uid, body, ()) else None

    async def results(
        self, task: TaskUid, results: Mapping[UUID, Collection[UUID]], *, report_uid: UUID | None = None
    ) -> UUID:
        """Which files belong to which result: by the uids of `assets.submit` or the hub's own."""
        uid = report_uid or uuid4()
        said = [{"resultUid": str(one), "assetUids": [str(asset) for asset in of]} for one, of in results.items()]
        named = [asset for of in results.values() for asset in of]
        await self._keep(ItemKind.RESULTS, task, uid, {"reportUid": str(uid), "results": said}, named)
        return uid

    async def complete(
        self,
        task: TaskUid,
        *,
        status: str,
        reason_code: str | None = None,
        reschedulable: bool | None = None,
        actual_start_time: datetime | None = None,
        actual_end_time: datetime | None = None,
        summary: str | None = None,
        assets: Collection[UUID] = (),
        report_uid: UUID | None = None,
    ) -> UUID:
        """Ends the observing: `completed`, `failed`, `interrupted`, `not_attempted` or `canceled`. Its files are
        declared before, by the order in which things were kept, and uploaded after.
        """
        uid = report_uid or uuid4()
        body = given(
            reportUid=str(uid),
            status=status,
            reasonCode=reason_code,
            reschedulable=reschedulable,
            actualStartTime=_time(actual_start_time),
            actualEndTime=_time(actual_end_time),
            summary=summary,
            assets=[str(asset) for asset in assets],
        )
        await self._keep(ItemKind.COMPLETE, task, uid, body, assets)
        return uid

    async def _keep(self, kind: ItemKind, task: TaskUid, uid: UUID, body: Record, assets: Collection[UUID]) -> bool:
        def keep(queue: WorkQueue) -> bool:
            return queue.keep(kind, task, uid=uid, body=body, assets=assets)

        return await self._work.keep(keep)


def _tasks_in(answer: Record) -> Sequence[Record]:
    found = answer.get("tasks")
    if not isinstance(found, list):
        raise BadResponse("The gateway's answer to a claim holds no tasks.")
    return found


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _said(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)
