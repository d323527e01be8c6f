"""What nodes say and are told of tasks: camelCase on the wire, validated once."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from skygw.ids import InstallId, TaskUid, TelescopeUid
from skygw.observing.tasks import (
    ENDS,
    MAX_ASSETS,
    MAX_CLAIMED,
    Claimed,
    Completion,
    OrderBy,
    PassedOver,
    Progress,
    Report,
    ReportKind,
    Results,
    Task,
    TaskStatus,
    TaskType,
)
from skygw.protocol.frame import Fraction, Message, Timestamp, write_body
from skygw.protocol.gateway_frames import TaskDirective
from skygw.routers.schemas import Body, View

LARGEST = 2**31 - 1
MAX_RESULTS = 200

RANGES: Mapping[str, OrderBy] = {
    "earliestStart": OrderBy.EARLIEST_START_TIME,
    "plannedStart": OrderBy.PLANNED_START_TIME,
    "expires": OrderBy.EXPIRATION_TIME,
    "actualStart": OrderBy.ACTUAL_START_TIME,
    "completed": OrderBy.COMPLETED_ON,
}
"""With `After` or `Before` behind it: a filter."""

Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Assets = Annotated[tuple[UUID, ...], Field(max_length=MAX_ASSETS)]


class ClaimBody(Body):
    """How many tasks at most. Whoever repeats the request, because an answer was lost, sends the same `claimUid`."""

    claim_uid: UUID
    max: Annotated[int, Field(strict=True, ge=1, le=MAX_CLAIMED)] = 1

    def report(self) -> Report:
        return Report(self.claim_uid, _digest(ReportKind.CLAIM, self), {"claim_uid": str(self.claim_uid)})


class ProgressBody(Body):
    """How far a task has come; the first one begins it. `reportedAt` is the node's clock."""

    report_uid: UUID
    phase: Annotated[str, Field(min_length=1, max_length=100)]
    progress: Fraction
    message: Message | None = None
    accumulated_exposure_time: Annotated[Amount | None, Field(description="Seconds.")] = None
    observatory_acquired_frames: Annotated[int, Field(strict=True, ge=0, le=LARGEST)] | None = None
    estimated_end_time: Timestamp | None = None
    reported_at: Timestamp

    def report(self) -> Progress:
        return Progress(
            uid=self.report_uid,
            digest=_digest(ReportKind.PROGRESS, self),
            said=_said(self),
            reported_at=self.reported_at,
            phase=self.phase,
            progress=self.progress,
            message=self.message,
            accumulated_exposure_time=self.accumulated_exposure_time,
            observatory_acquired_frames=self.observatory_acquired_frames,
            estimated_end_time=self.estimated_end_time,
        )


class ResultBody(Body):
    result_uid: UUID
    asset_uids: Assets


class ResultsBody(Body):
    """Which assets belong to which result."""

    report_uid: UUID
    results: Annotated[tuple[ResultBody, ...], Field(min_length=1, max_length=MAX_RESULTS)]

    @model_validator(mode="after")
    def _each_once(self) -> "ResultsBody":
        if len({result.result_uid for result in self.results}) < len(self.results):
            raise ValueError("name each result once")
        if sum(len(result.asset_uids) for result in self.results) > MAX_ASSETS:
            raise ValueError(f"{MAX_ASSETS} assets at most in one report")
        return self

    def report(self) -> Results:
        return Results(
            uid=self.report_uid,
            digest=_digest(ReportKind.RESULTS, self),
            said=_said(self),
            results={result.result_uid: result.asset_uids for result in self.results},
        )


class CompleteBody(Body):
    """How a task ended. For `completed` all of `assets` must be declared; the times are the node's clock."""

    report_uid: UUID
    status: Literal["completed", "failed", "not_attempted", "interrupted", "canceled"]
    reason_code: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z][a-z0-9_]{0,63}$",
            description="`weather`, `interlock`, `device_fault`, `window_missed`, `lease`, `operator`, `disk`, or "
            "another word.",
        ),
    ] = None
    reschedulable: Annotated[bool, Field(strict=True)] | None = None
    actual_start_time: Timestamp | None = None
    actual_end_time: Timestamp | None = None
    summary: Message | None = None
    assets: Assets = ()

    def report(self) -> Completion:
        return Completion(
            uid=self.report_uid,
            digest=_digest(ReportKind.COMPLETE, self),
            said=_said(self),
            status=TaskStatus(self.status),
            reason_code=self.reason_code,
            reschedulable=self.reschedulable,
            actual_start_time=self.actual_start_time,
            actual_end_time=self.actual_end_time,
            summary=self.summary,
            assets=tuple(dict.fromkeys(self.assets)),
        )


def _digest(kind: ReportKind, body: Body) -> bytes:
    """Of what is said, however it is spelled."""
    return hashlib.sha256(f"{kind.value}\n{write_body(body)}".encode()).digest()


def _said(body: Body) -> Mapping[str, Any]:
    return body.model_dump(mode="json", exclude={"report_uid"}, exclude_none=True)


class ClaimView(View):
    """Who observes a task, and how far it has come. `held` is false where it has lapsed or ended."""

    claim_uid: UUID
    install_id: InstallId
    held: bool
    claimed_at: datetime
    claim_expires_at: datetime
    started_at: Annotated[datetime | None, Field(description="By the hub's clock.")]
    ended_at: Annotated[datetime | None, Field(description="By the hub's clock.")]
    phase: str | None
    message: str | None
    progress: float | None
    reported_at: Annotated[datetime | None, Field(description="By the node's clock.")]
    estimated_end_time: datetime | None


class TaskView(View):
    """A task of an installation; the members of other task types are null."""

    id: int
    uid: TaskUid
    task_type: TaskType
    status: TaskStatus
    telescope_uid: TelescopeUid
    observation_id: int | None
    observation_uid: UUID | None
    request_id: int | None
    instrument_id: int
    instrument_uid: UUID
    instrument_configuration_version: int | None
    earliest_start_time: datetime | None
    planned_start_time: datetime | None
    planned_duration: float | None
    expiration_time: datetime | None
    actual_start_time: datetime | None
    actual_end_time: datetime | None
    completed_on: datetime | None
    ota_id: int | None
    ota_uid: UUID | None
    camera_id: int | None
    camera_uid: UUID | None
    accumulated_exposure_time: float | None
    observatory_acquired_frames: int | None
    required_exposure_time: float | None
    total_exposures: int | None
    max_exposure_time: float | None
    duration: float | None
    antenna_id: int | None
    antenna_uid: UUID | None
    radio_backend_id: int | None
    radio_backend_uid: UUID | None
    integration_time: float | None
    central_frequencies: list[float] | None
    result_uids: Annotated[list[UUID], Field(description="The results it is for.")]
    claim: ClaimView | None


class TaskPage(View):
    items: list[TaskView]
    total: int
    page: int
    size: int
    pages: int


class PassedOverView(View):
    """A task that was not claimed: the instrument has changed since it was made."""

    task_uid: TaskUid
    code: Literal["configuration_changed"]
    instrument_configuration_version: int
    configuration_version: int


class ClaimedView(View):
    """The tasks of this claim, as they are now."""

    claim_uid: UUID
    claim_expires_at: datetime | None
    tasks: list[TaskView]
    passed_over: list[PassedOverView]


class ProgressAnswer(View):
    """What was stored with the report, and is answered again when it is repeated."""

    task_uid: TaskUid
    report_uid: UUID
    status: TaskStatus
    directive: TaskDirective
    reason: Annotated[str | None, Field(description="`canceled`, `lease`, `window_missed`, or how the task has ended.")]
    claim_expires_at: datetime


class ReportAnswer(View):
    """What was stored with the report, and is answered again when it is repeated."""

    task_uid: TaskUid
    report_uid: UUID
    status: TaskStatus
    fulfilled: Annotated[list[UUID], Field(description="The results that this report has fulfilled.")]


def task_view(task: Task) -> TaskView:
    claim = task.claim
    return TaskView(
        uid=task.uid,
        status=task.status,
        telescope_uid=task.telescope_uid,
        result_uids=list(task.results),
        claim=None
        if claim is None
        else ClaimView(
            claim_uid=claim.claim_uid,
            install_id=claim.install_id,
            held=claim.is_held and task.status not in ENDS,
            claimed_at=claim.claimed_at,
            claim_expires_at=claim.expires_at,
            started_at=claim.started_at,
            ended_at=claim.ended_at,
            phase=claim.phase,
            message=claim.message,
            progress=claim.progress,
            reported_at=claim.reported_at,
            estimated_end_time=claim.estimated_end_time,
        ),
        **task.members,
    )


def claimed_view(claim_uid: UUID, claimed: Claimed) -> ClaimedView:
    return ClaimedView(
        claim_uid=claim_uid,
        claim_expires_at=claimed.expires_at,
        tasks=[task_view(task) for task in claimed.tasks],
        passed_over=[_passed_over(each) for each in claimed.passed_over],
    )


def _passed_over(each: PassedOver) -> PassedOverView:
    return PassedOverView(
        task_uid=each.uid,
        code="configuration_changed",
        instrument_configuration_version=each.made_for,
        configuration_version=each.current,
    )
