"""Whether the hardware still is what a caller takes it for, as far as it is known which revision is current."""

from typing import Protocol

from skygw.control.order import CommandOrder
from skygw.errors import ConfigurationChanged
from skygw.ids import InstallId


class GraphRevisions(Protocol):
    """Who knows the hub's revision of the hardware graph of an installation's observatory."""

    async def current(self, install_id: InstallId) -> int | None:
        """Nothing if it is not known."""
        ...


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
