"""Commands on the node: each id is run at most once, cancelled by its scope, and its outcome is kept before it is told.

Commands outlive the link: they run in the client's nursery, not the session's. Safing starts before anything is
written to disk; everything else is written first, and is judged again before it begins: meanwhile its time may have
run out, its holder may have lost control, and a stop may have come.
"""

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio

from skygw.client.arrival import TooLate
from skygw.client.outbox import Outbox
from skygw.errors import Invalid
from skygw.ids import CommandId
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, EventCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.never_received import NEVER_RECEIVED
from skygw.protocol.node_frames import CanceledHow, CommandStatus, PublishCommandResult
from skygw.protocol.safing import Aim, is_safing, is_undone_by

log = logging.getLogger("skygw.client")

MAX_JOBS = 256
"""Commands, cancels and questions going on at a time; beyond it they are refused as `busy`."""

MAX_SAFING_JOBS = 4 * MAX_JOBS
REMEMBERED_IDS = 10_000
"""Ids looked up without the disk, for safing: 10,000 × about 150 bytes."""

DEFAULT_GRACE_S = 10.0
LAST_WRITE_S = 5.0


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What a handler says became of a command. `proof` is `{"devices": [{device_uid, state, basis, …}]}`."""

    status: CommandStatus
    result: Any = None
    error: dict[str, Any] | None = None
    proof: dict[str, Any] | None = None
    canceled: CanceledHow | None = None

    @classmethod
    def completed(cls, result: Any = None, *, proof: dict[str, Any] | None = None) -> "CommandOutcome":
        return cls(CommandStatus.COMPLETED, result=result, proof=proof)

    @classmethod
    def failed(cls, reason: str, message: str, *, proof: dict[str, Any] | None = None) -> "CommandOutcome":
        return cls(CommandStatus.FAILED, error={"reason": reason, "message": message}, proof=proof)

    @classmethod
    def rejected(cls, reason: str, message: str) -> "CommandOutcome":
        """Nothing was done."""
        return cls(CommandStatus.REJECTED, error={"reason": reason, "message": message})

    @classmethod
    def interrupted(cls, *, proof: dict[str, Any] | None = None, result: Any = None) -> "CommandOutcome":
        """A cancel stopped it on the way. Without a proof that every device was read back at rest, say `failed`:
        whoever canceled is told `unknown`. Of an exposure the result says `{"readout": "kept"}` or `"discarded"`.
        """
        return cls(CommandStatus.CANCELED, result=result, proof=proof, canceled=CanceledHow.INTERRUPTED)

    @classmethod
    def before_start(cls) -> "CommandOutcome":
        """A cancel came before anything had moved."""
        return cls(CommandStatus.CANCELED, canceled=CanceledHow.BEFORE_START)


Judge = Callable[[], TooLate | None]
"""Whether whoever sent a command still has control."""


class Command:
    """One command, given to the node's handler.

    A graceful cancel sets `cancel_requested`; after its grace, or at once for an immediate one, the handler is
    cancelled. A handler that cleans up then says what it found with `report` (in a shielded scope with a deadline).
    `deadline` is on trio's clock: the caller's time, for the handler to heed; it may ask for more up to `deadline_max`.
    While `cancelable` is false a cancel is told so, and is passed over.
    """

    def __init__(self, frame: EventCommand, *, remaining_s: float | None, judge: Judge, outbox: Outbox) -> None:
        self.id = frame.command_id
        self.type = command_type(frame)
        self.body: Opaque = frame.command
        self.telescope_uid = frame.telescope_uid
        self.device_uid = frame.device_uid
        self.origin = frame.origin
        self.actor = frame.actor
        self.traceparent = frame.traceparent
        self.deadline = float("inf") if remaining_s is None else trio.current_time() + remaining_s
        self.deadline_max = self.deadline + _allowed_ms(frame) / 1000
        self.cancelable = True
        self.cancel_requested = trio.Event()
        self.scope = trio.CancelScope()
        self.reported: CommandOutcome | None = None
        self.has_begun = False
        self._judge = judge
        self._outbox = outbox
        self._first_deadline = self.deadline

    @property
    def aim(self) -> Aim:
        return Aim(self.type, self.telescope_uid, self.device_uid)

    def too_late(self) -> TooLate | None:
        """Why it must not begin any more, if it must not."""
        if trio.current_time() >= self.deadline:
            return TooLate("deadline_exceeded", "The time for this command ran out before it could begin.")
        return self._judge()

    @property
    def safing(self) -> bool:
        return is_safing(self.type)

    def report(self, outcome: CommandOutcome) -> None:
        """What stands if the handler is ended by a cancel."""
        self.reported = outcome

    async def progress(self, fraction: float, *, more_time_ms: int | None = None) -> float:
        """Tells the caller how far it is, 0 to 1. With `more_time_ms` the deadline moves so much further, but never
        beyond `deadline_max`: nobody is asked and nothing refused. Returns the deadline that holds now; it has moved
        when the caller will certainly be told. Durable. Raises `sqlite3.Error`; then the deadline stays.
        """
        deadline = min(self.deadline + (more_time_ms or 0) / 1000, self.deadline_max)
        in_all_ms = None if deadline <= self.deadline else round((deadline - self._first_deadline) * 1000)
        await self._outbox.report(_report(self.id, CommandStatus.RUNNING, progress=fraction, deadline_ms=in_all_ms))
        self.deadline = max(self.deadline, deadline)
        return self.deadline


CommandHandler = Callable[[Command], Awaitable[CommandOutcome]]


class TooManyCommands(Exception):
    """`MAX_JOBS` are going on."""


def _allowed_ms(frame: EventCommand) -> int:
    """What the caller lets it take beyond its deadline."""
    if frame.deadline_ms is None or frame.deadline_max_ms is None:
        return 0
    return max(frame.deadline_max_ms - frame.deadline_ms, 0)


def command_type(frame: EventCommand) -> str:
    """The discriminator of a command; empty when there is none."""
    found = frame.command.value.get("command_type") or frame.command.value.get("commandType")
    return found if isinstance(found, str) else ""


class Commands:
    """Everything the node does for commands. `take…` is for the session's reader and never waits.

    `undone` is told of a command that could not be written down and so was not run.
    """

    def __init__(self, outbox: Outbox, handler: CommandHandler | None, *, undone: Callable[[CommandId], None]) -> None:
        self._outbox = outbox
        self._handler = handler
        self._undone = undone
        self._running: dict[CommandId, Command] = {}
        self._remembered: OrderedDict[CommandId, None] = OrderedDict()
        self._jobs = 0
        self._submitted, self._to_do = trio.open_memory_channel[Callable[[], Awaitable[None]]](MAX_SAFING_JOBS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Works until cancelled; commands going on are cancelled then, and what they report is kept."""
        for command_id in reversed(await self._outbox.command_ids(at_most=REMEMBERED_IDS)):
            self._remembered[command_id] = None
        for report in await self._outbox.unfinished():
            await self._outbox.report(_ended_with_program(report))
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for job in self._to_do:
                nursery.start_soon(self._do, job)

    def take(self, frame: EventCommand, *, remaining_s: float | None, judge: Judge = lambda: None) -> None:
        """Runs a command, or publishes again what became of it. Raises `TooManyCommands`.

        A stop also takes back what came before it and has not begun.
        """
        safing = is_safing(command_type(frame))
        if frame.command_id in self._running or (safing and frame.command_id in self._remembered):
            self._submit(partial(self._again, (frame.command_id,)), safing=safing)
            return
        command = Command(frame, remaining_s=remaining_s, judge=judge, outbox=self._outbox)
        self._submit(partial(self._run_safing if safing else self._run_written, command), safing=safing)
        if safing:
            for other in self._running.values():
                if not other.safing and not other.has_begun and is_undone_by(command.aim, other.aim):
                    other.cancel_requested.set()
        self._running[command.id] = command
        self._remember(command.id)

    def refuse(self, frame: EventCommand, *, reason: str, message: str) -> None:
        """Publishes a rejection; the id is used up by it. Raises `TooManyCommands`."""
        if frame.command_id in self._running:
            return
        self._remember(frame.command_id)
        report = _ending(frame.command_id, CommandOutcome.rejected(reason, message))
        self._submit(partial(self._claim_or_repeat, frame.command_id, report), safing=False)

    def cancel(self, frame: CancelCommand) -> None:
        """Cancels wherever the command is; one that comes later is not run. Raises `TooManyCommands`."""
        command = self._running.get(frame.command_id)
        if command is None:
            self._remember(frame.command_id)
            report = _ending(frame.command_id, CommandOutcome.before_start())
            self._submit(partial(self._claim_or_repeat, frame.command_id, report), safing=True)
            return
        if not command.cancelable:
            report = _report(command.id, CommandStatus.RUNNING, canceled=CanceledHow.NOT_CANCELABLE)
            self._submit(partial(self._outbox.report, report), safing=True)
            return
        command.cancel_requested.set()
        if frame.mode is CancelMode.IMMEDIATE:
            command.scope.cancel()
        else:
            grace_s = DEFAULT_GRACE_S if frame.grace_ms is None else frame.grace_ms / 1000
            command.scope.deadline = min(command.scope.deadline, trio.current_time() + grace_s)

    def tell(self, command_ids: tuple[CommandId, ...]) -> None:
        """Publishes again what is known of these commands; an id that never came is used up by saying so. Raises
        `TooManyCommands`.
        """
        unknown = [one for one in command_ids if one not in self._running and one not in self._remembered]
        self._submit(partial(self._tell, command_ids, unknown), safing=False)
        for command_id in unknown:
            self._remember(command_id)

    def _submit(self, job: Callable[[], Awaitable[None]], *, safing: bool) -> None:
        if self._jobs >= (MAX_SAFING_JOBS if safing else MAX_JOBS):
            raise TooManyCommands
        self._submitted.send_nowait(job)  # never full: as many places as jobs
        self._jobs += 1

    async def _do(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except sqlite3.Error:
            log.exception("the journal of the node cannot be written")
        finally:
            self._jobs -= 1

    def _remember(self, command_id: CommandId) -> None:
        self._remembered[command_id] = None
        if len(self._remembered) > REMEMBERED_IDS:
            self._remembered.popitem(last=False)

    async def _again(self, command_ids: tuple[CommandId, ...]) -> None:
        await self._outbox.publish_again(command_ids)

    async def _tell(self, command_ids: tuple[CommandId, ...], unknown: Sequence[CommandId]) -> None:
        never = CommandOutcome.rejected(NEVER_RECEIVED, "This command never came; it will not be run if it does.")
        try:
            await self._outbox.publish_again(command_ids, never={one: _ending(one, never) for one in unknown})
        except sqlite3.Error:
            for command_id in unknown:
                self._remembered.pop(command_id, None)
            raise

    async def _claim_or_repeat(self, command_id: CommandId, report: PublishCommandResult) -> None:
        if await self._outbox.begin_command(command_id, [report]) is not None:
            await self._outbox.publish_again([command_id])

    async def _begin(self, command: Command) -> bool:
        """Claims the id with its first two steps. False when it was claimed before."""
        steps = [_report(command.id, CommandStatus.ACCEPTED), _report(command.id, CommandStatus.RUNNING)]
        return await self._outbox.begin_command(command.id, steps) is None

    async def _run_written(self, command: Command) -> None:
        try:
            try:
                mine = await self._begin(command)
            except sqlite3.Error:
                self._remembered.pop(command.id, None)
                self._undone(command.id)
                raise
            if mine:
                await self._end(command, await self._call(command))
            else:
                await self._outbox.publish_again([command.id])
        finally:
            del self._running[command.id]

    async def _run_safing(self, command: Command) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._begin_late, command)
                outcome = await self._call(command)
            await self._end(command, outcome)
        finally:
            del self._running[command.id]

    async def _begin_late(self, command: Command) -> None:
        """A disk that fails does not stop a stop."""
        try:
            await self._begin(command)
        except sqlite3.Error:
            log.exception("a safing command runs unrecorded: the journal of the node cannot be written")

    async def _end(self, command: Command, outcome: CommandOutcome) -> None:
        """Kept and published however long the disk takes, and even when the program is ending: `LAST_WRITE_S` then."""
        try:
            await self._write_end(command, outcome)
        except trio.Cancelled:
            with trio.move_on_after(LAST_WRITE_S, shield=True):
                await self._write_end(command, outcome)  # a second time changes nothing
            raise

    async def _write_end(self, command: Command, outcome: CommandOutcome) -> None:
        try:
            await self._outbox.report(_ending(command.id, outcome))
        except (Invalid, ValueError, TypeError):
            log.exception("the handler of command %s gave an outcome that cannot be sent", command.type)
            outcome = CommandOutcome.failed("bad_outcome", "The command ended; its outcome could not be sent.")
            await self._outbox.report(_ending(command.id, outcome))
        log.info("command ended", extra={"command_id": str(command.id), "status": outcome.status.value})

    async def _call(self, command: Command) -> CommandOutcome:
        if self._handler is None:
            return CommandOutcome.rejected("no_command_handler", "This node runs no commands.")
        if command.cancel_requested.is_set():
            return CommandOutcome.before_start()
        if not command.safing and (late := command.too_late()) is not None:
            return CommandOutcome.rejected(late.reason, late.message)
        command.has_begun = True
        try:
            with command.scope:
                outcome = await self._handler(command)
                if command.cancel_requested.is_set() and outcome.status is CommandStatus.COMPLETED:
                    # Finished anyway: the end stands, and says that the cancel came too late.
                    return _with_cancel(outcome, CanceledHow.TOO_LATE)
                return outcome
        except Exception:  # the handler is not ours: whatever it raises ends this command and nothing else
            log.exception("the handler of command %s failed", command.type)
            return command.reported or CommandOutcome.failed("internal", "The command handler failed on the node.")
        except BaseException:  # a Cancelled, or a group of them out of the handler's own nursery
            await self._end(command, command.reported or _node_stopped())
            raise
        return command.reported or CommandOutcome.failed(
            "not_proved", "The handler was ended by a cancel and did not say what the hardware does now."
        )


def _with_cancel(outcome: CommandOutcome, how: CanceledHow) -> CommandOutcome:
    return CommandOutcome(outcome.status, outcome.result, outcome.error, outcome.proof, how)


def _node_stopped() -> CommandOutcome:
    return CommandOutcome.failed("node_stopped", "The node's program was stopped while the command was running.")


def _ended_with_program(report: PublishCommandResult) -> PublishCommandResult:
    outcome = CommandOutcome.failed(
        "node_restarted", "The node's program ended while the command was running; how far it came is not known."
    )
    return _ending(report.command_id, outcome)


def _report(
    command_id: CommandId,
    status: CommandStatus,
    *,
    progress: float | None = None,
    deadline_ms: int | None = None,
    canceled: CanceledHow | None = None,
) -> PublishCommandResult:
    return PublishCommandResult(
        seq=1,  # the journal numbers it
        command_id=command_id,
        status=status,
        progress=progress,
        deadline_ms=deadline_ms,
        canceled=canceled,
        observed_at=datetime.now(UTC),
    )


def _ending(command_id: CommandId, outcome: CommandOutcome) -> PublishCommandResult:
    return PublishCommandResult(
        seq=1,  # the journal numbers it
        command_id=command_id,
        status=outcome.status,
        result=None if outcome.result is None else Opaque.of(outcome.result),
        error=None if outcome.error is None else Opaque.of(outcome.error),
        proof=None if outcome.proof is None else Opaque.of(outcome.proof),
        canceled=outcome.canceled,
        observed_at=datetime.now(UTC),
    )
