"""What may stand in the way of a command that is no safing: each reason is a guard of its own, asked in one order."""

from collections.abc import Sequence
from typing import Protocol

from skygw.control.lease_guard import Fence
from skygw.control.order import CommandOrder
from skygw.errors import GatewayError
from skygw.ids import InstallId


class Guard(Protocol):
    """One reason. Safing is never asked (contract §0.1)."""

    async def admit(self, order: CommandOrder, install_id: InstallId) -> Fence | None:
        """Lets the order pass to the installation that controls its target, under a fence if this guard knows one;
        or raises the `GatewayError` that stands in the way.
        """
        ...


class Guards:
    """Those of a gateway, the first to be asked first."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = tuple(guards)

    async def admit(self, order: CommandOrder, install_id: InstallId) -> Fence | None:
        """The fence it goes under. Raises the first `GatewayError` that stands in the way."""
        fence: Fence | None = None
        for guard in self._guards:
            fence = await guard.admit(order, install_id) or fence
        return fence

    async def examine(self, order: CommandOrder, install_id: InstallId) -> list[GatewayError]:
        """Everything that stands in the way now, in the order it would be said."""
        found: list[GatewayError] = []
        for guard in self._guards:
            try:
                await guard.admit(order, install_id)
            except GatewayError as error:
                found.append(error)
        return found
