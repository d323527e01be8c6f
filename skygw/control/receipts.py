"""What a caller is told of its cancel: no more than is known, and `interrupted` only of what was read back."""

from dataclasses import dataclass

from skygw.control.commands import Cancellation
from skygw.control.ledger import ENDS, CommandRecord, CommandState
from skygw.protocol.command_states import ReceiptWord
from skygw.protocol.json_text import read_value
from skygw.protocol.node_frames import CanceledHow


@dataclass(frozen=True, slots=True)
class Receipt:
    """`proof` is the node's own text."""

    word: ReceiptWord
    state: CommandState
    proof: str | None = None


def receipt_of(cancellation: Cancellation, record: CommandRecord | None) -> Receipt:
    """`record`: as it stands after whatever wait for its end."""
    if cancellation.met == "before_start":
        return Receipt("canceled_before_start", CommandState.CANCELED)
    if record is None:
        return Receipt("unknown", CommandState.UNKNOWN)
    return Receipt(_word(record, had_ended=cancellation.met == "ended"), record.state, record.proof)


def _word(record: CommandRecord, *, had_ended: bool) -> ReceiptWord:
    said = record.canceled
    if had_ended:
        return "already_ended"
    if record.state is CommandState.CANCELED and said == CanceledHow.BEFORE_START:
        return "canceled_before_start"
    if record.state is CommandState.CANCELED and said == CanceledHow.INTERRUPTED:
        return "interrupted" if stands(record) else "unknown"
    if said == CanceledHow.NOT_CANCELABLE and record.state is not CommandState.UNKNOWN:
        return "not_cancelable"
    if record.state is CommandState.COMPLETED or (record.state in ENDS and said == CanceledHow.TOO_LATE):
        return "finished_anyway"
    return "unknown"


def stands(record: CommandRecord) -> bool:
    """Whether the proof names a device, the one this command was for among them, and each was read back at rest:
    drivers lie, and one that was still `moving` when it was read last may go on.
    """
    found = None if record.proof is None else read_value(record.proof)
    devices = found.get("devices") if isinstance(found, dict) else None
    if not isinstance(devices, list) or not all(_stands(device) for device in devices):
        return False
    named = {str(device["device_uid"]).lower() for device in devices}
    return bool(named) and (record.device_uid is None or str(record.device_uid) in named)


def _stands(device: object) -> bool:
    if not isinstance(device, dict) or not isinstance(device.get("device_uid"), str):
        return False
    settled = device.get("settled_ms", 0) is not None  # who does not measure it says nothing; null: it never did
    return device.get("basis") == "read_back" and settled and device.get("state") not in ("moving", "unknown")
