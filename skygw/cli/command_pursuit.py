"""Follows a command that was sent to its end, tells each step as it comes, and does on Ctrl-C what was agreed.

The record at the gateway is what is believed: it is asked for again and again, so that neither a gateway that restarts
nor a token that expires ends the following. Ctrl-C never cancels a command unless that was asked for.
"""

import math
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

import trio

from skygw.cli.command_words import (
    PROOF_COLUMNS,
    exit_code,
    failure,
    has_ended,
    proof_rows,
    receipt_sentence,
    sentence,
    state_text,
    step_line,
    steps_of,
    type_of,
)
from skygw.cli.running_gateway import Entrance
from skygw.cli.terminal import CommandFailed, ExitCode, Progress, Terminal
from skygw.client.caller import Caller, CancelReceipt
from skygw.client.internal_api import Record
from skygw.errors import Forbidden, GatewayError, Outcome, Unauthenticated
from skygw.ids import CommandId

LOOK_S = 0.5
"""Between two looks at the record."""

PATIENCE_S = 10.0
"""Beyond a command's time: until the gateway or its node says what became of it."""

AGAIN_WITHIN_S = 3.0
"""After the first Ctrl-C, for the second one."""

CANCEL_WAIT_S = 60.0


class Pursuit:
    """One command, from its request on. What is known of it is in `record`."""

    def __init__(
        self,
        command_id: CommandId,
        *,
        caller: Caller,
        way_in: Entrance,
        terminal: Terminal,
        wait_s: float = math.inf,
        cancel_on_ctrl_c: bool = False,
    ) -> None:
        """Followed for `wait_s` seconds; if that is infinite, until its end or the end of its time."""
        self._id = command_id
        self._caller = caller
        self._way_in = way_in
        self._terminal = terminal
        self._wait_s = wait_s
        self._cancel_on_ctrl_c = cancel_on_ctrl_c
        self._progress: Progress | None = None
        self._told: Counter[str] = Counter()
        self._trouble: str | None = None
        self._following = trio.CancelScope()
        self._time = trio.CancelScope()
        self.record: Record | None = None
        self.receipt: CancelReceipt | None = None
        self.was_left = False
        """By Ctrl-C: the command goes on, as far as is known."""
        self.may_be_sent = False
        """From here on nobody may say that nothing was sent."""

    async def run(self, send: Callable[[], Awaitable[Record]] | None) -> None:
        """Until there is nothing more to be told; without `send` it was sent before. Raises `CommandFailed`."""
        self._following, self._time = trio.CancelScope(), trio.CancelScope()
        with self._terminal.progress("asking the gateway…") as self._progress:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._heed_signals)
                with self._following:
                    if send is not None:
                        await self._send(send)
                    await self._follow()
                if not self._following.cancel_called:
                    nursery.cancel_scope.cancel()

    async def _send(self, send: Callable[[], Awaitable[Record]]) -> None:
        self.may_be_sent = True
        try:
            record = await send()
        except GatewayError as error:
            if error.outcome is not Outcome.UNKNOWN:
                raise failure(error) from None
            self._note_trouble(error)
            return
        if record.get("duplicate"):
            self._terminal.note("This id is known: nothing is sent, and this is what became of it.")
        self._take(record)

    async def _follow(self) -> None:
        with self._time:
            self._time.deadline = trio.current_time() + (PATIENCE_S if self._wait_s == math.inf else self._wait_s)
            self._give_time()
            while self.record is None or not has_ended(self.record):
                await trio.sleep(LOOK_S)
                try:
                    self._caller.renew_token(self._way_in.token())
                    self._take(await self._caller.command_record(self._id))
                except (Unauthenticated, Forbidden) as error:
                    self._note_trouble(error)
                    return
                except GatewayError as error:
                    self._note_trouble(error)

    def _take(self, record: Record) -> None:
        is_first = self.record is None
        self.record = record
        self._trouble = None
        self._tell_steps(record)
        if self._progress is not None:
            self._progress.update(f"{type_of(record)}: {state_text(record)}")
        if is_first:
            self._give_time()

    def _tell_steps(self, record: Record) -> None:
        """Those that were not told yet. What is known while it runs may have steps that the ledger never wrote down."""
        seen: Counter[str] = Counter()
        for step in steps_of(record):
            state = str(step.get("state"))
            seen[state] += 1
            if seen[state] > self._told[state]:
                self._told[state] += 1
                self._terminal.note(step_line(step))

    def _give_time(self) -> None:
        """The command's own, once that is known. By the gateway's clock alone: of two moments the difference."""
        if self._wait_s == math.inf and self.record is not None:
            self._time.deadline = trio.current_time() + _budget_s(self.record) + PATIENCE_S

    def _note_trouble(self, error: GatewayError) -> None:
        """Once, as long as it is the same."""
        if str(error) != self._trouble:
            self._terminal.note(f"What becomes of it cannot be seen now: {error}")
        self._trouble = str(error)

    # Ctrl-C.

    async def _heed_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Python hands signals to the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            task_status.started()
            return
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            said = await anext(signals)
            wants_cancel = said == signal.SIGINT and (self._cancel_on_ctrl_c or await self._said_again(signals))
            self._following.cancel()
            if not wants_cancel:
                self.was_left = True
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._leave_when_told, signals, nursery.cancel_scope)
                await self._cancel()
                nursery.cancel_scope.cancel()

    async def _said_again(self, signals: AsyncIterator[int]) -> bool:
        self._terminal.note(
            f"The command goes on. Ctrl-C again within {AGAIN_WITHIN_S:.0f} s cancels it, and later "
            f"“skygw command cancel {self._id}” does."
        )
        with trio.move_on_after(AGAIN_WITHIN_S):
            return await anext(signals) == signal.SIGINT
        return False

    async def _leave_when_told(self, signals: AsyncIterator[int], canceling: trio.CancelScope) -> None:
        await anext(signals)
        self.was_left = True
        canceling.cancel()

    async def _cancel(self) -> None:
        self._terminal.note("canceling it…")
        try:
            self.receipt = await self._caller.cancel_command(self._id, wait_s=CANCEL_WAIT_S)
            self._terminal.note(receipt_sentence(self.receipt))
            self._take(await self._caller.command_record(self._id))
        except GatewayError as error:
            self._terminal.complaint(f"What became of the cancel is not known: {error}")


def tell(pursuit: Pursuit, command_id: CommandId, terminal: Terminal) -> int:
    """What is known at the end; how the program ends."""
    record = pursuit.record
    if record is None:
        if pursuit.was_left:
            return ExitCode.INTERRUPTED
        raise CommandFailed(
            f"What became of the command is not known: ask with “skygw command show {command_id}”; sent again with "
            f"“--id {command_id}” it is the same command.",
            {"code": "link_lost", "outcome": "unknown", "commandId": str(command_id)},
            exit_code=ExitCode.UNKNOWN,
        )
    if terminal.as_json:
        receipt = pursuit.receipt
        terminal.json(record if receipt is None else {**record, "receipt": receipt.receipt.value})
    else:
        tell_record(record, terminal)
    return ExitCode.INTERRUPTED if pursuit.was_left and not has_ended(record) else exit_code(record)


def tell_record(record: Record, terminal: Terminal) -> None:
    """The proof per device, if there is any, and one sentence."""
    rows = proof_rows(record)
    if rows:
        terminal.table(PROOF_COLUMNS, rows)
    terminal.line(sentence(record))


def _budget_s(record: Record) -> float:
    try:
        began, deadline = (datetime.fromisoformat(str(record.get(name))) for name in ("createdAt", "deadlineAt"))
        return max(0.0, (deadline - began).total_seconds())
    except (ValueError, TypeError):  # no dates, or one of them without a time zone
        return 0.0
