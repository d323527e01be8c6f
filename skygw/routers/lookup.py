"""What an `{id}` in a path names: the uid of an installation, or the hub's integer key of it."""

from uuid import UUID

from skygw.errors import NotFound
from skygw.ids import InstallId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.ports import InstallationDirectory

MAX_KEY = 2**31 - 1


async def find_install_id(text: str, *, registry: ConnectionRegistry, directory: InstallationDirectory) -> InstallId:
    """Raises `NotFound`; `RoutingUnavailable` only if it is not connected and the hub's records are away."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        by_key = await directory.find_by_key(int(text)) if int(text) <= MAX_KEY else None
        if by_key is not None:
            return by_key.binding.install_id
    else:
        try:
            install_id = InstallId(UUID(text))
        except ValueError:
            raise NotFound(f"{text[:64]!r} is neither the uid nor the key of an installation.") from None
        if registry.current(install_id) is not None or await directory.find(install_id) is not None:
            return install_id
    raise NotFound("No such installation.")
