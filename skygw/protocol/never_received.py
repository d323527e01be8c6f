"""A node's word that a command never came to it; by saying so it uses the id up, and will never run it."""

from skygw.protocol.node_frames import CommandStatus, PublishCommandResult

NEVER_RECEIVED = "never_received"


def says_never_received(result: PublishCommandResult) -> bool:
    """Whether this `rejected` means that; the reason stands in `error`, or in its `details`."""
    if result.status is not CommandStatus.REJECTED or result.error is None:
        return False
    error = result.error.value
    details = error.get("details")
    return NEVER_RECEIVED in (error.get("reason"), details.get("reason") if isinstance(details, dict) else None)
