"""Commands as a hub service asks for them, without I/O: requests, receipts, and when a lost answer is asked for again.

Shared by the Trio caller and the blocking one.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID, uuid4

from skygw.client.internal_api import SLACK_S, Call, NodeKey, Record, given
from skygw.client.problems import error_of
from skygw.errors import BadResponse, GatewayError, LinkLost, Outcome
from skygw.ids import CommandId, LeaseUid
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.safing import is_safing

COMMANDS = "/internal/commands"

OnCallerGone = Literal["continue", "cancel"]

PAUSES_S = (0.0, 0.5, 2.0)
"""Before the tries that follow the first one."""

REPEATED_WITHIN_S = 5.0
"""A command that names no time of its own is not sent again later than that: nobody expects it to move any more."""


class ReceiptWord(StrEnum):
    """What became of a cancel. A word that is newer than this program is `UNKNOWN` to it."""

    CANCELED_BEFORE_START = "canceled_before_start"
    INTERRUPTED = "interrupted"
    """On the way, and its devices were read back at rest."""
    FINISHED_ANYWAY = "finished_anyway"
    ALREADY_ENDED = "already_ended"
    NOT_CANCELABLE = "not_cancelable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CancelReceipt:
    """`state` is that of the command; `proof` is the node's: `{"devices": [{device_uid, state, basis, …}]}`."""

    command_id: CommandId
    receipt: ReceiptWord
    state: str
    proof: Record | None


@dataclass(frozen=True, slots=True)
class Validation:
    """What a command would meet now: the errors it would be refused with. Nothing was sent, nothing stored.

    With `duplicate` the id is known, and its record would be the answer.
    """

    command_id: CommandId
    valid: bool
    duplicate: bool
    refusals: tuple[GatewayError, ...]


def command_call(
    command: Record,
    *,
    command_id: CommandId,
    telescope_uid: UUID | None = None,
    device_uid: UUID | None = None,
    timeout_s: float | None = None,
    wait_s: float = 0.0,
    lease_uid: LeaseUid | None = None,
    origin: Record | None = None,
    actor: Record | None = None,
    graph_revision: int | None = None,
    on_caller_gone: OnCallerGone | None = None,
    validate_only: bool | None = None,
    traceparent: str | None = None,
) -> Call:
    """The id is the caller's to keep: a repeat with it asks, it does not act twice."""
    body = given(
        telescopeUid=None if telescope_uid is None else str(telescope_uid),
        deviceUid=None if device_uid is None else str(device_uid),
        commandId=str(command_id),
        command=command,
        origin=origin,
        actor=actor,
        timeoutS=timeout_s,
        waitS=wait_s or None,
        leaseUid=None if lease_uid is None else str(lease_uid),
        graphRevision=graph_revision,
        onCallerGone=on_caller_gone,
        validateOnly=validate_only,
    )
    headers = None if traceparent is None else {"traceparent": traceparent}
    return Call("POST", COMMANDS, body, headers=headers, read_timeout_s=wait_s + 2 * SLACK_S)


def cancel_call(
    command_id: CommandId, *, mode: CancelMode, grace_s: float | None, wait_s: float, actor: Record | None = None
) -> Call:
    body = given(mode=mode.value, graceS=grace_s, waitS=wait_s or None, actor=actor)
    return Call("POST", f"{COMMANDS}/{command_id}/cancel", body, read_timeout_s=wait_s + 2 * SLACK_S)


def resolve_call(command_id: CommandId, outcome: Outcome, *, reason: str, actor: Record | None = None) -> Call:
    return Call("POST", f"{COMMANDS}/{command_id}/resolve", given(outcome=outcome.value, reason=reason, actor=actor))


def record_call(command_id: CommandId) -> Call:
    return Call("GET", f"{COMMANDS}/{command_id}")


def page_call(*, page: int, size: int, state: str | None, node: NodeKey | None) -> Call:
    filters = given(state=state, installId=None if node is None else str(node))
    return Call("GET", COMMANDS, params={"page": page, "size": size, **filters})


def receipt_of(answer: Record) -> CancelReceipt:
    """Raises `BadResponse`."""
    try:
        said = str(answer["receipt"])
        proof = answer.get("proof")
        return CancelReceipt(
            CommandId(UUID(answer["commandId"])),
            ReceiptWord(said) if said in set(ReceiptWord) else ReceiptWord.UNKNOWN,
            str(answer["state"]),
            proof if isinstance(proof, dict) else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        raise BadResponse("The gateway answered a cancel with something that is no receipt.") from None


def validation_of(answer: Record) -> Validation:
    """Raises `BadResponse`."""
    try:
        return Validation(
            CommandId(UUID(answer["commandId"])),
            bool(answer["valid"]),
            bool(answer["duplicate"]),
            tuple(error_of(refusal) for refusal in answer["refusals"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        raise BadResponse("The gateway answered a dry run with something else.", outcome=Outcome.NOT_SENT) from None


def validation_call(command: Record, *, command_id: CommandId | None, **options: Any) -> Call:
    """Raises `ValueError` for a stop: the gateway sends these, whatever accompanies them."""
    if is_safing(command_type(command)):
        raise ValueError("There is no dry run of a stop: the gateway would send it.")
    return command_call(command, command_id=command_id or CommandId(uuid4()), validate_only=True, **options)


class Tries:
    """Requests that are one action however often they are made. Times are on any monotonic clock, in seconds.

    A repeat has only the time that is left: `timeoutS` and `waitS` shrink, and when it is over nothing is sent again.
    """

    def __init__(self, call: Call, *, now: float) -> None:
        self._call = call
        self._began = now
        self._pauses = iter(PAUSES_S)
        self._may_be_sent = False

    def after(self, error: LinkLost, *, now: float) -> tuple[float, Call]:
        """How long to pause, and the next request. Raises the error, once there is no other try."""
        self.judge(error)
        pause_s = next(self._pauses, None)
        again = None if pause_s is None else _later(self._call, now + pause_s - self._began)
        if pause_s is None or again is None:
            raise error
        return pause_s, again

    def judge(self, error: GatewayError) -> None:
        """Keeps an error from saying more than is known: what one try was refused, an earlier one may have done."""
        if self._may_be_sent and error.outcome is Outcome.NOT_SENT:
            error.outcome = Outcome.UNKNOWN
            error.details.pop("retry", None)
        self._may_be_sent = self._may_be_sent or error.outcome is Outcome.UNKNOWN


def _later(call: Call, elapsed_s: float) -> Call | None:
    body = dict(call.body or {})
    if "waitS" in body:
        body["waitS"] = max(0.0, body["waitS"] - elapsed_s)
    if not body.get("waitS"):
        body.pop("onCallerGone", None)  # nobody waits, whom the gateway could see leave
    if _moves_something(call):
        left_s = body.get("timeoutS", REPEATED_WITHIN_S) - elapsed_s
        if left_s <= 0:
            return None
        if "timeoutS" in body:
            body["timeoutS"] = left_s
    return replace(call, body=body)


def _moves_something(call: Call) -> bool:
    """As opposed to stops, cancels and dry runs, for which it is never too late."""
    body = call.body or {}
    return call.path == COMMANDS and not body.get("validateOnly") and not is_safing(command_type(body["command"]))


def command_type(command: Record) -> str:
    return str(command.get("command_type", ""))
