"""Observation tasks: their states and the rules of a node's reports, pure; and the port to where tasks are kept."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from skygw.errors import AssetsIncomplete, Forbidden, GatewayError, IllegalTransition
from skygw.ids import InstallId, TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import TaskDirective

MAX_CLAIMED = 100
"""Tasks in one claim."""
SILENCE_S = 600.0
"""An unbegun claim lapses when nothing was heard of its node for so long."""
MAX_ASSETS = 1_000
"""Named in one report: 39 KiB of the 60 that a body may have."""


class TaskStatus(StrEnum):
    """As the platform spells them."""

    UNASSIGNED = "unassigned"
    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    NOT_ATTEMPTED = "not_attempted"
    INTERRUPTED = "interrupted"
    CANCELED = "canceled"


class TaskType(StrEnum):
    OPTICAL_IMAGING = "optical_imaging"
    BIAS = "optical_imaging_bias_calibration"
    DARK = "optical_imaging_dark_calibration"
    FLAT = "optical_imaging_flat_calibration"
    RADIO_TRACKING = "radio_tracking"
    RADIO_MAPPING = "radio_mapping"


ENDS = frozenset(
    {
        TaskStatus.COMPLETED,
        TaskStatus.FAILED,
        TaskStatus.NOT_ATTEMPTED,
        TaskStatus.INTERRUPTED,
        TaskStatus.CANCELED,
    }
)

STEPS: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: ENDS | {TaskStatus.ACTIVE},
    TaskStatus.ACTIVE: ENDS - {TaskStatus.NOT_ATTEMPTED},  # what was begun was attempted
}
"""The moves that the gateway makes; `skygw.task_step` is the same table, and a test holds one to the other."""


class ReportKind(StrEnum):
    """What is kept, and told in the stream `task_report`."""

    CLAIM = "claim"
    RELEASE = "release"
    PROGRESS = "progress"
    RESULTS = "results"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Claim:
    """Who observes a task, and how far it has come. Times are the hub's, but `reported_at`, which is the newest of the
    node's clock. `is_held`: it has begun, or has not lapsed.
    """

    claim_uid: UUID
    install_id: InstallId
    claimed_at: datetime
    expires_at: datetime
    is_held: bool
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ended: TaskStatus | None = None
    phase: str | None = None
    message: str | None = None
    progress: float | None = None
    reported_at: datetime | None = None
    reported_by: UUID | None = None
    """Which report that was."""
    estimated_end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task by the platform's records. `members` are those of all task types, in snake_case."""

    uid: TaskUid
    status: TaskStatus
    telescope_uid: TelescopeUid
    members: Mapping[str, Any]
    results: tuple[UUID, ...] = ()
    claim: Claim | None = None
    is_over_time: bool = False
    """Its window has passed."""
    lease_is_against: bool = False
    """Who has control of the telescope, or of what it shares, wants tasks aborted, or had it before this one began."""


@dataclass(frozen=True, slots=True)
class Observer:
    """The installation that asks, and the telescopes whose tasks are its own: none, for an observatory's."""

    install_id: InstallId
    observatory_uid: UUID
    telescopes: tuple[TelescopeUid, ...]

    @property
    def telescope_uid(self) -> TelescopeUid:
        """Raises `Forbidden` for an installation that has none."""
        if not self.telescopes:
            raise Forbidden("Tasks are claimed by the installation of a telescope.")
        return self.telescopes[0]


class OrderBy(StrEnum):
    ID = "id"
    EARLIEST_START_TIME = "earliest_start_time"
    PLANNED_START_TIME = "planned_start_time"
    EXPIRATION_TIME = "expiration_time"
    ACTUAL_START_TIME = "actual_start_time"
    COMPLETED_ON = "completed_on"


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """A page of tasks; `page` counts from 1. Of each range the first moment is in it and the last is not."""

    page: int = 1
    size: int = 50
    statuses: Collection[TaskStatus] | None = None
    task_types: Collection[TaskType] | None = None
    ranges: Mapping[OrderBy, tuple[datetime | None, datetime | None]] = field(default_factory=dict)
    order_by: OrderBy = OrderBy.ID
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What every report has. `said` is what subscribers are told of it, and `digest` makes it this report again."""

    uid: UUID
    digest: bytes
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress(Report):
    reported_at: datetime
    phase: str
    progress: float
    message: str | None = None
    accumulated_exposure_time: float | None = None
    observatory_acquired_frames: int | None = None
    estimated_end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Results(Report):
    """The assets of each result."""

    results: Mapping[UUID, tuple[UUID, ...]]

    @property
    def assets(self) -> set[UUID]:
        return {uid for uids in self.results.values() for uid in uids}


@dataclass(frozen=True, slots=True)
class Completion(Report):
    status: TaskStatus
    reason_code: str | None = None
    reschedulable: bool | None = None
    actual_start_time: datetime | None = None
    actual_end_time: datetime | None = None
    summary: str | None = None
    assets: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class AssetFact:
    """An asset that was declared, by the hub's records."""

    uid: UUID
    fits: bool
    """It is of the instrument and the observation of the task that it is named for."""
    is_there: bool
    """It is verified, or stays at the site."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A task that would be one to claim, but was made for an instrument that has changed since."""

    uid: TaskUid
    made_for: int
    current: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The tasks of a claim as they are now; of none there is nothing that expires."""

    tasks: Sequence[Task]
    expires_at: datetime | None
    passed_over: Sequence[PassedOver] = ()


class TaskStore(Protocol):
    """Where tasks are kept. Raises `RoutingUnavailable` when it cannot be asked, and `NotFound` for what is not bound
    to the observer, in the same words as for what does not exist. The answer to a report is the JSON text of the first
    time; said again with another body it is `IdReused`. A report that is refused leaves nothing behind.
    """

    async def page(self, observer: Observer, query: TaskQuery) -> tuple[Sequence[Task], int]: ...

    async def get(self, observer: Observer, id_or_uid: str) -> Task: ...

    async def claim(
        self, observer: Observer, report: Report, *, at_most: int, refusal: GatewayError | None
    ) -> "Claimed":
        """Raises `refusal`, `LocalControl`, `LeaseHeld`, `ConfigurationChanged`, unless it was granted before."""
        ...

    async def release(self, observer: Observer, id_or_uid: str) -> Task:
        """Again is no mistake. Raises `IllegalTransition` for one that has begun."""
        ...

    async def progress(self, observer: Observer, id_or_uid: str, report: Progress) -> str: ...

    async def results(self, observer: Observer, id_or_uid: str, report: Results) -> str: ...

    async def complete(self, observer: Observer, id_or_uid: str, report: Completion) -> str:
        """Raises `AssetsIncomplete`, `IllegalTransition`."""
        ...

    async def extend(self, install_ids: Collection[InstallId]) -> None:
        """Something was heard of these: what they claimed and have not begun does not lapse for now."""
        ...


# Rules.


def may_move(task: TaskStatus, to: TaskStatus) -> bool:
    return to in STEPS.get(task, frozenset())


def check_claimant(task: Task, install_id: InstallId) -> Claim:
    """The claim of whoever reports. One that has lapsed is still its own until another takes the task: nobody is
    served by losing what was observed. Raises `IllegalTransition`.
    """
    claim = task.claim
    if claim is None or claim.install_id != install_id:
        raise IllegalTransition(
            "This installation has no claim to this task: it claims it first, and claims it again when it has lapsed.",
            details={"status": task.status.value},
        )
    return claim


def begins(task: Task) -> bool:
    """Whether a progress report is the first."""
    return may_move(task.status, TaskStatus.ACTIVE)


def ends(task: Task, claim: Claim, wanted: TaskStatus) -> bool:
    """Whether a completion moves the task. What the platform ended stays as it ended, whatever its node says of it
    then; what the node has ended is not ended in another way. Raises `IllegalTransition`.
    """
    if may_move(task.status, wanted):
        return True
    if (task.status in ENDS and claim.ended is None) or claim.ended is wanted or task.status is TaskStatus.UNASSIGNED:
        return False
    ways = ", ".join(sorted(STEPS.get(task.status, frozenset()) & ENDS)) or "none: it has ended"
    raise IllegalTransition(
        f"A task that is {task.status.value} does not become {wanted.value}; possible: {ways}.",
        details={"status": task.status.value},
    )


def check_release(task: Task, install_id: InstallId) -> bool:
    """Whether there is a claim to give back. Raises `IllegalTransition`."""
    claim = task.claim
    if claim is None or claim.install_id != install_id or claim.ended_at is not None:
        return False
    if task.status is TaskStatus.ACTIVE:
        raise IllegalTransition(
            "This task has begun: it ends as completed, failed, interrupted or canceled.",
            details={"status": task.status.value},
        )
    return True


def directive_for(task: Task) -> tuple[TaskDirective, str | None]:
    """What the hub wants of it now, and why. What nobody wants any more is aborted; of a window that has passed the
    frame under way is kept.
    """
    if task.status in (TaskStatus.CANCELED, TaskStatus.UNASSIGNED):
        return TaskDirective.ABORT, "canceled"
    if task.status in ENDS:
        return TaskDirective.STOP, task.status.value
    if task.lease_is_against:
        return TaskDirective.ABORT, "lease"
    if task.is_over_time:
        return TaskDirective.STOP, "window_missed"
    return TaskDirective.CONTINUE, None


def is_newest(claim: Claim, report: Progress) -> bool:
    """Whether a progress report says how it is now. By the node's clock; of two with one time the higher uid, so that
    what is known at the end does not depend on the order in which reports came.
    """
    if claim.reported_at is None or claim.reported_by is None:
        return True
    return (report.reported_at, report.uid) > (claim.reported_at, claim.reported_by)


def check_assets(named: Collection[UUID], facts: Mapping[UUID, AssetFact]) -> None:
    """Raises `AssetsIncomplete`, which names those that were not declared, and those of another observation."""
    undeclared = sorted(str(uid) for uid in named if uid not in facts)
    differing = sorted(str(uid) for uid in named if uid in facts and not facts[uid].fits)
    if undeclared or differing:
        raise AssetsIncomplete(
            f"{len(undeclared)} of the assets are not declared, {len(differing)} are of another instrument or "
            "observation: declare them, and say it again.",
            details={"undeclared": undeclared, "differing": differing},
        )
