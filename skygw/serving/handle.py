"""What an app may know of and do to the connection below it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

    from skygw.websocket import WebSocket

EXTENSION = "skygw.connection"
"""Its key in the ASGI scope's `extensions`."""


class ConnectionHandle:
    """Handed to the app as `scope["extensions"]["skygw.connection"]`."""

    def __init__(
        self,
        *,
        listener: str,
        peer: tuple[str, int],
        abort: Callable[[], None],
        is_open: Callable[[], bool],
        last_received_at: Callable[[], float],
    ) -> None:
        self.listener = listener
        self.peer = peer
        """The socket's peer: what a proxy says about others is not looked at here."""
        self.cancel_when_peer_leaves: trio.CancelScope | None = None
        """Set by the app, for the request it is working on: needs no task that waits for `http.disconnect`."""
        self.peer_has_left = False
        """Of the request that is being worked on: whether nobody waits for its answer any more."""
        self.websocket: WebSocket | None = None
        """The link itself, once an upgrade was accepted: for what ASGI has no words for."""
        self._abort = abort
        self._is_open = is_open
        self._last_received_at = last_received_at

    @property
    def is_open(self) -> bool:
        """False once bytes no longer reach the socket.

        ASGI `send` returns normally on a dead link: to know whether a message was written, ask this after it.
        """
        return self._is_open()

    @property
    def last_received_at(self) -> float:
        """When the last bytes came, of whatever kind, on trio's clock."""
        return self._last_received_at() if self.websocket is None else self.websocket.last_received_at

    def abort(self) -> None:
        """Reset the connection at once: a send that is stuck returns, and the app is told of the disconnect.

        Synchronous, idempotent, callable from any task. Nothing that was not yet sent is sent.
        """
        self._abort()
