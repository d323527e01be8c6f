"""What happened in one history, as the devices, the wire and the callers know it: the judge reads nothing else.

Moments are seconds of the history's own clock.
"""

from dataclasses import dataclass, field
from math import inf
from uuid import UUID

from skygw.control.ledger import CommandState
from skygw.errors import Outcome
from skygw.ids import CommandId

NEVER_CAME = "never came"
"""What a node says of a command it was asked about and does not know."""


@dataclass
class Motion:
    """A device that moves for a command, whoever lives meanwhile. Unless it is stopped it arrives at `over_at`."""

    device: UUID
    command_id: CommandId
    began: float
    over_at: float
    was_stopped: bool = False


@dataclass(frozen=True)
class Stopping:
    """A device was told to stand still: by a command, or by the site itself."""

    device: UUID
    command_id: CommandId | None
    at: float


@dataclass(frozen=True)
class Call:
    """The node's handler was given a command."""

    command_id: CommandId
    node: str
    at: float


@dataclass(frozen=True)
class Returned:
    """What the handler found."""

    command_id: CommandId
    status: str
    at: float


@dataclass(frozen=True)
class Heard:
    """A command as a node's client took it off the wire. `fastest_s` is the quickest transit it had seen by then, its
    own included: what it can know of how old a frame is, it knows by that. `put` counts what was handed to the wires of
    all nodes.
    """

    command_id: CommandId
    node: str
    at: float
    put: int
    fastest_s: float
    fence_uid: UUID | None
    fence: int | None


@dataclass(frozen=True)
class FenceHeard:
    """A fence as a node's client took it off the wire."""

    node: str
    uid: UUID
    fence: int
    at: float


@dataclass(frozen=True)
class Claim:
    """What somebody was told of a command. `read_back`: with a proof for every device. Of no record is what is said of
    a cancel that met a command which was not stored yet.
    """

    command_id: CommandId
    at: float
    state: CommandState
    canceled: str | None = None
    read_back: bool = False
    receipt: str | None = None
    is_of_no_record: bool = False


@dataclass(frozen=True)
class Refusal:
    """An error as an answer."""

    reason: str
    outcome: Outcome


@dataclass
class Submission:
    """Somebody wanted a command done. Without an answer nobody told them anything: their gateway died, or they left."""

    command_id: CommandId
    kind: str
    target: UUID
    asked_at: float
    timeout_s: float
    lease: int | None
    is_another: bool = False
    """Whether this is another command under an id that has one."""
    answered_at: float = inf
    answer: Claim | Refusal | None = None
    is_duplicate: bool = False


@dataclass
class Grant:
    """A lease as its holder knows it: until when it holds if nobody says otherwise."""

    lease: int
    uid: UUID
    fence: int
    granted_at: float
    until: float
    given_up_at: float = inf


@dataclass
class Line:
    """One link of a node. `troubled_at` is when something was first done to it or to one of its ends."""

    node: str
    up_at: float
    troubled_at: float = inf


@dataclass(frozen=True)
class Row:
    """What the ledger says of a command in the end, and the steps it took."""

    command_id: CommandId
    state: CommandState
    steps: tuple[CommandState, ...]
    canceled: str | None
    read_back: bool
    detail: str | None
    node: str


@dataclass
class Story:
    """Everything, in the order it was noticed."""

    motions: list[Motion] = field(default_factory=list)
    stoppings: list[Stopping] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    returned: list[Returned] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    fences: list[FenceHeard] = field(default_factory=list)
    put: dict[tuple[str, CommandId], list[tuple[float, int]]] = field(default_factory=dict)
    """When a command was handed to the wire of a node, and as which of all messages."""
    submissions: list[Submission] = field(default_factory=list)
    cancels: set[CommandId] = field(default_factory=set)
    """What somebody asked to be canceled."""
    claims: list[Claim] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    node_deaths: list[tuple[str, float]] = field(default_factory=list)
    gateway_deaths: list[float] = field(default_factory=list)
    restored_at: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    outcomes: dict[tuple[str, CommandId], str] = field(default_factory=dict)
    """What the disk of a node says in the end of commands that ended there."""
