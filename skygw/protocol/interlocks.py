"""What a shutdown interlock is against: the same words decide at the gateway and at the node."""

from skygw.protocol.safing import is_safing

MOVING_FAMILIES = ("mount.", "enclosure.")
TOWARDS_SAFETY = frozenset({"mount.park", "enclosure.close"})


def defies_interlock(command_type: str) -> bool:
    """Whether a command undoes what an interlock is for: whatever moves a mount or an enclosure, but to stop, to park
    and to close. A camera, a wheel or a focuser endangers nothing, and of a type that is not known the node decides.
    """
    return (
        command_type.startswith(MOVING_FAMILIES) and command_type not in TOWARDS_SAFETY and not is_safing(command_type)
    )
