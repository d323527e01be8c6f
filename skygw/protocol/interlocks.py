"""What a shutdown interlock is against: the same words decide at the gateway and at the node."""

MOVING_FAMILIES = ("mount.", "enclosure.")
TOWARDS_SAFETY = frozenset({"mount.park", "enclosure.close"})


def defies_interlock(command_type: str) -> bool:
    """Whether a command that is no safing undoes what an interlock is for: whatever moves a mount or an enclosure, but
    to park and to close. A camera, a wheel or a focuser endangers nothing, and of a type that is not known the node
    decides.
    """
    return command_type.startswith(MOVING_FAMILIES) and command_type not in TOWARDS_SAFETY
