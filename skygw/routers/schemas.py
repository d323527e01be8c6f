"""The bodies of the internal API: camelCase on the wire, validated once, the source of its OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
)
from pydantic.alias_generators import to_camel

from skygw.errors import Hop, Invalid, Outcome, Reached
from skygw.ids import CommandId, DeviceUid, InstanceUid, TelescopeUid
from skygw.protocol import quick_json
from skygw.protocol.command_states import CommandState, ReceiptWord
from skygw.protocol.frame import Counter, OpaqueObject, Sha256, read_model
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.json_text import BrokenJson, JsonObject, Opaque, read_object
from skygw.protocol.limits import MAX_CARRIED_BYTES
from skygw.protocol.node_frames import NodeType
from skygw.protocol.order_members import ActorBody as ActorBody
from skygw.protocol.streams import StaleReason, StreamName

MAX_BODY_BYTES = MAX_CARRIED_BYTES
"""Of every JSON body here: what a command or a request carries must fit into one frame, with what the frame adds."""

MAX_PAGE_SIZE = 500

MAX_WAIT_S = 600

Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_S, allow_inf_nan=False)]
RequestIdText = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]


class Body(BaseModel):
    """What a caller sends. Unknown keys are refused: a misspelt safety option must not be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


BodyT = TypeVar("BodyT", bound=Body)


class View(BaseModel):
    """What the gateway answers."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class DirectBody(Body):
    """A direct request. `timeoutS` is for everything, `connectWaitS` is part of it."""

    operation: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z][a-z0-9_.]*$")]
    params: OpaqueObject
    timeout_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = None
    connect_wait_s: Wait = 0.0
    offset: Counter | None = None
    length: Counter | None = None
    if_digest: Sha256 | None = None
    request_id: RequestIdText | None = None
    actor: ActorBody | None = None


class GraphView(View):
    """The hardware an installation sees, by uid. Of each resource `resourceType` says of which kind it is, and
    `deviceType`, `instrumentType` or `constraintType` more; what it refers to is named by uid.
    """

    root: UUID
    revision: int
    resources: dict[UUID, dict[str, Any]]


class GraphChangesView(View):
    """What has changed since a revision. When it is `complete`, `upserted` is everything and replaces what was."""

    root: UUID
    revision: int
    complete: bool
    upserted: dict[UUID, dict[str, Any]]
    removed: list[UUID]


class GraphOrChanges(RootModel[GraphView | GraphChangesView]):
    """The graph, or with `since` what has changed."""


class TransferBody(Body):
    """The machine that may take the installation over."""

    instance_uid: InstanceUid


class CallerView(View):
    """Who asked: the service, and the person behind it."""

    service: str
    actor: dict[str, str] | None


class TransitionView(View):
    """One step. `by` is there where somebody asked for this step, not only for those before it."""

    at: datetime
    state: CommandState
    hop: Hop
    detail: str | None
    by: CallerView | None


class FenceView(View):
    """Under which fence a command went: the lease of this telescope or device that has this fence."""

    uid: UUID
    fence: int


class CancelView(View):
    """A cancel that was asked for; what became of it, the steps say."""

    at: datetime
    mode: CancelMode
    grace_s: float | None
    by: CallerView


class CommandView(View):
    """A command as known now. `result`, `error` and `proof` are the node's own words, byte for byte."""

    command_id: CommandId
    install_id: UUID
    telescope_uid: TelescopeUid | None
    device_uid: DeviceUid | None
    command: Opaque
    origin: Opaque | None
    service: str
    actor: dict[str, str] | None
    state: CommandState
    outcome: Outcome
    progress: float | None
    result: Opaque | None
    error: Opaque | None
    proof: Opaque | None
    canceled: str | None
    epoch: int | None
    fence: FenceView | None
    trace_id: str | None
    created_at: datetime
    deadline_at: Annotated[datetime, Field(description="By when it has to end; its node may have asked for more.")]
    deadline_max_at: Annotated[datetime | None, Field(description="Up to where the caller lets it move.")]
    ended_at: datetime | None
    recorded_late: bool
    duplicate: bool
    transitions: list[TransitionView]
    cancels: list[CancelView]


class Receipt(View):
    """What became of a cancel."""

    command_id: CommandId
    receipt: ReceiptWord
    state: CommandState
    proof: Opaque | None


class FieldProblem(View):
    """One thing wrong with a request: `loc` leads to it, from `body` or `query` on."""

    type: str
    loc: list[str | int]
    msg: str


class RefusalProblem(View):
    """One thing that would refuse a command, with the members of the error it would be."""

    detail: str | list[FieldProblem]
    code: str
    outcome: Outcome
    retry: str
    details: dict[str, Any] = Field(default_factory=dict)


class ValidationView(View):
    """What a command would meet now. With `duplicate` the stored record would be the answer, and nothing be sent."""

    command_id: CommandId
    valid: bool
    duplicate: bool
    refusals: list[RefusalProblem]


class CommandOrValidation(RootModel[CommandView | ValidationView]):
    """A command, or with `validateOnly` what it would meet."""


class CallView(View):
    """What became of a direct request."""

    request_id: str
    install_id: UUID
    operation: str
    outcome: Outcome
    reached: Reached | None
    reason: str | None
    epoch: int | None
    started_at: datetime | None
    ended_at: datetime | None


class StreamView(View):
    """The latest snapshot of one resource. `ageS` counts from its arrival; `stale` is null while it is the present."""

    stream: StreamName
    uid: UUID
    observed_at: datetime
    age_s: float
    max_silence_s: float | None
    stale: StaleReason | None


class CloseView(View):
    at: datetime
    code: int | None
    reason: str
    by_node: bool


class RefusalView(View):
    at: datetime
    code: int
    reason: str
    address: str


class NodeView(View):
    """An installation and its connection. Everything below `connected` is of this process."""

    id: int | None
    uid: UUID
    name: str
    node_type: NodeType
    observatory_uid: UUID
    connected: bool
    replica: str | None
    epoch: int | None
    since: datetime | None
    last_seen: datetime | None
    address: str | None
    round_trip_s: float | None
    calls_in_flight: int
    queue_bytes: dict[str, int]
    unacked_reports: int
    token_expires_at: datetime | None
    token_in_grace: bool
    instance_uid: UUID | None
    boot_id: UUID | None
    software_version: str | None
    features: list[str]
    telescopes: list[TelescopeUid]
    devices: list[DeviceUid]
    streams: list[StreamView]
    last_close: CloseView | None
    last_refusal: RefusalView | None


class NodePage(View):
    items: list[NodeView]
    total: int
    page: int
    size: int
    pages: int


class CommandPage(View):
    items: list[CommandView]
    total: int
    page: int
    size: int
    pages: int


class InstallationView(View):
    """What an installation is told of itself."""

    uid: UUID
    name: str
    node_type: NodeType
    telescope_uid: TelescopeUid | None
    observatory_uid: UUID
    telescopes: list[TelescopeUid]
    devices: list[DeviceUid]
    may: list[str]


class ProblemView(View):
    """Every error. `detail` is one sentence, in a 422 the list of what is wrong; `code` is the reason."""

    detail: str | list[FieldProblem]
    code: str
    outcome: Outcome
    retry: str
    hop: Hop
    reached: Reached | None
    request_id: str | None
    details: dict[str, Any] = Field(default_factory=dict)


class HealthView(View):
    status: Literal["ok"]


class ReadinessView(View):
    """`checks` says `ok` of each, or what is wrong."""

    ready: bool
    checks: dict[str, str]


class DrainView(View):
    draining: Literal[True]


def read_body(model: type[BodyT], raw: bytes) -> BodyT:
    """Validates a JSON body. Raises `Invalid`, which names the fields."""
    return quick_json.read_body(model, raw) or validated(model, read_json(raw))


def read_json(raw: bytes) -> JsonObject:
    """The object a body is, its members not validated. Raises `Invalid`."""
    try:
        return read_object(raw.decode())
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8.", "body") from None
    except BrokenJson as error:
        raise invalid(f"The body is not a JSON object: {error}.", "body") from None


def validated(model: type[BodyT], source: JsonObject) -> BodyT:
    """Raises `Invalid`, which names the fields as they are spelled outside."""
    try:
        return read_model(model, source)
    except Invalid as error:
        if not error.fields:
            raise invalid(error.message, "body") from None
        fields = [{**field, "loc": ["body", *as_spelled(field["loc"])]} for field in error.fields]
        raise Invalid(error.message, fields=fields) from None


def invalid(message: str, *where: str) -> Invalid:
    """One thing wrong with a request, and where: `body`, or `query` and the parameter."""
    return Invalid(message, fields=[{"type": "value_error", "loc": list(where), "msg": message}])


def as_spelled(path: list[str | int]) -> list[str | int]:
    """Pydantic names what is missing as it is spelled outside, and what is wrong as it is spelled here."""
    return [to_camel(step) if isinstance(step, str) else step for step in path]
