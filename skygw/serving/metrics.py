"""What the listeners count, as a port: whoever keeps numbers implements it."""

from typing import Protocol

from skygw.serving.ends import End, Refusal


class ConnectionMetrics(Protocol):
    """Called from the event loop; must neither block nor raise."""

    def opened(self, listener: str) -> None:
        """A connection was taken."""

    def closed(self, listener: str, why: End) -> None:
        """A taken connection is gone, with everything that ran on its behalf."""

    def refused(self, listener: str, why: Refusal) -> None:
        """A socket was closed unread, or a request refused unseen: a cap was reached, or its address is not allowed."""


class NoMetrics:
    """For programs and tests that do not count."""

    def opened(self, listener: str) -> None:
        """Nothing is kept."""

    def closed(self, listener: str, why: End) -> None:
        """Nothing is kept."""

    def refused(self, listener: str, why: Refusal) -> None:
        """Nothing is kept."""
