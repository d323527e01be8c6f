"""What streams count, for whoever keeps the numbers."""

from typing import Protocol


class StreamMetrics(Protocol):
    """Cheap; never raises. `stream` and `reason` are values of `StreamName` and `EndReason`."""

    def delivered(self, stream: str, count: int) -> None:
        """So many messages of a subscription were taken for its socket: values, events, and words about them."""
        ...

    def conflated(self, stream: str, count: int) -> None:
        """So many changes were passed over, because their subscriber had not yet been told the one before."""
        ...

    def subscription_ended(self, reason: str) -> None:
        """Without having been asked to."""
        ...


class Uncounted:
    """For those who keep no numbers."""

    def delivered(self, stream: str, count: int) -> None:
        pass

    def conflated(self, stream: str, count: int) -> None:
        pass

    def subscription_ended(self, reason: str) -> None:
        pass


UNCOUNTED = Uncounted()
