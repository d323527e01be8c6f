"""How far a command has come, and the words of a receipt: the same in the ledger, by HTTP and on sockets."""

from enum import StrEnum
from typing import Literal


class CommandState(StrEnum):
    """The ladder of contract §6. `UNKNOWN` is not an end: it resolves when the node tells."""

    RECEIVED = "received"
    WRITTEN = "written"
    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


ReceiptWord = Literal[
    "canceled_before_start", "interrupted", "finished_anyway", "already_ended", "not_cancelable", "unknown"
]
"""What became of a cancel."""
