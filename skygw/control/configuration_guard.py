"""Whether the hardware still is what a caller takes it for, as far as somebody said which revision is current."""

from typing import Protocol

from skygw.control.order import CommandOrder
from skygw.errors import ConfigurationChanged
from skygw.ids import InstallId
from skygw.nodes.connection_registry import ConnectionRegistry


class GraphRevisions(Protocol):
    """Who knows the revision of the hardware graph of an installation."""

    async def current(self, install_id: InstallId) -> int | None:
        """Nothing if it is not known."""
        ...


class AnnouncedRevisions:
    """As nodes said it of their own copies in their `hello`."""

    def __init__(self, registry: ConnectionRegistry) -> None:
        self._registry = registry

    async def current(self, install_id: InstallId) -> int | None:
        session = self._registry.current(install_id)
        return None if session is None else session.hello.graph_revision


class ConfigurationGuard:
    """Compares what the caller says, if it says anything. What is not known decides nothing: the revision goes with
    the command, and the node refuses it.
    """

    def __init__(self, revisions: GraphRevisions) -> None:
        self._revisions = revisions

    async def admit(self, order: CommandOrder, install_id: InstallId) -> None:
        """Raises `ConfigurationChanged`."""
        if order.graph_revision is None:
            return
        current = await self._revisions.current(install_id)
        if current is not None and current != order.graph_revision:
            raise ConfigurationChanged(
                f"The revision of the hardware graph is {current}, and this was meant for {order.graph_revision}: read "
                "the graph again, and decide anew.",
                details={"graphRevision": current},
            )
