"""Memory twins of the ports: what a session and the commands need of the database and of the token's issuer."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import trio

from skygw.control.ledger import (
    ENDS,
    MAX_ASKED,
    NEVER_WRITTEN,
    CancelRequest,
    CommandQuery,
    CommandRecord,
    CommandState,
    Move,
    Transition,
    deadline_with,
    may_move,
)
from skygw.control.safing_spool import ENDED_UNWRITTEN
from skygw.errors import GatewayError, Hop, IdReused, RoutingUnavailable, StoreFailed
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, InstanceUid, OutboxUid, RegistryUid, TelescopeUid
from skygw.nodes.ports import NOT_HELD, NOT_ITS, NOT_KNOWN, Claim, Direction, DurableReport
from skygw.protocol.json_text import read_value
from skygw.protocol.never_received import says_never_received
from skygw.protocol.node_frames import PublishCommandResult
from skygw.protocol.safing import is_safing

REMEMBERED = timedelta(days=30)
"""How long a node keeps outcomes."""


class Switch:
    """The database both ledgers stand on. `away` makes every question raise `RoutingUnavailable`; `slow_s` makes each
    take that long; with `answers_lost` a command is admitted and nobody hears of it.
    """

    def __init__(self) -> None:
        self.away = False
        self.slow_s = 0.0
        self.answers_lost = False

    async def asked(self) -> None:
        await trio.sleep(self.slow_s)
        if self.away:
            raise RoutingUnavailable("The database is away.", retry_after_s=1.0)


class MemoryEpochs:
    """`EpochLedger` in memory."""

    def __init__(self, switch: Switch) -> None:
        self.registry_uid = RegistryUid(uuid4())
        self.epochs: dict[InstallId, int] = {}
        self.fences: dict[UUID, int] = {}
        self._switch = switch

    async def claim(
        self, *, install_id: InstallId, instance_uid: InstanceUid, last_epoch: int, last_fences: Mapping[UUID, int]
    ) -> Claim:
        await self._switch.asked()
        epoch = max(self.epochs.get(install_id, 0), last_epoch) + 1
        self.epochs[install_id] = epoch
        for uid, fence in last_fences.items():
            self.fences[uid] = max(self.fences.get(uid, 0), fence)
        return Claim(Epoch(epoch), self.registry_uid)

    async def transfer(self, install_id: InstallId, instance_uid: InstanceUid) -> None:
        await self._switch.asked()


class MemoryCommands:
    """`CommandLedger` in memory; one suite holds it to what the one in PostgreSQL does (test_command_ledgers.py). Rows
    are copies: what a caller changes later is not in the ledger.
    """

    def __init__(self, switch: Switch) -> None:
        self.rows: dict[CommandId, CommandRecord] = {}
        self.admitted = 0
        self._switch = switch

    async def admit(self, record: CommandRecord) -> tuple[CommandRecord, bool]:
        await self._switch.asked()
        stored = self.rows.get(record.command_id)
        if stored is None:
            self.rows[record.command_id] = copied(record)
            self.admitted += 1
            await trio.sleep(self._switch.slow_s)  # others see the row before its writer hears of it
            if self._switch.answers_lost:
                raise RoutingUnavailable("The answer was lost.", retry_after_s=1.0)
            return record, False
        if stored.identity != record.identity:
            raise IdReused("This command id belongs to another command.")
        return copied(stored), True

    async def record_sent(self, record: CommandRecord, results: Sequence[PublishCommandResult]) -> None:
        row = copied(record)  # a statement carries its values from when it was sent
        await self._switch.asked()
        stored = self.rows.setdefault(row.command_id, row)
        if row.transitions[0] not in stored.transitions and stored.identity == row.identity:
            self._reopen(row, stored)
        for result in results:
            self.apply(record.install_id, result)

    async def readmit(self, record: CommandRecord, *, seen: CommandRecord) -> bool:
        row = copied(record)
        await self._switch.asked()
        stored = self.rows.get(row.command_id)
        reopened = stored is not None and stored.deadline_at == seen.deadline_at and self._reopen(row, stored)
        await trio.sleep(self._switch.slow_s)
        return reopened

    def _reopen(self, row: CommandRecord, stored: CommandRecord) -> bool:
        """A new life: whose command it is and since when stays."""
        if stored.state not in NEVER_WRITTEN:
            return False
        self.rows[row.command_id] = replace(
            row,
            origin=stored.origin,
            service=stored.service,
            actor=stored.actor,
            created_at=stored.created_at,
            trace_id=stored.trace_id,
            progress=stored.progress,
            transitions=[*stored.transitions, *row.transitions],
            cancels=stored.cancels,
        )
        return True

    async def record_cancels(self, requests: Sequence[CancelRequest]) -> None:
        await self._switch.asked()
        for request in requests:
            row = self.rows.get(request.command_id)
            if row is not None and request not in row.cancels:
                row.cancels.append(request)

    async def lose_before(
        self, install_id: InstallId, epoch: Epoch, *, followed: Collection[CommandId] = ()
    ) -> Sequence[CommandId]:
        await self._switch.asked()
        mine = [row for row in self.rows.values() if row.install_id == install_id]
        now = datetime.now(UTC)
        for row in mine:
            is_received = row.state is CommandState.RECEIVED
            if is_received and row.command_id in followed:
                continue
            if row.epoch is None or row.epoch < epoch:
                why = ENDED_UNWRITTEN if is_received else "a newer session of the node has begun"
                self.step(row, Transition(now, CommandState.UNKNOWN, Hop.GATEWAY, why))
        unknown = [row for row in mine if row.state is CommandState.UNKNOWN and row.created_at > now - REMEMBERED]
        unknown.sort(key=lambda row: row.created_at, reverse=True)
        return [row.command_id for row in unknown][:MAX_ASKED]

    def apply(self, install_id: InstallId, result: PublishCommandResult) -> None:
        """What a committed result does to its row; an unknown one, or another installation's, is passed over."""
        row = self.rows.get(result.command_id)
        if row is None or row.install_id != install_id or row.state in ENDS:
            return
        row.progress = row.progress if result.progress is None else result.progress
        row.result = row.result if result.result is None else result.result.text
        row.error = row.error if result.error is None else result.error.text
        row.proof = row.proof if result.proof is None else result.proof.text
        row.canceled = row.canceled if result.canceled is None else result.canceled.value
        row.deadline_at = deadline_with(row, result.deadline_ms)
        self.step(row, Transition(datetime.now(UTC), CommandState(result.status.value), Hop.NODE))

    async def move(self, moves: Sequence[Move]) -> None:
        await self._switch.asked()
        for move in moves:
            row = self.rows.get(move.command_id)
            if row is not None and self.step(row, move.transition):
                row.canceled = move.canceled or row.canceled

    async def resolve(self, command_id: CommandId, step: Transition) -> bool:
        await self._switch.asked()
        row = self.rows.get(command_id)
        return row is not None and row.state is CommandState.UNKNOWN and self.step(row, step)

    @staticmethod
    def step(row: CommandRecord, step: Transition) -> bool:
        if not may_move(row.state, step.state):
            return False
        row.state = step.state
        row.transitions.append(step)
        row.ended_at = step.at if step.state in ENDS else None
        return True

    async def get(self, command_id: CommandId) -> CommandRecord | None:
        await self._switch.asked()
        row = self.rows.get(command_id)
        return None if row is None else copied(row)

    async def page(self, query: CommandQuery) -> tuple[list[CommandRecord], int]:
        await self._switch.asked()
        found = [
            row
            for row in self.rows.values()
            if (query.install_id is None or row.install_id == query.install_id)
            and (query.state is None or row.state is query.state)
        ]
        found.sort(key=lambda row: row.command_id)
        found.sort(key=lambda row: row.created_at, reverse=True)
        first = (query.page - 1) * query.size
        return [copied(row) for row in found[first : first + query.size]], len(found)

    def states(self, command_id: CommandId) -> list[CommandState]:
        return [step.state for step in self.rows[command_id].transitions]


def copied(row: CommandRecord) -> CommandRecord:
    """Steps are frozen; what else a record holds is replaced, never changed."""
    return replace(row, transitions=list(row.transitions), cancels=list(row.cancels))


class MemoryReports:
    """`ReportStore` in memory; a committed command result moves the command's row, as one transaction does."""

    def __init__(self, switch: Switch, commands: MemoryCommands) -> None:
        self.rows: dict[OutboxUid, list[DurableReport]] = {}
        self.commits = 0
        self.cannot_hold: set[int] = set()
        """Reports that are refused for what is in them, by `seq`."""
        self.known_epochs: dict[OutboxUid, int] = {}
        """Since which session each memory is known; what is not listed always was."""
        self._switch = switch
        self._commands = commands

    def seqs(self, outbox_uid: OutboxUid) -> list[int]:
        return [row.seq for row in self.rows.get(outbox_uid, [])]

    async def acked_seq(self, install_id: InstallId, outbox_uid: OutboxUid) -> int:
        await self._switch.asked()
        return len(self.rows.get(outbox_uid, []))

    async def commit(self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        if await self.refuses(install_id, outbox_uid, reports) is not None:
            raise StoreFailed("The data is refused.", about_the_data=True)
        rows = self.rows.setdefault(outbox_uid, [])
        for report in reports:
            if report.seq <= len(rows):
                continue
            assert report.seq == len(rows) + 1, "a run that is not contiguous"
            rows.append(report)
            if report.result is not None:
                self._commands.apply(install_id, report.result)
        self.commits += 1
        return len(rows)

    async def refuses(
        self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]
    ) -> str | None:
        await self._switch.asked()
        for report in reports:
            row = None if report.result is None else self._commands.rows.get(report.result.command_id)
            if row is not None and row.install_id != install_id:
                return NOT_ITS
            if row is not None and report.result is not None and not self._can_know(outbox_uid, row, report.result):
                return NOT_KNOWN
        refused = any(report.seq in self.cannot_hold and report.nacked is None for report in reports)
        return NOT_HELD if refused else None

    def _can_know(self, outbox_uid: OutboxUid, row: CommandRecord, result: PublishCommandResult) -> bool:
        """Whether it can be said of this command that it never came."""
        if row.state in ENDS or not says_never_received(result):
            return True
        kind = str(read_value(row.command).get("command_type", ""))
        has_spoken = any(step.hop is Hop.NODE for step in row.transitions)
        return not has_spoken and not is_safing(kind) and self.known_epochs.get(outbox_uid, 0) <= (row.epoch or 0)


class MemoryTokens:
    """`TokenRenewer` in memory: `answers` holds when a token expires, or why it is refused."""

    def __init__(self) -> None:
        self.answers: dict[str, float | GatewayError] = {}
        self.reachable = True

    async def renew(self, install_id: InstallId, token: str) -> float:
        await trio.lowlevel.checkpoint()
        answer = self.answers[token]
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    async def issuer_reachable(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.reachable


class MemoryControllers:
    """`Controllers` in memory: what the hub's records say controls a telescope or device."""

    def __init__(self, switch: Switch) -> None:
        self.of: dict[UUID, InstallId] = {}
        self._switch = switch

    async def controller_of(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None
    ) -> InstallId | None:
        await self._switch.asked()
        target = device_uid or telescope_uid
        return None if target is None else self.of.get(target)


class CountedMetrics:
    """`SessionMetrics` and `CallMetrics` that can be asked."""

    def __init__(self) -> None:
        self.frames: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[str] = Counter()
        self.late_replies = 0
        self.snapshots_refused: Counter[str] = Counter()
        self.nacks: Counter[str] = Counter()
        self.sessions = 0
        self.ended_with: list[int | None] = []
        self.refusals: list[str] = []
        self.calls_begun = 0
        self.calls: list[tuple[str, str]] = []

    def session_started(self) -> None:
        self.sessions += 1

    def session_ended(self, code: int | None) -> None:
        self.ended_with.append(code)

    def node_refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def frame(self, direction: Direction, kind: str) -> None:
        self.frames[direction, kind] += 1

    def message(self, direction: Direction, size: int) -> None:
        self.bytes[direction] += size

    def late_reply(self) -> None:
        self.late_replies += 1

    def snapshot_refused(self, reason: str) -> None:
        self.snapshots_refused[reason] += 1

    def report_nacked(self, kind: str) -> None:
        self.nacks[kind] += 1

    def call_started(self) -> None:
        self.calls_begun += 1

    def call_ended(self, *, outcome: str, reason: str, seconds: float) -> None:
        self.calls.append((outcome, reason))
