"""The ledger of commands: what a row holds, how its state may move, and the port to where rows are kept."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from skygw.errors import Hop, Outcome
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, TelescopeUid
from skygw.protocol.command_states import CommandState as CommandState
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.node_frames import PublishCommandResult

ENDS = frozenset(
    {
        CommandState.COMPLETED,
        CommandState.FAILED,
        CommandState.REJECTED,
        CommandState.CANCELED,
        CommandState.EXPIRED,
    }
)

_LADDER = (CommandState.RECEIVED, CommandState.WRITTEN, CommandState.ACCEPTED, CommandState.RUNNING)


def may_move(before: CommandState, after: CommandState) -> bool:
    """The guarded table. Ends stay; the ladder is climbed only; `expired` is for what was never written. What has no
    end may become `unknown` (also what was only received: its gateway may have ended in the middle of writing it), and
    what is `unknown` may turn out to be anything the node says, but not less than written.
    """
    if before in ENDS or before is after:
        return False
    if after is CommandState.EXPIRED:
        return before is CommandState.RECEIVED
    if after in ENDS:
        return True
    if after is CommandState.UNKNOWN:
        return True
    if before is CommandState.UNKNOWN:
        return after in (CommandState.ACCEPTED, CommandState.RUNNING)
    return _LADDER.index(after) > _LADDER.index(before)


NEVER_WRITTEN = frozenset({CommandState.RECEIVED, CommandState.EXPIRED})
"""Where a new life of the same record may begin, when it is known that the one before was not sent."""

MAX_ASKED = 1_000
"""Command ids in one `query_command`."""

OUTCOMES: dict[CommandState, Outcome] = {
    CommandState.RECEIVED: Outcome.IN_PROGRESS,
    CommandState.WRITTEN: Outcome.IN_PROGRESS,
    CommandState.ACCEPTED: Outcome.IN_PROGRESS,
    CommandState.RUNNING: Outcome.IN_PROGRESS,
    CommandState.COMPLETED: Outcome.SUCCEEDED,
    CommandState.FAILED: Outcome.FAILED,
    CommandState.REJECTED: Outcome.REFUSED,
    CommandState.CANCELED: Outcome.CANCELED,
    CommandState.EXPIRED: Outcome.NOT_SENT,
    CommandState.UNKNOWN: Outcome.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the service, and the person behind it where it named one."""

    service: str
    actor: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a command. `hop` says who said so; `by` who asked for it, where that is not whoever asked for the
    step before.
    """

    at: datetime
    state: CommandState
    hop: Hop
    detail: str | None = None
    by: Caller | None = None


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A cancel that somebody asked for, whatever it met. `cancel_uid` makes a repeat of this line a repeat."""

    cancel_uid: UUID
    command_id: CommandId
    at: datetime
    mode: CancelMode
    grace_s: float | None
    by: Caller


@dataclass(slots=True)
class CommandRecord:
    """One command, from its admission on. Opaque members are the text they came in.

    `deadline_at` may move from `deadline_first_at` to `deadline_max_at`; without these it stays. `fence` is that of the
    lease of `fence_uid` under which it went.
    """

    command_id: CommandId
    install_id: InstallId
    telescope_uid: TelescopeUid | None
    device_uid: DeviceUid | None
    command: str
    origin: str | None
    service: str
    actor: dict[str, str] | None
    created_at: datetime
    deadline_at: datetime
    trace_id: str | None = None
    epoch: Epoch | None = None
    state: CommandState = CommandState.RECEIVED
    ended_at: datetime | None = None
    progress: float | None = None
    result: str | None = None
    error: str | None = None
    proof: str | None = None
    canceled: str | None = None
    recorded_late: bool = False
    transitions: list[Transition] = field(default_factory=list)
    cancels: list[CancelRequest] = field(default_factory=list)
    fence: int | None = None
    fence_uid: UUID | None = None
    deadline_first_at: datetime | None = None
    deadline_max_at: datetime | None = None

    @property
    def identity(self) -> bytes:
        return command_identity(self.telescope_uid, self.device_uid, self.command)

    @property
    def outcome(self) -> Outcome:
        return OUTCOMES[self.state]


def command_identity(telescope_uid: UUID | None, device_uid: UUID | None, command: str) -> bytes:
    """What makes a repeat a repeat: the target and the bytes of the command. SHA-256, 32 bytes."""
    target = f"telescope:{telescope_uid}" if device_uid is None else f"device:{device_uid}"
    return hashlib.sha256(f"{target}\n{command}".encode()).digest()


MAX_MORE_MS = 10 * 24 * 3_600_000
"""More is not reckoned with; no caller can allow it."""


def deadline_with(record: CommandRecord, more_ms: int | None) -> datetime:
    """When a command has to end whose node asks for so much more than it was first given: never earlier than now said,
    and never later than the caller allowed.
    """
    if more_ms is None or record.deadline_first_at is None or record.deadline_max_at is None:
        return record.deadline_at
    asked = record.deadline_first_at + timedelta(milliseconds=min(more_ms, MAX_MORE_MS))
    return max(record.deadline_at, min(record.deadline_max_at, asked))


@dataclass(frozen=True, slots=True)
class Move:
    """A step the gateway itself knows of. `canceled` is said with a cancel's end."""

    command_id: CommandId
    transition: Transition
    canceled: str | None = None


@dataclass(frozen=True, slots=True)
class CommandQuery:
    """A page of commands; `page` counts from 1."""

    page: int = 1
    size: int = 50
    install_id: InstallId | None = None
    state: CommandState | None = None


class CommandLedger(Protocol):
    """Where commands are kept. Everything raises `RoutingUnavailable` when it cannot be asked."""

    async def admit(self, record: CommandRecord) -> tuple[CommandRecord, bool]:
        """Stores a new command, or returns the stored one and `True`. Raises `IdReused` for another command's id."""
        ...

    async def readmit(self, record: CommandRecord, *, seen: CommandRecord) -> bool:
        """Begins a new life, as `record` says, of the stored command `seen`, if it is in `NEVER_WRITTEN` still and
        nobody was faster: of several who bring the same one, one gets `True`. Its transitions are kept and added to.
        """
        ...

    async def record_sent(self, record: CommandRecord, results: Sequence[PublishCommandResult]) -> None:
        """Stores what was sent before the ledger was asked, as it stands, and what the node has said of it since.

        Both may be repeated: what is stored stays, but for an earlier life that was never written, which this one
        continues; a result moves the state as far as `may_move` lets it.
        """
        ...

    async def move(self, moves: Sequence[Move]) -> None:
        """Moves states as far as `may_move` lets them; what it does not let is passed over."""
        ...

    async def resolve(self, command_id: CommandId, step: Transition) -> bool:
        """Moves what is unknown to the end `step` says; `False` and nothing else if it is not unknown now."""
        ...

    async def record_cancels(self, requests: Sequence[CancelRequest]) -> None:
        """Keeps cancels in this order. Those it has, and those of commands it does not have, are passed over."""
        ...

    async def lose_before(
        self, install_id: InstallId, epoch: Epoch, *, followed: Collection[CommandId] = ()
    ) -> Sequence[CommandId]:
        """What was written to an older session of the installation and has no end is unknown from now on; and so is
        what was received for one and may have been written by a gateway that ended, but not what is `followed` here.
        Returns the newest `MAX_ASKED` of its commands that are unknown, as far as a node still remembers them.
        """
        ...

    async def get(self, command_id: CommandId) -> CommandRecord | None: ...

    async def page(self, query: CommandQuery) -> tuple[list[CommandRecord], int]:
        """The newest first, and how many there are in all."""
        ...
