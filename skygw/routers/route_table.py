"""Every HTTP route of both listeners with what it takes and answers: the source of the OpenAPI documents.

A test holds it against the routing tables, so that neither has what the other lacks.
"""

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from skygw.auth.principals import Scope
from skygw.control.ledger import CommandState
from skygw.observing.tasks import OrderBy, TaskStatus, TaskType
from skygw.protocol.frame import MAX_SEQ
from skygw.protocol.schemas import COMMAND_SOCKET_PATH, STREAM_SOCKET_PATH
from skygw.protocol.streams import MAX_RATE_HZ
from skygw.routers.asset_routes import ASSET_ROUTES, INTERNAL_ASSET_ROUTES
from skygw.routers.command_bodies import CancelBody, CommandBody, ResolveBody
from skygw.routers.direct import DIRECT_ROUTE
from skygw.routers.event_streams import EVENT_STREAM_ROUTE
from skygw.routers.lease_bodies import AcquireBody, BreakBody, LeasePage, LeaseView, ProofBody, RenewBody
from skygw.routers.route import PAGE, Access, Answer, Query, Route
from skygw.routers.schemas import (
    CallView,
    CommandOrValidation,
    CommandPage,
    CommandView,
    DirectBody,
    DrainView,
    GraphOrChanges,
    HealthView,
    InstallationView,
    NodePage,
    NodeView,
    ReadinessView,
    Receipt,
    TransferBody,
)
from skygw.routers.task_bodies import (
    RANGES,
    ClaimBody,
    ClaimedView,
    CompleteBody,
    ProgressAnswer,
    ProgressBody,
    ReportAnswer,
    ResultsBody,
    TaskPage,
    TaskView,
)
from skygw.routers.upload_dialects import UPLOADS_PATH

HEALTH = Route("GET", "/healthz", "health", "The process answers", (Answer(200, "It does", HealthView),))

_UIDS: dict[str, object] = {"type": "array", "items": {"type": "string", "format": "uuid"}}

STREAM_QUERY = (
    Query("telescopeUid", "Only what belongs to one of these, by the hub's records", _UIDS),
    Query("observatoryUid", "Only what belongs to one of these", _UIDS),
    Query("deviceUid", "Only what is of one of these, or of an instrument they are part of", _UIDS),
    Query("deviceType", "Only devices of one of these types", {"type": "array", "items": {"type": "string"}}),
    Query("installId", "Only what comes from one of these", _UIDS),
    Query("includeExisting", "First what there is", {"type": "boolean", "default": True}),
    Query("after", "A position of this stream to resume from, or `earliest` of a logged one", {"type": "string"}),
    Query(
        "maxRateHz",
        "So often at most for each resource",
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_RATE_HZ},
    ),
    Query("fields", "Only these members of `data`, and its `uid`", {"type": "array", "items": {"type": "string"}}),
    Query("includeUnchanged", "Also what was said again with the same bytes", {"type": "boolean", "default": False}),
)
"""Lists are comma lists, and may stand several times."""

SOCKET = Route(
    "GET",
    "/v1/ws/node",
    "nodeSocket",
    "The node socket, described by its AsyncAPI document",
    (Answer(101, "The socket is open"),),
    access=Access.NODE,
    refusals=(426,),
)

_MOMENT: dict[str, object] = {"type": "string", "format": "date-time"}

TASK_QUERY = (
    Query(
        "status",
        "Only those in one of these states",
        {"type": "array", "items": {"type": "string", "enum": [str(status) for status in TaskStatus]}},
    ),
    Query(
        "taskType",
        "Only those of one of these types",
        {"type": "array", "items": {"type": "string", "enum": [str(kind) for kind in TaskType]}},
    ),
    *(
        Query(f"{name}{word}", f"Only those whose `{to_camel(order.value)}` is {says}", _MOMENT)
        for name, order in RANGES.items()
        for word, says in (("After", "this or later"), ("Before", "earlier than this"))
    ),
    Query(
        "orderBy",
        "Where it is null comes last",
        {"type": "string", "enum": [to_camel(order.value) for order in OrderBy], "default": "id"},
    ),
    Query("order", "Which end comes first", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}),
)
"""Lists are comma lists, and may stand several times."""


def _task(verb: str, name: str, says: str, answer: Answer, *, body: type[BaseModel] | None = None) -> Route:
    return Route(
        "POST",
        f"/v1/nodes/me/tasks/<task_id>/{verb}",
        name,
        says,
        (answer,),
        access=Access.NODE,
        body=body,
        refusals=(404, 409, *((413, 422) if body is not None else ())),
    )


_UPLOAD = f"{UPLOADS_PATH}/<uid>"
_TOLD_IN_HEADERS = "what they say stands in headers, in either dialect (docs/uploads.md)"

NODE_ROUTES = (
    HEALTH,
    SOCKET,
    Route(
        "POST",
        UPLOADS_PATH,
        "createUpload",
        f"Make an upload, with its first bytes or all of them; {_TOLD_IN_HEADERS}",
        (Answer(201, "It is at `Location`"),),
        access=Access.NODE,
        refusals=(400, 412, 413, 415, 507),
    ),
    Route(
        "OPTIONS",
        UPLOADS_PATH,
        "getUploadOptions",
        "What both dialects offer",
        (Answer(204, "In its headers"),),
    ),
    Route(
        "HEAD",
        _UPLOAD,
        "getUploadOffset",
        f"How far an upload has come; {_TOLD_IN_HEADERS}",
        (Answer(200, "tus"), Answer(204, "IETF")),
        access=Access.NODE,
        refusals=(400, 404, 410, 412),
    ),
    Route(
        "PATCH",
        _UPLOAD,
        "appendToUpload",
        f"More of an upload; {_TOLD_IN_HEADERS}",
        (Answer(204, "It is on the disk"),),
        access=Access.NODE,
        refusals=(400, 404, 409, 410, 412, 413, 415, 507),
    ),
    Route(
        "DELETE",
        _UPLOAD,
        "endUpload",
        "Give an upload up",
        (Answer(204, "It is gone"),),
        access=Access.NODE,
        refusals=(400, 404, 412),
    ),
    Route(
        "GET",
        "/v1/nodes/me",
        "getMe",
        "The installation, its binding, what it may do",
        (Answer(200, "The installation", InstallationView),),
        access=Access.NODE,
    ),
    Route(
        "GET",
        "/v1/nodes/me/tasks",
        "listTasks",
        "The tasks of its telescopes",
        (Answer(200, "A page of them", TaskPage),),
        access=Access.NODE,
        query=(*PAGE, *TASK_QUERY),
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/nodes/me/tasks/claim",
        "claimTasks",
        "Take pending tasks of its telescope; the same `claimUid` again is the same claim",
        (Answer(200, "Those it has now; none if there are none", ClaimedView),),
        access=Access.NODE,
        body=ClaimBody,
        refusals=(404, 409, 413, 422),
    ),
    Route(
        "GET",
        "/v1/nodes/me/tasks/<task_id>",
        "getTask",
        "One task, by uid or key",
        (Answer(200, "The task", TaskView),),
        access=Access.NODE,
        refusals=(404,),
    ),
    _task("release", "releaseTask", "Give a claimed task back", Answer(200, "The task as it is now", TaskView)),
    _task(
        "progress",
        "reportProgress",
        "How far it has come; the first report begins it, and none moves it back",
        Answer(200, "Taken, and what the hub wants of the task", ProgressAnswer),
        body=ProgressBody,
    ),
    _task(
        "results",
        "reportResults",
        "Which assets belong to which result",
        Answer(200, "Taken", ReportAnswer),
        body=ResultsBody,
    ),
    _task("complete", "completeTask", "How it ended", Answer(200, "Taken", ReportAnswer), body=CompleteBody),
    *ASSET_ROUTES,
    Route(
        "GET",
        "/v1/nodes/me/hardware",
        "getHardware",
        "The hardware it sees, or what of it has changed; an `If-None-Match` that still matches is answered by 304",
        (Answer(200, "The graph, or with `since` the changes", GraphOrChanges), Answer(304, "It is as it was")),
        access=Access.NODE,
        query=(
            Query(
                "since",
                "A revision the installation has: only what has changed since",
                {"type": "integer", "minimum": 0, "maximum": MAX_SEQ},
            ),
        ),
        refusals=(404, 422),
    ),
)


def _internal(
    method: str,
    path: str,
    name: str,
    says: str,
    *answers: Answer,
    scope: Scope,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    query: tuple[Query, ...] = (),
    refusals: tuple[int, ...] = (),
) -> Route:
    return Route(
        method,
        path,
        name,
        says,
        answers,
        access=Access.SERVICE,
        scope=scope,
        body=body,
        body_required=body_required,
        query=query,
        refusals=(*refusals, *((413, 422) if body is not None else ())),
    )


INTERNAL_ROUTES = (
    HEALTH,
    Route(
        "GET",
        "/readyz",
        "readiness",
        "Whether the gateway can do its work: a round trip through a loop-back session, the registry, the database",
        (Answer(200, "It can", ReadinessView), Answer(503, "It cannot", ReadinessView)),
    ),
    Route("GET", "/metrics", "metrics", "The numbers of the process", (Answer(200, "For Prometheus", "text/plain"),)),
    Route("GET", "/docs/", "docs", "These documents", (Answer(200, "A list of them", "text/html"),)),
    Route(
        "GET",
        "/docs/<document>",
        "getDocument",
        "One document: `openapi-node.json`, `openapi-internal.json`, `asyncapi-node.json`, `asyncapi-streams.json`, "
        "`asyncapi-commands.json`",
        (Answer(200, "The document", "application/json"),),
        refusals=(404,),
    ),
    Route(
        "GET",
        "/docs/frames/<direction>/<document>",
        "getFrameSchema",
        "The JSON Schema of a frame, `from_node`, `from_gateway`, `from_subscriber`, `to_subscriber`, "
        "`from_commander` or `to_commander`: `{kind}.json`",
        (Answer(200, "The schema", "application/schema+json"),),
        refusals=(404,),
    ),
    _internal(
        "GET",
        "/internal/nodes",
        "listNodes",
        "Installations and their connections",
        Answer(200, "A page of them, by key", NodePage),
        scope=Scope.NODES_READ,
        query=(
            *PAGE,
            Query("connected", "Connected ones only, from memory, without `id`", {"type": "boolean", "default": False}),
        ),
        refusals=(422,),
    ),
    _internal(
        "GET",
        "/internal/nodes/<id>",
        "getNode",
        "One installation, by uid or key",
        Answer(200, "The installation; `id` is null while the database is away", NodeView),
        scope=Scope.NODES_READ,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/nodes/<id>/disconnect",
        "disconnectNode",
        "End its socket; the node comes back by itself",
        Answer(204, "It ends"),
        scope=Scope.NODES_ADMIN,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/nodes/<id>/transfer",
        "transferNode",
        "Let another machine take the installation over",
        Answer(204, "It may"),
        scope=Scope.NODES_ADMIN,
        body=TransferBody,
        refusals=(404,),
    ),
    _internal(
        "POST",
        DIRECT_ROUTE,
        "callNode",
        "A direct request; the node's answer is streamed as it comes. It never ends cleanly when it failed midway",
        Answer(200, "What the node sent, verified before its last bytes", "application/octet-stream"),
        scope=Scope.NODES_CALL,
        body=DirectBody,
        refusals=(404, 409, 429, 500, 502, 504),
    ),
    _internal(
        "GET",
        "/internal/calls/<request_id>",
        "getCall",
        "What became of one's own direct request, for 60 s",
        Answer(200, "What is known", CallView),
        scope=Scope.NODES_CALL,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/commands",
        "submitCommand",
        "Send a command to the installation that controls a telescope or device. Safing passes whatever is away",
        Answer(
            200,
            "It has ended within `waitS`, or is a repeat that had; of `validateOnly` what it found",
            CommandOrValidation,
        ),
        Answer(202, "It is under way", CommandView),
        scope=Scope.NODES_COMMAND,
        body=CommandBody,
        refusals=(404, 409, 429, 502),
    ),
    _internal(
        "GET",
        "/internal/commands",
        "listCommands",
        "Commands, the newest first",
        Answer(200, "A page of them", CommandPage),
        scope=Scope.NODES_READ,
        query=(
            *PAGE,
            Query(
                "state", "Only those in this state", {"type": "string", "enum": [str(state) for state in CommandState]}
            ),
            Query("installId", "Only those of this installation, by uid or key", {"type": "string"}),
        ),
        refusals=(404, 422),
    ),
    _internal(
        "GET",
        "/internal/commands/<command_id>",
        "getCommand",
        "One command with every transition",
        Answer(200, "The command", CommandView),
        scope=Scope.NODES_READ,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/commands/<command_id>/cancel",
        "cancelCommand",
        "Cancel it: safing",
        Answer(200, "A receipt", Receipt),
        scope=Scope.NODES_COMMAND,
        body=CancelBody,
        body_required=False,
        refusals=(404, 502),
    ),
    _internal(
        "POST",
        "/internal/leases",
        "acquireLease",
        "Take control of a telescope, or of a device that telescopes share",
        Answer(201, "It is yours; `leaseUid` is the secret that shows it", LeaseView),
        Answer(200, "It was yours already, by the same `leaseUid`", LeaseView),
        scope=Scope.NODES_COMMAND,
        body=AcquireBody,
        refusals=(404, 409),
    ),
    _internal(
        "GET",
        "/internal/leases",
        "listLeases",
        "Leases, the newest first",
        Answer(200, "A page of them", LeasePage),
        scope=Scope.NODES_READ,
        query=(
            *PAGE,
            Query("telescopeUid", "Only those of this telescope", {"type": "string", "format": "uuid"}),
            Query("deviceUid", "Only those of this device", {"type": "string", "format": "uuid"}),
            Query("held", "Only those that hold now, or only those that do not", {"type": "boolean"}),
        ),
        refusals=(422,),
    ),
    _internal(
        "GET",
        "/internal/leases/<lease_id>",
        "getLease",
        "One lease",
        Answer(200, "The lease", LeaseView),
        scope=Scope.NODES_READ,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/leases/<lease_id>/renew",
        "renewLease",
        "Keep control: the lease lasts its duration from now",
        Answer(200, "The lease", LeaseView),
        scope=Scope.NODES_COMMAND,
        body=RenewBody,
        refusals=(404, 409),
    ),
    _internal(
        "POST",
        "/internal/leases/<lease_id>/release",
        "releaseLease",
        "Give control back",
        Answer(200, "The lease as it ended", LeaseView),
        scope=Scope.NODES_COMMAND,
        body=ProofBody,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/leases/<lease_id>/break",
        "breakLease",
        "Take control from its holder. What runs goes on until it is stopped",
        Answer(200, "The lease as it ended", LeaseView),
        scope=Scope.NODES_ADMIN,
        body=BreakBody,
        refusals=(404,),
    ),
    _internal(
        "POST",
        "/internal/commands/<command_id>/resolve",
        "resolveCommand",
        "Close an `unknown` one whose node cannot tell any more, by an administrator's word, which the audit keeps",
        Answer(200, "The command as it stands now", CommandView),
        scope=Scope.NODES_ADMIN,
        body=ResolveBody,
        refusals=(404, 409),
    ),
    _internal(
        "GET",
        STREAM_SOCKET_PATH,
        "streamSocket",
        "The stream socket, described by its AsyncAPI document",
        Answer(101, "The socket is open"),
        scope=Scope.STREAMS_READ,
        refusals=(426,),
    ),
    _internal(
        "GET",
        COMMAND_SOCKET_PATH,
        "commandSocket",
        "The command socket, described by its AsyncAPI document; `nodes:call` or `streams:read` open it as well",
        Answer(101, "The socket is open"),
        scope=Scope.NODES_COMMAND,
        refusals=(426,),
    ),
    _internal(
        "GET",
        EVENT_STREAM_ROUTE,
        "readStream",
        "A stream as Server-Sent Events; the header `Last-Event-ID` is where to resume, and wins over `after`",
        Answer(200, "Events, until the caller leaves or its token expires", "text/event-stream"),
        Answer(204, "A filter without values: nothing will ever come, and an EventSource need not come again"),
        scope=Scope.STREAMS_READ,
        query=STREAM_QUERY,
        refusals=(404, 422),
    ),
    _internal(
        "POST",
        "/internal/drain",
        "drain",
        "Stop accepting, say goodbye, end",
        Answer(202, "It begins", DrainView),
        scope=Scope.NODES_ADMIN,
    ),
    *INTERNAL_ASSET_ROUTES,
)
