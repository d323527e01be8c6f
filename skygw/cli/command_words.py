"""What is said of a command: a sentence that claims no more than is known, steps, proof, exit code. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from skygw.cli.terminal import CommandFailed, ExitCode
from skygw.client.command_calls import CancelReceipt, ReceiptWord
from skygw.client.problems import OtherRefusal, retry_of
from skygw.errors import GatewayError, LeaseRequired

ENDS = frozenset({"completed", "failed", "rejected", "canceled", "expired"})
"""States that stay. `unknown` is none: it resolves when the node tells."""

EXIT_CODES: Mapping[str, ExitCode] = {
    "succeeded": ExitCode.OK,
    "failed": ExitCode.FAILED,
    "refused": ExitCode.REFUSED,
    "not_sent": ExitCode.NOT_SENT,
    "unknown": ExitCode.UNKNOWN,
    "canceled": ExitCode.CANCELED,
    "in_progress": ExitCode.GOES_ON,
}
"""By the outcome, which an answer and an error have alike."""

RECEIPT_CODES: Mapping[ReceiptWord, ExitCode] = {
    ReceiptWord.CANCELED_BEFORE_START: ExitCode.OK,
    ReceiptWord.INTERRUPTED: ExitCode.OK,
    ReceiptWord.ALREADY_ENDED: ExitCode.OK,
    ReceiptWord.FINISHED_ANYWAY: ExitCode.FAILED,
    ReceiptWord.NOT_CANCELABLE: ExitCode.REFUSED,
    ReceiptWord.UNKNOWN: ExitCode.UNKNOWN,
}
"""Of a cancel: 0 where it is known that the command does nothing any more."""

RECEIPTS: Mapping[ReceiptWord, str] = {
    ReceiptWord.CANCELED_BEFORE_START: "It was canceled before it started: nothing has moved.",
    ReceiptWord.INTERRUPTED: "It was interrupted, and its devices were read back.",
    ReceiptWord.ALREADY_ENDED: "It had ended already.",
    ReceiptWord.FINISHED_ANYWAY: "It could not be interrupted any more, and has finished.",
    ReceiptWord.NOT_CANCELABLE: "The node says that it cannot be canceled.",
    ReceiptWord.UNKNOWN: "Whether it was interrupted is not known (yet).",
}


def type_of(record: Mapping[str, Any]) -> str:
    """The command's type, as far as it has one."""
    command = record.get("command")
    return str(command.get("command_type") or "?") if isinstance(command, dict) else "?"


def has_ended(record: Mapping[str, Any]) -> bool:
    return record.get("state") in ENDS


def exit_code(record: Mapping[str, Any]) -> ExitCode:
    """A word that is newer than this program is `UNKNOWN` to it."""
    return EXIT_CODES.get(str(record.get("outcome")), ExitCode.UNKNOWN)


def devices_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The proof, device by device; a node may have written anything there."""
    proof = record.get("proof")
    devices = proof.get("devices") if isinstance(proof, dict) else None
    return [device for device in devices if isinstance(device, dict)] if isinstance(devices, list) else []


def proof_doubt(record: Mapping[str, Any]) -> str | None:
    """Why the proof does not prove it; `None` if every device in it was read back at rest."""
    devices = devices_of(record)
    if not devices:
        return "no proof given"
    assumed = [str(device.get("device_uid")) for device in devices if device.get("basis") != "read_back"]
    if assumed:
        return f"not read back: {', '.join(assumed)}"
    restless = [str(device.get("device_uid")) for device in devices if device.get("settled_ms", 0) is None]
    return f"not at rest: {', '.join(restless)}" if restless else None


def proof_rows(record: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Device, state, basis, readings, and after how many milliseconds they agreed."""
    names = ("device_uid", "state", "basis", "samples", "settled_ms")
    return [tuple(device.get(name) for name in names) for device in devices_of(record)]


PROOF_COLUMNS = ("DEVICE", "STATE", "BASIS", "SAMPLES", "SETTLED MS")


def proof_summary(record: Mapping[str, Any]) -> str:
    """In a few words: the states that were read back, or why they were not."""
    devices = devices_of(record)
    if not devices:
        return ""
    return proof_doubt(record) or f"read back: {', '.join(str(device.get('state')) for device in devices)}"


def state_text(record: Mapping[str, Any]) -> str:
    """`running, 40%`."""
    progress = record.get("progress")
    far = f", {progress:.0%}" if isinstance(progress, int | float) and not has_ended(record) else ""
    return f"{record.get('state')}{far}"


def sentence(record: Mapping[str, Any]) -> str:
    """What is known of the command, and where there is something to do, what."""
    name, command_id, state = type_of(record), record.get("commandId"), record.get("state")
    match state:
        case "completed":
            doubt = proof_doubt(record)
            return f"{name} succeeded" + (
                f": the node says so ({doubt})." if doubt else "; every device was read back."
            )
        case "failed":
            return f"{name} failed{_why(record)}"
        case "rejected":
            return f"{name} was refused by the node, which did nothing{_why(record)}"
        case "expired":
            return f"{name} was never sent{_why(record)}"
        case "canceled":
            return f"{name} {_canceled(record)}"
        case "unknown":
            return (
                f"What became of {name} is not known{_why(record)} It resolves when the node tells: "
                f"“skygw command show {command_id}”. Do not send it again."
            )
    return (
        f"{name} goes on ({state_text(record)}): “skygw command show {command_id}” tells what becomes of it, and "
        f"“skygw command cancel {command_id}” cancels it."
    )


def _canceled(record: Mapping[str, Any]) -> str:
    if record.get("canceled") == "before_start":
        return "was canceled before it started: nothing has moved."
    if record.get("canceled") == "interrupted":
        doubt = proof_doubt(record)
        if doubt is None:
            return "was interrupted on the way; every device was read back."
        return f"was canceled on the way, and whether its devices stand is not known ({doubt})."
    return f"was canceled{_why(record)}"


def _why(record: Mapping[str, Any]) -> str:
    """The node's words, or those of whoever moved it last, behind a colon; the full stop in any case."""
    error = record.get("error")
    said = error.get("message") or error.get("reason") if isinstance(error, dict) else None
    if said is None:
        steps = steps_of(record)
        said = steps[-1].get("detail") if steps else None
    text = str(said or "").strip()
    return f": {text}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else "."


def steps_of(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = record.get("transitions")
    return [step for step in found if isinstance(step, dict)] if isinstance(found, list) else []


def step_line(step: Mapping[str, Any]) -> str:
    """`03:14:15.250  accepted  node`, with what is told beside it and who asked for it."""
    parts = [clock(step.get("at")), f"{step.get('state'):<9}", str(step.get("hop") or "")]
    by = caller_text(step.get("by"))
    parts += [f"by {by}"] if by else []
    parts += [str(step["detail"])] if step.get("detail") else []
    return "  ".join(parts).rstrip()


def caller_text(by: object) -> str:
    """The service, and the person behind it."""
    if not isinstance(by, dict):
        return ""
    actor = by.get("actor")
    return f"{by.get('service')} for {actor.get('uid')}" if isinstance(actor, dict) else str(by.get("service") or "")


def clock(at: object) -> str:
    """The time of day, UTC as everything here, to the millisecond; what cannot be read as it is."""
    try:
        return datetime.fromisoformat(str(at)).strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return str(at)


def receipt_sentence(receipt: CancelReceipt) -> str:
    text = RECEIPTS[receipt.receipt]
    return f"{text} (Its state: {receipt.state}.)" if receipt.receipt is ReceiptWord.ALREADY_ENDED else text


def failure(error: GatewayError, *, exit_code: ExitCode | None = None) -> CommandFailed:
    """The gateway's refusal, or its silence, as a command ends with it; the code by what became of the request."""
    message = str(error)
    if isinstance(error, LeaseRequired):
        message += " Take control with “skygw lease acquire” and set SKYGW_LEASE_UID, or use --take-lease."
    problem = {
        "code": error.code if isinstance(error, OtherRefusal) else error.reason,
        "outcome": error.outcome.value,
        "retry": retry_of(error).value,
        "hop": error.hop.value,
        "reached": None if error.reached is None else error.reached.value,
        "details": error.details,
    }
    return CommandFailed(message, problem, exit_code=exit_code or EXIT_CODES[error.outcome.value])
