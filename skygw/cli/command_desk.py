"""`skygw command show`, `list`, `cancel`, `resolve` and `types`: what there is to do about commands that were sent."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import trio
from cyclopts import Parameter

from skygw.cli.command_pursuit import Pursuit, tell, tell_record
from skygw.cli.command_words import (
    PROOF_COLUMNS,
    RECEIPT_CODES,
    caller_text,
    clock,
    exit_code,
    failure,
    proof_rows,
    receipt_sentence,
    state_text,
    step_line,
    steps_of,
    type_of,
)
from skygw.cli.running_gateway import PAGE_SIZE, Reach, entrance, reach
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.client.caller import Caller
from skygw.errors import GatewayError, Outcome, StartupError
from skygw.ids import CommandId
from skygw.protocol.command_catalogue import catalogue_in_words
from skygw.protocol.gateway_frames import CancelMode

MOST_LISTED = 500
LONGEST_WAIT_S = 600.0

T = TypeVar("T")
Id = Annotated[UUID, Parameter(help="The command's id, a UUID.")]
State = Literal[
    "received",
    "written",
    "accepted",
    "running",
    "completed",
    "failed",
    "rejected",
    "canceled",
    "expired",
    "unknown",
]


def show(
    command_id: Id,
    /,
    *,
    follow: Annotated[bool, Parameter(negative="")] = False,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Tell what is known of a command. Exit codes are those of “skygw command”; 1 also if there is no such command.

    Parameters
    ----------
    follow
        Follow it to its end, as if it had been sent just now.
    """
    terminal = Terminal(as_json=as_json)
    wanted = CommandId(command_id)
    if follow:
        return trio.run(partial(_follow, wanted, reach_by, terminal))
    record = _ask(lambda caller: caller.command_record(wanted), reach_by, terminal)
    if terminal.as_json:
        terminal.json(record)
    else:
        for step in steps_of(record):
            terminal.line(step_line(step))
        tell_record(record, terminal)
    return exit_code(record)


async def _follow(command_id: CommandId, by: Reach | None, terminal: Terminal) -> int:
    way_in = entrance(by)
    async with Caller(way_in.url, way_in.token()) as caller:
        pursuit = Pursuit(command_id, caller=caller, way_in=way_in, terminal=terminal)
        await pursuit.run(partial(caller.command_record, command_id))
    return tell(pursuit, command_id, terminal)


def list_(
    *,
    state: State | None = None,
    node: str | None = None,
    count: int = 20,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """List commands, the newest first. Times are UTC.

    Parameters
    ----------
    state
        Only those in this state, such as running or unknown.
    node
        Only of this installation: number, uid or name.
    count
        At most so many.
    """
    if not 1 <= count <= MOST_LISTED:
        raise StartupError(f"--count is {count}, but should be from 1 to {MOST_LISTED}")
    terminal = Terminal(as_json=as_json)
    found = trio.run(partial(_list, state, node, count, reach_by, terminal))
    if terminal.as_json:
        terminal.json(found)
        return ExitCode.OK
    if not found:
        terminal.note("no command is known that fits")
    rows = [
        (
            f"{str(record.get('createdAt'))[:10]} {clock(record.get('createdAt'))[:8]}",
            type_of(record),
            state_text(record),
            record.get("telescopeUid") or record.get("deviceUid"),
            caller_text(record),
            record.get("commandId"),
        )
        for record in found
    ]
    terminal.table(("SENT", "TYPE", "STATE", "FOR", "BY", "COMMAND"), rows)
    return ExitCode.OK


async def _list(
    state: str | None, node: str | None, count: int, by: Reach | None, terminal: Terminal
) -> list[dict[str, Any]]:
    async with reach(by) as gateway:
        with terminal.progress("asking the gateway…"):
            query: dict[str, str | int] = {} if state is None else {"state": state}
            if node is not None:
                query["installId"] = str((await gateway.node(node))["uid"])
            found: list[dict[str, Any]] = []
            page, pages = 1, 1
            while page <= pages and len(found) < count:
                answer = await gateway.get("/internal/commands", page=page, size=min(count, PAGE_SIZE), **query)
                found += answer["items"]
                pages = int(answer["pages"])
                page += 1
    return found[:count]


def cancel(
    command_id: Id,
    /,
    *,
    mode: CancelMode = CancelMode.GRACEFUL,
    grace_s: float | None = None,
    wait_s: Annotated[float, Parameter(alias="--wait")] = 30.0,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Cancel a command, and say with proof what became of that. A cancel needs no lease.

    Exit codes: 0 it does nothing any more (canceled before its start, interrupted, or over already) · 1 it finished
    anyway, or there is no such command · 3 the node says that it cannot be canceled · 5 not known.

    Parameters
    ----------
    mode
        Let it come to a good end, or end it at once.
    grace_s
        Seconds a graceful cancel may take, before it is done at once.
    wait_s
        Seconds to wait for the receipt.
    """
    if not 0 <= wait_s <= LONGEST_WAIT_S:
        raise StartupError(f"--wait-s is {wait_s:g}, but should be from 0 to {LONGEST_WAIT_S:g}")
    terminal = Terminal(as_json=as_json)
    wanted = CommandId(command_id)
    receipt = _ask(
        lambda caller: caller.cancel_command(wanted, mode=mode, grace_s=grace_s, wait_s=wait_s), reach_by, terminal
    )
    if terminal.as_json:
        told = {"commandId": str(command_id), "receipt": receipt.receipt.value, "state": receipt.state}
        terminal.json({**told, "proof": receipt.proof})
    else:
        rows = proof_rows({"proof": receipt.proof})
        if rows:
            terminal.table(PROOF_COLUMNS, rows)
        terminal.line(receipt_sentence(receipt))
    return RECEIPT_CODES[receipt.receipt]


def resolve(
    command_id: Id,
    outcome: Literal["succeeded", "failed", "refused", "canceled"],
    /,
    *,
    reason: str,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Close a command that is unknown and whose node cannot tell any more. Needs nodes:admin. Nothing is sent.

    Parameters
    ----------
    outcome
        What is known to have become of it; “failed” also closes what nobody will ever know.
    reason
        How that is known, in a sentence; it is kept in the audit.
    """
    terminal = Terminal(as_json=as_json)
    wanted = CommandId(command_id)
    record = _ask(lambda caller: caller.resolve_command(wanted, Outcome(outcome), reason=reason), reach_by, terminal)
    if terminal.as_json:
        terminal.json(record)
    else:
        terminal.line(f"It is closed as {record.get('outcome')}: {reason}")
    return ExitCode.OK


def types(*, as_json: AsJson = False) -> int:
    """List the known types of commands and their members; a ? marks those that may be left out."""
    terminal = Terminal(as_json=as_json)
    entries = catalogue_in_words()
    if terminal.as_json:
        terminal.json([{"commandType": name, "members": members, "does": does} for name, does, members in entries])
    else:
        terminal.table(("TYPE", "DOES", "MEMBERS"), entries)
    return ExitCode.OK


def _ask(ask: Callable[[Caller], Awaitable[T]], by: Reach | None, terminal: Terminal) -> T:
    """One request. Raises `CommandFailed`."""

    async def main() -> T:
        way_in = entrance(by)
        async with Caller(way_in.url, way_in.token()) as caller:
            with terminal.progress("asking the gateway…"):
                return await ask(caller)

    try:
        return trio.run(main)
    except GatewayError as error:
        is_known = error.outcome is not Outcome.UNKNOWN
        raise failure(error, exit_code=ExitCode.FAILED if is_known else ExitCode.UNKNOWN) from None
