"""What is random or made up in a simulation comes from its seed: the same seed gives the same fleet."""

from random import Random
from uuid import UUID, uuid5

_NAMESPACE = UUID("5d6c6f0e-52f3-5b0e-9d4c-0f5f3a1f6a13")


def uid_of(*names: object) -> UUID:
    """The uid that these names have in every run."""
    return uuid5(_NAMESPACE, "/".join(str(name) for name in names))


def chance_of(*names: object) -> Random:
    """A random stream of its own for these names: what others draw does not disturb it."""
    return Random("/".join(str(name) for name in names))  # noqa: S311 - must repeat, guards nothing
