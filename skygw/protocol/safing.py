"""Which commands make a telescope safe: they always get through (contract §0.1)."""


def is_safing(command_type: str) -> bool:
    """`*.stop`, `*.abort` and `telescope.safe_shutdown`; a cancel is a frame of its own and always safing."""
    return command_type.endswith((".stop", ".abort")) or command_type == "telescope.safe_shutdown"
