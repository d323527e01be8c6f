"""What a caller is told of its cancel: no more than is known, and `interrupted` only of what was read back."""

from dataclasses import dataclass

from skygw.control.commands import Cancellation
from skygw.control.ledger import ENDS, CommandRecord, CommandState
from skygw.protocol.command_states import ReceiptWord
from skygw.protocol.json_text import read_value


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
    if had_ended:
        return "already_ended"
    if record.state not in ENDS:
        return "unknown"
    if record.state is CommandState.CANCELED and record.canceled == "before_start":
        return "canceled_before_start"
    if record.state is CommandState.CANCELED and record.canceled == "interrupted":
        return "interrupted" if _read_back(record.proof) else "unknown"
    if record.state is CommandState.COMPLETED or record.canceled == "too_late":
        return "finished_anyway"
    return "unknown"


def _read_back(proof: str | None) -> bool:
    """Whether every device in the proof was read back, and there is one."""
    found = None if proof is None else read_value(proof)
    devices = found.get("devices") if isinstance(found, dict) else None
    return (
        isinstance(devices, list)
        and len(devices) > 0
        and all(isinstance(device, dict) and device.get("basis") == "read_back" for device in devices)
    )
