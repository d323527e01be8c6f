"""A resource's uid in the two ways people have it: as one, and as the text that came in JSON."""

from uuid import UUID


def as_uid(given: UUID | str) -> UUID:
    """Raises `ValueError` for a text that is no UUID, `TypeError` for anything else: nothing is ever known of those."""
    if isinstance(given, UUID):
        return given
    if not isinstance(given, str):
        raise TypeError(f"A resource's uid is a UUID or its text, not {type(given).__name__}.")
    try:
        return UUID(given)
    except ValueError:
        raise ValueError(f"A resource's uid must be a UUID: {given[:64]!r}") from None
