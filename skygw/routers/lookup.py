"""What an `{id}` in a path names: the uid of an installation, or the hub's integer key of it."""

from uuid import UUID

from skygw.errors import NotFound
from skygw.ids import InstallId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.ports import InstallationDirectory


async def find_install_id(text: str, *, registry: ConnectionRegistry, directory: InstallationDirectory) -> InstallId:
    """Raises `NotFound`; `RoutingUnavailable` only if it is not connected and the hub's records are away."""
    try:
        install_id = InstallId(UUID(text))
    except ValueError:
        install_id = None
    if install_id is not None and registry.current(install_id) is not None:
        return install_id
    found = await directory.find_by_any(text)
    if found is None:
        raise NotFound(f"No installation has the uid or key {text[:64]!r}.")
    return found.binding.install_id
