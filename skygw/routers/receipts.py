"""What a cancel is told: one of a closed set of words, which claims no more than is known of the devices."""

from skygw.control.ledger import ENDS, CommandRecord, CommandState
from skygw.protocol.json_text import Opaque, read_value
from skygw.protocol.node_frames import CanceledHow
from skygw.routers.schemas import Receipt, ReceiptWord


def receipt(record: CommandRecord, *, had_ended: bool) -> Receipt:
    """What became of a cancel, as far as the record knows. `had_ended`: before the cancel came."""
    return Receipt(
        command_id=record.command_id,
        receipt="already_ended" if had_ended else _word(record),
        state=record.state,
        proof=None if record.proof is None else Opaque(record.proof, read_value(record.proof)),
    )


def _word(record: CommandRecord) -> ReceiptWord:
    said = record.canceled
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
